"""Learning curves as matrices: a row per arm and seed, a column per evaluation (epochs). NaN: not measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.sweep import Sweep


def curves(
    sweep: Sweep, metric: str = "f1_weighted", split: str = "dev", *, role: str = "comparison", whole: bool = False
) -> pd.DataFrame:
    """The curves of a metric: index (arm, seed), columns the epochs of the evaluations (float), in the files' unit.

    With folds, a seed's curve is the mean over its folds at each evaluation. whole: ends of epochs alone.
    Raises InputError where the sweep was read without this column.
    """
    raise NotImplementedError


def best_so_far(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """max_{e' <= e} f(e') (or min) of every curve; NaN before the first finite value, missing places are passed over."""
    raise NotImplementedError


def final(curves: pd.DataFrame) -> pd.Series:
    """The value at the last evaluation of the matrix, index (arm, seed); NaN where it is missing."""
    raise NotImplementedError


def area(curves: pd.DataFrame) -> pd.Series:
    """Area under every curve by the trapezoidal rule over epochs, divided by the epochs spanned: the mean height.

    In the curve's unit; index (arm, seed). A curve with a missing place or of one evaluation gives NaN.
    """
    raise NotImplementedError


def band(curves: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds with its t interval, tidy: `arm`, `epoch`, `mean`, `low`, `high`, `n` (seeds measured there).

    low and high are NaN where n < 2. Pointwise, so not a statement about pairs.
    """
    raise NotImplementedError


def best_epoch(dev: pd.DataFrame) -> pd.Series:
    """The epoch of the first highest dev value of every curve, index (arm, seed); NaN for a curve without a value."""
    raise NotImplementedError


def at_epoch(curves: pd.DataFrame, epochs: pd.Series) -> pd.Series:
    """The value of every curve at its own epoch (as `best_epoch` gives); NaN where there is none."""
    raise NotImplementedError


_ = np
