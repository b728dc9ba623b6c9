"""Render the page as one HTML file without scripts or external requests, for light, dark and print."""

from __future__ import annotations

import jinja2
import markupsafe

from joyful.analysis.formatting import no_break
from joyful.analysis.page.parts import Page
from joyful.analysis.page.summary import SIZES
from joyful.analysis.plots.style import PALETTE

#: Verdict -> the mark before it, so that verdicts do not differ by colour alone.
MARKS = {"supported": "✓", "contradicted": "✕", "inconclusive": "?", "not testable": "–", "": "·"}

#: Colours of the page in addition to those of the figures: name -> (light, dark).
#: The contrast of text on `page` and `card` is above 4.5 (WCAG 2.2).
_COLOURS = {
    "page": ("#f6f7f9", "#101318"),
    "link": ("#0060a0", "#6cbcf0"),
    "good": ("#00704f", "#35cfa2"),
    "bad": ("#b04700", "#ff9a5c"),
    "open": ("#75580a", "#e8c95a"),
}


def render(page: Page, *, figures: bool = True) -> str:
    """Return the page as an HTML document.

    All text is escaped. Only the SVG of the figures is inserted as markup.

    Args:
        page: The page.
        figures: Whether to draw the figures. Without them, the page takes half of the time.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("joyful.analysis", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: no_break(value) if type(value) is str else value,  # Markup is a subclass of str
    )
    css = environment.loader.get_source(environment, "page.css")[0] if environment.loader else ""
    light, dark = (
        " ".join(f"--{name}: {pair[index]};" for name, pair in {**PALETTE, **_COLOURS}.items()) for index in (0, 1)
    )
    template = environment.get_template("page.html.j2")
    css = markupsafe.Markup(css)
    return template.render(page=page, marks=MARKS, css=css, light=light, dark=dark, sizes_lead=SIZES, figures=figures)
