"""Secondary measures: measures that are reported in addition to a verdict, with intervals, but are not judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from joyful.analysis import measures
from joyful.analysis.arms import Arm
from joyful.analysis.claims_file import Claim, Metric
from joyful.analysis.convergence import LOWER_IS_BETTER, Target, reach_rate, times_to_target
from joyful.analysis.stability import across_seeds
from joyful.analysis.statistics import paired_t
from joyful.analysis.sweep import Sweep


@dataclass(frozen=True)
class SecondaryMeasure:
    """A measure that is reported in addition to a verdict but is not judged.

    It is either the mean change of the pairs, which is positive if the arm is better, or a value of one arm.

    Attributes:
        name: Name of the measure.
        unit: Unit of the numbers: "per cent", "points" or the name of a column.
        estimate: The estimate.
        low: Lower limit of the 95 % interval.
        high: Upper limit of the 95 % interval.
        arm: Name of the arm, or "" for a change of the pairs.
        paired: Whether the measure is a change of the pairs.
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float
    arm: str = ""
    paired: bool = True


def secondary_measures(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> tuple[SecondaryMeasure, ...]:
    """Return the secondary measures for a verdict on a metric.

    - Times to a target: the shares of runs that reach it (with Wilson's interval), wall-clock seconds, dev NLL, and the
      area under the dev curve.
    - Spreads: the largest drawdown, and the standard deviation over seeds of the best score or the final loss.
    - The best dev score: the test score at the same epoch.

    Args:
        sweep: The sweep.
        arm: The arm that is compared with the baseline.
        metric: The metric of the verdict.
        target: The target, if the metric is a time.

    Returns:
        The measures. Measures without a value, or whose columns were not read, are omitted.
    """
    if sweep.baseline is None:
        return ()
    result: list[SecondaryMeasure | None] = []
    if metric.kind == "speed" and target is not None:
        rates = reach_rate(times_to_target(sweep, target))
        for a in (sweep.baseline, arm):
            result.append(_of_table(rates, a, ("rate", "low", "high"), 100, "runs that reach the target", "per cent"))
        if metric.measure != "seconds_to_target":
            wall = Metric("seconds_to_target", "dev", metric.of)
            result.append(
                _paired(sweep, arm, wall, "percent", "increase", target, "speed in wall seconds to the target")
            )
        result.append(_paired(sweep, arm, Metric("best", "dev", "nll"), "percent", "decrease"))
        result.append(_paired(sweep, arm, Metric("area", "dev", metric.of), *_better(metric.of)))
    elif metric.measure == "spread":
        drawdown = Metric("drawdown", metric.split, metric.of)
        if _is_score(metric.of):
            result.append(_paired(sweep, arm, drawdown, "points", "increase"))
        else:  # The drawdown of a loss may be 0, which has no ratio.
            result += [_mean(sweep, a, drawdown) for a in (sweep.baseline, arm)]
        ends = Metric("best" if _is_score(metric.of) else "final", metric.split, metric.of)
        table = across_seeds(measures.values(sweep, ends))
        factor, unit = (100, "points") if _is_score(metric.of) else (1, metric.of)
        name = f"standard deviation over seeds of {ends.label}"
        result += [_of_table(table, a, ("sd", "low", "high"), factor, name, unit) for a in (sweep.baseline, arm)]
    elif metric.measure == "best" and metric.split == "dev":
        result.append(_paired(sweep, arm, Metric("at_best_dev", "test", metric.of), *_better(metric.of)))
    return tuple(measure for measure in result if measure is not None and not math.isnan(measure.estimate))


def _paired(
    sweep: Sweep,
    arm: Arm,
    metric: Metric,
    unit: str,
    direction: str,
    target: Target | None = None,
    name: str = "",
) -> SecondaryMeasure | None:
    """Return the mean change of a metric over the pairs, or None if the sweep was read without its column."""
    if metric.of not in sweep.frame.columns or sweep.baseline is None:
        return None
    claim = Claim(metric.measure, "", (metric,), 0.0, math.inf, unit, direction)
    values = measures.values(sweep, metric, target)
    new, base = (measures.select_arm(values, a) for a in (arm, sweep.baseline))
    d = paired_t(measures.pair_differences(new, base, claim, metric))
    estimate, low, high = (measures.effect(x, claim, metric) for x in (d.estimate, d.low, d.high))
    comparative = {"drawdown": "smaller", "best": "lower", "area": "higher"}.get(metric.measure, "")
    if metric.measure == "best" and direction == "increase":
        comparative = "higher"
    label = name or f"{metric.label}{', ' + comparative if comparative else ''}"
    return SecondaryMeasure(label, "per cent" if unit == "percent" else unit, estimate, low, high)


def _of_table(
    table: pd.DataFrame, arm: Arm, columns: tuple[str, str, str], factor: float, name: str, unit: str
) -> SecondaryMeasure | None:
    if arm.name not in table.index:
        return None
    estimate, low, high = (factor * float(table[column].to_dict()[arm.name]) for column in columns)
    return SecondaryMeasure(name, unit, estimate, low, high, arm.name, False)


def _mean(sweep: Sweep, arm: Arm, metric: Metric) -> SecondaryMeasure:
    """Return the mean over the seeds of an arm, with its t interval, in the unit of the column."""
    values = measures.values(sweep, metric)
    mean = paired_t(measures.select_arm(values, arm))
    return SecondaryMeasure(metric.label, metric.of, mean.estimate, mean.low, mean.high, arm.name, False)


def _better(column: str) -> tuple[str, str]:
    """Return the unit and direction of an improvement of a column."""
    if _is_score(column):
        return "points", "increase"
    return "percent", "decrease" if column.startswith(LOWER_IS_BETTER) else "increase"


def _is_score(column: str) -> bool:
    return column.startswith(("f1", "accuracy"))
