"""The response of F1, speed and stability to a weight, where a sweep holds a grid of it."""

from __future__ import annotations

import pandas as pd

from analysis.convergence import Target
from analysis.sweep import Sweep

#: Distinct values of a weight that make a grid.
GRID = 3


def weight_factors(sweep: Sweep) -> tuple[str, ...]:
    """The factors that are numbers and take at least GRID values while all other factors stand still."""
    raise NotImplementedError


def response(sweep: Sweep, target: Target | None = None) -> pd.DataFrame:
    """Tidy frame for response curves, empty without a grid.

    `factor` (dotted name of the weight), `line` (what else the arms of this curve have in common: "mse"), `arm`,
    `weight`, `measure` ("f1": dev weighted F1 at the best dev epoch, points; "speed": epochs to target, geometric mean;
    "stability": spread of dev F1, points per epoch, geometric mean), `n` (seeds), `estimate`, `low`, `high` (t interval
    over seeds), `gain`, `gain_low`, `gain_high` (paired against the baseline arm: points, per cent, per cent; positive
    is better; NaN for the baseline itself), `censored` (share of runs that never reached the target; speed only).
    """
    raise NotImplementedError
