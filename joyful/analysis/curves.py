"""Learning curves as matrices with one row per arm and seed and one column per evaluation.

The columns are labelled with epochs. NaN marks a value that was not measured.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from joyful.analysis.sweep import EPOCH_TOLERANCE, Sweep, require


def curves(
    sweep: Sweep,
    metric: str = "f1_weighted",
    split: str = "dev",
    *,
    role: str = "comparison",
    whole_epochs: bool = False,
) -> pd.DataFrame:
    """Return the learning curves of a metric.

    If the runs have folds, the curve of a seed is the mean over its folds at each evaluation. It is NaN if a fold has
    no value.

    Args:
        sweep: The sweep.
        metric: Column of the histories.
        split: "train", "dev" or "test".
        role: "comparison" or "calibration".
        whole_epochs: Whether to keep only evaluations at the end of an epoch.

    Returns:
        The curves in the unit of the files. The index is (arm, seed), with arms in the order of the sweep and ascending
        seeds. The columns are the epochs of the evaluations.

    Raises:
        InputError: If the sweep was read without the column.
    """
    require(sweep, metric)
    chosen = (sweep.frame["split"] == split) & (sweep.frame["role"] == role)
    rows = sweep.frame.loc[chosen, ["run", "arm", "seed", "fold", "epoch", metric]]
    return matrix(rows, metric, whole_epochs=whole_epochs)


def matrix(rows: pd.DataFrame, metric: str, *, whole_epochs: bool = False) -> pd.DataFrame:
    """Return rows of a sweep's frame as a matrix of curves, as `curves` does.

    Args:
        rows: A table with the columns `run`, `arm`, `seed`, `fold`, `epoch` and `metric`, and one row per run and
            epoch.
        metric: Column of the values.
        whole_epochs: Whether to keep only evaluations at the end of an epoch.

    Returns:
        The matrix, with the index (arm, seed) and epochs as columns.
    """
    rows = rows.assign(epoch=rows["epoch"].round(6))
    if rows["fold"].notna().any():
        rows = _mean_over_folds(rows, metric)
    if whole_epochs:
        rows = rows[(rows["epoch"] - rows["epoch"].round()).abs() <= EPOCH_TOLERANCE]
    names = rows["arm"].cat.categories
    wide = rows.assign(arm=rows["arm"].cat.codes).pivot(index=["arm", "seed"], columns="epoch", values=metric)
    index = [(names[code], int(seed)) for code, seed in wide.index]
    wide.index = pd.MultiIndex.from_tuples(index, names=["arm", "seed"]) if index else _empty_index()
    return wide


def best_so_far(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Return the best value of each curve so far: the maximum (or minimum) of f(e') over e' <= e.

    NaN values are skipped. The result is NaN before the first value.
    """
    best = curves.cummax(axis=1) if higher_is_better else curves.cummin(axis=1)
    return best.ffill(axis=1)


def final(curves: pd.DataFrame) -> pd.Series:
    """Return the value of each curve in the last column, indexed by (arm, seed). NaN where it is missing."""
    return curves.iloc[:, -1] if curves.shape[1] else pd.Series(np.nan, index=curves.index)


def area(curves: pd.DataFrame) -> pd.Series:
    """Return the mean height of each curve: the area by the trapezoidal rule, divided by the number of epochs spanned.

    Args:
        curves: Curves, one per row. The columns are epochs.

    Returns:
        The areas in the unit of the curves, indexed by (arm, seed). NaN for a curve with a missing value or with a
        single evaluation.
    """
    epochs = curves.columns.to_numpy(dtype=float)
    if len(epochs) < 2:
        return pd.Series(np.nan, index=curves.index)
    height = np.trapezoid(curves.to_numpy(dtype=float), epochs, axis=1) / (epochs[-1] - epochs[0])
    return pd.Series(height, index=curves.index)


def band(curves: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the mean over seeds at each evaluation, with its pointwise t interval mean ± t_{n-1} · sd / √n.

    The intervals are unpaired, so they do not show whether two arms differ.

    Args:
        curves: Curves with the index (arm, seed).
        confidence: Confidence level, between 0 and 1.

    Returns:
        A tidy table: `arm`, `epoch`, `mean`, `low`, `high` and `n` (seeds with a value). NaN values are skipped. `low`
        and `high` are NaN if n < 2.
    """
    parts = []
    for arm, group in curves.groupby(level="arm", sort=False):
        mean, low, high, n = t_band(group.to_numpy(dtype=float), confidence)
        rows = {"epoch": group.columns.to_numpy(dtype=float), "mean": mean, "low": low, "high": high, "n": n}
        parts.append(pd.DataFrame(rows).assign(arm=str(arm)))
    columns = ["arm", "epoch", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def t_band(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of each column with its t interval.

    Args:
        values: Values of shape (seeds, columns). NaN values are skipped.
        confidence: Confidence level, between 0 and 1.

    Returns:
        Arrays `mean`, `low`, `high` and `n` (values in the column), each of shape (columns,). `mean` is NaN if n is 0,
        `low` and `high` are NaN if n < 2.
    """
    measured = ~np.isnan(values)
    n = measured.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(measured, values, 0).sum(axis=0) / n
        variance = np.where(measured, (values - mean) ** 2, 0).sum(axis=0) / (n - 1)
        half = stats.t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(variance / n)
    half = np.where(n < 2, np.nan, half)
    return mean, mean - half, mean + half, n


def best_epoch(dev: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """Return the epoch of the best dev value of each curve, indexed by (arm, seed).

    The first of equal values counts. The epoch is NaN for a curve without a value.
    """
    values = dev.to_numpy(dtype=float) * (1 if higher_is_better else -1)
    known = ~np.isnan(values).all(axis=1) if values.shape[1] else np.zeros(len(dev), dtype=bool)
    epochs = np.full(len(dev), np.nan)
    if known.any():
        epochs[known] = dev.columns.to_numpy(dtype=float)[np.nanargmax(values[known], axis=1)]
    return pd.Series(epochs, index=dev.index)


def at_epoch(curves: pd.DataFrame, epochs: pd.Series) -> pd.Series:
    """Return the value of each curve at one epoch per curve.

    Args:
        curves: Curves, one per row. The columns are epochs.
        epochs: Epoch of each curve, indexed like `curves`, for example the result of `best_epoch`.

    Returns:
        The values, with the index of `curves`. NaN if a curve has no evaluation at its epoch.
    """
    columns = curves.columns.get_indexer(pd.Index(epochs.reindex(curves.index)))
    values = curves.to_numpy(dtype=float)
    result = np.full(len(curves), np.nan)
    known = columns >= 0
    result[known] = values[np.flatnonzero(known), columns[known]]
    return pd.Series(result, index=curves.index)


def _mean_over_folds(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one row per arm, seed and evaluation, with the mean of the metric over folds.

    Folds differ in their numbers of steps, so the n-th evaluations of all folds are combined, at their mean epoch.
    """
    rows = rows.sort_values(["run", "epoch"])
    rows = rows.assign(position=rows.groupby("run", observed=True).cumcount())
    epochs = rows.groupby("position")["epoch"].mean().round(6)
    keys = ["arm", "seed", "position"]
    mean = rows.groupby(keys, observed=True)[metric].agg(lambda values: values.mean(skipna=False)).reset_index()
    return mean.assign(epoch=mean["position"].map(epochs), fold=np.nan)


def _empty_index() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"])
