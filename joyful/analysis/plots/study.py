"""Figures of an Optuna study: the history of its trials and the importances of its parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from joyful.analysis.formatting import count, number, percent
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import PALETTE, Plot, joined, panel

_STATES = {
    "complete": ("series-1", "o"), "pruned": ("series-2", "X"), "fail": ("series-4", "v"), "running": ("series-3", "^"),
}  # fmt: skip


def history(trials: pd.DataFrame, objective: str, maximise: bool = True) -> Plot:
    """Plot the objective of every trial, in per cent, and the best value so far.

    Args:
        trials: Trials as in `joyful.analysis.optuna_study.Study`, with values as fractions.
        objective: Name of the objective, for the axis.
        maximise: Whether higher values are better.

    Returns:
        The figure.
    """
    with panel() as (figure, axes):
        for state, (colour, marker) in _STATES.items():
            rows = trials[(trials["state"] == state) & np.isfinite(trials["value"])]
            if rows.empty:
                continue
            axes.plot(
                rows["number"].to_numpy(), 100 * rows["value"].to_numpy(dtype=float), linestyle="none", marker=marker,
                color=PALETTE[colour][0], label=f"{state} ({len(rows)})", alpha=0.8, markeredgewidth=0,
            )  # fmt: skip
        done = trials[(trials["state"] == "complete") & np.isfinite(trials["value"])].sort_values("number")
        if len(done):
            running = done["value"].cummax() if maximise else done["value"].cummin()
            axes.step(
                done["number"].to_numpy(), 100 * running.to_numpy(dtype=float), where="post", color=PALETTE["ink"][0],
                linewidth=1.4, label="best so far",
            )  # fmt: skip
        axes.set_xlabel("trial")
        axes.set_ylabel(f"{objective} (%)")
    counts = {str(state): n for state, n in trials["state"].value_counts().to_dict().items()}
    states = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    best = ""
    if len(done):
        place = done["value"].idxmax() if maximise else done["value"].idxmin()
        best = f"; the best is trial {done.loc[place, 'number']} with {percent(float(done.loc[place, 'value']), 2)}"
    finding = f"{count(len(trials), 'trial')}: {states}{best}."
    return Plot("study-history", f"Trials of the study: {objective} (%)", finding, figure)


def importances(values: pd.Series) -> Plot:
    """Plot the importance of each setting, largest first. At most MOST_ROWS settings are drawn.

    Args:
        values: Importances from 0 to 1, indexed by setting.

    Returns:
        The figure.
    """
    shown = values.sort_values(ascending=False, kind="stable").head(MOST_ROWS)
    with rows_panel(len(shown)) as (figure, axes):
        axes.barh(-np.arange(len(shown)) - 0.1, shown.to_numpy(dtype=float), height=0.34, color=PALETTE["series-1"][0])
        axes.set_xlim(0, max(1e-9, float(shown.max())) * 1.05 if len(shown) else 1)
        axes.set_xlabel("importance (sum 1)")
        label_rows(axes, [str(name) for name in shown.index], [number(float(value), 2) for value in shown])
    sentences = [f"{name} {number(float(value), 2)}" for name, value in shown.items()]
    return Plot("study-importances", "Importance of each setting", joined(sentences), figure)
