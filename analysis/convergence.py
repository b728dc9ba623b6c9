"""Convergence speed: epochs, and wall seconds, until the best-so-far dev score reaches a target."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.sweep import Sweep

#: Share of the calibration runs' median final value that is the target where none is given.
TARGET_SHARE = 0.95


@dataclass(frozen=True)
class Target:
    """A dev score to be reached. metric: column of histories. value: fraction. source: in words, for the page."""

    metric: str
    value: float
    source: str


def parse_target(text: str) -> Target:
    """`dev_f1=0.62` (or 62 %) as a Target. Names: dev_f1, dev_f1_macro, dev_accuracy, dev_nll (to fall to).

    Raises InputError for another name, the test split, or a value out of range.
    """
    raise NotImplementedError


def choose_target(sweep: Sweep, target: str | Target | None = None) -> Target | None:
    """The given target, else TARGET_SHARE of the calibration runs' median final dev weighted F1.

    Without calibration runs: of the baseline's comparison runs, and `source` says so. None: nothing to take it from.
    """
    raise NotImplementedError


def times_to_target(sweep: Sweep, target: Target) -> pd.DataFrame:
    """Index (arm, seed) of comparison runs: `epochs` (T; min(T, budget)), `reached` (bool; False: censored at the
    budget), `seconds` (wall seconds to T, summed over folds; NaN where censored or without timing.parquet)."""
    raise NotImplementedError


def reach_rate(times: pd.DataFrame) -> pd.DataFrame:
    """Per arm: `n`, `reached`, `rate`, `low`, `high` (Wilson's 95 % interval, from 0 to 1). Index arm."""
    raise NotImplementedError


def kaplan_meier(times: pd.DataFrame) -> pd.DataFrame:
    """Share of runs that have reached the target by an epoch, with a 95 % interval, tidy.

    Columns `arm`, `epoch`, `reached`, `low`, `high` (1 - the Kaplan-Meier estimate and its log-log Greenwood interval),
    `at_risk`, `censored` (runs censored at that epoch). A step function: a value holds until the next row of its arm.
    """
    raise NotImplementedError
