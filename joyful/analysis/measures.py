"""One number for each run (arm and seed) of what a claim speaks of, and the change between two arms."""

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
    """The metric of every comparison run: index (arm, seed), in the unit of the column, or epochs, or seconds.

    NaN where it was not measured; times are min(T, budget) (see `censored`). target: for times, and of their column.
    """
    if metric.speaks_of == "speed":
        return _times(sweep, metric, target)["seconds" if metric.measure == "seconds_to_target" else "epochs"]
    whole = metric.measure == "spread" or metric.split == "train"
    lower_is_better = metric.of.startswith(LOWER_IS_BETTER)
    matrix = curves(sweep, metric.of, metric.split, whole=whole)
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
    """Whether a time of `values` is censored at the budget: index (arm, seed), bool; all False for other metrics."""
    if metric.speaks_of == "speed":
        return ~_times(sweep, metric, target)["reached"]
    return pd.Series(False, index=curves(sweep, metric.of, metric.split).index)


def of_arm(values: pd.Series, arm: Arm) -> pd.Series:
    """The values of one arm: (arm, seed) -> value becomes seed -> value."""
    return values[values.index.get_level_values("arm") == arm.name].droplevel("arm")


def pair_differences(new: pd.Series, base: pd.Series, claim: Claim, metric: Metric) -> pd.Series:
    """d of each pair, by seed: positive in the claimed direction, on the scale on which d is averaged.

    percent: ln(new / base) of the speed or value that is claimed to increase, ln(base / new) of one claimed to decrease
    and of the spread behind a stability claimed to increase. points: 100 · (new - base), with that sign.
    Seeds in both series, ascending; NaN where a value is missing, or, for percent, not positive.
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
    """A difference d (or a mean of them) in the claim's unit, positive in its direction.

    Of what grows (a speed, a value claimed to increase): 100 · (exp(d) - 1) %. Of what shrinks (a spread, a value
    claimed to decrease): 100 · (1 - exp(-d)) %. points: d itself. Increasing in d, so it carries intervals over.
    """
    return _scale(claim, metric)[0](d)


def difference(change: float, claim: Claim, metric: Metric) -> float:
    """The inverse of `effect`: a change in the claim's unit as a difference d."""
    return _scale(claim, metric)[1](change)


def _scale(claim: Claim, metric: Metric) -> tuple[Callable[[float], float], Callable[[float], float]]:
    if claim.unit == "points":
        return float, float
    if _grows(claim, metric):
        return (lambda d: 100 * math.expm1(min(d, 700.0))), (lambda change: math.log1p(change / 100))
    return (lambda d: -100 * math.expm1(min(-d, 700.0))), (lambda change: -math.log1p(-change / 100))


def _grows(claim: Claim, metric: Metric) -> bool:
    """Whether what is measured (the speed, the spread, the value) is claimed to grow."""
    return (claim.direction == "increase") != (metric.speaks_of == "stability")


def _sign(claim: Claim, metric: Metric) -> int:
    grows = _grows(claim, metric)
    return 1 if grows != (metric.speaks_of == "speed") else -1  # a speed grows as its time shrinks


def _times(sweep: Sweep, metric: Metric, target: Target | None) -> pd.DataFrame:
    if target is None:
        index = curves(sweep, metric.of).index
        return pd.DataFrame({"epochs": np.nan, "reached": False, "seconds": np.nan}, index=index)
    return times_to_target(sweep, target)
