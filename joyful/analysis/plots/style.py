"""How every figure looks, and how it becomes an inline SVG that a page can show in light and dark.

Figures are made without pyplot and under a local `rc_context`, so importing or drawing changes no setting of the caller's.
Colours are the Okabe-Ito set, darkened where it is too pale for lines on white; an arm has its own dashes and marker too,
so nothing depends on colour alone. In the SVG every colour becomes a CSS variable (`PALETTE`), which the page sets for
light, dark and print; text is text in the page's own font.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

#: CSS variable -> (colour on a light page, which is also the colour in notebooks; colour on a dark page).
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1f2328", "#e6e9ee"),
    "muted": ("#5c6470", "#a3abb8"),
    "rule": ("#d5d9e0", "#3a414c"),
    "series-0": ("#4d5561", "#c3cad4"),  # the baseline: neutral
    "series-1": ("#0072b2", "#56b4e9"),
    "series-2": ("#d55e00", "#ff8f4a"),
    "series-3": ("#009e73", "#35cfa2"),
    "series-4": ("#b0578d", "#e6a0c8"),
    "series-5": ("#9a7400", "#f0e442"),
    "series-6": ("#3b4cc0", "#9aa8ff"),
    "series-7": ("#7a5230", "#d8a878"),
    "claim": ("#e3b341", "#8a6a12"),  # the claimed range
    "card": ("#fefefe", "#191d24"),  # what a figure lies on
}
INK, MUTED, RULE, CLAIM, CARD = (PALETTE[name][0] for name in ("ink", "muted", "rule", "claim", "card"))

_DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)),
    (0, (8, 2)), (0, (1, 2.2)), (0, (4, 1, 1, 1, 1, 1)),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

#: Arms (or lines) that one figure can still tell apart.
MOST_LINES = len(_MARKERS)

#: Inches, at 72 units an inch: a phone shows a figure at its own size, a desk at one and a half times.
WIDTH = 4.8
LONGEST_LABEL = 34

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same layout on every machine
    "font.size": 9.5,
    "text.parse_math": False,  # an arm may be called $x_1$
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Plot:
    """A figure and what it says.

    name: unique in a page, letters, digits and -. title: what is drawn, with unit. finding: what it shows, in words and
    numbers, for those who cannot see it.
    """

    name: str
    title: str
    finding: str
    figure: Figure

    def svg(self) -> str:
        """The figure as inline SVG (see `svg`)."""
        return svg(self.figure, self.name, self.title, self.finding)

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        buffer = io.BytesIO()
        with drawing(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(buffer, format="png", dpi=110, facecolor="white")
        return buffer.getvalue()


@dataclass(frozen=True)
class Look:
    """How one arm is drawn wherever it appears."""

    colour: str
    dashes: Any
    marker: str


def look(index: int) -> Look:
    """The look of arm number `index`; 0 is the baseline. Beyond MOST_LINES all look the same, neutral: label them."""
    if index >= MOST_LINES:
        return Look(MUTED, "-", "o")
    return Look(PALETTE[f"series-{index}"][0], _DASHES[index], _MARKERS[index])


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Name -> look, in the order of the names (the baseline first)."""
    return {name: look(index) for index, name in enumerate(names)}


@contextmanager
def drawing() -> Iterator[None]:
    """The style, for as long as a figure is being made."""
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the caller's matplotlibrc says
        for key, value in _RC.items():
            mpl.rcParams[key] = value  # type: ignore[index]  # the stubs know keys one by one
        yield


def panel(height: float = 3.2, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of one pair of axes, inches. Call it, and everything that adds to it, under `drawing`; end with `finish`."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def finish(axes: Axes, *, labels: bool = True) -> None:
    """A legend above the axes, in as many columns as its labels leave room for, and margins for what stands around them.

    Worked out from the lengths of the texts: matplotlib's own layout draws every figure twice, half of a report's time.
    labels: whether there are any at the left.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    handles, names = axes.get_legend_handles_labels()
    rows = 0
    if handles:
        longest = max(map(len, names))
        columns = 3 if longest <= 17 else 2 if longest <= 26 else 1
        rows = -(-len(handles) // columns)
        axes.legend(
            handles, names, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2,
            columnspacing=1.2, handletextpad=0.6,
        )  # fmt: skip
    ticks = axes.yaxis.get_major_formatter().format_ticks(list(axes.yaxis.get_major_locator()())) if labels else []
    left = 0.34 + 0.076 * max(map(len, ticks), default=0) if labels else 0.06
    top = 0.1 + (0.06 + 0.185 * rows if rows else 0.0)
    figure.subplots_adjust(left=left / width, right=1 - 0.18 / width, bottom=0.47 / height, top=1 - top / height)


def short(name: str, longest: int = LONGEST_LABEL) -> str:
    """The name on one line, with its middle left out where it is longer than a figure has room for."""
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(name.split()))
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-(longest - 1 - half) :]}"


def log_scale(axis: Axis) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5: its range is often less than a decade."""
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 0.4 else range(1, 10))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def epochs(axes: Axes) -> None:
    """The x axis as epochs: whole numbers."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element to put into a page.

    name: unique in the page, letters, digits and -; it salts the ids. title and description: the text alternative.
    The same figure gives the same text: no dates, no random ids.
    """
    buffer = io.StringIO()
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's own font has it
        mpl.rcParams["svg.hashsalt"] = name
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # matplotlib repeats every label in a comment
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # it would style the whole page
    # labels may hold anything; what stands inside a tag is matplotlib's own
    text = re.sub(r"<[^>]+>", lambda tag: _own_names_and_colours(tag[0], name), text)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    if view is None:
        raise RuntimeError("matplotlib wrote an SVG without viewBox")
    head = (
        f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {view[1]} {view[2]}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    body = text[text.index(">", text.index("<svg")) + 1 :]
    return head + re.sub(r"\s*\n\s*", "\n", body).strip()


def standalone(plot: Plot) -> str:
    """The figure as an SVG file that needs no page round it: the light colours, on white, in a common font."""
    variables = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
    style = f"<style>svg{{{variables}font-family:'DejaVu Sans',Verdana,Arial,sans-serif;background:#ffffff}}</style>"
    head, body = plot.svg().split("</desc>", 1)
    return f'{head}</desc>\n{style}\n<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n'


def _own_names_and_colours(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)  # the page's own font
    for variable, (light, _) in PALETTE.items():
        tag = tag.replace(light, f"var(--{variable})")
    return tag
