"""The common style of the figures, and their conversion to inline SVG for light and dark pages.

Figures are created without pyplot and inside a local `rc_context`, so neither importing nor drawing changes the settings
of the caller. The colours are the Okabe-Ito palette, darkened where it is too pale for lines on white. Each arm also has
its own dashes and marker, so that no information depends on colour alone. In the SVG every colour becomes a CSS variable
(see `PALETTE`), which the page sets for light, dark and print. Text remains text, in the font of the page.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

#: CSS variable -> (colour on a light page and in notebooks, colour on a dark page).
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1f2328", "#e6e9ee"),
    "muted": ("#5c6470", "#a3abb8"),
    "rule": ("#d5d9e0", "#3a414c"),
    "series-0": ("#4d5561", "#c3cad4"),  # The baseline, neutral
    "series-1": ("#0072b2", "#56b4e9"),
    "series-2": ("#d55e00", "#ff8f4a"),
    "series-3": ("#009e73", "#35cfa2"),
    "series-4": ("#b0578d", "#e6a0c8"),
    "series-5": ("#9a7400", "#f0e442"),
    "series-6": ("#3b4cc0", "#9aa8ff"),
    "series-7": ("#7a5230", "#d8a878"),
    "claim": ("#e3b341", "#8a6a12"),  # The claimed range
    "card": ("#fefefe", "#191d24"),  # The background of figures
}
INK, MUTED, RULE, CLAIM, CARD = (PALETTE[name][0] for name in ("ink", "muted", "rule", "claim", "card"))

_DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)),
    (0, (8, 2)), (0, (1, 2.2)), (0, (4, 1, 1, 1, 1, 1)),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

#: Start of the gid of a line that belongs to no arm. Its name follows, and is shown with the values at the pointer.
LABEL = "label:"

#: Maximum number of arms or lines that a figure can distinguish.
MOST_LINES = len(_MARKERS)

#: Width of a figure in inches. A phone shows it at this size, a larger screen at up to one and a half times this size.
WIDTH = 4.8

#: Maximum length of a label, in characters.
LONGEST_LABEL = 34

_RC: dict[str, Any] = {
    # DejaVu Sans is included in matplotlib, so the layout is the same everywhere. Names of arms may contain $.
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "text.parse_math": False,
    "text.usetex": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.labelsize": 9.5,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.facecolor": "none",
    "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.unicode_minus": True, "figure.facecolor": "none", "savefig.facecolor": "none", "grid.color": RULE,
    "grid.linewidth": 0.6, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False, "legend.fontsize": 9, "legend.handlelength": 2.6,
    "lines.linewidth": 1.8, "lines.markersize": 4.5, "svg.fonttype": "none", "svg.image_inline": True,
    "path.simplify": True,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A figure with its description.

    Attributes:
        name: Identifier of letters, digits and "-", unique in a page.
        title: Title, with the unit.
        finding: The result in words and numbers. It is the caption and the text alternative.
        figure: The matplotlib figure.
    """

    name: str
    title: str
    finding: str
    figure: Figure

    @property
    def marks(self) -> list[tuple[float, float, int, str]]:
        """The points of the lines with a gid: x and y in the SVG, number of the arm or -1, and the values.

        The gid is that of a `Look`, or LABEL and a name.
        """
        (axes, *_), height = self.figure.axes, 72 * self.figure.get_figheight()
        rows = not len(axes.get_yticks())
        label, found = axes.get_xlabel(), []
        for line in axes.lines:
            if line.get_gid() is None:
                continue
            data = np.asarray(line.get_xydata(), dtype=float)
            data = data[np.isfinite(data).all(axis=1)]
            places = axes.transData.transform(data) * (72 / self.figure.dpi) if len(data) else data
            gid = str(line.get_gid())
            arm = -1 if gid.startswith(LABEL) else int(gid.partition("-")[2])
            name = f"{gid.removeprefix(LABEL)}, " if arm < 0 else ""
            for (x, y), (left, up) in zip(data, places, strict=True):
                text = f"{x:.4g}" if rows else f"{name}{label} {x:.5g}: {y:.4g}"
                found.append((round(left, 1), round(height - up, 1), arm, text.replace("-", "\u2212")))
        return found

    def values(self) -> str:
        """Return the marks as JSON that may stand in a script element."""
        return json.dumps(self.marks, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")

    def svg(self) -> str:
        """Return the figure as an <svg> element for a page, with colours as CSS variables (see `PALETTE`).

        The result contains no dates and no random ids, so the same figure gives the same text.

        Raises:
            RuntimeError: If matplotlib writes an SVG without a viewBox.
        """
        text = self._saved(format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # matplotlib repeats each label in a comment
        text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # Applies to the whole page
        # Labels may contain any text, so only the inside of tags is changed.
        name = self.name
        text = re.sub(r"<[^>]+>", lambda tag: _localize_tag(tag[0], name), text)
        view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        if view is None:
            raise RuntimeError("expected an SVG with a viewBox from matplotlib, got none")
        head = (
            f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {view[1]} {view[2]}" '
            f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-title">{html.escape(self.title)}</title>'
            f'<desc id="{name}-desc">{html.escape(self.finding)}</desc>'
        )
        body = text[text.index(">", text.index("<svg")) + 1 :]
        return head + re.sub(r"\s*\n\s*", "\n", body).strip()

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG, for notebooks."""
        return self._saved(format="png", dpi=110, facecolor="white")

    def _repr_html_(self) -> str:
        """Return the figure as PNG with its title and its description, for notebooks."""
        data, title = base64.b64encode(self._repr_png_()).decode(), html.escape(self.title)
        picture = f'<img src="data:image/png;base64,{data}" alt="{title}">'
        return f"<figure><strong>{title}</strong><br>{picture}<figcaption>{html.escape(self.finding)}</figcaption></figure>"

    def _saved(self, **options: Any) -> bytes:
        buffer = io.BytesIO()
        with drawing(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Glyph .* missing from font"
            )  # The font of the page has the glyph
            mpl.rcParams["svg.hashsalt"] = self.name
            self.figure.savefig(buffer, **options)
        return buffer.getvalue()


@dataclass(frozen=True)
class Look:
    """The style of one arm in all figures.

    Attributes:
        colour: Colour, from the light column of PALETTE.
        dashes: Line style of matplotlib.
        marker: Marker of matplotlib.
        index: Position of the arm, where 0 is the baseline.
    """

    colour: str
    dashes: Any
    marker: str
    index: int = 0

    @property
    def gid(self) -> str:
        """Name of the parts of a figure that belong to the arm. In the SVG it is the attribute data-arm."""
        return f"arm-{self.index}"


def look(index: int) -> Look:
    """Return the look of the arm at an index, where 0 is the baseline.

    From index MOST_LINES on, all arms have the same neutral look and need labels.
    """
    if index >= MOST_LINES:
        return Look(MUTED, "-", "o", index)
    return Look(PALETTE[f"series-{index}"][0], _DASHES[index], _MARKERS[index], index)


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return the look of each name, by position. The baseline comes first."""
    return {name: look(index) for index, name in enumerate(names)}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style inside a `with` block."""
    with mpl.rc_context():
        mpl.rcdefaults()  # Ignore the matplotlibrc of the caller
        for key, value in _RC.items():
            mpl.rcParams[key] = value  # type: ignore[index]  # The stubs accept only literal keys
        yield


@contextmanager
def panel(height: float = 3.2, *, labels: bool = True) -> Iterator[tuple[Figure, Axes]]:
    """Create a figure with one pair of axes, which is drawn in a `with` block in the common style.

    The end of the block adds a legend above the axes and sets the margins. The layout is estimated from the lengths of
    the texts. The layout engines of matplotlib draw every figure twice, which takes half of the time of a report.

    Args:
        height: Height in inches.
        labels: Whether the y axis has labels.

    Yields:
        The figure and its axes.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_subplot()
        yield figure, axes
        _finish(figure, axes, labels)


def _finish(figure: Figure, axes: Axes, labels: bool) -> None:
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


def joined(parts: Sequence[str]) -> str:
    """Return the parts of a description as one sentence, which says so if nothing was measured."""
    return f"{'; '.join(parts) or 'Nothing was measured'}."


def short(name: str, longest: int = LONGEST_LABEL) -> str:
    """Return the name on one line, shortened in the middle to at most `longest` characters.

    Unprintable characters are replaced by U+FFFD.

    Example:
        >>> short("a long name", longest=7)
        'a l…ame'
    """
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(name.split()))
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-(longest - 1 - half) :]}"


