"""Convergence speed: epochs and wall-clock seconds until the best dev value so far reaches a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joyful.analysis.axis import wall_seconds
from joyful.analysis.columns import SHORT, higher_is_better, is_score
from joyful.analysis.curves import at_epoch, curves, matrix
from joyful.analysis.stability import spread_of_rows
from joyful.analysis.statistics import proportion
from joyful.analysis.sweep import Sweep, cached
from joyful.results import InputError

#: The default target lies at this share of the way from the start of training to its end.
TARGET_SHARE = 0.95

#: Shares of the way at which a report shows the gain too.
LADDER = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)

#: Number of last dev values whose mean is the end of a run.
LAST_VALUES = 3


@dataclass(frozen=True)
class Target:
    """A dev value that runs are to reach.

    Attributes:
        metric: Column of the histories, such as "f1_weighted".
        value: The value, in the unit of the column. Scores are fractions from 0 to 1.
        source: Where the value comes from, as a phrase for the report.
        better: "higher" or "lower", or "" for a column whose direction is known.
        problem: Why times to this target say nothing, or "".
    """

    metric: str
    value: float
    source: str
    better: str = ""
    problem: str = ""

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values of the metric are better."""
        return higher_is_better(self.metric, self.better)


@dataclass(frozen=True)
class Way:
    """The way that a metric goes in training, from its start s to its end f: the medians over some runs.

    Attributes:
        metric: Column of the histories.
        start: s, in the unit of the column.
        end: f, the mean of the last LAST_VALUES dev values of a run.
        noise: Spread of these values around their trend (see `stability.spread_of_rows`).
        runs: Number of runs.
        source: The runs, as a phrase for the report.
        better: As in `Target`.
    """

    metric: str
    start: float
    end: float
    noise: float
    runs: int
    source: str
    better: str = ""

    def target(self, share: float = TARGET_SHARE) -> Target:
        """Return the target s + share · (f - s)."""
        value = self.start + share * (self.end - self.start)
        between = f"from {self.start:.4f} to {self.end:.4f} of dev {self.metric}, the medians of {self.source}"
        source, problem = f"{100 * share:g} % of the way {between}", ""
        if (self.end > self.start) != higher_is_better(self.metric, self.better) or self.end == self.start:
            problem = f"dev {self.metric} does not improve in {self.source} ({self.start:.4g} to {self.end:.4g})"
        elif abs(self.end - value) < self.noise:
            problem = (
                f"the target {value:.4g} lies within the noise of the last values of {self.source} ({self.end:.4g} with a "
                f"spread of {self.noise:.2g}); set an easier target with --target, or train longer"
            )
        return Target(self.metric, value, source, self.better, problem)


def parse_target(text: str, better: Mapping[str, str] | None = None) -> Target:
    """Parse a target such as `dev_f1=0.62`.

    Args:
        text: `dev_COLUMN=VALUE`. VALUE is a number or a percentage such as `62%`. The name `dev_f1` is short for
            `dev_f1_weighted`.
        better: Column -> "higher" or "lower", for columns whose direction is not known.

    Returns:
        The target.

    Raises:
        InputError: If the text does not have this form, the value is not a finite number, a score does not lie strictly
            between 0 and 1, or the direction of the column is not known.

    Example:
        >>> target = parse_target("dev_f1=62%")
        >>> target.metric, target.value
        ('f1_weighted', 0.62)
    """
    name, equals, value = text.replace(" ", "").partition("=")
    metric = name.removeprefix("dev_")
    metric = SHORT.get(metric, metric)
    if not equals or not name.startswith("dev_") or not metric:
        hint = "; a target refers to the dev split" if name.startswith("test_") else ""
        raise InputError(f"target: expected dev_f1=0.62 or another dev_COLUMN=VALUE, got {text!r}{hint}")
    try:
        number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (is_score(metric) and not 0 < number < 1):
        expected = "a fraction such as 0.62" if is_score(metric) else "a number"
        raise InputError(f"target: {name}: expected {expected}, got {value!r}")
    direction = (better or {}).get(metric, "")
    higher_is_better(metric, direction)
    return Target(metric, number, f"given: {name}={number:g}", direction)


