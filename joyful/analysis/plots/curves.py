"""Learning curves: the mean over seeds of each arm, with its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from joyful.analysis.formatting import number
from joyful.analysis.plots.style import MUTED, Look, Plot, drawing, epochs, finish, looks, panel, short

#: Curves whose ends are told one by one; of more, the highest and the lowest.
_MOST_TOLD = 4


def learning_curves(
    band: pd.DataFrame,
    arms: Sequence[str],
    *,
    name: str,
    quantity: str,
    scale: float = 1.0,
    unit: str = "",
    target: float | None = None,
) -> Plot:
    """Mean curve of each arm with its 95 % band, and a line at the target.

    band: as `joyful.analysis.curves.band` gives it. arms: those to draw, the baseline first. scale: what values are multiplied by
    for the axis (100: fractions as per cent). quantity, unit: for the axis. target: in the units of `band`.
    """
    digits = 1 if unit == "%" else 3
    with drawing():
        figure, axes = panel()
        ends = draw_bands(axes, band, looks(arms), scale)
        if target is not None:
            axes.axhline(target * scale, color=MUTED, linewidth=1, dashes=(2, 2))
            axes.annotate(
                f"target {number(target * scale, digits)}", (0, target * scale), xycoords=("axes fraction", "data"),
                xytext=(4, 3), textcoords="offset points", ha="left", color=MUTED, fontsize=8.5,
            )  # fmt: skip
        epochs(axes)
        axes.set_ylabel(f"{quantity} ({unit})" if unit else quantity)
        finish(axes)
    told = [_told(arm, end, digits) for arm, end in ends.items()]
    if len(told) > _MOST_TOLD:
        high, low = (choose(ends, key=lambda arm: ends[arm][0]) for choose in (max, min))
        told = [f"highest: {_told(high, ends[high], digits)}", f"lowest: {_told(low, ends[low], digits)}"]
    title = f"{quantity}{f' ({unit})' if unit else ''} over training"
    return Plot(name, title[:1].upper() + title[1:], f"{'; '.join(told) or 'Nothing was measured'}.", figure)


def _told(arm: str, end: tuple[float, float, float, int], digits: int) -> str:
    mean, low, high, n = end
    if n < 2:
        return f"{arm} ends at {number(mean, digits)} (one seed)"
    return f"{arm} ends at {number(mean, digits)} (95 % interval {number(low, digits)} to {number(high, digits)}, {n} seeds)"


def draw_bands(
    axes: Axes, band: pd.DataFrame, of_arm: Mapping[str, Look], scale: float = 1.0
) -> dict[str, tuple[float, float, float, int]]:
    """A line and a band for each arm of a tidy frame (arm, epoch, mean, low, high, n); returns (mean, low, high, n) at the
    end of each."""
    ends: dict[str, tuple[float, float, float, int]] = {}
    for arm, look in of_arm.items():
        rows = band[(band["arm"] == arm) & np.isfinite(band["mean"])].sort_values("epoch")
        if rows.empty:
            continue
        epoch, mean, low, high = (rows[key].to_numpy(dtype=float) for key in ("epoch", "mean", "low", "high"))
        mean, low, high = mean * scale, low * scale, high * scale
        every = max(1, len(rows) // 8)
        axes.fill_between(epoch, low, high, color=look.colour, alpha=0.16, linewidth=0)
        axes.plot(
            epoch, mean, color=look.colour, linestyle=look.dashes, marker=look.marker, markevery=every, label=short(arm)
        )
        ends[arm] = float(mean[-1]), float(low[-1]), float(high[-1]), int(rows["n"].iloc[-1])
    return ends
