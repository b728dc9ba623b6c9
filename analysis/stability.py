"""Stability: how much a curve jumps from epoch to epoch beside its trend, how deep it falls, how far seeds lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Spread s of one curve of whole epochs, in its unit per epoch."""
    raise NotImplementedError


def spreads(curves: pd.DataFrame) -> pd.Series:
    """`spread` of every curve (whole epochs), index (arm, seed)."""
    raise NotImplementedError


def drawdowns(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """Largest drawdown of every curve, max over e of (best so far - value), >= 0 in its unit, index (arm, seed)."""
    raise NotImplementedError


def across_seeds(values: pd.Series) -> pd.DataFrame:
    """Standard deviation over seeds per arm: `n`, `mean`, `sd`, `low`, `high` (chi-square 95 % interval of the sd)."""
    raise NotImplementedError
