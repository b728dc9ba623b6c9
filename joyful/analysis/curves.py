"""Learning curves as matrices: a row per arm and seed, a column per evaluation (epochs). NaN: not measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from joyful.analysis.sweep import WHOLE, Sweep, require


def curves(
    sweep: Sweep, metric: str = "f1_weighted", split: str = "dev", *, role: str = "comparison", whole: bool = False
) -> pd.DataFrame:
    """The curves of a metric: index (arm, seed), columns the epochs of the evaluations (float), in the files' unit.

    With folds, a seed's curve is the mean over its folds at each evaluation, NaN where a fold has no value. whole: ends
    of epochs alone. Arms come in the sweep's order, seeds ascending.
    Raises InputError where the sweep was read without this column.
    """
    require(sweep, metric)
    frame = sweep.frame
    rows = frame.loc[
        (frame["split"] == split) & (frame["role"] == role), ["run", "arm", "seed", "fold", "epoch", metric]
    ]
    return matrix(rows, metric, whole=whole)


def matrix(rows: pd.DataFrame, metric: str, *, whole: bool = False) -> pd.DataFrame:
    """Rows `run`, `arm`, `seed`, `fold`, `epoch` and a metric, one for each run and epoch, as `curves` gives them."""
    rows = rows.assign(epoch=rows["epoch"].round(6))
    if rows["fold"].notna().any():
        rows = _mean_over_folds(rows, metric)
    if whole:
        rows = rows[(rows["epoch"] - rows["epoch"].round()).abs() <= WHOLE]
    names = rows["arm"].cat.categories
    wide = rows.assign(arm=rows["arm"].cat.codes).pivot(index=["arm", "seed"], columns="epoch", values=metric)
    index = [(names[code], int(seed)) for code, seed in wide.index]
    wide.index = pd.MultiIndex.from_tuples(index, names=["arm", "seed"]) if index else _empty_index()
    return wide


def best_so_far(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """max_{e' <= e} f(e') (or min) of every curve; NaN before the first finite value, missing places are passed over."""
    best = curves.cummax(axis=1) if higher_is_better else curves.cummin(axis=1)
    return best.ffill(axis=1)


def final(curves: pd.DataFrame) -> pd.Series:
    """The value at the last evaluation of the matrix, index (arm, seed); NaN where it is missing."""
    return curves.iloc[:, -1] if curves.shape[1] else pd.Series(np.nan, index=curves.index)


def area(curves: pd.DataFrame) -> pd.Series:
    """Area under every curve by the trapezoidal rule over epochs, divided by the epochs spanned: the mean height.

    In the curve's unit; index (arm, seed). A curve with a missing place or of one evaluation gives NaN.
    """
    epochs = curves.columns.to_numpy(dtype=float)
    if len(epochs) < 2:
        return pd.Series(np.nan, index=curves.index)
    height = np.trapezoid(curves.to_numpy(dtype=float), epochs, axis=1) / (epochs[-1] - epochs[0])
    return pd.Series(height, index=curves.index)


def band(curves: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds ± t_{n-1} · sd / √n, tidy: `arm`, `epoch`, `mean`, `low`, `high`, `n` (seeds measured there).

    low and high are NaN where n < 2; NaN values are passed over. Pointwise and unpaired: no statement about pairs.
    """
    parts = []
    for arm, group in curves.groupby(level="arm", sort=False):
        mean, low, high, n = t_band(group.to_numpy(dtype=float), confidence)
        rows = {"epoch": group.columns.to_numpy(dtype=float), "mean": mean, "low": low, "high": high, "n": n}
        parts.append(pd.DataFrame(rows).assign(arm=str(arm)))
    columns = ["arm", "epoch", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def t_band(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high, n) of every column of seeds × places: the t interval of the mean; NaN is passed over."""
    measured = ~np.isnan(values)
    n = measured.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(measured, values, 0).sum(axis=0) / n
        variance = np.where(measured, (values - mean) ** 2, 0).sum(axis=0) / (n - 1)
        half = stats.t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(variance / n)
    half = np.where(n < 2, np.nan, half)
    return mean, mean - half, mean + half, n


def best_epoch(dev: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series:
    """The epoch of the first best dev value of every curve, index (arm, seed); NaN for a curve without a value."""
    values = dev.to_numpy(dtype=float) * (1 if higher_is_better else -1)
    known = ~np.isnan(values).all(axis=1) if values.shape[1] else np.zeros(len(dev), dtype=bool)
    epochs = np.full(len(dev), np.nan)
    if known.any():
        epochs[known] = dev.columns.to_numpy(dtype=float)[np.nanargmax(values[known], axis=1)]
    return pd.Series(epochs, index=dev.index)


def at_epoch(curves: pd.DataFrame, epochs: pd.Series) -> pd.Series:
    """The value of every curve at its own epoch (as `best_epoch` gives); NaN where there is none."""
    places = curves.columns.get_indexer(pd.Index(epochs.reindex(curves.index)))
    values = curves.to_numpy(dtype=float)
    found = np.full(len(curves), np.nan)
    known = places >= 0
    found[known] = values[np.flatnonzero(known), places[known]]
    return pd.Series(found, index=curves.index)


def _mean_over_folds(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row for each arm, seed and evaluation: folds have other numbers of steps, so evaluations meet by their place."""
    rows = rows.sort_values(["run", "epoch"])
    rows = rows.assign(place=rows.groupby("run", observed=True).cumcount())
    epochs = rows.groupby("place")["epoch"].mean().round(6)
    keys = ["arm", "seed", "place"]
    mean = rows.groupby(keys, observed=True)[metric].agg(lambda values: values.mean(skipna=False)).reset_index()
    return mean.assign(epoch=mean["place"].map(epochs), fold=np.nan)


def _empty_index() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"])
