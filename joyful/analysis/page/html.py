"""Render the page as one HTML file without external requests, for light, dark and print. It is complete without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

import jinja2
import markupsafe

from joyful.analysis.formatting import no_break
from joyful.analysis.page.parts import Page, clean
from joyful.analysis.plots.style import PALETTE

#: Verdict -> the mark before it, so that verdicts do not differ by colour alone.
MARKS = {"supported": "✓", "contradicted": "✕", "inconclusive": "?", "not testable": "–", "": "·"}

#: Names of run folders that become links. Other names are shown as text.
_FOLDER = re.compile(r"\w[\w./=,+-]*")

#: Words of this length and more may be broken at their separators.
_LONG_WORD = 15

#: Verdict -> outline of the mark of the estimate: disc, cross, ring and dash.
SHAPES = {
    "supported": "M-5.5 0a5.5 5.5 0 1 0 11 0 5.5 5.5 0 1 0-11 0",
    "contradicted": "M-5-5 5 5M-5 5 5-5",
    "inconclusive": "M0-6.5 6.5 0 0 6.5-6.5 0Z",
    "not testable": "M-4 0H4",
}

#: Colours of the page in addition to those of the figures: name -> (light, dark).
#: The contrast of text on `page` and `card` is above 4.5, and that of `claim-edge` above 3 (WCAG 2.2).
_COLOURS = {
    "page": ("#f6f7f9", "#101318"),
    "link": ("#0060a0", "#6cbcf0"),
    "good": ("#00704f", "#35cfa2"),
    "bad": ("#b04700", "#ff9a5c"),
    "open": ("#75580a", "#e8c95a"),
    "claim-edge": ("#96700a", "#c9a03a"),
}


def render(page: Page, *, figures: bool = True, links: str | None = None) -> str:
    """Return the page as an HTML document.

    All text is escaped. Only the SVG of the figures is inserted as markup.

    Args:
        page: The page.
        figures: Whether to draw the figures. Without them, the page takes half of the time.
        links: Relative address of the sweep folder as seen from the page, such as "../". None: no links to run folders.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("joyful.analysis", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: no_break(value) if type(value) is str else value,  # Markup is a subclass of str
    )
    environment.filters["breakable"] = _breakable
    environment.filters["arm_in"] = _arm_in
    environment.tests["folder"] = lambda text: _FOLDER.fullmatch(text) is not None
    light, dark = (
        " ".join(f"--{name}: {pair[index]};" for name, pair in {**PALETTE, **_COLOURS}.items()) for index in (0, 1)
    )
    script = _source("page.js")
    return environment.get_template("page.html.j2").render(
        page=page, marks=MARKS, shapes=SHAPES, css=_source("page.css"), script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        light=light, dark=dark, figures=figures, links=links,
    )  # fmt: skip


def _breakable(text: str) -> markupsafe.Markup:
    """Escape text, and allow a line break after the separators of long words such as weights.encoder_loss_weight."""
    words = re.split(r"(\s+)", no_break(text))
    return markupsafe.Markup("").join(
        markupsafe.Markup("<wbr>").join(re.split(r"(?<=[._/=,])(?=\w)", word)) if len(word) >= _LONG_WORD else word
        for word in words
    )


def _arm_in(cell: str, arms: Sequence[str]) -> str:
    """Return the arm that a cell of a table names, alone or before "(baseline)" or "on TASK". "" if it is none of `arms`."""
    text = cell.split("\n")[0]
    for arm in arms:
        name = clean(arm)
        if text == name or text.startswith((f"{name} (baseline)", f"{name} on ")):
            return arm
    return ""


def _source(name: str) -> markupsafe.Markup:
    """Return a file of templates/ as it is."""
    return markupsafe.Markup((files("joyful.analysis") / "templates" / name).read_text("utf-8"))
