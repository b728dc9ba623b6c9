"""Stability: the epoch-to-epoch spread of a curve around its trend, its drawdown, and the spread across seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from joyful.analysis.curves import best_so_far

#: Window of the centred median that estimates the trend, in epoch-to-epoch differences.
WINDOW = 5


def spread_of_rows(curves: npt.ArrayLike, x: npt.ArrayLike | None = None) -> np.ndarray:
    """Return the epoch-to-epoch spread s of each curve f(1), ..., f(E) in the rows of an array.

    The spread is computed in four steps:

    1. Take the differences d(e) = f(e) - f(e-1). A difference across a gap is passed over: one whose evaluations lie further
       apart than is usual for the curve.
    2. Drop the first fifth of the differences (rounded down), where training has only started.
    3. Subtract from each difference the median of the WINDOW differences centred on it. At the edges the window is cut
       off.
    4. The spread is the standard deviation (with n - 1) of the result.

    Args:
        curves: Array of shape (curves, evaluations). NaN marks an evaluation that a curve does not have.
        x: Positions of the evaluations, of shape (evaluations,). By default they are equally spaced.

    Returns:
        The spreads, of shape (curves,), in the unit of the curves per evaluation. NaN if fewer than two differences remain
        or a value is infinite.

    Example:
        >>> [round(float(s), 3) for s in spread_of_rows([[0.0, 9.0, 10.0, 12.0, 16.0, 17.0, 20.0]])]
        [1.369]
    """
    curves = np.asarray(curves, dtype=float)
    x = np.arange(curves.shape[1], dtype=float) if x is None else np.asarray(x, dtype=float)
    result = np.full(len(curves), np.nan)
    known = ~np.isnan(curves)
    patterns, of_row = np.unique(known, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(of_row.reshape(-1) == number)
        steps = np.diff(x[pattern])
        if len(steps):
            usual = steps <= np.median(steps) * (1 + 1e-6)
            result[rows] = _spread(np.diff(curves[np.ix_(rows, np.flatnonzero(pattern))], axis=1)[:, usual])
    return result


def _spread(differences: np.ndarray) -> np.ndarray:
    """Return the spread of each row of differences (steps 2 to 4 of `spread_of_rows`)."""
    kept = differences[:, differences.shape[1] // 5 :]
    count = kept.shape[1]
    if count < 2:
        return np.full(len(differences), np.nan)
    half = WINDOW // 2
    finite = np.asarray(np.isfinite(kept).all(axis=1))
    kept = np.where(finite[:, None], kept, 0.0)
    trend = np.stack([np.median(kept[:, max(0, i - half) : i + half + 1], axis=1) for i in range(count)], axis=1)
    return np.where(finite, np.std(kept - trend, axis=1, ddof=1), np.nan)


def usual_steps(curves: pd.DataFrame) -> pd.Series:
    """Return the usual step between the evaluations of each curve: the median, indexed by (arm, seed)."""
    x, known = curves.columns.to_numpy(dtype=float), curves.notna().to_numpy()
    steps = [np.diff(x[row]) for row in known]
    return pd.Series([float(np.median(s)) if len(s) else math.nan for s in steps], index=curves.index, dtype=float)


def spreads(curves: pd.DataFrame) -> pd.Series:
    """Return the spread of each curve (see `spread_of_rows`), indexed by (arm, seed)."""
    values = spread_of_rows(curves.to_numpy(dtype=float), curves.columns.to_numpy(dtype=float))
    return pd.Series(values, index=curves.index, dtype=float)


def drawdowns(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """Return the largest drawdown of each curve: the maximum over epochs of the best value so far minus the value.

    Args:
        curves: Curves, one per row.
        higher_is_better: Whether higher values are better. If not, the drawdown is the maximum of the value minus the
            best value so far.

    Returns:
        The drawdowns (>= 0) in the unit of the curves, indexed by (arm, seed). NaN for a curve without a value.
    """
    fall = best_so_far(curves, higher_is_better=higher_is_better) - curves
    return (fall if higher_is_better else -fall).max(axis=1)


def across_seeds(values: pd.Series) -> pd.DataFrame:
    """Return the standard deviation over seeds of each arm, with its 95 % interval for normally distributed values.

    The limits are sd · √((n-1) / χ²_{n-1, p}) with p = 0.975 (lower) and p = 0.025 (upper).

    Args:
        values: Values indexed by (arm, seed). NaN values are skipped.

    Returns:
        A table indexed by arm: `n` (values), `mean`, `sd`, `low` and `high`, in the unit of the values. `sd`, `low` and
        `high` are NaN with fewer than two values.
    """
    rows = {}
    for arm, group in values.groupby(level="arm", sort=False):
        known = group.dropna().to_numpy(dtype=float)
        n = len(known)
        sd = float(np.std(known, ddof=1)) if n > 1 else math.nan
        low, high = (sd * math.sqrt((n - 1) / stats.chi2.ppf(p, n - 1)) if n > 1 else math.nan for p in (0.975, 0.025))
        rows[arm] = {"n": n, "mean": float(known.mean()) if n else math.nan, "sd": sd, "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "mean", "sd", "low", "high"]).rename_axis("arm")
