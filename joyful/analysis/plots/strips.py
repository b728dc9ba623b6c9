"""One value per run: a row for each arm, a dot for each seed, lines between the runs of a pair where there are two arms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import small
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import INK, MUTED, Plot, drawing, looks


def strips(
    values: pd.Series, arms: Sequence[str], *, name: str, title: str, axis: str, geometric: bool = False
) -> Plot:
    """A dot for every run and a diamond at the mean of each arm (geometric: the geometric mean, of positive values).

    values: index (arm, seed). axis: the label with its unit. At most MOST_ROWS arms are drawn.
    """
    shown = list(arms[:MOST_ROWS])
    table = {arm: values.xs(arm, level="arm").dropna() for arm in shown if arm in values.index.get_level_values("arm")}
    means = {arm: _mean(of_arm.to_numpy(dtype=float), geometric) for arm, of_arm in table.items()}
    of_arm_look = looks(list(arms))
    with drawing():
        figure, axes = rows_panel(len(table))
        if len(table) == 2:
            first, second = table.values()
            for seed in first.index.intersection(second.index):
                axes.plot([first[seed], second[seed]], [-0.1, -1.1], color=MUTED, linewidth=0.8, alpha=0.6)
        for row, (arm, of_arm) in enumerate(table.items()):
            look, dots = of_arm_look[arm], of_arm.to_numpy(dtype=float)[:500]
            axes.plot(
                dots, np.full(len(dots), -row - 0.1), linestyle="none", marker=look.marker, color=look.colour, alpha=0.6,
                markeredgewidth=0,
            )  # fmt: skip
            axes.plot(
                [means[arm]], [-row - 0.1], marker="D", markersize=7, color=look.colour, markeredgecolor=INK,
                markeredgewidth=0.9,
            )  # fmt: skip
        axes.set_xlabel(axis)
        label_rows(axes, list(table), [f"{'geometric ' * geometric}mean {small(mean)}" for mean in means.values()])
    kind = "geometric mean" if geometric else "mean"
    told = [f"{arm}: {kind} {small(mean)} over {len(table[arm])} runs" for arm, mean in means.items()]
    return Plot(name, title, f"{'; '.join(told) or 'Nothing was measured'}.", figure)


def _mean(values: np.ndarray, geometric: bool) -> float:
    if geometric:
        values = values[values > 0]
        return float(np.exp(np.log(values).mean())) if len(values) else math.nan
    return float(values.mean()) if len(values) else math.nan
