"""The measures of claims: one number per run (arm and seed), and the scale on which the two runs of a pair are compared.

A measure is a function that returns its value for every run, with a label and a kind. To add one, write and register it:

    @MEASURES.register("area", "mean height of the curve")
    @measure("area under {}", VALUE)
    def _area(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
        return area(_curves(sweep, metric))

Claims files, messages, labels, verdicts and `joyful report --help` then know it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.arms import Arm
from joyful.analysis.columns import higher_is_better, is_score
from joyful.analysis.convergence import Target, reach_rate, times_to_target
from joyful.analysis.curves import area, at_epoch, best_epoch, curves, final
from joyful.analysis.stability import across_seeds, drawdowns, spreads
from joyful.analysis.statistics import Estimate, paired_t
from joyful.analysis.sweep import Sweep, cached
from joyful.registry import Registry

# Scales: from the values of a pair to a difference d, and from d to an effect.

Array = npt.NDArray[np.float64]
Pair = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Scale:
    """How the two values of a pair become a difference d, and how d becomes an effect in the unit of a claim.

    d is averaged over pairs. It is positive if the pair changes in the claimed direction, and the effect increases with
    d, so the limits of an interval of d can be converted one by one.

    Attributes:
        pair: Function from the values of the arm and of the baseline to d.
        effect: Function from d, or a mean of d, to the effect in the unit of the claim.
        difference: The inverse of `effect`.
        limit: Exclusive upper limit of an effect.
    """

    pair: Pair
    effect: Callable[[float], float]
    difference: Callable[[float], float]
    limit: float = math.inf

    def differences(self, new: pd.Series, base: pd.Series) -> pd.Series:
        """Return d of each pair.

        Args:
            new: Values of the arm, indexed by seed.
            base: Values of the baseline, indexed by seed.

        Returns:
            The differences, indexed by the seeds in both series in ascending order. NaN if a value is missing or, for
            a ratio, not positive.

        Example:
            >>> speed = Metric("time_to_target", "dev", "f1_weighted").scale("percent", "increase")
            >>> epochs, baseline_epochs = pd.Series({1: 4.0, 2: 5.0}), pd.Series({1: 5.0, 2: 6.0})
            >>> [round(speed.effect(d), 2) for d in speed.differences(epochs, baseline_epochs)]
            [25.0, 20.0]
        """
        seeds = sorted(set(new.index) & set(base.index))
        a, b = (values.reindex(seeds).to_numpy(dtype=float) for values in (new, base))
        return pd.Series(self.pair(a, b), index=seeds, dtype=float)

    def mean_effect(self, new: pd.Series, base: pd.Series) -> Estimate:
        """Return the effect of the mean of d over the pairs with its 95 % t interval. See `differences`."""
        return paired_t(self.differences(new, base)).map(self.effect)


def new_over_base(new: Array, base: Array) -> Array:
    """Return d = ln(new / base). NaN where a value is missing or not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.log(new / base)
    ratio[~((new > 0) & (base > 0))] = np.nan
    return ratio


def base_over_new(new: Array, base: Array) -> Array:
    """Return d = ln(base / new). NaN where a value is missing or not positive."""
    return -new_over_base(new, base)


def new_minus_base(new: Array, base: Array) -> Array:
    """Return d = 100 (new - base), in hundredths."""
    return 100 * (new - base)


def base_minus_new(new: Array, base: Array) -> Array:
    """Return d = 100 (base - new), in hundredths."""
    return -new_minus_base(new, base)


def gain(pair: Pair) -> Scale:
    """Return the scale of a quantity that grows: its gain is 100 (exp(d) - 1) per cent."""
    return Scale(pair, lambda d: 100 * math.expm1(min(d, 700.0)), lambda effect: math.log1p(effect / 100))


def reduction(pair: Pair) -> Scale:
    """Return the scale of a quantity that shrinks: its reduction is 100 (1 - exp(-d)) per cent, which is below 100."""
    return Scale(pair, lambda d: -100 * math.expm1(min(-d, 700.0)), lambda effect: -math.log1p(-effect / 100), 100.0)


