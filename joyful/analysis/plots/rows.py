"""Figures of rows. The labels are inside the axes, above the rows, so that long names do not narrow the axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from joyful.analysis.plots.style import CARD, INK, MUTED, RULE, panel, shortened

#: Maximum number of rows in a figure. The tables contain all rows.
MOST_ROWS = 24


@contextmanager
def rows_panel(count: int) -> Iterator[tuple[Figure, Axes]]:
    """Create a figure with axes for rows, which is drawn in a `with` block.

    The rows are at y = 0, -1, ..., from top to bottom.

    Args:
        count: Number of rows.

    Yields:
        The figure and its axes.
    """
    with panel(height=0.7 + 0.56 * max(count, 1), labels=False) as (figure, axes):
        axes.set_ylim(-count + 0.4, 0.62)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        yield figure, axes


def label_rows(axes: Axes, left: Sequence[str], right: Sequence[str] = (), longest: int = 46) -> None:
    """Write text above each row.

    Args:
        axes: Axes as returned by `rows_panel`.
        left: Names of the rows, aligned to the left.
        right: Results of the rows, aligned to the right.
        longest: Maximum length of a name, in characters (see `style.shortened`).
    """
    place = axes.get_yaxis_transform()
    backing = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.2}
    labels = shortened(left, longest)
    for row, text in enumerate(left):
        axes.text(
            0.0, 0.36 - row, labels[text], transform=place, va="center", ha="left", color=INK, fontsize=9,
            bbox=backing,
        )  # fmt: skip
        if row:
            axes.axhline(0.62 - row, color=RULE, linewidth=0.5)
    for row, text in enumerate(right):
        axes.text(
            1.0, 0.36 - row, text, transform=place, va="center", ha="right", color=MUTED, fontsize=9, bbox=backing
        )
