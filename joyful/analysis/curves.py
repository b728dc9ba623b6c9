"""Learning curves as matrices with one row per arm and seed and one column per evaluation.

The columns are labelled with the positions of the evaluations on the x axis of the sweep: epochs, steps, seconds or tokens.
NaN marks a value that was not measured. An infinite value was measured and is not finite: the run has diverged.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from joyful.analysis.axis import EPOCH_TOLERANCE
from joyful.analysis.sweep import Sweep, require

#: Number of points at which curves with different evaluations are averaged.
GRID = 200


def curves(
    sweep: Sweep,
    metric: str = "f1_weighted",
    split: str = "dev",
    *,
    role: str = "comparison",
    whole_epochs: bool = False,
    beyond_shared_span: bool = False,
) -> pd.DataFrame:
    """Return the learning curves of a metric.

    If the runs have folds, the curve of a seed is the mean over its folds at each evaluation. It is NaN if a fold has
    no value. For a sweep from `shared_span`, the curves are cut to the span that the compared curves share.

    Args:
        sweep: The sweep.
        metric: Column of the histories.
        split: "train", "dev" or "test".
        role: "comparison" or "calibration".
        whole_epochs: Whether to keep only evaluations at the end of an epoch. On another x axis than epochs all are kept.
        beyond_shared_span: Whether to keep the curves whole.

    Returns:
        The curves in the unit of the files. The index is (arm, seed), with arms in the order of the sweep and ascending
        seeds. The columns are the positions of the evaluations.

    Raises:
        InputError: If the sweep was read without the column.
    """
    require(sweep, metric)
    chosen = (sweep.frame["split"] == split) & (sweep.frame["role"] == role)
    rows = sweep.frame.loc[chosen, ["run", "arm", "seed", "fold", "x", metric]]
    wide = matrix(rows, metric, whole_epochs=whole_epochs and sweep.x == "epoch")
    if sweep.cut_to_shared_span and role == "comparison" and not beyond_shared_span:
        span, columns = shared_spans(wide, sweep.design), wide.columns.to_numpy(dtype=float)
        start, end = (span[name].to_numpy()[:, None] for name in ("start", "end"))
        wide = wide.where((columns >= start) & (columns <= end))
    return wide


def matrix(rows: pd.DataFrame, metric: str, *, whole_epochs: bool = False) -> pd.DataFrame:
    """Return rows of a sweep's frame as a matrix of curves, as `curves` does.

    Args:
        rows: A table with the columns `run`, `arm`, `seed`, `fold`, `x` and `metric`, and one row per run and evaluation.
        metric: Column of the values.
        whole_epochs: Whether to keep only evaluations at whole numbers of x.

    Returns:
        The matrix, with the index (arm, seed) and x as columns.
    """
    rows = rows.assign(x=rows["x"].round(6))
    if rows["fold"].notna().any():
        rows = _mean_over_folds(rows, metric)
    if whole_epochs:
        rows = rows[(rows["x"] - rows["x"].round()).abs() <= EPOCH_TOLERANCE]
    names = rows["arm"].cat.categories
    wide = rows.assign(arm=rows["arm"].cat.codes).pivot(index=["arm", "seed"], columns="x", values=metric)
    index = [(names[code], int(seed)) for code, seed in wide.index]
    wide.index = pd.MultiIndex.from_tuples(index, names=["arm", "seed"]) if index else _empty_index()
    return wide


def spans(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the x of the first and of the last value of each curve as `start` and `end`, or NaN without a value."""
    columns = curves.columns.to_numpy(dtype=float)
    known = curves.notna().to_numpy()
    table = pd.DataFrame(index=curves.index, columns=["start", "end"], dtype=float)
    if len(columns):
        some = known.any(axis=1)
        table["start"] = np.where(some, columns[known.argmax(axis=1)], np.nan)
        table["end"] = np.where(some, columns[::-1][known[:, ::-1].argmax(axis=1)], np.nan)
    return table


def shared_spans(curves: pd.DataFrame, design: str = "paired") -> pd.DataFrame:
    """Return the span of x in which each curve is compared, as `start` and `end`.

    Args:
        curves: Curves of two arms with the index (arm, seed).
        design: "paired": the span that the curves of a seed share. "unpaired": the span that all curves share.
    """
    own = spans(curves)
    if design == "paired":
        of_seed = own.groupby(level="seed")
        return pd.DataFrame({"start": of_seed["start"].transform("max"), "end": of_seed["end"].transform("min")})
    return own.assign(start=own["start"].max(), end=own["end"].min())


