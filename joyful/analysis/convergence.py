"""Convergence speed: epochs and wall-clock seconds until the best dev value so far reaches a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joyful.analysis.columns import higher_is_better, is_score
from joyful.analysis.curves import curves, final
from joyful.analysis.statistics import proportion
from joyful.analysis.sweep import EPOCH_TOLERANCE, Sweep, cached
from joyful.results import InputError, read_timing

#: The default target is this share of the median final value of the calibration runs.
TARGET_SHARE = 0.95

_SHORT = {"f1": "f1_weighted"}


@dataclass(frozen=True)
class Target:
    """A dev value that runs are to reach.

    Attributes:
        metric: Column of the histories, such as "f1_weighted".
        value: The value, in the unit of the column. Scores are fractions from 0 to 1.
        source: Where the value comes from, as a phrase for the report.
    """

    metric: str
    value: float
    source: str

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values of the metric are better."""
        return higher_is_better(self.metric)


def parse_target(text: str) -> Target:
    """Parse a target such as `dev_f1=0.62`.

    Args:
        text: `dev_COLUMN=VALUE`. VALUE is a number or a percentage such as `62%`. The name `dev_f1` is short for
            `dev_f1_weighted`.

    Returns:
        The target.

    Raises:
        InputError: If the text does not have this form, the value is not a finite number, or a score does not lie
            strictly between 0 and 1.

    Example:
        >>> target = parse_target("dev_f1=62%")
        >>> target.metric, target.value
        ('f1_weighted', 0.62)
    """
    name, equals, value = text.replace(" ", "").partition("=")
    metric = name.removeprefix("dev_")
    metric = _SHORT.get(metric, metric)
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
    return Target(metric, number, f"given: {name}={number:g}")


def choose_target(sweep: Sweep, target: str | Target | None = None, metric: str = "f1_weighted") -> Target | None:
    """Return the target that is passed, or the default target of the sweep.

    The default is TARGET_SHARE times the median, over the calibration runs of the baseline, of the last dev value of
    `metric`. If lower values are better, it is this median divided by TARGET_SHARE. If there are no calibration runs,
    the comparison runs of the baseline are used, and `Target.source` states this.

    Args:
        sweep: The sweep.
        target: A target, text as in `parse_target`, or None for the default.
        metric: Column of the default target.

    Returns:
        The target. None if the baseline has no run with a value of `metric`.

    Raises:
        InputError: If `target` cannot be parsed, or the sweep was read without the column.
    """
    if isinstance(target, str):
        target = parse_target(target)
    if target is not None:
        return target
    if sweep.baseline is None:
        return None
    for role, runs in (("calibration", "calibration runs"), ("comparison", "baseline's comparison runs")):
        values = final(curves(sweep, metric, role=role))
        values = values[values.index.get_level_values("arm") == sweep.baseline.name].dropna()
        if len(values):
            median = float(values.median())
            value = median * TARGET_SHARE if higher_is_better(metric) else median / TARGET_SHARE
            source = f"{TARGET_SHARE:.0%} of the median final dev {metric} of {len(values)} {runs} ({median:.4f})"
            if role == "comparison":
                source += "; there are no calibration runs, so the target comes from the compared runs"
            return Target(metric, value, source)
    return None


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
    earlier = curves.notna().to_numpy() & (columns < epochs.to_numpy(dtype=float)[:, None])
    return pd.Series(np.where(earlier, columns, 0.0).max(axis=1, initial=0.0), index=curves.index)


@cached
def times_to_target(sweep: Sweep, target: Target) -> pd.DataFrame:
    """Return the time at which each comparison run reaches the target.

    The time T is the epoch of the first evaluation at which the best dev value so far is at least as good as the
    target.

    Args:
        sweep: The sweep.
        target: The target.

    Returns:
        A table indexed by (arm, seed) with the columns

        - `epochs`: min(T, budget), or NaN for a run without any dev value.
        - `after`: The evaluation before, or 0 for the first: T is only known to lie after it and up to `epochs`. The last
          evaluation of a run that does not reach the target.
        - `reached`: Whether the target is reached. If not, T is censored at the budget.
        - `seconds`: Wall-clock seconds until that evaluation, or until the end of a censored run. They include
          training, evaluation and writing and are summed over folds. NaN without a readable timing.parquet.

    Raises:
        InputError: If the sweep was read without the column of the target.
    """
    dev = curves(sweep, target.metric)
    times = first_reached(dev, target.value, higher_is_better=target.higher_is_better)
    unmeasured = dev.isna().all(axis=1)
    after = last_evaluation_before(dev, times).mask(unmeasured)
    reached, times = np.isfinite(times), times.clip(upper=sweep.budget).mask(unmeasured)
    result = pd.DataFrame({"epochs": times, "after": after, "reached": reached})
    return result.assign(seconds=_wall_seconds(sweep, result["epochs"]))


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

        - `arm` and `epoch`.
        - `reached`, `low`, `high`: The share, from 0 to 1, with its 95 % log(-log) Greenwood interval. The limits are
          NaN while no run has reached the target.
        - `at_risk`: Runs that had neither reached the target nor been censored just before the epoch.
        - `censored`: Runs that are censored at the epoch.

    Source:
        Kaplan and Meier (1958), JASA 53(282). Computed by lifelines.
    """
    from lifelines import KaplanMeierFitter  # imported here because it takes about two seconds

    columns = ["arm", "epoch", "reached", "low", "high", "at_risk", "censored"]
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


def _wall_seconds(sweep: Sweep, times: pd.Series) -> pd.Series:
    runs = sweep.runs
    runs = runs[runs["used"] & (runs["role"] == "comparison")]
    total: dict[tuple[str, int], float] = {}
    for name, arm, seed in zip(runs["run"], runs["arm"], runs["seed"], strict=True):
        key = (str(arm), int(seed))
        end = times.get(key, np.nan) + EPOCH_TOLERANCE
        try:
            rows = read_timing(sweep.path / str(name))
        except InputError:  # Timing is optional, so a damaged file counts as a missing one.
            rows = []
        known = rows and not math.isnan(end)
        seconds = sum(row["seconds"] for row in rows if row["epoch"] <= end) if known else math.nan
        total[key] = total.get(key, 0.0) + seconds
    return pd.Series([total.get(key, math.nan) for key in times.index], index=times.index, dtype=float)
