"""Performance profiles: the share of runs above each threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import three_digits
from joyful.analysis.plots.style import Plot, joined, looks, panel, shortened


def performance_profiles(
    profiles: pd.DataFrame, arms: Sequence[str], *, name: str, quantity: str, relative: bool = False
) -> Plot:
    """Plot the share of runs whose value is above each threshold, with 95 % bands.

    Args:
        profiles: Tidy frame with the columns `arm`, `threshold`, `share`, `low` and `high`.
        arms: The arms to draw, the baseline first.
        name: Identifier of the figure.
        quantity: Name of the value.
        relative: Whether values are divided by the mean of the baseline on their task.

    Returns:
        The figure.
    """
    sentences, labels = [], shortened(arms)
    with panel(height=3.0) as (figure, axes):
        for arm, look in looks(arms).items():
            rows = profiles[profiles["arm"] == arm]
            if rows.empty:
                continue
            x, share, low, high = (rows[key].to_numpy(dtype=float) for key in ("threshold", "share", "low", "high"))
            axes.fill_between(
                x, 100 * low, 100 * high, step="mid", color=look.colour, alpha=0.16, linewidth=0, gid=look.gid
            )
            axes.step(
                x, 100 * share, where="mid", color=look.colour, linestyle=look.dashes, label=labels[arm], gid=look.gid
            )
            median = x[np.flatnonzero(share >= 0.5)[-1]] if (share >= 0.5).any() else x[0]
            sentences.append(f"{arm}: half of the runs are above {three_digits(float(median))}")
        axes.set_ylim(0, 103)
        axes.set_ylabel("share of runs (%)")
        axes.set_xlabel(f"{quantity}{', relative to the baseline' if relative else ''}")
    return Plot(name, f"Share of runs above a value: {quantity}", joined(sentences), figure)
