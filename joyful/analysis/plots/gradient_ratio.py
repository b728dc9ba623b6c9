"""The encoder gradient ratio: the weighted reconstruction gradient relative to the classification gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis.formatting import number, three_digits
from joyful.analysis.plots.curves import draw_bands
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import INK, MUTED, Plot, joined, label_axes, log_scale, looks, panel


def ratio_over_training(ratios: pd.DataFrame, arms: Sequence[str], x: str = "epoch") -> Plot:
    """Plot the encoder gradient ratio over training on a logarithmic axis.

    Args:
        ratios: Frame as returned by `joyful.analysis.gradient_ratio.over_training`.
        arms: The arms to draw, the baseline first.
        x: Label of the x axis.

    Returns:
        The figure.
    """
    with panel() as (figure, axes):
        ends = draw_bands(axes, _band(ratios, "ratio"), looks(arms))
        if ends:
            log_scale(axes.yaxis)
        label_axes(axes, "gradient ratio", x)
    sentences = [f"{arm} ends at {three_digits(end[0])}" for arm, end in ends.items()]
    return Plot("gradient-ratio", "Encoder gradient ratio over training", joined(sentences), figure)


def cosine_over_training(ratios: pd.DataFrame, arms: Sequence[str], x: str = "epoch") -> Plot:
    """Plot the cosine of the angle between the two gradients over training, from -1 to 1.

    Args:
        ratios: Frame as returned by `joyful.analysis.gradient_ratio.over_training`.
        arms: The arms to draw, the baseline first.
        x: Label of the x axis.

    Returns:
        The figure.
    """
    with panel() as (figure, axes):
        axes.axhline(0, color=MUTED, linewidth=1)
        ends = draw_bands(axes, _band(ratios, "cosine"), looks(arms))
        label_axes(axes, "cosine", x)
    sentences = [f"{arm} ends at {number(end[0], 3)}" for arm, end in ends.items()]
    title = "Cosine of the reconstruction and classification gradients over training"
    return Plot("gradient-cosine", title, joined(sentences), figure)


def arms_by_ratio(places: pd.DataFrame, arms: Sequence[str]) -> Plot:
    """Plot the encoder gradient ratio of each arm, sorted by ratio. At most MOST_ROWS arms are drawn.

    Args:
        places: Frame as returned by `joyful.analysis.gradient_ratio.per_arm`.
        arms: All arms of the sweep in drawing order, which determines their colours.

    Returns:
        The figure.
    """
    ordered = places[places["ratio"] > 0].sort_values(["ratio", "arm"]).head(MOST_ROWS)
    records: list[dict[str, Any]] = [{str(key): row[key] for key in row} for row in ordered.to_dict("records")]
    of_arm = looks(arms)
    with rows_panel(len(records)) as (figure, axes):
        for row, place in enumerate(records):
            look = of_arm[place["arm"]]
            if math.isfinite(place["ratio_low"]) and math.isfinite(place["ratio_high"]):
                axes.plot(
                    [place["ratio_low"], place["ratio_high"]],
                    [-row - 0.1] * 2,
                    color=look.colour,
                    linewidth=2.4,
                    gid=look.gid,
                )
            axes.plot(
                [place["ratio"]], [-row - 0.1], marker=look.marker, markersize=7, color=look.colour, markeredgecolor=INK,
                markeredgewidth=0.8, gid=look.gid,
            )  # fmt: skip
        if records:
            axes.margins(x=0.12)
            log_scale(axes.xaxis)
        axes.set_xlabel("gradient ratio, median over training")
        notes = [f"{three_digits(p['ratio'])}, cosine {number(p['cosine'], 2)}" for p in records]
        label_rows(axes, [_name(place) for place in records], notes)
    sentences = [f"{_name(place)} at {three_digits(place['ratio'])}" for place in records]
    return Plot("gradient-ratio-arms", "Arms by encoder gradient ratio", joined(sentences), figure)


def _band(ratios: pd.DataFrame, measure: str) -> pd.DataFrame:
    names = {measure: "mean", f"{measure}_low": "low", f"{measure}_high": "high"}
    band = ratios[["arm", "x", "n", *names]].rename(columns=names)
    return band.replace([np.inf, -np.inf], np.nan)


def _name(place: dict[str, Any]) -> str:
    return f"{place['arm']} (baseline)" if place["is_baseline"] and place["arm"] != "baseline" else str(place["arm"])
