"""Curves of one run: one line for each split."""

from __future__ import annotations

import numpy as np
import pandas as pd

from joyful.analysis.columns import NAMES, is_score
from joyful.analysis.formatting import metric, number, three_digits
from joyful.analysis.plots.style import LABEL, Plot, joined, label_axes, look, panel


def column_name(column: str) -> str:
    """Return the name of a column in a report. The words of other columns are separated by spaces.

    Example:
        >>> column_name("recon_mse"), column_name("share_encoder")
        ('reconstruction MSE', 'share encoder')
    """
    return metric(column) if column in NAMES else column.replace("_", " ")


def curves_of_splits(frame: pd.DataFrame, column: str, x: str, name: str) -> Plot:
    """Plot a column of the history of one run against x, with one line for each split. Scores are in per cent.

    Args:
        frame: The history, with the columns `split`, `x` and `column`.
        column: Column of the history.
        x: Column of the x axis.
        name: Identifier of the figure.

    Returns:
        The figure.
    """
    scale, unit = (100.0, " (%)") if is_score(column) else (1.0, "")
    label, sentences = column_name(column), []
    with panel() as (figure, axes):
        for index, split in enumerate(frame["split"].cat.categories):
            rows = frame.loc[(frame["split"] == split) & np.isfinite(frame[column]), [x, column]].sort_values(x)
            if rows.empty:
                continue
            values, style = scale * rows[column].to_numpy(dtype=float), look(index)
            axes.plot(
                rows[x].to_numpy(dtype=float), values, color=style.colour, linestyle=style.dashes, marker=style.marker,
                markevery=max(1, len(rows) // 8), label=split, gid=f"{LABEL}{split}",
            )  # fmt: skip
            end = number(float(values[-1])) if unit else three_digits(float(values[-1]))
            sentences.append(f"{split} ends at {end}")
        label_axes(axes, f"{label}{unit}", x)
    return Plot(name, f"{label[:1].upper()}{label[1:]}{unit}", joined(sentences), figure)
