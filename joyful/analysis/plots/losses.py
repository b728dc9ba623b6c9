"""The components of the training loss as shares of the total."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from joyful.analysis.formatting import percent
from joyful.analysis.plots.style import Plot, label_axes, log_scale, look, panel

#: Component -> its name in figures.
LABELS = {
    "classification": "classification", "contrastive": "contrastive", "encoder": "reconstruction", "gate_reg": "gate",
}  # fmt: skip


def shares(bands: Mapping[str, pd.DataFrame], arm: str, name: str, x: str = "epoch") -> Plot:
    """Plot the shares of the weighted components in the total loss of one arm, as means over seeds.

    The axis is logarithmic, in per cent. Shares of zero are not drawn.

    Args:
        bands: Component -> its share (0 to 1), as returned by `joyful.analysis.curves.band`.
        arm: Name of the arm.
        name: Identifier of the figure.
        x: Label of the x axis.

    Returns:
        The figure.
    """
    sentences = []
    with panel(height=3.0) as (figure, axes):
        for index, (part, label) in enumerate(LABELS.items(), start=1):
            if part not in bands:
                continue
            rows = bands[part]
            rows = rows[(rows["arm"] == arm) & (rows["mean"] > 0)].sort_values("x")
            if rows.empty:
                continue
            mean, line = 100 * rows["mean"].to_numpy(dtype=float), look(index)
            axes.plot(
                rows["x"].to_numpy(dtype=float), mean, color=line.colour, linestyle=line.dashes, marker=line.marker,
                markevery=max(1, len(rows) // 8), label=label,
            )  # fmt: skip
            end, average = percent(float(mean[-1]) / 100), percent(np.mean(mean) / 100)
            sentences.append(f"{label} {end} at the end, {average} on average")
        if sentences:
            log_scale(axes.yaxis)
        label_axes(axes, "share of the total loss (%)", x)
    finding = f"{arm}: {'; '.join(sentences) or 'nothing was measured'}."
    return Plot(name, f"Shares of the total loss (%): {arm}", finding, figure)
