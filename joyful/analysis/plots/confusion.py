"""Tables of numbers with shades: the confusion matrix of a run, and scores over two settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Rectangle

from joyful.analysis.formatting import count, number, percent
from joyful.analysis.plots.style import INK, PALETTE, Plot, panel, short

#: Opacity of the darkest cell. The numbers stay readable on it in light and dark.
_DARKEST = 0.5


def confusion_matrix(matrix: npt.NDArray[np.float64], labels: Sequence[str], name: str, split: str) -> Plot:
    """Plot a confusion matrix: a row for each label, a column for each prediction, shaded by the share of the row.

    Args:
        matrix: (C, C) numbers of utterances.
        labels: Names of the C classes.
        name: Identifier of the figure.
        split: Name of the split, for the title.

    Returns:
        The figure.
    """
    support = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, support, out=np.zeros_like(matrix), where=support > 0)
    plot = shaded(matrix, shares, labels, labels, ("predicted", "label"), lambda value: f"{value:g}", name)
    right = percent(float(matrix.trace() / matrix.sum())) if matrix.sum() else "none"
    finding = f"{right} of {count(int(matrix.sum()), 'utterance')} are predicted correctly."
    return Plot(name, f"Confusion matrix, {split}", finding, plot.figure)


def response_surface(
    values: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], axes: tuple[str, str], quantity: str
) -> Plot:
    """Plot the mean score at each combination of two settings, darker where it is better.

    Args:
        values: (rows, columns) scores in per cent. NaN marks a combination without a run.
        rows: Values of the first setting.
        columns: Values of the second setting.
        axes: Names of the second and of the first setting.
        quantity: Name of the score.

    Returns:
        The figure.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    shades = (values - low) / (high - low) if high > low else np.zeros_like(values)
    plot = shaded(values, shades, rows, columns, axes, lambda value: number(value, 1), "response-surface")
    row, column = (int(index) for index in np.unravel_index(int(np.nanargmax(values)), values.shape))
    finding = f"From {number(low, 1)} to {number(high, 1)}; the best is at {axes[1]} {rows[row]}, {axes[0]} {columns[column]}."
    return Plot("response-surface", f"{quantity} at each combination", finding, plot.figure)


def shaded(
    values: npt.NDArray[np.float64], shades: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str],
    axes_names: tuple[str, str], text: Callable[[float], str], name: str,
) -> Plot:  # fmt: skip
    """Plot a table of numbers with shaded cells.

    Args:
        values: The numbers. NaN leaves a cell empty.
        shades: Shade of each cell, from 0 to 1.
        rows: Names of the rows.
        columns: Names of the columns.
        axes_names: Names of the x and the y axis.
        text: Function from a number to its text.
        name: Identifier of the figure.

    Returns:
        The figure, without a description.
    """
    with panel(height=max(2.2, 0.9 + 0.32 * len(rows))) as (figure, axes):
        axes.grid(visible=False)
        for i in range(len(rows)):
            for j in range(len(columns)):
                if not np.isfinite(values[i, j]):
                    continue
                shade = _DARKEST * float(shades[i, j])
                axes.add_patch(
                    Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=PALETTE["series-1"][0], alpha=shade, linewidth=0)
                )
                axes.text(j, i, text(float(values[i, j])), ha="center", va="center", color=INK, fontsize=8.5)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), [short(str(column), 9) for column in columns])
        axes.set_yticks(range(len(rows)), [short(str(row), 12) for row in rows])
        axes.set_xlabel(short(axes_names[0], 40))
        axes.set_ylabel(short(axes_names[1], 30))
    return Plot(name, "", "", figure)
