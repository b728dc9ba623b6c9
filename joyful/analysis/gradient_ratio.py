"""The encoder gradient ratio: the norm of the weighted encoder gradient divided by that of the classification gradient.

Both gradients are with respect to the shared (fusion) parameters, for one fixed training batch at each evaluation. The
ratio makes MSE and SmoothL1 comparable at any weight. The cosine of the gradients shows whether they point in the same
direction.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from joyful.analysis.curves import matrix, t_band
from joyful.analysis.sweep import Sweep, require

RATIO, COSINE = "encoder_gradient_ratio", "encoder_gradient_cosine"
_BOUNDS = ("ratio", "ratio_low", "ratio_high", "cosine", "cosine_low", "cosine_high")


def over_training(sweep: Sweep) -> pd.DataFrame:
    """Return the mean gradient ratio and cosine of each arm over training.

    Args:
        sweep: The sweep.

    Returns:
        A tidy table, without rows if no run has recorded the ratio. Its columns are

        - `arm`, `x` and `n` (seeds).
        - `ratio`, `ratio_low`, `ratio_high`: Geometric mean over seeds, with the t interval of the mean logarithm.
          Ratios of 0 are skipped.
        - `cosine`, `cosine_low`, `cosine_high`: Mean over seeds from -1 to 1, with its t interval, which may exceed
          this range.

        The limits of the intervals are NaN with fewer than two seeds.

    Raises:
        InputError: If the sweep was read without these columns.
    """
    ratio, cosine = _column_matrix(sweep, RATIO), _column_matrix(sweep, COSINE)
    parts = []
    for arm, group in ratio.groupby(level="arm", sort=False):
        cosines = cosine.reindex(index=group.index, columns=group.columns)
        summary = _summary(group, cosines)
        parts.append(pd.DataFrame({"arm": arm, "x": group.columns.to_numpy(dtype=float)} | summary))
    columns = ["arm", "x", "n", *_BOUNDS]
    frame = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return frame[frame["n"] > 0].reset_index(drop=True)


def per_arm(sweep: Sweep) -> pd.DataFrame:
    """Return the gradient ratio and cosine of each arm, with the median over training as the value of a run.

    A ratio of 0.05 means that the encoder gradient is one twentieth as large as the classification gradient.

    Args:
        sweep: The sweep.

    Returns:
        A table with one row per arm, in the order of the sweep. The columns are those of `over_training` without
        `x`, and `is_baseline`.

    Raises:
        InputError: If the sweep was read without these columns.
    """
    ratio, cosine = (_column_matrix(sweep, name).median(axis=1).to_frame() for name in (RATIO, COSINE))
    rows = []
    for arm in sweep.arms:
        group = ratio[ratio.index.get_level_values("arm") == arm.name]
        summary = {k: v[0] for k, v in _summary(group, cosine.reindex(group.index)).items()} if len(group) else {"n": 0}
        if summary["n"]:
            rows.append({"arm": arm.name} | summary | {"is_baseline": arm.is_baseline})
    return pd.DataFrame(rows, columns=["arm", "n", *_BOUNDS, "is_baseline"])


def _summary(ratio: pd.DataFrame, cosine: pd.DataFrame) -> dict[str, np.ndarray]:
    values = ratio.to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log(values), np.nan)
    *bounds, n = t_band(logs)
    means = t_band(cosine.to_numpy(dtype=float))[:3]
    return {"n": n} | dict(zip(_BOUNDS, (*(np.exp(bound) for bound in bounds), *means), strict=True))


def _column_matrix(sweep: Sweep, column: str) -> pd.DataFrame:
    """Return a column of the comparison runs as a matrix.

    The ratio is recorded in train rows at whole epochs and in dev rows between them.
    """
    require(sweep, column)
    frame = sweep.frame
    rows = frame.loc[(frame["role"] == "comparison") & frame[column].notna()]
    rows = rows[["run", "arm", "seed", "fold", "x", "split", column]].assign(dev=rows["split"] != "train")
    rows = rows.sort_values(["run", "x", "dev"]).drop_duplicates(["run", "x"])
    return matrix(rows, column)
