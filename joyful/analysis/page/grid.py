"""The parts of a page on settings that were not repeated in pairs, such as a grid: the best setting and the surface of scores."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from joyful.analysis.arms import format_value
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import count, percent
from joyful.analysis.page.parts import clean
from joyful.analysis.plots.confusion import response_surface
from joyful.analysis.plots.style import Plot
from joyful.analysis.sweep import Sweep

#: Maximum number of values of a setting that the surface shows.
_MOST_VALUES = 12

#: Two arms that differ in two settings fill half of the surface, and are no surface.
_SMALLEST_SHARE = 0.5


def is_grid(sweep: Sweep) -> bool:
    """Return whether the sweep has several settings and no two pairs of any of them, so that nothing can be judged."""
    return len(sweep.others) > 1 and sweep.design == "paired" and max(len(sweep.pairs(arm)) for arm in sweep.others) < 2


def means(findings: Findings) -> pd.Series:
    """Return the mean best dev weighted F1 of each arm, a fraction, the best first. Empty if the runs have none."""
    scores = findings.tables["scores"]
    if "dev_f1" not in scores:
        return pd.Series(dtype=float)
    return scores.groupby("arm", observed=True)["dev_f1"].mean().dropna().sort_values(ascending=False, kind="stable")


def headline(findings: Findings) -> str:
    """Return the title of a grid: its best setting."""
    ranked, arms = means(findings), count(len(findings.sweep.arms), "setting")
    if ranked.empty:
        return f"{arms}, one run each"
    return f"Best of {arms}: dev weighted F1 {percent(float(ranked.iloc[0]), 2)} with {clean(ranked.index[0])}"


def surface(findings: Findings) -> list[Plot]:
    """Return the figure of the scores over two settings, if exactly two settings differ between the arms."""
    sweep, ranked = findings.sweep, means(findings)
    if len(sweep.factors) != 2 or ranked.empty:
        return []
    first, second = sweep.factors
    rows, columns = (_values(sweep, factor) for factor in (first, second))
    if min(len(rows), len(columns)) < 2 or max(len(rows), len(columns)) > _MOST_VALUES:
        return []
    values = np.full((len(rows), len(columns)), math.nan)
    for arm in sweep.arms:
        if arm.name in ranked.index:
            place = rows.index(format_value(arm.settings[first])), columns.index(format_value(arm.settings[second]))
            values[place] = 100 * float(ranked.to_dict()[arm.name])
    if np.isfinite(values).mean() <= _SMALLEST_SHARE:
        return []
    return [response_surface(values, rows, columns, (second, first), "Best dev weighted F1 (%)")]


def _values(sweep: Sweep, factor: str) -> list[str]:
    """Return the values of a factor as text, numbers in ascending order."""
    values = [arm.settings[factor] for arm in sweep.arms]
    if all(isinstance(value, (int, float)) for value in values):
        values = sorted(values)
    return list(dict.fromkeys(format_value(value) for value in values))
