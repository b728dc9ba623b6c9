"""Learning curves: the mean over seeds of each arm, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from joyful.analysis.formatting import number
from joyful.analysis.plots.style import MUTED, Look, Plot, joined, label_axes, looks, panel, shortened

#: Maximum number of curves that the description lists. With more, it gives the highest and the lowest.
_MOST_LISTED = 4


def learning_curves(
    band: pd.DataFrame,
    arms: Sequence[str],
    *,
    name: str,
    quantity: str,
    scale: float = 1.0,
    unit: str = "",
    target: float | None = None,
    x: str = "epoch",
) -> Plot:
    """Plot the mean curve of each arm with its 95 % interval, and a line at the target.

    Args:
        band: Means and intervals, as returned by `joyful.analysis.curves.band`.
        arms: The arms to draw, the baseline first.
        name: Identifier of the figure.
        quantity: Name of the quantity, for the axis.
        scale: Factor from the values to the axis. It is 100 for fractions that are shown in per cent.
        unit: Unit of the axis, or "".
        target: The target, in the unit of `band`, or None for no line.
        x: Label of the x axis.

    Returns:
        The figure.
    """
    digits = 1 if unit == "%" else 3
    label = f"{quantity} ({unit})" if unit else quantity
    with panel() as (figure, axes):
        ends = draw_bands(axes, band, looks(arms), scale)
        if target is not None:
            axes.axhline(target * scale, color=MUTED, linewidth=1, dashes=(2, 2))
            axes.annotate(
                f"target {number(target * scale, digits)}", (0, target * scale), xycoords=("axes fraction", "data"),
                xytext=(4, 3), textcoords="offset points", ha="left", color=MUTED, fontsize=8.5,
            )  # fmt: skip
        label_axes(axes, label, x)
    sentences = [_describe(arm, end, digits) for arm, end in ends.items()]
    if len(sentences) > _MOST_LISTED:
        high, low = (choose(ends, key=lambda arm: ends[arm][0]) for choose in (max, min))
        sentences = [f"highest: {_describe(high, ends[high], digits)}", f"lowest: {_describe(low, ends[low], digits)}"]
    return Plot(name, f"{label[:1].upper()}{label[1:]} over training", joined(sentences), figure)


def _describe(arm: str, end: tuple[float, float, float, int], digits: int) -> str:
    mean, low, high, n = end
    if n < 2:
        return f"{arm} ends at {number(mean, digits)} (one seed)"
    return f"{arm} ends at {number(mean, digits)} (95 % interval {number(low, digits)} to {number(high, digits)}, {n} seeds)"


def draw_bands(
    axes: Axes, band: pd.DataFrame, of_arm: Mapping[str, Look], scale: float = 1.0
) -> dict[str, tuple[float, float, float, int]]:
    """Draw a line and a band for each arm.

    Args:
        axes: Where to draw.
        band: Tidy frame with the columns `arm`, `x`, `mean`, `low`, `high`, `n`. Means that are not finite are skipped.
        of_arm: Arm -> its look.
        scale: Factor from the values to the axis.

    Returns:
        Arm -> (mean, low, high, n) at the last epoch, with the first three scaled. Arms without values are omitted.
    """
    ends: dict[str, tuple[float, float, float, int]] = {}
    labels = shortened(list(of_arm))
    for arm, look in of_arm.items():
        rows = band[(band["arm"] == arm) & np.isfinite(band["mean"])].sort_values("x")
        if rows.empty:
            continue
        epoch = rows["x"].to_numpy(dtype=float)
        mean, low, high = (rows[key].to_numpy(dtype=float) * scale for key in ("mean", "low", "high"))
        every = max(1, len(rows) // 8)
        axes.fill_between(epoch, low, high, color=look.colour, alpha=0.16, linewidth=0, gid=look.gid)
        axes.plot(
            epoch,
            mean,
            color=look.colour,
            linestyle=look.dashes,
            marker=look.marker,
            markevery=every,
            label=labels[arm],
            gid=look.gid,
        )
        ends[arm] = float(mean[-1]), float(low[-1]), float(high[-1]), int(rows["n"].iloc[-1])
    return ends


def paired_differences(
    differences: pd.DataFrame, arms: Sequence[str], *, name: str, quantity: str, scale: float = 1.0, unit: str = "",
    x: str = "epoch",
) -> Plot:  # fmt: skip
    """Plot the mean difference from the baseline over training, with its pointwise 95 % interval over pairs.

    Args:
        differences: Differences of the pairs, as `joyful.analysis.curves.band` returns means. The baseline is not in it.
        arms: The arms to draw, the baseline first.
        name: Identifier of the figure.
        quantity: Name of the quantity.
        scale: Factor from the values to the axis.
        unit: Unit of the axis, or "".
        x: Label of the x axis.

    Returns:
        The figure.
    """
    digits = 2 if unit == "points" else 3
    with panel() as (figure, axes):
        axes.axhline(0, color=MUTED, linewidth=1)
        ends = draw_bands(axes, differences, looks(arms), scale)
        label_axes(axes, f"difference from the baseline{f' ({unit})' if unit else ''}", x)
    sentences = [_describe_difference(arm, end, digits) for arm, end in ends.items()]
    return Plot(
        name, f"{quantity[:1].upper()}{quantity[1:]}: arm minus baseline", joined(sentences[:_MOST_LISTED]), figure
    )


def _describe_difference(arm: str, end: tuple[float, float, float, int], digits: int) -> str:
    mean, low, high, n = end
    ended = f"{arm} ends {number(mean, digits, signed=True)} from the baseline"
    return (
        f"{ended} (95 % interval {number(low, digits)} to {number(high, digits)}, {n} pairs)"
        if n > 1
        else f"{ended} (one pair)"
    )
