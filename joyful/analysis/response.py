"""Response curves: F1, speed and stability as functions of a weight, for sweeps with a grid of its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis import measures
from joyful.analysis.arms import Arm, format_value, is_number
from joyful.analysis.convergence import Target, choose_target
from joyful.analysis.measures import Metric
from joyful.analysis.statistics import UNKNOWN, paired_t
from joyful.analysis.sweep import Sweep
from joyful.results import InputError

#: Fewest distinct values of a weight that form a grid.
GRID = 3

#: Columns of `response`.
COLUMNS = (
    "factor", "line", "arm", "weight", "measure", "unit", "n", "estimate", "low", "high", "gain", "gain_low",
    "gain_high", "gain_unit", "censored",
)  # fmt: skip

#: Measure -> (metric, unit, unit of the gain).
_MEASURES: dict[str, tuple[Metric, str, str]] = {
    "f1": (Metric("best", "dev", "f1_weighted"), "points", "points"),
    "speed": (Metric("time_to_target", "dev", "f1_weighted"), "epochs", "per cent"),
    "stability": (Metric("spread", "dev", "f1_weighted"), "points per epoch", "per cent"),
}


def weight_factors(sweep: Sweep) -> tuple[str, ...]:
    """Return the factors that take at least GRID numeric values while all other factors are fixed."""
    return tuple(factor for factor in sweep.factors if _lines(sweep, factor))


def choose_weight(sweep: Sweep, weight: str | None = None) -> str:
    """Return the weight that is passed, or the first one with a grid.

    Args:
        sweep: The sweep.
        weight: Dotted name of a weight, or None.

    Raises:
        InputError: If the sweep has no grid of this weight.
    """
    found = weight_factors(sweep)
    if not found or (weight is not None and weight not in found):
        named = f"at least {GRID} values of {weight or 'a weight'} that differ in nothing else"
        raise InputError(f"{sweep.path}: expected arms with {named}, got {', '.join(found) or 'no such weight'}")
    return weight or found[0]


def response(sweep: Sweep, target: Target | None = None) -> pd.DataFrame:
    """Return the response of F1, speed and stability to each weight with a grid.

    Args:
        sweep: The sweep.
        target: Target of the convergence speed. None stands for the default target of the sweep.

    Returns:
        A tidy table, without rows if the sweep has no grid. Its columns are

        - `factor`: Dotted name of the weight.
        - `line`: The other factors, which the arms of a curve share, such as "mse".
        - `arm` and `weight`: The arm and its value of the weight.
        - `measure` and `unit`: "f1" (best dev weighted F1 in points, mean over seeds), "speed" (epochs to the target,
          geometric mean) or "stability" (spread of dev F1 in points per epoch, geometric mean).
        - `n`: Seeds.
        - `estimate`, `low`, `high`: The mean with its t interval over seeds, computed from logarithms for geometric
          means. The limits are NaN with fewer than two seeds.
        - `gain`, `gain_low`, `gain_high` and `gain_unit`: Paired change against the baseline, positive if the arm is
          better. NaN for the baseline. The limits are NaN with fewer than two pairs.
        - `censored`: Share of runs that do not reach the target and whose time is the budget. NaN except for speed.

    Raises:
        InputError: If the sweep was read without a column that is needed.
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
    """Return the arms of each line, sorted by weight, for lines with at least GRID distinct weights."""
    numbers = [arm for arm in sweep.arms if is_number(arm.settings.get(factor))]
    lines: dict[str, list[Arm]] = {}
    for arm in numbers:
        lines.setdefault(_line(arm.settings, factor), []).append(arm)
    by_weight = {line: sorted(arms, key=lambda arm: arm.settings[factor]) for line, arms in lines.items()}
    return {line: arms for line, arms in by_weight.items() if len({arm.settings[factor] for arm in arms}) >= GRID}


def _line(settings: Mapping[str, Any], factor: str) -> str:
    others = {name: value for name, value in settings.items() if name != factor}
    parts = [value if isinstance(value, str) else f"{name}={format_value(value)}" for name, value in others.items()]
    return " ".join(parts) or "all"


def _row(sweep: Sweep, arm: Arm, measure: str, target: Target | None) -> dict[str, Any]:
    metric, unit, gain_unit = _MEASURES[measure]
    if metric.to_target and target is not None and target.metric != metric.of:
        metric = Metric(metric.measure, metric.split, target.metric, target.better)
    values = measures.values(sweep, metric, target)
    arm_values = measures.select_arm(values, arm)
    censored = math.nan
    if metric.to_target and target is not None:
        censored = float(measures.select_arm(measures.censored(sweep, metric, target), arm).mean())
    scale = 100.0 if unit.startswith("points") else 1.0
    if measure == "f1":
        value = paired_t(arm_values * scale)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(arm_values > 0, np.log(arm_values * scale), np.nan)
        value = paired_t(logs).map(math.exp)
    gain = UNKNOWN
    if sweep.baseline is not None and not arm.is_baseline:
        gain_in = "points" if measure == "f1" else "percent"
        gain = measures.mean_effect(sweep, arm, metric, gain_in, "increase", target)
    return {
        "measure": measure, "unit": unit, "n": int(arm_values.notna().sum()), "estimate": value.estimate, "low": value.low,
        "high": value.high, "gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high, "gain_unit": gain_unit,
        "censored": censored,
    }  # fmt: skip
