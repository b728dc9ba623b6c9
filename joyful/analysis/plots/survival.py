"""Time to target: the share of runs that have reached it by an epoch; runs that never did are censored, not dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import number, percent
from joyful.analysis.plots.style import Plot, drawing, epochs, finish, looks, panel, short


def time_to_target(
    survival: pd.DataFrame, rates: pd.DataFrame, arms: Sequence[str], *, name: str, target: str, budget: float
) -> Plot:
    """Kaplan-Meier curves of reaching the target, with 95 % bands; + marks censored runs.

    survival: as `joyful.analysis.convergence.kaplan_meier`. rates: as `reach_rate`. target: in words. budget: epochs.
    """
    told = []
    with drawing():
        figure, axes = panel()
        for arm, look in looks(arms).items():
            rows = survival[survival["arm"] == arm].sort_values("epoch")
            if rows.empty:
                continue
            columns = {key: rows[key].to_numpy(dtype=float) for key in ("epoch", "reached", "low", "high")}
            epoch = np.concatenate([[0.0], columns["epoch"], [max(budget, columns["epoch"][-1])]])
            reached, low, high = (
                100 * np.concatenate([[0.0], columns[key], columns[key][-1:]]) for key in ("reached", "low", "high")
            )
            axes.fill_between(epoch, low, high, step="post", color=look.colour, alpha=0.14, linewidth=0)
            axes.step(epoch, reached, where="post", color=look.colour, linestyle=look.dashes, label=short(arm))
            lost = rows[rows["censored"] > 0]
            if len(lost):  # an empty line would draw the layout to the corner
                axes.plot(
                    lost["epoch"].to_numpy(dtype=float), 100 * lost["reached"].to_numpy(dtype=float), linestyle="none",
                    marker="+", markersize=8, markeredgewidth=1.6, color=look.colour, clip_on=False,
                )  # fmt: skip
            told.append(_told(arm, rows, rates))
        axes.set_ylim(0, 103)
        axes.set_xlim(left=0)
        epochs(axes)
        axes.set_ylabel("runs at the target (%)")
        finish(axes)
    return Plot(name, f"Runs that have reached {target} (%)", f"{'; '.join(told) or 'No runs'}.", figure)


def _told(arm: str, rows: pd.DataFrame, rates: pd.DataFrame) -> str:
    at_half = rows[rows["reached"] >= 0.5]
    median = (
        f"half of them by epoch {number(float(at_half['epoch'].iloc[0]), 2)}" if len(at_half) else "never half of them"
    )
    if arm not in rates.index:
        return f"{arm}: {median}"
    rate = {key: float(rates[key].to_dict()[arm]) for key in ("reached", "n", "rate")}
    return f"{arm}: {int(rate['reached'])} of {int(rate['n'])} runs reached it ({percent(rate['rate'], 0)}), {median}"
