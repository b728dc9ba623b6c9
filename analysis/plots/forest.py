"""Forest plots: the effect of every arm and metric under one claim, its interval, its pairs, and the claimed range."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from analysis.claims import Claim, Verdict
from analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from analysis.plots.style import CLAIM, INK, MUTED, RULE, Plot, drawing, looks
from analysis.words import decimals, heading, interval, metric, quantity

#: Effects beyond so many times the claim are drawn as arrows at the edge: one wild interval must not flatten the rest.
_FARTHEST = 5.0


def forest(verdicts: Sequence[Verdict], name: str, arms: Sequence[str]) -> Plot:
    """The verdicts on one claim, a row for each arm and metric; positive is the claimed direction.

    arms: all arms of the sweep, the baseline first, for colours. At most MOST_ROWS rows are drawn.
    Dots are pairs; the bar over zero holds the effects that this many pairs could not have shown with 80 % power.
    """
    claim = verdicts[0].claim
    shown = list(verdicts[:MOST_ROWS])
    several = len({verdict.arm for verdict in verdicts}) > 1
    of_arm = looks(arms)
    unit = {"percent": "%", "points": "points"}.get(claim.unit, claim.unit)
    low_end, high_end = _limits(shown)
    with drawing():
        figure, axes = rows_panel(len(shown))
        axes.axvspan(claim.lower, min(claim.upper, high_end), color=CLAIM, alpha=0.32, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_xlim(low_end, high_end)
        for row, verdict in enumerate(shown):
            look = of_arm.get(verdict.arm) or looks([verdict.arm])[verdict.arm]
            if math.isfinite(verdict.minimum_detectable):
                reach = verdict.minimum_detectable
                axes.fill_betweenx([-row - 0.15, -row + 0.07], -reach, reach, color=RULE, alpha=0.55, linewidth=0)
            pairs = verdict.pairs.to_numpy(dtype=float)
            pairs = pairs[np.isfinite(pairs)][:200]
            if len(pairs):  # an empty line would draw the layout to the corner
                axes.plot(
                    np.clip(pairs, low_end, high_end), np.full(len(pairs), -row - 0.27), linestyle="none",
                    marker=look.marker, markersize=3, color=look.colour, alpha=0.6, markeredgewidth=0, clip_on=False,
                )  # fmt: skip
            _interval(axes, verdict, -row - 0.04, low_end, high_end, look.colour)
        axes.set_xlabel(f"effect in the claimed direction ({unit})")
        labels = [_label(verdict, several) for verdict in shown]
        label_rows(axes, labels, [verdict.verdict for verdict in shown])
    told = [
        f"{_label(verdict, several)}: {quantity(verdict.estimate, claim.unit, signed=True)}, 95 % interval "
        f"{interval(verdict.low, verdict.high, claim.unit)}, {verdict.verdict}"
        if math.isfinite(verdict.estimate)
        else f"{_label(verdict, several)}: {verdict.verdict}"
        for verdict in shown
    ]
    left = f" The first {len(shown)} of {len(verdicts)} rows." if len(shown) < len(verdicts) else ""
    title = f"{heading(claim.name)}: effect on each pair and its mean ({unit})"
    return Plot(name, title, f"{'; '.join(told)}; claimed {claimed(claim)}.{left}", figure)


def _interval(axes: Axes, verdict: Verdict, y: float, left: float, right: float, colour: str) -> None:
    if not math.isfinite(verdict.estimate):
        return
    if math.isfinite(verdict.low) and math.isfinite(verdict.high):
        axes.plot([max(verdict.low, left), min(verdict.high, right)], [y, y], color=colour, linewidth=2.4)
        for beyond, edge, arrow in ((verdict.low < left, left, "<"), (verdict.high > right, right, ">")):
            if beyond:
                axes.plot([edge], [y], marker=arrow, color=colour, markersize=6, clip_on=False)
    axes.plot(
        [min(max(verdict.estimate, left), right)], [y], marker="D", markersize=6.5, color=colour,
        markeredgecolor=INK, markeredgewidth=0.8, clip_on=False,
    )  # fmt: skip


def _limits(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    claim = verdicts[0].claim
    bounds = [bound for bound in (claim.lower, claim.upper) if math.isfinite(bound)]
    farthest = _FARTHEST * max([abs(bound) for bound in bounds] + [2.0])
    values = [0.0, *bounds]
    for verdict in verdicts:
        values += [verdict.estimate, verdict.low, verdict.high, *verdict.pairs.to_numpy(dtype=float)]
    inside = [min(max(value, -farthest), farthest) for value in values if math.isfinite(value)]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def claimed(claim: Claim) -> str:
    """`15 to 25 % increase`; `15 % or more increase` without an upper edge."""
    whole = all(not math.isfinite(bound) or float(bound).is_integer() for bound in (claim.lower, claim.upper))
    digits = 0 if whole else decimals(claim.unit)
    if not math.isfinite(claim.upper):
        return f"{quantity(claim.lower, claim.unit, digits)} {claim.direction} or more"
    return f"{interval(claim.lower, claim.upper, claim.unit, digits)} {claim.direction}"


def _label(verdict: Verdict, several: bool) -> str:
    words = metric(verdict.metric)
    return f"{verdict.arm}: {words}" if several else words
