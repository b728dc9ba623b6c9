"""The page as one HTML file: no script, no request to anywhere, light and dark and print from the same file."""

from __future__ import annotations

import jinja2

from joyful.analysis.formatting import tied
from joyful.analysis.page.parts import Page
from joyful.analysis.page.summary import SIZES
from joyful.analysis.plots.style import PALETTE

#: Verdict -> the sign before it: never colour alone.
MARKS = {"supported": "✓", "contradicted": "✕", "inconclusive": "?", "not testable": "–", "": "·"}

#: Colours of the page beside those of the figures: name -> (light, dark). Text on `page` and `card` has a contrast above 4.5.
_COLOURS = {
    "page": ("#f6f7f9", "#101318"),
    "link": ("#0060a0", "#6cbcf0"),
    "good": ("#00704f", "#35cfa2"),
    "bad": ("#b04700", "#ff9a5c"),
    "open": ("#75580a", "#e8c95a"),
}


def render(page: Page) -> str:
    """The page as HTML. Every text is escaped; the figures are the only markup that is put in as it is."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("joyful.analysis", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: tied(value) if type(value) is str else value,  # a str: markup is a class of its own
    )
    css = environment.loader.get_source(environment, "page.css")[0] if environment.loader else ""
    light, dark = (
        " ".join(f"--{name}: {pair[index]};" for name, pair in {**PALETTE, **_COLOURS}.items()) for index in (0, 1)
    )
    template = environment.get_template("page.html.j2")
    return template.render(
        page=page, marks=MARKS, css=jinja2.utils.markupsafe.Markup(css), light=light, dark=dark, sizes_lead=SIZES
    )
