"""The encoder gradient ratio: the weighted encoder gradient over the classification gradient.

Both are taken on the shared (fusion) parameters for one fixed training batch at each evaluation: their ratio of norms
puts MSE and SmoothL1 at any weight on one axis, their cosine says whether they pull the same way.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from joyful.analysis.curves import matrix, t_band
from joyful.analysis.sweep import Sweep, require

RATIO, COSINE = "encoder_gradient_ratio", "encoder_gradient_cosine"
_BOUNDS = ("ratio", "ratio_low", "ratio_high", "cosine", "cosine_low", "cosine_high")


def over_training(sweep: Sweep) -> pd.DataFrame:
    """Tidy: `arm`, `epoch`, `n` (seeds), `ratio`, `ratio_low`, `ratio_high` (exp of the mean of ln ratio over seeds with
    its t interval), `cosine`, `cosine_low`, `cosine_high` (mean with its t interval).

    Without a unit; the cosine from -1 to 1 (its interval may reach beyond). A ratio of 0 has no logarithm and is passed
    over; intervals are NaN below two seeds. Without rows where no run has recorded the ratio.
    """
    ratio, cosine = _felt(sweep, RATIO), _felt(sweep, COSINE)
    parts = []
    for arm, group in ratio.groupby(level="arm", sort=False):
        same = cosine.reindex(index=group.index, columns=group.columns)
        parts.append(pd.DataFrame({"arm": arm, "epoch": group.columns.to_numpy(dtype=float)} | _summary(group, same)))
    columns = ["arm", "epoch", "n", *_BOUNDS]
    frame = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return frame[frame["n"] > 0].reset_index(drop=True)


def of_arms(sweep: Sweep) -> pd.DataFrame:
    """Every arm's place on the axis of ratios, in the sweep's order; columns as `over_training` without epoch, and
    `is_baseline`. Of each run the median over training is taken; ratio 0.05 means that the reconstruction pulls with
    one twentieth of the classification's force."""
    ratio, cosine = (_felt(sweep, name).median(axis=1).to_frame() for name in (RATIO, COSINE))
    rows = []
    for arm in sweep.arms:
        mine = ratio[ratio.index.get_level_values("arm") == arm.name]
        summary = {k: v[0] for k, v in _summary(mine, cosine.reindex(mine.index)).items()} if len(mine) else {"n": 0}
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


def _felt(sweep: Sweep, column: str) -> pd.DataFrame:
    """The column of comparison runs as a matrix: it stands in train rows at whole epochs, in dev rows inside one."""
    require(sweep, column)
    frame = sweep.frame
    rows = frame.loc[(frame["role"] == "comparison") & frame[column].notna()]
    rows = rows[["run", "arm", "seed", "fold", "epoch", "split", column]].assign(dev=rows["split"] != "train")
    rows = rows.sort_values(["run", "epoch", "dev"]).drop_duplicates(["run", "epoch"])
    return matrix(rows, column)
