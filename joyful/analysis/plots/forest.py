"""Forest plots of the verdicts on a claim: effects with intervals, the pairs, and the claimed range."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from joyful.analysis.claims import Verdict
from joyful.analysis.claims_file import claimed
from joyful.analysis.formatting import NONE, heading, interval, metric, quantity, with_unit_of_time
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import CLAIM, INK, MUTED, RULE, Look, Plot, looks

#: The axis ends at this multiple of the claimed range, so that one wide interval does not compress the others.
#: Intervals that extend further end in an arrow.
_FARTHEST = 5.0

#: Maximum number of rows that the description lists. With more, it gives the largest and the smallest effect.
_MOST_LISTED = 4


def forest(verdicts: Sequence[Verdict], name: str, arms: Sequence[str], time: str = "epochs") -> Plot:
    """Plot the verdicts on one claim, one per row.

    Effects are positive in the claimed direction. Dots are the effects of the pairs. The bar around zero covers effects
    below the minimum detectable effect (80 % power). At most MOST_ROWS rows are drawn.

    Args:
        verdicts: Verdicts on one claim: several metrics of one arm, or one metric of several arms.
        name: Identifier of the figure.
        arms: All arms of the sweep in drawing order, which determines their colours.
        time: Unit of the x axis, for the labels of times to a target.

    Returns:
        The figure.
    """
    claim = verdicts[0].claim
    shown = list(verdicts[:MOST_ROWS])
    of_one = len({verdict.metric for verdict in verdicts}) == 1 and len(verdicts) > 1
    labels = [_label(verdict, verdicts, time) for verdict in shown]
    of_arm = looks(arms)
    unit = {"percent": "%", "absolute": "in the unit of the column"}.get(claim.unit, claim.unit)
    low_end, high_end = _limits(shown)
    with rows_panel(len(shown)) as (figure, axes):
        axes.axvspan(max(claim.lower, low_end), min(claim.upper, high_end), color=CLAIM, alpha=0.32, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_xlim(low_end, high_end)
        for row, verdict in enumerate(shown):
            look = of_arm.get(verdict.arm) or looks([verdict.arm])[verdict.arm]
            if math.isfinite(verdict.minimum_detectable):
                reach = verdict.minimum_detectable
                axes.fill_betweenx([-row - 0.15, -row + 0.07], -reach, reach, color=RULE, alpha=0.55, linewidth=0)
            pairs = verdict.pairs.to_numpy(dtype=float)
            pairs = pairs[(pairs >= low_end) & (pairs <= high_end)][:200]
            if len(pairs):  # An empty line would distort the layout
                axes.plot(
                    pairs, np.full(len(pairs), -row - 0.27), linestyle="none",
                    marker=look.marker, markersize=3, color=look.colour, alpha=0.6, markeredgewidth=0, clip_on=False,
                    gid=look.gid,
                )  # fmt: skip
            _interval(axes, verdict, -row - 0.04, low_end, high_end, look)
        axes.set_xlabel(f"effect in the claimed direction ({unit})")
        label_rows(axes, labels, [verdict.verdict for verdict in shown])
    of_metric = f", {with_unit_of_time(metric(verdicts[0].metric.label), time)}" if of_one else ""
    title = f"{heading(claim.name)}{of_metric}: effect of each pair ({unit})"
    return Plot(name, title, f"{_finding(verdicts, labels, time)}; claimed {claimed(claim)}.", figure)


def _finding(verdicts: Sequence[Verdict], labels: Sequence[str], time: str) -> str:
    if len(verdicts) <= _MOST_LISTED:
        return "; ".join(_describe(verdict, label) for verdict, label in zip(verdicts, labels, strict=True))
    counts = Counter(verdict.verdict for verdict in verdicts)
    finite = [verdict for verdict in verdicts if math.isfinite(verdict.estimate)]
    sentences = [f"{counts[name]} of {len(verdicts)} {name}" for name in sorted(counts)]
    for end, choose in (("largest effect", max), ("smallest effect", min)) if finite else ():
        verdict = choose(finite, key=lambda v: v.estimate)
        sentences.append(_describe(verdict, f"{end}, {_label(verdict, verdicts, time)}"))
    drawn = f"; the first {len(labels)} rows are drawn" if len(labels) < len(verdicts) else ""
    return f"{'; '.join(sentences)}{drawn}"


def _describe(verdict: Verdict, label: str) -> str:
    if not math.isfinite(verdict.estimate):
        return f"{label}: {verdict.verdict}"
    unit, digits = verdict.claim.unit, verdict.claim.digits
    bounds = interval(verdict.low, verdict.high, unit, digits)
    between = "" if bounds == NONE else f", 95 % interval {bounds}"
    return f"{label}: {quantity(verdict.estimate, unit, digits, signed=True)}{between}, {verdict.verdict}"


def _interval(axes: Axes, verdict: Verdict, y: float, left: float, right: float, look: Look) -> None:
    if not math.isfinite(verdict.estimate):
        return
    if not (math.isnan(verdict.low) or math.isnan(verdict.high)):
        axes.plot([max(verdict.low, left), min(verdict.high, right)], [y, y], color=look.colour, linewidth=2.4)
        for beyond, edge, arrow in ((verdict.low < left, left, "<"), (verdict.high > right, right, ">")):
            if beyond:
                axes.plot([edge], [y], marker=arrow, color=look.colour, markersize=6, clip_on=False)
    if left <= verdict.estimate <= right:
        axes.plot(
            [verdict.estimate], [y], marker="D", markersize=6.5, color=look.colour, markeredgecolor=INK, markeredgewidth=0.8,
            clip_on=False, gid=look.gid,
        )  # fmt: skip
    else:  # the value is written beside the arrow at the edge, beyond which it lies
        edge, side, shift = (left, "left", 8) if verdict.estimate < left else (right, "right", -8)
        value = quantity(verdict.estimate, verdict.claim.unit, verdict.claim.digits, signed=True)
        axes.annotate(value, (edge, y), (shift, 0), textcoords="offset points", ha=side, va="center", fontsize=8)


def _limits(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    claim = verdicts[0].claim
    bounds = [bound for bound in (claim.lower, claim.upper) if math.isfinite(bound)]
    estimates = [abs(verdict.estimate) for verdict in verdicts if verdict.verdict == "supported"]
    farthest = max(
        _FARTHEST * max([abs(bound) for bound in bounds] + [2.0]), 1.5 * float(np.median(estimates or [0.0]))
    )
    values = [0.0, *bounds]
    for verdict in verdicts:
        values += [verdict.estimate, verdict.low, verdict.high, *verdict.pairs.to_numpy(dtype=float)]
    inside = [min(max(value, -farthest), farthest) for value in values if math.isfinite(value)]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _label(verdict: Verdict, among: Sequence[Verdict], time: str) -> str:
    subjects = len({other.subject for other in among}) > 1
    subject = verdict.subject if len({other.arm for other in among}) > 1 else verdict.task
    if subjects and len({other.metric for other in among}) == 1:
        return subject
    label = with_unit_of_time(metric(verdict.metric.label), time)
    return f"{subject}: {label}" if subjects else label
