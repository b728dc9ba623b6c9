"""The measures of claims: one number per run (arm and seed), and the scale on which the two runs of a pair are compared.

A measure is a function that returns its value for every run, with a label and a kind. To add one, write and register it:

    @MEASURES.register("area", "mean height of the curve")
    @measure("area under {}", VALUE)
    def _area(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
        whole = _curves(sweep, metric, beyond_shared_span=True)
    span = shared_spans(whole, sweep.design) if sweep.cut_to_shared_span else None
    return area(whole, span).mask(_diverged(sweep, metric))

Claims files, messages, labels, verdicts and `joyful report --help` then know it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.arms import Arm
from joyful.analysis.censored_means import paired_interval, paired_p, two_sample_interval, two_sample_p
from joyful.analysis.columns import higher_is_better, is_score
from joyful.analysis.convergence import Target, choose_target, reach_rate, times_to_target
from joyful.analysis.curves import area, at_epoch, best_epoch, curves, final, shared_spans
from joyful.analysis.rules import FIXED, Rule
from joyful.analysis.scales import (
    Scale,
    absolute,
    base_minus_new,
    base_over_new,
    finite,
    gain,
    new_minus_base,
    new_over_base,
    points,
    reduction,
)
from joyful.analysis.stability import across_seeds, drawdowns, spreads, usual_steps
from joyful.analysis.statistics import Estimate, paired_t, welch
from joyful.analysis.sweep import Sweep, cached, shared_span
from joyful.registry import Registry

Array = npt.NDArray[np.float64]
Table = TypeVar("Table", pd.Series, pd.DataFrame)


@dataclass(frozen=True)
class Kind:
    """What a claim says increases or decreases, and the scale for each such claim.

    Attributes:
        name: "speed" (the inverse of a time), "stability" (a small spread) or "value".
        scales: (unit, direction) of a claim -> its scale. Claims with another unit are refused. The unit "points" is a
            hundredth of a fraction, and "absolute" is the unit of the column.
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
    ("absolute", "increase"): absolute(base_minus_new), ("absolute", "decrease"): absolute(new_minus_base),
})  # fmt: skip
VALUE = Kind("value", {
    ("percent", "increase"): gain(new_over_base), ("percent", "decrease"): reduction(base_over_new),
    ("points", "increase"): points(new_minus_base), ("points", "decrease"): points(base_minus_new),
    ("absolute", "increase"): absolute(new_minus_base), ("absolute", "decrease"): absolute(base_minus_new),
})  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A number that is computed for each run: a measure of a column of the histories.

    Attributes:
        measure: One of MEASURES.
        split: "train", "dev" or "test".
        of: Column of the histories, such as "f1_weighted".
        better: "higher" or "lower", or "" for a column whose direction is known.
    """

    measure: str
    split: str
    of: str
    better: str = ""

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
        return self.definition.bounds is not None

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values of the column are better."""
        return higher_is_better(self.of, self.better)

    @property
    def better_direction(self) -> str:
        """Whether an "increase" or a "decrease" of the speed, stability or value is better."""
        return "increase" if self.kind != "value" or self.higher_is_better else "decrease"

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

    @classmethod
    def of_pairs(cls, name: str, unit: str, change: Estimate) -> SecondaryMeasure:
        """Return a change of the pairs, in a unit of claims."""
        unit = "per cent" if unit == "percent" else unit
        return cls(name, unit, change.estimate, change.low, change.high)


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
        bounds: Columns of `times_to_target` that bound a time to a target from below and above, or None for other measures.
        secondary: Function that returns the secondary measures, or None if there are none.
    """

    label: str
    kind: Kind
    of_runs: Values
    splits: tuple[str, ...] = ("train", "dev")
    bounds: tuple[str, str] | None = None
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

    A time to a target is the first evaluation at which the target is reached, or the last evaluation of a run that does not
    reach it. `bounds` tells what is known of it.

    Args:
        sweep: The sweep.
        metric: The metric.
        target: Target on the metric's column. It is needed for times only. Without it all times are NaN.

    Returns:
        The values, indexed by (arm, seed), in the unit of the x axis, seconds or the unit of the column. NaN where it was
        not measured.

    Raises:
        InputError: If the sweep was read without the column.
    """
    return metric.definition.of_runs(sweep, metric, target)