def best_so_far(curves: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Return the best value of each curve so far: the maximum (or minimum) of f(e') over e' <= e.

    NaN values are skipped. The result is NaN before the first value.
    """
    best = curves.cummax(axis=1) if higher_is_better else curves.cummin(axis=1)
    return best.ffill(axis=1)


def final(curves: pd.DataFrame) -> pd.Series:
    """Return the last value of each curve, indexed by (arm, seed). NaN for a curve without a value."""
    last = curves.ffill(axis=1)
    return last.iloc[:, -1] if last.shape[1] else pd.Series(np.nan, index=curves.index)


def area(curves: pd.DataFrame, within: pd.DataFrame | None = None) -> pd.Series:
    """Return the mean height of each curve: the area by the trapezoidal rule, divided by the width of its span.

    A gap is bridged by a straight line, and so is the way to an end of the span that lies between two values.

    Args:
        curves: Curves, one per row. The columns are positions on the x axis.
        within: `start` and `end` of each curve, by default those of its values.

    Returns:
        The areas in the unit of the curves, indexed by (arm, seed). NaN for a curve with a single value in its span.

    Example:
        >>> area(pd.DataFrame([[0.0, np.nan, 1.0]], columns=[1.0, 2.0, 3.0])).tolist()
        [0.5]
    """
    x, height = curves.columns.to_numpy(dtype=float), np.full(len(curves), np.nan)
    ends = (spans(curves) if within is None else within)[["start", "end"]].to_numpy(dtype=float)
    for row, (values, (start, end)) in enumerate(zip(curves.to_numpy(dtype=float), ends, strict=True)):
        known = ~np.isnan(values)
        if known.sum() < 2 or not start < end:
            continue
        inside = x[known & (x > start) & (x < end)]
        at = np.array([start, *inside, end])
        height[row] = np.trapezoid(np.interp(at, x[known], values[known]), at) / (end - start)
    return pd.Series(height, index=curves.index)


def band(curves: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return the mean over seeds at each evaluation, with its pointwise t interval mean ± t_{n-1} · sd / √n.

    The intervals are unpaired, so they do not show whether two arms differ. Where the curves of an arm are evaluated at
    different x, they are interpolated linearly at GRID points.

    Args:
        curves: Curves with the index (arm, seed).
        confidence: Confidence level, between 0 and 1.

    Returns:
        A tidy table: `arm`, `x`, `mean`, `low`, `high` and `n` (seeds with a value). NaN values are skipped. `low` and
        `high` are NaN if n < 2.
    """
    parts = []
    for arm, group in curves.groupby(level="arm", sort=False):
        group = _on_one_grid(group)
        mean, low, high, n = t_band(group.to_numpy(dtype=float), confidence)
        rows = {"x": group.columns.to_numpy(dtype=float), "mean": mean, "low": low, "high": high, "n": n}
        parts.append(pd.DataFrame(rows).assign(arm=str(arm)))
    columns = {"arm": object, "x": float, "mean": float, "low": float, "high": float, "n": int}
    if not parts:
        return pd.DataFrame(columns=list(columns)).astype(columns)
    return pd.concat(parts, ignore_index=True)[list(columns)]


def paired_differences(curves: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the difference of each arm from the baseline at each evaluation, as a mean over pairs with its interval.

    Args:
        curves: Curves with the index (arm, seed).
        baseline: Name of the baseline.

    Returns:
        A tidy table as from `band`, with `n` the number of pairs. The baseline and arms without pairs are not in it.
        Evaluations at which a run of a pair has no value are skipped for this pair.
    """
    if baseline not in curves.index.get_level_values("arm"):
        return band(curves.iloc[:0])
    base = curves.xs(baseline, level="arm")
    others = curves[curves.index.get_level_values("arm") != baseline]
    with np.errstate(invalid="ignore"):
        values = others.to_numpy(dtype=float) - base.reindex(others.index.get_level_values("seed")).to_numpy(
            dtype=float
        )
    found = pd.DataFrame(values, index=others.index, columns=others.columns).replace([np.inf, -np.inf], np.nan)
    return band(found.dropna(how="all").dropna(axis="columns", how="all"))


def _on_one_grid(curves: pd.DataFrame) -> pd.DataFrame:
    """Return curves with the same evaluations unchanged, and others interpolated at GRID points of their span."""
    known = curves.notna().to_numpy()
    if not known.any() or (known == known.any(axis=0)).mean(axis=0).min() > 0.5:
        return curves
    x, ends = curves.columns.to_numpy(dtype=float), spans(curves)
    grid = np.linspace(ends["start"].min(), ends["end"].max(), GRID)
    rows = [
        np.interp(grid, x[row], values[row], left=np.nan, right=np.nan) if row.any() else np.full(GRID, np.nan)
        for row, values in zip(known, curves.to_numpy(dtype=float), strict=True)
    ]
    return pd.DataFrame(rows, index=curves.index, columns=grid)


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

    Folds may differ in their numbers of steps, so the n-th evaluations of all folds are combined, at their mean x. If the
    n-th evaluations of a seed lie further apart than half of the smallest step, a fold lacks an evaluation. The
    evaluations at equal x are combined then, and those that a fold lacks are gaps.
    """
    rows = rows.sort_values(["run", "x"])
    by_run = rows.groupby("run", observed=True)["x"]
    rows = rows.assign(position=by_run.cumcount(), step=by_run.diff())
    keys = ["arm", "seed"]
    of_seed = rows.groupby(keys, observed=True)
    folds = of_seed["fold"].transform("nunique")
    at = rows.groupby([*keys, "position"], observed=True)["x"]
    apart = (at.transform("max") - at.transform("min") > of_seed["step"].transform("min") / 2) | (
        at.transform("count") != folds
    )
    apart = apart.groupby([rows[key] for key in keys], observed=True).transform("any")
    rows = rows.assign(x=rows["x"].where(apart, at.transform("mean")).round(6))
    groups = rows.assign(folds=folds).groupby([*keys, "x"], observed=True)
    mean = groups[metric].agg(lambda values: values.mean(skipna=False))
    complete = groups[metric].size() == groups["folds"].first()
    return mean.where(complete).reset_index().assign(fold=np.nan)


def _empty_index() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"])
