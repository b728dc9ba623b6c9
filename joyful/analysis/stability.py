"""Stability: how much a curve jumps from epoch to epoch beside its trend, how deep it falls, how far seeds lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from joyful.analysis.curves import best_so_far

#: Epochs of the centred median that stands for the trend of the differences.
WINDOW = 5


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Spread s of one curve of whole epochs f(1) ... f(E), in its unit per epoch.

    First differences d(e) = f(e) - f(e-1); the first fifth of the E - 1 differences is dropped (rounded down: training
    has hardly begun there); from each of the rest the median of the WINDOW differences centred on it is subtracted
    (fewer at the edges: those that are there); s is the standard deviation (n - 1) of what remains.
    NaN where fewer than two differences remain or a value is not finite.
    """
    return float(spread_of_rows(np.asarray(values, dtype=float)[None, :])[0])


def spread_of_rows(curves: np.ndarray) -> np.ndarray:
    """`spread` of every row of curves × epochs."""
    differences = np.diff(curves, axis=1)
    kept = differences[:, differences.shape[1] // 5 :]
    places = kept.shape[1]
    if places < 2:
        return np.full(len(curves), np.nan)
    half = WINDOW // 2
    finite = np.asarray(np.isfinite(kept).all(axis=1))
    kept = np.where(finite[:, None], kept, 0.0)
    trend = np.stack([np.median(kept[:, max(0, p - half) : p + half + 1], axis=1) for p in range(places)], axis=1)
    return np.where(finite, np.std(kept - trend, axis=1, ddof=1), np.nan)


def spreads(curves: pd.DataFrame) -> pd.Series:
    """`spread` of every curve (whole epochs), index (arm, seed)."""
    return pd.Series(spread_of_rows(curves.to_numpy(dtype=float)), index=curves.index, dtype=float)


def drawdowns(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """Largest drawdown of every curve, max over e of (best so far - value), >= 0 in its unit, index (arm, seed).

    Where lower is better: max of (value - best so far). NaN for a curve without a value.
    """
    fall = best_so_far(curves, higher_is_better=higher_is_better) - curves
    return (fall if higher_is_better else -fall).max(axis=1)


def across_seeds(values: pd.Series) -> pd.DataFrame:
    """Standard deviation over seeds per arm, index arm: `n`, `mean`, `sd`, `low`, `high`; in the unit of the values.

    low, high: sd · √((n-1) / χ²_{n-1, 0.975 or 0.025}), the 95 % interval for normal values. NaN below two values; NaN
    values are passed over.
    """
    rows = {}
    for arm, group in values.groupby(level="arm", sort=False):
        known = group.dropna().to_numpy(dtype=float)
        n = len(known)
        sd = float(np.std(known, ddof=1)) if n > 1 else math.nan
        low, high = (sd * math.sqrt((n - 1) / stats.chi2.ppf(p, n - 1)) if n > 1 else math.nan for p in (0.975, 0.025))
        rows[arm] = {"n": n, "mean": float(known.mean()) if n else math.nan, "sd": sd, "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "mean", "sd", "low", "high"]).rename_axis("arm")