@cached
def way(sweep: Sweep, metric: str = "f1_weighted", better: str = "") -> Way | None:
    """Return the way that a metric goes in the calibration runs of the baseline.

    The start s is the dev value before training, at step 0, if it was recorded. Otherwise it is 0 for scores, and the
    first dev value for other columns. If there are no calibration runs, the comparison runs of the baseline are used, and
    `Way.source` states this.

    Args:
        sweep: The sweep.
        metric: Column of the histories.
        better: "higher" or "lower", or "" for a column whose direction is known.

    Returns:
        The way. None if the baseline has no run with a value of `metric`.

    Raises:
        InputError: If the sweep was read without the column.
    """
    if sweep.baseline is None:
        return None
    for role in ("calibration", "comparison"):
        matrix = curves(sweep, metric, role=role)
        rows = matrix[matrix.index.get_level_values("arm") == sweep.baseline.name].to_numpy(dtype=float)
        known = [row[np.isfinite(row)] for row in rows]
        known = [row for row in known if len(row)]
        if not known:
            continue
        at_zero = matrix.columns.to_numpy(dtype=float) == 0
        before = rows[:, at_zero][np.isfinite(rows[:, at_zero])]
        starts = before if len(before) else np.zeros(1) if is_score(metric) else np.array([row[0] for row in known])
        ends = [row[-LAST_VALUES:] for row in known]
        noise = spread_of_rows([end for end in ends if len(end) == LAST_VALUES] or np.empty((0, LAST_VALUES)))
        source = f"{len(known)} calibration runs"
        if role == "comparison":  # There are no others, so the target comes from the compared runs
            source = f"the baseline's {len(known)} comparison runs, because there are no calibration runs"
        return Way(
            metric, float(np.median(starts)), float(np.median([end.mean() for end in ends])),
            float(np.median(noise)) if len(noise) else 0.0, len(known), source, better,
        )  # fmt: skip
    return None


def choose_target(
    sweep: Sweep, target: str | Target | None = None, metric: str = "f1_weighted", better: str = ""
) -> Target | None:
    """Return the target that is passed, or the default target of the sweep.

    The default lies at TARGET_SHARE of the way that `metric` goes in the calibration runs (see `way`).

    Args:
        sweep: The sweep.
        target: A target, text as in `parse_target`, or None for the default.
        metric: Column of the default target.
        better: "higher" or "lower", or "" for a column whose direction is known.

    Returns:
        The target. None if the baseline has no run with a value of `metric`.

    Raises:
        InputError: If `target` cannot be parsed, or the sweep was read without the column.
    """
    if isinstance(target, str):
        return parse_target(target)
    if target is not None:
        return target
    course = way(sweep, metric, better)
    return None if course is None else course.target()


def first_reached(curves: pd.DataFrame, value: float, *, higher_is_better: bool = True) -> pd.Series:
    """Return the epoch at which each curve first reaches a value.

    Args:
        curves: Curves, one per row. The columns are epochs.
        value: The value to be reached, in the unit of the curves.
        higher_is_better: Whether a curve reaches the value from below.

    Returns:
        The epochs, with the index of `curves`. Infinity if a curve never reaches the value.
    """
    is_reached = curves >= value if higher_is_better else curves <= value
    if not is_reached.shape[1]:
        return pd.Series(np.inf, index=curves.index)
    return is_reached.idxmax(axis=1).astype(float).where(is_reached.any(axis=1), np.inf)


def last_evaluation_before(curves: pd.DataFrame, epochs: pd.Series) -> pd.Series:
    """Return the epoch of the last evaluation with a value before an epoch of each curve, or 0 if there is none.

    Args:
        curves: Curves, one per row. The columns are epochs.
        epochs: An epoch of each curve, indexed like `curves`. Infinity gives the last evaluation.

    Returns:
        The epochs, with the index of `curves`.
    """
    columns = curves.columns.to_numpy(dtype=float)
    earlier = curves.notna().to_numpy(dtype=bool) & (columns < epochs.to_numpy(dtype=float)[:, None])
    return pd.Series(np.where(earlier, columns, 0.0).max(axis=1, initial=0.0), index=curves.index)


@cached
def times_to_target(sweep: Sweep, target: Target) -> pd.DataFrame:
    """Return what is known of the time at which each comparison run reaches the target.

    The time T is read at the evaluations, so it lies in an interval (a, b]: b is the first evaluation at which the best
    dev value so far is at least as good as the target, and a is the evaluation before.

    Args:
        sweep: The sweep.
        target: The target.

    Returns:
        A table indexed by (arm, seed) with the columns

        - `reached`: Whether the target is reached. If not, T is censored at the last evaluation of the run.
        - `after`: a, or 0 if the target is reached at the first evaluation. The last evaluation of a run that does not
          reach it.
        - `by`: b, or infinity if the target is not reached. If a run has reached the target before training, b is the
          first evaluation after that.
        - `epochs`: b, or the last evaluation of a run that does not reach the target.
        - `seconds`, `seconds_after`: Wall-clock seconds until `epochs` and until `after`. They include training,
          evaluation and writing and are summed over folds. NaN where they were not recorded.

        All are NaN for a run without any dev value. Times are in the unit of the x axis of the sweep.

    Raises:
        InputError: If the sweep was read without the column of the target.
    """
    result = read_times(curves(sweep, target.metric), target.value, higher_is_better=target.higher_is_better)
    seconds = {
        name: _wall_seconds(sweep, result[of]) for name, of in (("seconds", "epochs"), ("seconds_after", "after"))
    }
    return result.assign(**seconds)