def points(pair: Pair) -> Scale:
    """Return the scale of a difference in points: the effect is d."""
    return Scale(pair, float, float)


# Measures


@dataclass(frozen=True)
class Kind:
    """What a claim says increases or decreases, and the scale for each such claim.

    Attributes:
        name: "speed" (the inverse of a time), "stability" (a small spread) or "value".
        scales: (unit, direction) of a claim -> its scale. Claims with another unit are refused.
    """

    name: str
    scales: Mapping[tuple[str, str], Scale]

    @property
    def units(self) -> tuple[str, ...]:
        """The units of claims."""
        return tuple(dict.fromkeys(unit for unit, _ in self.scales))


SPEED = Kind("speed", {
    ("percent", "increase"): gain(base_over_new), ("percent", "decrease"): reduction(new_over_base),
})  # fmt: skip
STABILITY = Kind("stability", {
    ("percent", "increase"): reduction(base_over_new), ("percent", "decrease"): gain(new_over_base),
    ("points", "increase"): points(base_minus_new), ("points", "decrease"): points(new_minus_base),
})  # fmt: skip
VALUE = Kind("value", {
    ("percent", "increase"): gain(new_over_base), ("percent", "decrease"): reduction(base_over_new),
    ("points", "increase"): points(new_minus_base), ("points", "decrease"): points(base_minus_new),
})  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A number that is computed for each run: a measure of a column of the histories.

    Attributes:
        measure: One of MEASURES.
        split: "train", "dev" or "test".
        of: Column of the histories, such as "f1_weighted".
    """

    measure: str
    split: str
    of: str

    @property
    def definition(self) -> Measure:
        """The measure."""
        return MEASURES[self.measure]

    @property
    def label(self) -> str:
        """The label, such as "epochs to the target of dev f1_weighted"."""
        return self.definition.label.format(f"{self.split} {self.of}")

    @property
    def kind(self) -> str:
        """What increases or decreases: "speed", "stability" or "value" (see `Kind`)."""
        return self.definition.kind.name

    @property
    def to_target(self) -> bool:
        """Whether the number is a time to a target."""
        return self.definition.to_target

    def scale(self, unit: str, direction: str) -> Scale:
        """Return the scale for a claim of this unit and direction."""
        return self.definition.kind.scales[unit, direction]


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
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float
    arm: str = ""


#: Function from a sweep, a metric and the target (for times) to the value of every comparison run, by (arm, seed).
Values = Callable[[Sweep, Metric, Target | None], pd.Series]

#: Function from a sweep, an arm, the metric of a verdict and its target to the secondary measures of the verdict.
Secondary = Callable[[Sweep, Arm, Metric, Target | None], list[SecondaryMeasure]]


@dataclass(frozen=True)
class Measure:
    """A kind of number that claims are about, such as the final value of a curve.

    Attributes:
        label: Label of its metrics. {} stands for the split and the column.
        kind: What claims say about it, and on which scale.
        of_runs: Function that returns the value of every run. NaN where it was not measured.
        splits: Splits that it accepts.
        to_target: Whether it is a time to a target, which is min(T, budget) and may be censored.
        secondary: Function that returns the secondary measures, or None if there are none.
    """

    label: str
    kind: Kind
    of_runs: Values
    splits: tuple[str, ...] = ("train", "dev")
    to_target: bool = False
    secondary: Secondary | None = None


#: The measures that a claims file can name.
MEASURES = Registry[Measure]("measure")


def measure(
    label: str, kind: Kind, splits: tuple[str, ...] = ("train", "dev"), **more: Any
) -> Callable[[Values], Measure]:
    """Return a decorator that makes a measure of a function. The arguments are attributes of `Measure`."""
    return lambda of_runs: Measure(label, kind, of_runs, splits, **more)


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
    return metric.definition.of_runs(sweep, metric, target)


def censored(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    """Return whether each of the `values` is a time that is censored at the budget.

    Args:
        sweep: The sweep.
        metric: The metric.
        target: Target on the metric's column. Without it all times are censored.

    Returns:
        Booleans, indexed by (arm, seed). They are all False if the metric is not a time to a target.

    Raises:
        InputError: If the sweep was read without the column.
    """
    if metric.to_target:
        return ~_times(sweep, metric, target)["reached"]
    return pd.Series(False, index=curves(sweep, metric.of, metric.split).index)


def secondary_measures(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> tuple[SecondaryMeasure, ...]:
    """Return the secondary measures for a verdict on a metric.

    Args:
        sweep: The sweep.
        arm: The arm that is compared with the baseline.
        metric: The metric of the verdict.
        target: The target, if the metric is a time.

    Returns:
        The measures. Measures without a value, or whose columns were not read, are omitted.
    """
    secondary = metric.definition.secondary
    found = secondary(sweep, arm, metric, target) if secondary is not None and sweep.baseline is not None else []
    return tuple(measure for measure in found if not math.isnan(measure.estimate))


def select_arm(values: pd.Series, arm: Arm) -> pd.Series:
    """Return the values of one arm, indexed by seed. The index of `values` is (arm, seed)."""
    return values[values.index.get_level_values("arm") == arm.name].droplevel("arm")


# The registered measures. Each is preceded by its secondary measures, if it has any.


def _curves(sweep: Sweep, metric: Metric, *, whole_epochs: bool = False) -> pd.DataFrame:
    return curves(sweep, metric.of, metric.split, whole_epochs=whole_epochs or metric.split == "train")


def _times(sweep: Sweep, metric: Metric, target: Target | None) -> pd.DataFrame:
    if target is None:
        index = curves(sweep, metric.of).index
        return pd.DataFrame({"epochs": np.nan, "after": np.nan, "reached": False, "seconds": np.nan}, index=index)
    return times_to_target(sweep, target)


def _arms(sweep: Sweep, arm: Arm) -> tuple[Arm, ...]:
    return (sweep.arms[0], arm)


def _change(
    sweep: Sweep, arm: Arm, metric: Metric, unit: str, direction: str, name: str, target: Target | None = None
) -> list[SecondaryMeasure]:
    """Return the mean change of a metric over the pairs, or nothing if the sweep was read without its column."""
    if metric.of not in sweep.frame.columns:
        return []
    base, new = (select_arm(values(sweep, metric, target), a) for a in _arms(sweep, arm))
    change = metric.scale(unit, direction).mean_effect(new, base)
    unit = "per cent" if unit == "percent" else unit
    return [SecondaryMeasure(name, unit, change.estimate, change.low, change.high)]


def _improvement(sweep: Sweep, arm: Arm, metric: Metric, higher: str = "", lower: str = "") -> list[SecondaryMeasure]:
    """Return the mean change of a value for the better: in points for scores, else in per cent.

    `higher` and `lower` are added to the name, depending on the direction that is better.
    """
    up = higher_is_better(metric.of)
    unit, direction = "points" if is_score(metric.of) else "percent", "increase" if up else "decrease"
    return _change(sweep, arm, metric, unit, direction, metric.label + (higher if up else lower))


def _of_arms(sweep: Sweep, arm: Arm, table: pd.DataFrame, column: str, name: str, unit: str) -> list[SecondaryMeasure]:
    """Return a column, `low` and `high` of the baseline and of the arm from a table indexed by arm."""
    rows = table[[column, "low", "high"]].astype(float) * (100 if unit in ("per cent", "points") else 1)
    shown = [a.name for a in _arms(sweep, arm) if a.name in rows.index]
    return [
        SecondaryMeasure(name, unit, estimate, low, high, of)
        for of, (estimate, low, high) in zip(shown, rows.loc[shown].to_numpy().tolist(), strict=True)
    ]


def _speed_secondary(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> list[SecondaryMeasure]:
    """Return the shares of runs that reach the target, wall seconds, the dev NLL and the area under the dev curve."""
    if target is None:
        return []
    rates = reach_rate(times_to_target(sweep, target))
    wall, name = Metric("seconds_to_target", "dev", metric.of), "speed in wall seconds to the target"
    return [
        *_of_arms(sweep, arm, rates, "rate", "runs that reach the target", "per cent"),
        *(_change(sweep, arm, wall, "percent", "increase", name, target) if metric != wall else []),
        *_improvement(sweep, arm, Metric("best", "dev", "nll"), lower=", lower"),
        *_improvement(sweep, arm, Metric("area", "dev", metric.of), ", higher", ", lower"),
    ]


@MEASURES.register("time_to_target", "epochs until the target of `of` (dev)")
@measure("epochs to the target of {}", SPEED, ("dev",), to_target=True, secondary=_speed_secondary)
def _time_to_target(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return _times(sweep, metric, target)["epochs"]


@MEASURES.register("seconds_to_target", "the same in wall seconds")
@measure("wall seconds to the target of {}", SPEED, ("dev",), to_target=True, secondary=_speed_secondary)
def _seconds_to_target(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return _times(sweep, metric, target)["seconds"]


def _spread_secondary(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> list[SecondaryMeasure]:
    """Return the largest drawdown, and the standard deviation over seeds of the best score or the final loss."""
    drawdown, score = Metric("drawdown", metric.split, metric.of), is_score(metric.of)
    if score:
        falls = _change(sweep, arm, drawdown, "points", "increase", f"{drawdown.label}, smaller")
    else:  # The drawdown of a loss may be 0, which has no ratio.
        means = {a.name: vars(paired_t(select_arm(values(sweep, drawdown), a))) for a in _arms(sweep, arm)}
        table = pd.DataFrame.from_dict(means, orient="index")
        falls = _of_arms(sweep, arm, table, "estimate", drawdown.label, metric.of)
    ends = Metric("best" if score else "final", metric.split, metric.of)
    name, table = f"standard deviation over seeds of {ends.label}", across_seeds(values(sweep, ends))
    return [*falls, *_of_arms(sweep, arm, table, "sd", name, "points" if score else metric.of)]


@MEASURES.register("spread", "standard deviation of the epoch-to-epoch changes around their trend")
@measure("epoch-to-epoch spread of {}", STABILITY, secondary=_spread_secondary)
def _spread(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return spreads(_curves(sweep, metric, whole_epochs=True))


@MEASURES.register("drawdown", "largest drawdown")
@measure("largest drawdown of {}", STABILITY)
def _drawdown(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return drawdowns(_curves(sweep, metric), higher_is_better=higher_is_better(metric.of))


@MEASURES.register("final", "value at the end")
@measure("final {}", VALUE)
def _final(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return final(_curves(sweep, metric))


def _best_secondary(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> list[SecondaryMeasure]:
    """Return the test score at the epoch of the best dev score."""
    return _improvement(sweep, arm, Metric("at_best_dev", "test", metric.of)) if metric.split == "dev" else []


@MEASURES.register("best", "best value over the evaluations")
@measure("best {}", VALUE, secondary=_best_secondary)
def _best(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    matrix = _curves(sweep, metric)
    return matrix.max(axis=1) if higher_is_better(metric.of) else matrix.min(axis=1)


@MEASURES.register("at_best_dev", "value at the best dev epoch (the only one allowed on the test split)")
@measure("{} at the best dev epoch", VALUE, ("train", "dev", "test"))
def _at_best_dev(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    best = best_epoch(curves(sweep, metric.of), higher_is_better=higher_is_better(metric.of))
    return at_epoch(_curves(sweep, metric), best)


@MEASURES.register("area", "mean height of the curve")
@measure("area under {}", VALUE)
def _area(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return area(_curves(sweep, metric))
