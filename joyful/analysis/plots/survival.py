"""Kaplan-Meier curves of the time to target. Runs that do not reach the target are censored at their budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from joyful.analysis.formatting import number, percent
from joyful.analysis.plots.curves import draw_bands
from joyful.analysis.plots.style import MUTED, Plot, joined, label_axes, looks, panel, shortened


def time_to_target(
    survival: pd.DataFrame,
    rates: pd.DataFrame,
    arms: Sequence[str],
    *,
    name: str,
    target: str,
    end: float,
    x: str = "epoch",
    unit: str = "epochs",
) -> Plot:
    """Plot the share of runs that have reached the target against x, with 95 % bands. "+" marks censored runs.

    Args:
        survival: Frame as returned by `joyful.analysis.convergence.kaplan_meier`.
        rates: Frame as returned by `joyful.analysis.convergence.reach_rate`.
        arms: The arms to draw, the baseline first.
        name: Identifier of the figure.
        target: The target as text, for the title.
        end: Where the curves end on the x axis.
        x: Label of the x axis.
        unit: Unit of the x axis, for the description.

    Returns:
        The figure.
    """
    sentences, labels = [], shortened(arms)
    with panel() as (figure, axes):
        for arm, look in looks(arms).items():
            rows = survival[survival["arm"] == arm].sort_values("x")
            if rows.empty:
                continue
            columns = {key: rows[key].to_numpy(dtype=float) for key in ("x", "reached", "low", "high")}
            epoch = np.concatenate([[0.0], columns["x"], [max(end, columns["x"][-1])]])
            reached, low, high = (
                100 * np.concatenate([[0.0], columns[key], columns[key][-1:]]) for key in ("reached", "low", "high")
            )
            axes.fill_between(epoch, low, high, step="post", color=look.colour, alpha=0.14, linewidth=0, gid=look.gid)
            axes.step(
                epoch, reached, where="post", color=look.colour, linestyle=look.dashes, label=labels[arm], gid=look.gid
            )
            censored = rows[rows["censored"] > 0]
            if len(censored):  # An empty line would distort the layout
                axes.plot(
                    censored["x"].to_numpy(dtype=float), 100 * censored["reached"].to_numpy(dtype=float),
                    linestyle="none", marker="+", markersize=8, markeredgewidth=1.6, color=look.colour, clip_on=False, gid=look.gid,
                )  # fmt: skip
            sentences.append(_describe(arm, rows, rates, unit))
        axes.set_ylim(0, 103)
        axes.set_xlim(left=0)
        label_axes(axes, "share of runs (%)", x)
    return Plot(name, f"Share of runs that have reached {target}", f"{'; '.join(sentences) or 'No runs'}.", figure)


def _describe(arm: str, rows: pd.DataFrame, rates: pd.DataFrame, unit: str) -> str:
    at_half = rows[rows["reached"] >= 0.5]
    median = f"median {number(float(at_half['x'].iloc[0]), 2)} {unit}" if len(at_half) else "median not reached"
    if arm not in rates.index:
        return f"{arm}: {median}"
    reached, n, rate = (float(rates[key].to_dict()[arm]) for key in ("reached", "n", "rate"))
    return f"{arm}: {int(reached)} of {int(n)} runs reached the target ({percent(rate, 0)}), {median}"


def gains_by_target(ladder: pd.DataFrame, arms: Sequence[str], *, unit: str, chosen: float) -> Plot:
    """Plot the effect on the time to a target against the target, with its 95 % interval.

    Args:
        ladder: Rows of one claim of the result of `joyful.analysis.claims.ladder`.
        arms: The arms to draw, the baseline first.
        unit: Unit of the effect.
        chosen: Share of the way of the target that the verdict rests on.

    Returns:
        The figure.
    """
    band = ladder.rename(columns={"estimate": "mean"}).assign(x=100 * ladder["share"], n=ladder["reached"])
    band = band.replace([np.inf, -np.inf], np.nan)
    with panel() as (figure, axes):
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.axvline(100 * chosen, color=MUTED, linewidth=1, dashes=(2, 2))
        ends = draw_bands(axes, band, looks(arms))
        label_axes(axes, f"gain ({'%' if unit == 'percent' else unit})", "target, % of the way")
    sentences = [
        f"{arm}: {number(end[0], 1, signed=True)} at the farthest target that is known" for arm, end in ends.items()
    ]
    return Plot("gains", "Gain at other targets", joined(sentences[:4]), figure)
