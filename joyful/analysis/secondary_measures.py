"""Secondary measures: shown beside a verdict, with intervals, and not judged."""

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
    """A measure shown beside a verdict, not judged.

    paired: the mean change of the pairs, positive where the arm is better, with its t interval; unit "per cent" or
    "points". Otherwise a value of one arm (`arm`: its name), in `unit`.
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float
    arm: str = ""
    paired: bool = True


def secondary_measures(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> tuple[SecondaryMeasure, ...]:
    """What stands beside a verdict on this metric, for `arm` and the baseline; measures without a value are left away.

    Times: reach rates (with Wilson's interval), wall seconds, dev NLL, area under the dev curve. Spread: largest
    drawdown, standard deviation over seeds of the best (of a loss: the final) value. Best dev score: the test score
    there.
    """
    if sweep.baseline is None:
        return ()
    shown: list[SecondaryMeasure | None] = []
    if metric.speaks_of == "speed" and target is not None:
        rates = reach_rate(times_to_target(sweep, target))
        for a in (sweep.baseline, arm):
            shown.append(_of_table(rates, a, ("rate", "low", "high"), 100, "runs that reach the target", "per cent"))
        if metric.measure != "seconds_to_target":
            wall = Metric("seconds_to_target", "dev", metric.of)
            shown.append(
                _paired(sweep, arm, wall, "percent", "increase", target, "speed in wall seconds to the target")
            )
        shown.append(_paired(sweep, arm, Metric("best", "dev", "nll"), "percent", "decrease"))
        shown.append(_paired(sweep, arm, Metric("area", "dev", metric.of), *_for_better(metric.of)))
    elif metric.measure == "spread":
        drawdown = Metric("drawdown", metric.split, metric.of)
        if _is_score(metric.of):
            shown.append(_paired(sweep, arm, drawdown, "points", "increase"))
        else:  # a loss that only falls has none: no ratio
            shown += [_mean(sweep, a, drawdown) for a in (sweep.baseline, arm)]
        ends = Metric("best" if _is_score(metric.of) else "final", metric.split, metric.of)
        table = across_seeds(measures.values(sweep, ends))
        factor, unit = (100, "points") if _is_score(metric.of) else (1, metric.of)
        words = f"standard deviation over seeds of {ends.label}"
        shown += [_of_table(table, a, ("sd", "low", "high"), factor, words, unit) for a in (sweep.baseline, arm)]
    elif metric.measure == "best" and metric.split == "dev":
        shown.append(_paired(sweep, arm, Metric("at_best_dev", "test", metric.of), *_for_better(metric.of)))
    return tuple(item for item in shown if item is not None and not math.isnan(item.estimate))


def _paired(
    sweep: Sweep,
    arm: Arm,
    metric: Metric,
    unit: str,
    direction: str,
    target: Target | None = None,
    name: str = "",
) -> SecondaryMeasure | None:
    """The change of a measure between the pairs; None where the sweep was read without its column."""
    if metric.of not in sweep.frame.columns or sweep.baseline is None:
        return None
    claim = Claim(metric.measure, "", (metric,), 0.0, math.inf, unit, direction)
    values = measures.values(sweep, metric, target)
    new, base = (measures.of_arm(values, a) for a in (arm, sweep.baseline))
    d = paired_t(measures.pair_differences(new, base, claim, metric))
    estimate, low, high = (measures.effect(x, claim, metric) for x in (d.estimate, d.low, d.high))
    words = {"drawdown": "smaller", "best": "lower", "area": "higher"}.get(metric.measure, "")
    if metric.measure == "best" and direction == "increase":
        words = "higher"
    shown = name or f"{metric.label}{', ' + words if words else ''}"
    return SecondaryMeasure(shown, "per cent" if unit == "percent" else unit, estimate, low, high)


def _of_table(
    table: pd.DataFrame, arm: Arm, columns: tuple[str, str, str], factor: float, name: str, unit: str
) -> SecondaryMeasure | None:
    if arm.name not in table.index:
        return None
    estimate, low, high = (factor * float(table[column].to_dict()[arm.name]) for column in columns)
    return SecondaryMeasure(name, unit, estimate, low, high, arm.name, False)


def _mean(sweep: Sweep, arm: Arm, metric: Metric) -> SecondaryMeasure:
    """The mean over an arm's seeds, with its t interval, in the unit of the column."""
    values = measures.values(sweep, metric)
    mine = paired_t(measures.of_arm(values, arm))
    return SecondaryMeasure(metric.label, metric.of, mine.estimate, mine.low, mine.high, arm.name, False)


def _for_better(column: str) -> tuple[str, str]:
    """(unit, direction) in which a column is better."""
    if _is_score(column):
        return "points", "increase"
    return "percent", "decrease" if column.startswith(LOWER_IS_BETTER) else "increase"


def _is_score(column: str) -> bool:
    return column.startswith(("f1", "accuracy"))