def shortened(names: Sequence[str], longest: int = LONGEST_LABEL) -> dict[str, str]:
    """Return labels of at most `longest` characters that differ wherever the names differ.

    If a name is too long, the words that all names have in common at their beginnings and ends are left out.

    Args:
        names: The names.
        longest: Maximum length of a label, in characters.

    Returns:
        Name -> its label.

    Example:
        >>> shortened(["a long name of the first arm", "a long name of the second arm"], longest=12)
        {'a long name of the first arm': '…first…', 'a long name of the second arm': '…second…'}
    """
    labels = {name: short(name, 10**6) for name in names}
    if max(map(len, labels.values()), default=0) > longest:
        words = [label.split(" ") for label in labels.values()]
        most = min(map(len, words)) - 1 if len(words) > 1 else 0
        first = next((i for i in range(most) if len({w[i] for w in words}) > 1), most)
        last = next((i for i in range(most - first) if len({w[-1 - i] for w in words}) > 1), max(most - first, 0))
        cut = ("…" * (first > 0) + " ".join(w[first : len(w) - last]) + "…" * (last > 0) for w in words)
        labels = {name: short(label, longest) for name, label in zip(labels, cut, strict=True)}
    taken: dict[str, int] = {}
    for name, label in labels.items():
        number = taken[label] = taken.get(label, 0) + 1
        if number > 1:  # Equal after all: the middle of a word was cut
            labels[name] = f"{short(label, longest - 4)} ({number})"
    return labels


def log_scale(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers as labels.

    The ticks are at 1, 2 and 5 times powers of ten, and more closely or widely spaced for short and long ranges.
    """
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 0.4 else range(1, 10))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def label_axes(axes: Axes, quantity: str, x: str = "epoch") -> None:
    """Label the x axis, with integer ticks unless it is short, and the y axis with the quantity."""
    axes.set_ylabel(quantity)
    axes.set_xlabel(x)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(integer=high - low >= 4, nbins=8, steps=[1, 2, 5, 10]))


def standalone(plot: Plot) -> str:
    """Return a figure as an SVG document that needs no page: light colours on white, in a common font."""
    variables = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
    style = f"<style>svg{{{variables}font-family:'DejaVu Sans',Verdana,Arial,sans-serif;background:#ffffff}}</style>"
    head, body = plot.svg().split("</desc>", 1)
    return f'{head}</desc>\n{style}\n<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n'


def _localize_tag(tag: str, name: str) -> str:
    tag = re.sub(rf'\bid="{LABEL}[^"]*"', "", tag)
    tag = re.sub(r'\bid="arm-(\d+)"', r'data-arm="\1"', tag)
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)  # Inherit the font of the page
    for variable, (light, _) in PALETTE.items():
        tag = tag.replace(light, f"var(--{variable})")
    return tag
