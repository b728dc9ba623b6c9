"""The x axis of the curves: epochs, steps, wall-clock seconds, or another column such as tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from joyful.results import InputError, read_timing

#: Column of the x axis -> its unit in text. Any other column is its own unit.
AXES = {"epoch": "epochs", "step": "steps", "seconds": "seconds", "tokens": "tokens"}

#: Largest distance from a whole number at which an epoch counts as whole.
EPOCH_TOLERANCE = 1e-6


def with_axis(folder: Path, frame: pd.DataFrame, x: str | None) -> tuple[str, pd.DataFrame]:
    """Return the column of the x axis, and the frame with this axis as the column `x`.

    Args:
        folder: Folder of the sweep.
        frame: Rows of its runs, with the columns `run`, `split`, `step`, `epoch` and `seconds`.
        x: Column of the x axis. None stands for "epoch", or for "step" if epochs were not logged or do not tell evaluations
            apart.

    Raises:
        InputError: If a run has no value of the column, or two evaluations of a run have the same epoch.
    """
    missing, repeated = frame["epoch"].isna(), _repeats_epoch(frame)
    axis = x or ("step" if missing.any() or repeated.any() else "epoch")
    if axis == "epoch" and repeated.any():
        row = frame.loc[repeated].iloc[0]
        two = f"two {row['split']} evaluations at epoch {row['epoch']:g}"
        raise InputError(f"--x epoch: run {row['run']} has {two}; set --x step")
    values = wall_seconds(folder, frame) if axis == "seconds" else frame[axis].astype(float)
    frame = frame.assign(x=values)
    none = frame.groupby("run", observed=True)["x"].count() == 0
    if none.any():
        others = " or ".join(f"--x {name}" for name in ("epoch", "step") if name != axis)
        raise InputError(f"--x {axis}: run {none[none].index[0]} has no value of {axis}; set {others}")
    return axis, frame[frame["x"].notna()] if frame["x"].isna().any() else frame


def _repeats_epoch(frame: pd.DataFrame) -> np.ndarray:
    """Return whether each row has the epoch of the row of its run and split before it."""
    run, split = (frame[name].cat.codes.to_numpy() for name in ("run", "split"))
    epoch, result = frame["epoch"].to_numpy(dtype=float), np.zeros(len(frame), dtype=bool)
    for code in range(len(frame["split"].cat.categories)):
        rows = np.flatnonzero(split == code)
        before, after = rows[:-1], rows[1:]
        result[after] = (run[after] == run[before]) & (epoch[after] == epoch[before])
    return result


def wall_seconds(folder: Path, frame: pd.DataFrame) -> pd.Series:
    """Return the wall-clock seconds from the start of its run to each row of a sweep's frame.

    They are the column `seconds` of the histories, or else come from timing.parquet. NaN where neither has them.
    """
    seconds = frame["seconds"].to_numpy(dtype=float).copy()
    codes, epochs = frame["run"].cat.codes.to_numpy(), frame["epoch"].to_numpy(dtype=float)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        if np.isfinite(seconds[rows]).any():
            continue
        try:
            timing = read_timing(folder / str(frame["run"].cat.categories[codes[rows[0]]]))
        except InputError:  # Timing is optional, so a damaged file counts as a missing one.
            timing = []
        if timing:
            timing.sort(key=lambda row: row["epoch"])
            total = np.cumsum([0.0, *(row["seconds"] for row in timing)])
            until = np.searchsorted([row["epoch"] for row in timing], epochs[rows] + EPOCH_TOLERANCE, side="right")
            seconds[rows] = np.where(np.isnan(epochs[rows]), np.nan, total[until])
    return pd.Series(seconds, index=frame.index)
