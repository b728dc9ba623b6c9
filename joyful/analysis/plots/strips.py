"""Strip plots: one value per run and one row per arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import three_digits
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import INK, MUTED, Plot, joined, looks


def strips(
    values: pd.Series, arms: Sequence[str], *, name: str, title: str, axis: str, geometric: bool = False
) -> Plot:
    """Plot one dot per run and a diamond at the mean of each arm.

    With two arms, lines connect the runs of a pair. At most MOST_ROWS arms are drawn.

    Args:
        values: Values with the index (arm, seed). NaN is dropped.
        arms: All arms of the sweep in drawing order, which determines their colours.
        name: Identifier of the figure.
        title: Title, with the unit.
        axis: Label of the axis, with the unit.
        geometric: Whether to use the geometric mean of the positive values in place of the mean.

    Returns:
        The figure.
    """
    shown = list(arms[:MOST_ROWS])
    table = {arm: values.xs(arm, level="arm").dropna() for arm in shown if arm in values.index.get_level_values("arm")}
    means = {arm: _mean(of_arm.to_numpy(dtype=float), geometric) for arm, of_arm in table.items()}
    of_arm_look = looks(list(arms))
    kind = "geometric mean" if geometric else "mean"
    with rows_panel(len(table)) as (figure, axes):
        if len(table) == 2:
            first, second = table.values()
            for seed in first.index.intersection(second.index):
                axes.plot([first[seed], second[seed]], [-0.1, -1.1], color=MUTED, linewidth=0.8, alpha=0.6)
        for row, (arm, of_arm) in enumerate(table.items()):
            look, dots = of_arm_look[arm], of_arm.to_numpy(dtype=float)[:500]
            axes.plot(
                dots, np.full(len(dots), -row - 0.1), linestyle="none", marker=look.marker, color=look.colour, alpha=0.6,
                markeredgewidth=0, gid=look.gid,
            )  # fmt: skip
            axes.plot(
                [means[arm]], [-row - 0.1], marker="D", markersize=7, color=look.colour, markeredgecolor=INK,
                markeredgewidth=0.9, gid=look.gid,
            )  # fmt: skip
        axes.set_xlabel(axis)
        label_rows(axes, list(table), [f"{kind} {three_digits(mean)}" for mean in means.values()])
    sentences = [f"{arm}: {kind} {three_digits(mean)} over {len(table[arm])} runs" for arm, mean in means.items()]
    return Plot(name, title, joined(sentences), figure)


def _mean(values: np.ndarray, geometric: bool) -> float:
    if geometric:
        values = values[values > 0]
        return float(np.exp(np.log(values).mean())) if len(values) else math.nan
    return float(values.mean()) if len(values) else math.nan