def read_times(dev: pd.DataFrame, value: float, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Return what is known of the time at which each curve reaches a value.

    Args:
        dev: Curves, one per row. The columns are positions on the x axis.
        value: The value to be reached, in the unit of the curves.
        higher_is_better: Whether a curve reaches the value from below.

    Returns:
        The columns `reached`, `after`, `by` and `epochs` of `times_to_target`, with the index of `dev`.

    Example:
        >>> read_times(pd.DataFrame([[0.2, 0.6, 0.7], [0.2, 0.3, 0.4]], columns=[1.0, 2.0, 3.0]), 0.5)
           reached  after   by  epochs
        0     True    1.0  2.0     2.0
        1    False    3.0  inf     3.0
    """
    dev = dev.where(np.isfinite(dev))
    reached_at = first_reached(dev, value, higher_is_better=higher_is_better)
    unmeasured, reached = dev.isna().all(axis=1), np.isfinite(reached_at)
    after = last_evaluation_before(dev, reached_at)
    later = dev.iloc[:, np.flatnonzero(dev.columns.to_numpy(dtype=float) > 0)]  # without an evaluation before training
    by = reached_at.where(reached_at > 0, first_reached(later, -math.inf))
    times = {"after": after, "by": by, "epochs": by.where(reached, after)}
    return pd.DataFrame({"reached": reached} | {name: x.mask(unmeasured) for name, x in times.items()})


def reach_rate(times: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the runs of each arm that reach the target, with Wilson's 95 % interval.

    Args:
        times: A table as returned by `times_to_target`. Rows whose `epochs` are NaN are ignored.

    Returns:
        A table indexed by arm: `n` (runs), `reached` (runs), and `rate`, `low` and `high` from 0 to 1.
    """
    arms = {}
    for arm, group in times.dropna(subset="epochs").groupby(level="arm", sort=False):
        hits = int(group["reached"].sum())
        arms[arm] = {"n": len(group), "reached": hits, **vars(proportion(hits, len(group)))}
    columns = ["n", "reached", "estimate", "low", "high"]
    table = pd.DataFrame(list(arms.values()), pd.Index(list(arms), dtype=object, name="arm"), columns)
    return (table if arms else table.astype(float)).rename(columns={"estimate": "rate"})


def kaplan_meier(times: pd.DataFrame) -> pd.DataFrame:
    """Return the share of runs that have reached the target by each epoch (1 - the Kaplan-Meier estimate).

    The result is a step function: a row holds until the next row of its arm.

    Args:
        times: A table as returned by `times_to_target`. Rows whose `epochs` are NaN are ignored.

    Returns:
        A tidy table with the columns

        - `arm` and `x`.
        - `reached`, `low`, `high`: The share, from 0 to 1, with its 95 % log(-log) Greenwood interval. The limits are
          NaN while no run has reached the target.
        - `at_risk`: Runs that had neither reached the target nor been censored just before the epoch.
        - `censored`: Runs that are censored at the epoch.

    Source:
        Kaplan and Meier (1958), JASA 53(282). Computed by lifelines.
    """
    from lifelines import KaplanMeierFitter  # imported here because it takes about two seconds

    columns = ["arm", "x", "reached", "low", "high", "at_risk", "censored"]
    parts = []
    for arm, group in times.dropna(subset="epochs").groupby(level="arm", sort=False):
        fitter = KaplanMeierFitter(alpha=0.05).fit(group["epochs"], group["reached"])
        table, interval = fitter.event_table, fitter.confidence_interval_survival_function_
        reached = 1 - fitter.survival_function_.iloc[:, 0].to_numpy()
        low, high = 1 - interval.iloc[:, 1].to_numpy(), 1 - interval.iloc[:, 0].to_numpy()
        not_yet = reached == 0
        values = (
            arm, table.index.to_numpy(dtype=float), reached, np.where(not_yet, np.nan, low),
            np.where(not_yet, np.nan, high), table["at_risk"].to_numpy(), table["censored"].to_numpy(),
        )  # fmt: skip
        parts.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
    if not parts:
        return pd.DataFrame(columns=columns).astype(dict.fromkeys(columns[1:], float))
    return pd.concat(parts, ignore_index=True)


@cached
def _clock(sweep: Sweep) -> pd.DataFrame:
    """Return the wall-clock seconds until each dev evaluation of each comparison run, summed over folds."""
    frame = sweep.frame[(sweep.frame["split"] == "dev") & (sweep.frame["role"] == "comparison")]
    frame = frame.assign(seconds=wall_seconds(sweep.path, frame))
    folds = max(1, frame["fold"].nunique())
    return folds * matrix(frame[["run", "arm", "seed", "fold", "x", "seconds"]], "seconds")


def _wall_seconds(sweep: Sweep, times: pd.Series) -> pd.Series:
    """Return the wall-clock seconds until one evaluation of each run, or 0 at x = 0."""
    return at_epoch(_clock(sweep), times).reindex(times.index).mask(times == 0, 0.0)