def values_of_pairs(
    sweep: Sweep, arm: Arm, metric: Metric, target: Target | None = None
) -> tuple[pd.Series, pd.Series]:
    """Return the metric of the arm and of the baseline, compared on the span that two curves share.

    Args:
        sweep: The sweep.
        arm: The arm.
        metric: The metric.
        target: See `values`. Times are not cut to a shared span.

    Returns:
        The values of the arm and those of the baseline, indexed by seed.

    Raises:
        InputError: If the sweep was read without the column.
    """
    if not metric.to_target and not equal_grids(sweep, metric.of, metric.split):
        sweep = shared_span(sweep, arm.name)
    found = values(sweep, metric, target)
    return select_arm(found, arm), select_arm(found, sweep.arms[0])


@cached
def magnitude(sweep: Sweep, of: str, split: str) -> tuple[bool, float]:
    """Return whether any run has a value of a column, and the largest finite magnitude, which is NaN without one."""
    values = sweep.frame.loc[sweep.frame["split"] == split, of].abs()
    return bool(values.notna().any()), float(values.replace(np.inf, np.nan).max())


@cached
def equal_grids(sweep: Sweep, of: str, split: str) -> bool:
    """Return whether all curves of a column have their values at the same evaluations."""
    known = curves(sweep, of, split).notna().to_numpy()
    return bool((known == known[:1]).all())


def target_of(sweep: Sweep, metric: Metric, explicit: Target | None = None) -> Target | None:
    """Return the target of a metric: None if it is no time, `explicit` if that is of its column, else the default."""
    if not metric.to_target:
        return None
    if explicit is not None and explicit.metric == metric.of:
        return explicit
    return choose_target(sweep, None, metric.of, metric.better)


def bounds(sweep: Sweep, metric: Metric, target: Target | None) -> pd.DataFrame:
    """Return the interval in which the metric of every comparison run is known to lie.

    Args:
        sweep: The sweep.
        metric: The metric.
        target: Target on the metric's column, for times to a target.

    Returns:
        `low` and `high`, indexed by (arm, seed). Both are the value for measures other than times. For a time they are the
        evaluations between which the target is reached, and infinity if it is not reached.

    Raises:
        InputError: If the sweep was read without the column.
    """
    ends = metric.definition.bounds
    if ends is None:
        exact = values(sweep, metric, target)
        return pd.DataFrame({"low": exact, "high": exact})
    times = _times(sweep, metric, target)
    high = times[ends[1]].where(times["reached"] | times[ends[1]].isna(), np.inf)
    return pd.DataFrame({"low": times[ends[0]], "high": high})


