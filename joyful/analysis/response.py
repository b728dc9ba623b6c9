"""The response of F1, speed and stability to a weight, where a sweep holds a grid of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis import measures
from joyful.analysis.arms import Arm, shown
from joyful.analysis.claims_file import Claim, Metric
from joyful.analysis.convergence import Target, choose_target
from joyful.analysis.statistics import Estimate, paired_t
from joyful.analysis.sweep import Sweep

#: Distinct values of a weight that make a grid.
GRID = 3

COLUMNS = (
    "factor", "line", "arm", "weight", "measure", "unit", "n", "estimate", "low", "high", "gain", "gain_low",
    "gain_high", "gain_unit", "censored",
)  # fmt: skip

_MEASURES: dict[str, tuple[Metric, str, str]] = {  # measure -> (metric, its unit, the unit of its gain)
    "f1": (Metric("best", "dev", "f1_weighted"), "points", "points"),
    "speed": (Metric("time_to_target", "dev", "f1_weighted"), "epochs", "per cent"),
    "stability": (Metric("spread", "dev", "f1_weighted"), "points per epoch", "per cent"),
}


def weight_factors(sweep: Sweep) -> tuple[str, ...]:
    """The factors that are numbers and take at least GRID values while all other factors stand still."""
    return tuple(factor for factor in sweep.factors if _lines(sweep, factor))


def response(sweep: Sweep, target: Target | None = None) -> pd.DataFrame:
    """Tidy frame for response curves (COLUMNS), without rows where there is no grid.

    `factor`: dotted name of the weight. `line`: what else the arms of this curve have in common ("mse"). `weight`: its
    value. `measure`: "f1" (dev weighted F1 at the best dev epoch, points: mean over seeds), "speed" (epochs to target:
    geometric mean) or "stability" (spread of dev F1, points per epoch: geometric mean), in `unit`. `n`: seeds. `low`,
    `high`: the t interval over seeds, of the logarithm for geometric means; NaN below two. `gain`, `gain_low`,
    `gain_high` in `gain_unit`: paired against the baseline arm, positive is better; NaN for the baseline itself and
    below two pairs. `censored`: share of runs that never reached the target (speed alone; their T is the budget).
    target: None: as choose_target does.
    """
    if target is None and weight_factors(sweep):
        target = choose_target(sweep)
    rows = [
        {"factor": factor, "line": line, "arm": arm.name, "weight": float(arm.settings[factor])}
        | _row(sweep, arm, measure, target)
        for factor in sweep.factors
        for line, arms in _lines(sweep, factor).items()
        for measure in _MEASURES
        for arm in arms
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _lines(sweep: Sweep, factor: str) -> dict[str, list[Arm]]:
    """Line -> its arms in the order of the weight, for every line of at least GRID arms."""
    numbers = [arm for arm in sweep.arms if _is_number(arm.settings.get(factor))]
    lines: dict[str, list[Arm]] = {}
    for arm in numbers:
        lines.setdefault(_line(arm.settings, factor), []).append(arm)
    by_weight = {line: sorted(arms, key=lambda arm: arm.settings[factor]) for line, arms in lines.items()}
    return {line: arms for line, arms in by_weight.items() if len({arm.settings[factor] for arm in arms}) >= GRID}


def _line(settings: Mapping[str, Any], factor: str) -> str:
    others = {name: value for name, value in settings.items() if name != factor}
    parts = [value if isinstance(value, str) else f"{name}={shown(value)}" for name, value in others.items()]
    return " ".join(parts) or "all"


def _row(sweep: Sweep, arm: Arm, measure: str, target: Target | None) -> dict[str, Any]:
    metric, unit, gain_unit = _MEASURES[measure]
    if metric.speaks_of == "speed" and target is not None and target.metric != metric.of:
        metric = Metric(metric.measure, metric.split, target.metric)
    values = measures.values(sweep, metric, target)
    mine = measures.of_arm(values, arm)
    censored = math.nan
    if metric.speaks_of == "speed" and target is not None:
        censored = float(measures.of_arm(measures.censored(sweep, metric, target), arm).mean())
    scale = 100.0 if unit.startswith("points") else 1.0
    if measure == "f1":
        value = paired_t(mine * scale)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(mine > 0, np.log(mine * scale), np.nan)
        t = paired_t(logs)
        value = Estimate(math.exp(t.estimate), math.exp(t.low), math.exp(t.high))
    claim = Claim(measure, "", (metric,), 0.0, math.inf, "points" if measure == "f1" else "percent", "increase")
    gain = Estimate(math.nan, math.nan, math.nan)
    if sweep.baseline is not None and not arm.is_baseline:
        base = measures.of_arm(values, sweep.baseline)
        d = paired_t(measures.pair_differences(mine, base, claim, metric))
        gain = Estimate(*(measures.effect(x, claim, metric) for x in (d.estimate, d.low, d.high)))
    return {
        "measure": measure, "unit": unit, "n": int(mine.notna().sum()), "estimate": value.estimate, "low": value.low,
        "high": value.high, "gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high, "gain_unit": gain_unit,
        "censored": censored,
    }  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
