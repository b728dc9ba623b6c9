"""Forest plots: the effect of every arm and metric under one claim, its interval, its pairs, and the claimed range."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from joyful.analysis.claims import Claim, Verdict
from joyful.analysis.formatting import NONE, decimals, heading, interval, metric, quantity
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import CLAIM, INK, MUTED, RULE, Plot, drawing, looks

#: Effects beyond so many times the claim are drawn as arrows at the edge: one wild interval must not flatten the rest.
_FARTHEST = 5.0

#: Rows that are told one by one; of more, the ends.
_MOST_TOLD = 4


def forest(verdicts: Sequence[Verdict], name: str, arms: Sequence[str]) -> Plot:
    """The verdicts on one claim, a row for each: its metrics, or one metric for many arms. Positive is as claimed.

    arms: all arms of the sweep in drawing order, for colours. At most MOST_ROWS rows are drawn.
    Dots are pairs; the bar over zero holds the effects that this many pairs could not have shown with 80 % power.
    """
    claim = verdicts[0].claim
    shown = list(verdicts[:MOST_ROWS])
    of_one = len({verdict.metric for verdict in verdicts}) == 1 and len(verdicts) > 1
    labels = [_label(verdict, verdicts) for verdict in shown]
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
        label_rows(axes, labels, [verdict.verdict for verdict in shown])
    title = f"{heading(claim.name)}{f', {metric(verdicts[0].metric)}' if of_one else ''}: effect of each pair ({unit})"
    return Plot(name, title, f"{_finding(verdicts, labels)}; claimed {claimed(claim)}.", figure)


def _finding(verdicts: Sequence[Verdict], labels: Sequence[str]) -> str:
    if len(verdicts) <= _MOST_TOLD:
        return "; ".join(_told(verdict, label) for verdict, label in zip(verdicts, labels, strict=True))
    words = Counter(verdict.verdict for verdict in verdicts)
    found = [verdict for verdict in verdicts if math.isfinite(verdict.estimate)]
    ends = [max(found, key=lambda v: v.estimate), min(found, key=lambda v: v.estimate)] if found else []
    told = [f"{word} {words[word]} of {len(verdicts)}" for word in sorted(words)]
    told += [
        _told(verdict, f"{how} {_label(verdict, verdicts)}")
        for how, verdict in zip(("most", "least"), ends, strict=False)
    ]
    drawn = f"; the first {len(labels)} rows are drawn" if len(labels) < len(verdicts) else ""
    return f"{'; '.join(told)}{drawn}"


def _told(verdict: Verdict, label: str) -> str:
    if not math.isfinite(verdict.estimate):
        return f"{label}: {verdict.verdict}"
    unit = verdict.claim.unit
    bounds = interval(verdict.low, verdict.high, unit)
    between = "" if bounds == NONE else f", 95 % interval {bounds}"
    return f"{label}: {quantity(verdict.estimate, unit, signed=True)}{between}, {verdict.verdict}"


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


def _label(verdict: Verdict, among: Sequence[Verdict]) -> str:
    several_arms = len({other.arm for other in among}) > 1
    if several_arms and len({other.metric for other in among}) == 1:
        return verdict.arm
    words = metric(verdict.metric)
    return f"{verdict.arm}: {words}" if several_arms else words
