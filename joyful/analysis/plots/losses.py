"""The components of the training loss, before weighting and as shares of the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import percent
from joyful.analysis.plots.curves import learning_curves
from joyful.analysis.plots.style import Plot, drawing, epochs, finish, log_scale, look, panel

COMPONENTS = ("classification", "contrastive", "encoder", "gate_reg")
#: Component -> its name in figures.
LABELS = {
    "classification": "classification",
    "contrastive": "contrastive",
    "encoder": "reconstruction",
    "gate_reg": "gate",
}


def component(band: pd.DataFrame, arms: Sequence[str], part: str, unit: str = "") -> Plot:
    """Plot one component of the training loss before weighting, with one curve per arm.

    Args:
        band: Means and intervals, as returned by `joyful.analysis.curves.band`.
        arms: The arms to draw, the baseline first.
        part: One of COMPONENTS.
        unit: Unit of the axis, or "".

    Returns:
        The figure.
    """
    return learning_curves(
        band, arms, name=f"loss-{part.replace('_', '-')}", quantity=f"train {LABELS[part]} loss", unit=unit
    )


def shares(bands: Mapping[str, pd.DataFrame], arm: str, name: str) -> Plot:
    """Plot the shares of the weighted components in the total loss of one arm, as means over seeds.

    The axis is logarithmic, in per cent. Shares of zero are not drawn.

    Args:
        bands: Component -> its share (0 to 1), as returned by `joyful.analysis.curves.band`.
        arm: Name of the arm.
        name: Identifier of the figure.

    Returns:
        The figure.
    """
    sentences = []
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
                markevery=max(1, len(rows) // 8), label=LABELS[part],
            )  # fmt: skip
            sentences.append(
                f"{LABELS[part]} {percent(float(mean[-1]) / 100)} at the end, {percent(np.mean(mean) / 100)} on average"
            )
        if sentences:
            log_scale(axes.yaxis)
        epochs(axes)
        axes.set_ylabel("share of the total loss (%)")
        finish(axes)
    return Plot(
        name,
        f"Shares of the total loss (%): {arm}",
        f"{arm}: {'; '.join(sentences) or 'nothing was measured'}.",
        figure,
    )