def censored(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    """Return whether each of the `values` is a time that is censored at the last evaluation of its run.

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


def mean_effect(
    sweep: Sweep, arm: Arm, metric: Metric, unit: str, direction: str, target: Target | None = None
) -> Estimate:
    """Return the mean effect of an arm on a metric with its 95 % interval, in a unit and a direction."""
    scale = metric.scale(unit, direction)
    if not metric.to_target:
        new, base = values_of_pairs(sweep, arm, metric, target)
        if sweep.design == "unpaired":
            a, b = (finite(scale.of_arm(values.to_numpy(dtype=float))) for values in (new, base))
            return welch(a, b).map(scale.effect)
        return scale.mean_effect(new, base)
    return time_means(sweep, metric, direction, (target,))[0][arm.name].map(scale.effect)


@cached
def time_differences(sweep: Sweep, metric: Metric, direction: str, target: Target | None) -> dict[str, pd.DataFrame]:
    """Return the intervals in which d of each pair lies, for a time to a target.

    Args:
        sweep: The sweep.
        metric: A time to a target.
        direction: "increase" or "decrease" of the speed.
        target: The target.

    Returns:
        Name of each arm but the baseline -> `low` and `high` of d, indexed by seed (see `Scale.bounds`).
    """
    known, scale = bounds(sweep, metric, target), metric.scale("percent", direction)
    base = select_arm(known, sweep.arms[0])
    return {arm.name: scale.bounds(select_arm(known, arm), base) for arm in sweep.others}


@cached
def time_means(
    sweep: Sweep, metric: Metric, direction: str, targets: tuple[Target | None, ...], rule: Rule = FIXED
) -> tuple[dict[str, Estimate], ...]:
    """Return the mean of d with its interval for each target and each arm but the baseline (see `censored_means`)."""
    interval = paired_interval if sweep.design == "paired" else two_sample_interval
    ends = [_of_arms_in_rows(sweep, metric, direction, target) for target in targets]
    new, base = (
        (np.concatenate([of[side][0] for of in ends]), np.concatenate([of[side][1] for of in ends])) for side in (0, 1)
    )
    means = [Estimate(*map(float, mean)) for mean in zip(*interval(new, base, rule), strict=True)]
    names, count = [arm.name for arm in sweep.others], len(sweep.others)
    return tuple(dict(zip(names, means[k * count : (k + 1) * count], strict=True)) for k in range(len(targets)))


@cached
def time_p(
    sweep: Sweep, metric: Metric, direction: str, target: Target | None, centre: float, rule: Rule = FIXED
) -> dict[str, float]:
    """Return the p-value of the test that the mean of d is `centre`, for each arm but the baseline."""
    test = paired_p if sweep.design == "paired" else two_sample_p
    p = test(*_of_arms_in_rows(sweep, metric, direction, target), centre, rule)
    return {arm.name: float(value) for arm, value in zip(sweep.others, p, strict=True)}


def _of_arms_in_rows(
    sweep: Sweep, metric: Metric, direction: str, target: Target | None
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the ends of the times of all arms on the axis of d, and those of the baseline, of shape (arms, seeds).

    One call for many rows is fast.
    """
    known, scale = bounds(sweep, metric, target), metric.scale("percent", direction)
    seeds = sorted(set(known.index.get_level_values("seed")))
    samples = {arm.name: scale.of_arm_bounds(select_arm(known, arm)).reindex(seeds) for arm in sweep.arms}
    base = samples[sweep.arms[0].name]

    def rows(name: str) -> tuple[Array, Array]:
        new = np.array([samples[arm.name][name] for arm in sweep.others], dtype=float).reshape(
            len(sweep.others), len(seeds)
        )
        return new, np.broadcast_to(base[name].to_numpy(dtype=float), new.shape)

    (new_low, base_low), (new_high, base_high) = rows("low"), rows("high")
    return (new_low, new_high), (base_low, base_high)


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


def select_arm(values: Table, arm: Arm) -> Table:
    """Return the values of one arm, indexed by seed. The index of `values` is (arm, seed)."""
    return values[values.index.get_level_values("arm") == arm.name].droplevel("arm")


# The registered measures. Each is preceded by its secondary measures, if it has any.


def _curves(
    sweep: Sweep, metric: Metric, *, whole_epochs: bool = False, beyond_shared_span: bool = False
) -> pd.DataFrame:
    """Return the curves, with NaN in place of infinite values."""
    whole_epochs = whole_epochs or metric.split == "train"
    found = curves(
        sweep, metric.of, metric.split, whole_epochs=whole_epochs, beyond_shared_span=beyond_shared_span
    )  # fmt: skip
    return found.where(np.isfinite(found))


def _diverged(sweep: Sweep, metric: Metric) -> pd.Series:
    """Return whether each curve has an infinite value, after which its end, area and falls mean nothing."""
    return pd.Series(np.isinf(curves(sweep, metric.of, metric.split)).any(axis=1))


def _times(sweep: Sweep, metric: Metric, target: Target | None) -> pd.DataFrame:
    if target is None:
        index = curves(sweep, metric.of).index
        columns = ("after", "by", "epochs", "seconds", "seconds_after")
        return pd.DataFrame({"reached": False, **dict.fromkeys(columns, np.nan)}, index=index)
    return times_to_target(sweep, target)


def _arms(sweep: Sweep, arm: Arm) -> tuple[Arm, ...]:
    return (sweep.arms[0], arm)


def _change(
    sweep: Sweep, arm: Arm, metric: Metric, unit: str, direction: str, name: str, target: Target | None = None
) -> list[SecondaryMeasure]:
    """Return the mean change of a metric over the pairs, or nothing if the sweep was read without its column."""
    if metric.of not in sweep.frame.columns:
        return []
    return [SecondaryMeasure.of_pairs(name, unit, mean_effect(sweep, arm, metric, unit, direction, target))]


def _improvement(sweep: Sweep, arm: Arm, metric: Metric, higher: str = "", lower: str = "") -> list[SecondaryMeasure]:
    """Return the mean change of a value for the better: in points for scores, else in per cent.

    `higher` and `lower` are added to the name, depending on the direction that is better.
    """
    unit, up = "points" if is_score(metric.of) else "percent", metric.better_direction == "increase"
    return _change(sweep, arm, metric, unit, metric.better_direction, metric.label + (higher if up else lower))


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
    wall, name = Metric("seconds_to_target", "dev", metric.of, metric.better), "speed in wall seconds to the target"
    return [
        *_of_arms(sweep, arm, rates, "rate", "runs that reach the target", "per cent"),
        *(_change(sweep, arm, wall, "percent", "increase", name, target) if metric != wall else []),
        *_improvement(sweep, arm, Metric("best", "dev", "nll"), lower=", lower"),
        *_improvement(sweep, arm, Metric("area", "dev", metric.of, metric.better), ", higher", ", lower"),
    ]


@MEASURES.register("time_to_target", "epochs until the target of `of` (dev)")
@measure("epochs to the target of {}", SPEED, ("dev",), bounds=("after", "by"), secondary=_speed_secondary)
def _time_to_target(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return _times(sweep, metric, target)["epochs"]


@MEASURES.register("seconds_to_target", "the same in wall seconds")
@measure(
    "wall seconds to the target of {}", SPEED, ("dev",), bounds=("seconds_after", "seconds"), secondary=_speed_secondary
)
def _seconds_to_target(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return _times(sweep, metric, target)["seconds"]


def _spread_secondary(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> list[SecondaryMeasure]:
    """Return the largest drawdown, and the standard deviation over seeds of the best score or the final loss."""
    drawdown, score = Metric("drawdown", metric.split, metric.of, metric.better), is_score(metric.of)
    if score:
        falls = _change(sweep, arm, drawdown, "points", "increase", f"{drawdown.label}, smaller")
    else:  # The drawdown of a loss may be 0, which has no ratio.
        means = {a.name: vars(paired_t(select_arm(values(sweep, drawdown), a))) for a in _arms(sweep, arm)}
        table = pd.DataFrame.from_dict(means, orient="index")
        falls = _of_arms(sweep, arm, table, "estimate", drawdown.label, metric.of)
    ends = Metric("best" if score else "final", metric.split, metric.of, metric.better)
    name, table = f"standard deviation over seeds of {ends.label}", across_seeds(values(sweep, ends))
    return [*falls, *_of_arms(sweep, arm, table, "sd", name, "points" if score else metric.of)]


@MEASURES.register("spread", "standard deviation of the epoch-to-epoch changes around their trend")
@measure("epoch-to-epoch spread of {}", STABILITY, secondary=_spread_secondary)
def _spread(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    found = _curves(sweep, metric, whole_epochs=True)
    result = spreads(found).mask(_diverged(sweep, metric))
    if sweep.cut_to_shared_span:  # Changes over steps of different widths are not compared
        widths = usual_steps(found)
        groups = widths.groupby(level="seed") if sweep.design == "paired" else widths.groupby(np.zeros(len(widths)))
        result = result.mask(groups.transform("max") > groups.transform("min") * (1 + 1e-6))
    return result


@MEASURES.register("drawdown", "largest drawdown")
@measure("largest drawdown of {}", STABILITY)
def _drawdown(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    falls = drawdowns(_curves(sweep, metric), higher_is_better=metric.higher_is_better)
    return falls.mask(_diverged(sweep, metric))


@MEASURES.register("final", "value at the end")
@measure("final {}", VALUE)
def _final(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    return final(_curves(sweep, metric)).mask(_diverged(sweep, metric))


def _best_secondary(sweep: Sweep, arm: Arm, metric: Metric, target: Target | None) -> list[SecondaryMeasure]:
    """Return the test score at the epoch of the best dev score."""
    return (
        _improvement(sweep, arm, Metric("at_best_dev", "test", metric.of, metric.better))
        if metric.split == "dev"
        else []
    )


@MEASURES.register("best", "best value over the evaluations")
@measure("best {}", VALUE, secondary=_best_secondary)
def _best(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    matrix = _curves(sweep, metric)
    return matrix.max(axis=1) if metric.higher_is_better else matrix.min(axis=1)


@MEASURES.register("at_best_dev", "value at the best dev epoch (the only one allowed on the test split)")
@measure("{} at the best dev epoch", VALUE, ("train", "dev", "test"))
def _at_best_dev(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    dev = _curves(sweep, Metric("best", "dev", metric.of, metric.better))
    return at_epoch(_curves(sweep, metric), best_epoch(dev, higher_is_better=metric.higher_is_better))


@MEASURES.register("area", "mean height of the curve")
@measure("area under {}", VALUE)
def _area(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
    whole = _curves(sweep, metric, beyond_shared_span=True)
    span = shared_spans(whole, sweep.design) if sweep.cut_to_shared_span else None
    return area(whole, span).mask(_diverged(sweep, metric))
