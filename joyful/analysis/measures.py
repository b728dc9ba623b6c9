"""The metrics of claims: one number per run (arm and seed), and its change between the two runs of a pair."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from joyful.analysis.arms import Arm
from joyful.analysis.claims_file import Claim, Metric
from joyful.analysis.convergence import LOWER_IS_BETTER, Target, times_to_target
from joyful.analysis.curves import area, at_epoch, best_epoch, curves, final
from joyful.analysis.stability import drawdowns, spreads
from joyful.analysis.sweep import Sweep, cached


@cached
def values(sweep: Sweep, metric: Metric, target: Target | None = None) -> pd.Series:
    """Return the metric of every comparison run.

    Times to a target are min(T, budget). `censored` tells which of them are censored.

    Args:
        sweep: The sweep.
        metric: The metric.
        target: Target on the metric's column. It is needed for times only. Without it all times are NaN.

    Returns:
        The values, indexed by (arm, seed), in epochs, seconds or the unit of the column. NaN where it was not measured.

    Raises:
        InputError: If the sweep was read without the column.
    """
    if metric.kind == "speed":
        return _times(sweep, metric, target)["seconds" if metric.measure == "seconds_to_target" else "epochs"]
    whole_epochs = metric.measure == "spread" or metric.split == "train"
    lower_is_better = metric.of.startswith(LOWER_IS_BETTER)
    matrix = curves(sweep, metric.of, metric.split, whole_epochs=whole_epochs)
    if metric.measure == "spread":
        return spreads(matrix)
    if metric.measure == "drawdown":
        return drawdowns(matrix, higher_is_better=not lower_is_better)
    if metric.measure == "final":
        return final(matrix)
    if metric.measure == "area":
        return area(matrix)
    if metric.measure == "best":
        return matrix.min(axis=1) if lower_is_better else matrix.max(axis=1)
    epochs = best_epoch(curves(sweep, metric.of), higher_is_better=not lower_is_better)
    return at_epoch(matrix, epochs)


def censored(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    """Return whether each time in `values` is censored at the budget.

    Args:
        sweep: The sweep.
        metric: The metric.
        target: Target on the metric's column. Without it all times are censored.

    Returns:
        Booleans, indexed by (arm, seed). They are all False if the metric is not a time.

    Raises:
        InputError: If the sweep was read without the column.
    """
    if metric.kind == "speed":
        return ~_times(sweep, metric, target)["reached"]
    return pd.Series(False, index=curves(sweep, metric.of, metric.split).index)


def select_arm(values: pd.Series, arm: Arm) -> pd.Series:
    """Return the values of one arm, indexed by seed. The index of `values` is (arm, seed)."""
    return values[values.index.get_level_values("arm") == arm.name].droplevel("arm")


def pair_differences(new: pd.Series, base: pd.Series, claim: Claim, metric: Metric) -> pd.Series:
    """Return the difference d of each pair, on the scale on which differences are averaged.

    Differences are positive in the claimed direction. For a claim in per cent, d is ln(new / base) of a speed or value
    that is claimed to increase. It is ln(base / new) of a speed or value that is claimed to decrease, and of the spread
    behind a stability that is claimed to increase. The speed is the inverse of the time. For a claim in points, d is
    100 · (new - base) with the same sign.

    Args:
        new: Values of the arm, indexed by seed.
        base: Values of the baseline, indexed by seed.
        claim: The claim, which sets the unit and the direction.
        metric: The metric of the values.

    Returns:
        The differences, indexed by the seeds in both series in ascending order. NaN if a value is missing or, for a
        claim in per cent, not positive.

    Example:
        >>> metric = Metric("time_to_target", "dev", "f1_weighted")
        >>> claim = Claim("convergence_speed", "", (metric,), 15, 25, "percent", "increase")
        >>> epochs, baseline_epochs = pd.Series({1: 4.0, 2: 5.0}), pd.Series({1: 5.0, 2: 6.0})
        >>> d = pair_differences(epochs, baseline_epochs, claim, metric)
        >>> [round(effect(value, claim, metric), 2) for value in d]
        [25.0, 20.0]
    """
    seeds = sorted(set(new.index) & set(base.index))
    a, b = new.reindex(seeds).to_numpy(dtype=float), base.reindex(seeds).to_numpy(dtype=float)
    sign = _sign(claim, metric)
    if claim.unit == "points":
        return pd.Series(sign * 100 * (a - b), index=seeds, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = sign * np.log(a / b)
    return pd.Series(np.where((a > 0) & (b > 0), d, np.nan), index=seeds, dtype=float)


def effect(d: float, claim: Claim, metric: Metric) -> float:
    """Return a difference of `pair_differences`, or a mean of differences, in the unit of the claim.

    For a quantity that is claimed to grow (a speed, a value), the effect is 100 · (exp(d) - 1) per cent. For a quantity
    that is claimed to shrink (a spread, a value), it is 100 · (1 - exp(-d)) per cent. For a claim in points it is d.
    The effect increases with d, so the limits of an interval can be converted one by one.

    Args:
        d: The difference.
        claim: The claim.
        metric: The metric of the difference.

    Returns:
        The effect in the unit of the claim, positive in its direction.
    """
    return _scale(claim, metric)[0](d)


def difference(change: float, claim: Claim, metric: Metric) -> float:
    """Return the difference d for a change in the unit of the claim. This is the inverse of `effect`."""
    return _scale(claim, metric)[1](change)


def _scale(claim: Claim, metric: Metric) -> tuple[Callable[[float], float], Callable[[float], float]]:
    if claim.unit == "points":
        return float, float
    if _grows(claim, metric):
        return (lambda d: 100 * math.expm1(min(d, 700.0))), (lambda change: math.log1p(change / 100))
    return (lambda d: -100 * math.expm1(min(-d, 700.0))), (lambda change: -math.log1p(-change / 100))


def _grows(claim: Claim, metric: Metric) -> bool:
    """Return whether the claim implies that the measured quantity (speed, spread or value) grows."""
    return (claim.direction == "increase") != (metric.kind == "stability")


def _sign(claim: Claim, metric: Metric) -> int:
    grows = _grows(claim, metric)
    return (
        1 if grows != (metric.kind == "speed") else -1
    )  # A speed is measured as a time, which shrinks as speed grows.


def _times(sweep: Sweep, metric: Metric, target: Target | None) -> pd.DataFrame:
    if target is None:
        index = curves(sweep, metric.of).index
        return pd.DataFrame({"epochs": np.nan, "reached": False, "seconds": np.nan}, index=index)
    return times_to_target(sweep, target)
