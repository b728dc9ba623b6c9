"""Convergence speed: epochs, and wall seconds, until the best-so-far dev score reaches a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joyful.analysis.curves import curves, final
from joyful.analysis.statistics import proportion
from joyful.analysis.sweep import WHOLE, Sweep, cached
from joyful.results import InputError, read_timing

#: Share of the calibration runs' median final value that is the target where none is given.
TARGET_SHARE = 0.95

#: Beginnings of columns that training lowers; anything else is a score that it raises.
LOWER_IS_BETTER = ("nll", "loss", "recon", "grad_norm", "error")

_SHORT = {"f1": "f1_weighted"}


@dataclass(frozen=True)
class Target:
    """A dev score to be reached. metric: column of histories. value: in its unit. source: in words, for the page."""

    metric: str
    value: float
    source: str

    @property
    def higher_is_better(self) -> bool:
        """Whether the metric rises to the target."""
        return not self.metric.startswith(LOWER_IS_BETTER)


def parse_target(text: str) -> Target:
    """`dev_f1=0.62` (or 62 %) as a Target: `dev_` and a column of histories; dev_f1 is dev_f1_weighted.

    Raises InputError for another split, a value that is no number, or a score outside 0 to 1.
    """
    name, equals, value = text.replace(" ", "").partition("=")
    metric = name.removeprefix("dev_")
    metric = _SHORT.get(metric, metric)
    if not equals or not name.startswith("dev_") or not metric:
        why = "; nothing is chosen on the test split" if name.startswith("test_") else ""
        raise InputError(f"target: expected dev_f1=0.62 or another dev_COLUMN=VALUE, got {text!r}{why}")
    try:
        number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        number = math.nan
    score = metric.startswith(("f1", "accuracy"))
    if not math.isfinite(number) or (score and not 0 < number < 1):
        raise InputError(
            f"target: {name}: expected {'a fraction such as 0.62' if score else 'a number'}, got {value!r}"
        )
    return Target(metric, number, f"given: {name}={number:g}")


def choose_target(sweep: Sweep, target: str | Target | None = None, metric: str = "f1_weighted") -> Target | None:
    """The given target, else TARGET_SHARE of the median over calibration runs of the last dev value of `metric`.

    Where lower is better: that median / TARGET_SHARE. Without calibration runs it is taken from the baseline's
    comparison runs, and `source` says so. None: there is no such run, or it has no value.
    """
    if isinstance(target, str):
        target = parse_target(target)
    if target is not None:
        return target
    if sweep.baseline is None:
        return None
    for role, whose in (("calibration", "calibration"), ("comparison", "baseline's comparison")):
        values = final(curves(sweep, metric, role=role))
        values = values[values.index.get_level_values("arm") == sweep.baseline.name].dropna()
        if len(values):
            middle = float(values.median())
            found = Target(metric, middle, "")
            value = middle * TARGET_SHARE if found.higher_is_better else middle / TARGET_SHARE
            source = f"{TARGET_SHARE:.0%} of the median final dev {metric} of {len(values)} {whose} runs ({middle:.4f})"
            if role == "comparison":
                source += "; there are no calibration runs, so the compared runs set their own target"
            return Target(metric, value, source)
    return None


def first_reached(curves: pd.DataFrame, value: float, *, higher_is_better: bool = True) -> pd.Series:
    """Of every curve (a row; columns are epochs) the epoch of its first value at `value` or beyond, inf where there is none."""
    there = curves >= value if higher_is_better else curves <= value
    if not there.shape[1]:
        return pd.Series(np.inf, index=curves.index)
    return there.idxmax(axis=1).astype(float).where(there.any(axis=1), np.inf)


@cached
def times_to_target(sweep: Sweep, target: Target) -> pd.DataFrame:
    """When each comparison run reaches the target: index (arm, seed).

    `epochs`: T, the first evaluation at which the best-so-far dev value is at the target or beyond, min(T, budget).
    `reached`: False where it never is: T is censored at the budget then. `seconds`: wall seconds until that evaluation
    (training, evaluation and writing, summed over folds), until the end where censored; NaN without timing.parquet.
    A curve without a value gives NaN, not reached.
    """
    dev = curves(sweep, target.metric)
    times = first_reached(dev, target.value, higher_is_better=target.higher_is_better)
    reached = np.isfinite(times)
    times = times.clip(upper=sweep.budget).mask(dev.isna().all(axis=1))
    result = pd.DataFrame({"epochs": times, "reached": reached})
    return result.assign(seconds=_wall_seconds(sweep, result["epochs"]))


def reach_rate(times: pd.DataFrame) -> pd.DataFrame:
    """Per arm (index): `n`, `reached`, `rate`, `low`, `high`: the share that reached the target, Wilson's 95 %; 0 to 1."""
    rows = {}
    for arm, group in times.dropna(subset="epochs").groupby(level="arm", sort=False):
        hits = int(group["reached"].sum())
        share = proportion(hits, len(group))
        rows[arm] = {"n": len(group), "reached": hits, "rate": share.estimate, "low": share.low, "high": share.high}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "reached", "rate", "low", "high"]).rename_axis(
        "arm"
    )


def kaplan_meier(times: pd.DataFrame) -> pd.DataFrame:
    """Share of runs that have reached the target by an epoch, with a 95 % interval, tidy.

    Columns `arm`, `epoch`, `reached`, `low`, `high` (1 - the Kaplan-Meier estimate, with its log(-log) Greenwood
    interval, 0 to 1), `at_risk` (runs still under way just before), `censored` (runs censored at that epoch). A step
    function: a row holds until the next of its arm. While no run has reached it, the interval is not defined: NaN.
    Source: Kaplan and Meier (1958), JASA 53(282); computed by lifelines.
    """
    from lifelines import KaplanMeierFitter  # two seconds of imports, only where a curve is asked for

    parts = []
    for arm, group in times.dropna(subset="epochs").groupby(level="arm", sort=False):
        fitter = KaplanMeierFitter(alpha=0.05).fit(group["epochs"], group["reached"])
        table, interval = fitter.event_table, fitter.confidence_interval_survival_function_
        reached = 1 - fitter.survival_function_.iloc[:, 0].to_numpy()
        low, high = 1 - interval.iloc[:, 1].to_numpy(), 1 - interval.iloc[:, 0].to_numpy()
        none = reached == 0
        parts.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "epoch": table.index.to_numpy(dtype=float),
                    "reached": reached,
                    "low": np.where(none, np.nan, low),
                    "high": np.where(none, np.nan, high),
                    "at_risk": table["at_risk"].to_numpy(),
                    "censored": table["censored"].to_numpy(),
                }
            )
        )
    columns = ["arm", "epoch", "reached", "low", "high", "at_risk", "censored"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _wall_seconds(sweep: Sweep, times: pd.Series) -> pd.Series:
    runs = sweep.runs
    runs = runs[runs["used"] & (runs["role"] == "comparison")]
    total: dict[tuple[str, int], float] = {}
    for name, arm, seed in zip(runs["run"], runs["arm"], runs["seed"], strict=True):
        key = (str(arm), int(seed))
        until = times.get(key, np.nan) + WHOLE
        try:
            rows = read_timing(sweep.path / str(name))
        except InputError:  # times are beside the measures: a damaged file is as none
            rows = []
        known = rows and not math.isnan(until)
        seconds = sum(row["seconds"] for row in rows if row["epoch"] <= until) if known else math.nan
        total[key] = total.get(key, 0.0) + seconds
    return pd.Series([total.get(key, math.nan) for key in times.index], index=times.index, dtype=float)
