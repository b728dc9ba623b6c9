"""The parts of the training loss: each raw over training, and their shares of the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import percent
from joyful.analysis.plots.curves import learning_curves
from joyful.analysis.plots.style import Plot, drawing, epochs, finish, log_scale, look, panel

COMPONENTS = ("classification", "contrastive", "encoder", "gate_reg")
WORDS = {
    "classification": "classification",
    "contrastive": "contrast",
    "encoder": "reconstruction",
    "gate_reg": "gates",
}


def component(band: pd.DataFrame, arms: Sequence[str], part: str, unit: str = "") -> Plot:
    """One raw component of the training loss over training, a curve for each arm. part: of COMPONENTS."""
    return learning_curves(
        band, arms, name=f"loss-{part.replace('_', '-')}", quantity=f"{WORDS[part]} loss on train", unit=unit
    )


def shares(bands: Mapping[str, pd.DataFrame], arm: str, name: str) -> Plot:
    """Shares of the weighted components in the total of one arm (per cent, logarithmic), mean over seeds.

    bands: component -> `joyful.analysis.curves.band` of its share.
    """
    told = []
    with drawing():
        figure, axes = panel(height=3.0)
        for index, part in enumerate(COMPONENTS, start=1):
            if part not in bands:
                continue
            rows = bands[part]
            rows = rows[(rows["arm"] == arm) & (rows["mean"] > 0)].sort_values("epoch")
            if rows.empty:
                continue
            mean, line = 100 * rows["mean"].to_numpy(dtype=float), look(index)
            axes.plot(
                rows["epoch"].to_numpy(dtype=float), mean, color=line.colour, linestyle=line.dashes, marker=line.marker,
                markevery=max(1, len(rows) // 8), label=WORDS[part],
            )  # fmt: skip
            told.append(
                f"{WORDS[part]} {percent(float(mean[-1]) / 100)} at the end, {percent(np.mean(mean) / 100)} on average"
            )
        if told:
            log_scale(axes.yaxis)
        epochs(axes)
        axes.set_ylabel("share of the total loss (%)")
        finish(axes)
    return Plot(
        name, f"Shares of the total loss (%): {arm}", f"{arm}: {'; '.join(told) or 'nothing was measured'}.", figure
    )
