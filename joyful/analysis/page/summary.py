"""The first screen in plain words: what was compared, on how many pairs, what holds, what does not, what could not be seen."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from joyful.analysis.claims import FEWEST_PAIRS, VERDICTS, Verdict
from joyful.analysis.convergence import Target
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import NONE, count, heading, interval, listing, metric, number, quantity
from joyful.analysis.page.parts import Group, Point, clean
from joyful.analysis.sweep import Arm, Sweep

TITLES = {
    "supported": "What holds",
    "contradicted": "What does not hold",
    "inconclusive": "What is open",
    "not testable": "What could not be tested",
}

SIZES = (
    "Effects of these sizes are noticed in four of five sweeps like this one (80 % power), smaller ones more seldom, so an "
    "effect that was not seen may still be there:"
)

#: Points of one group on the first screen; the table has them all.
_MOST_POINTS = 12

#: With more other arms than this the first screen lists arms by metric; so many of them.
_MANY_ARMS, _MOST_ARMS = 2, 6


def title(sweep: Sweep) -> str:
    """ "smoothl1 0.03 against mse 0.05", or how many arms there are."""
    if sweep.baseline is None:
        return "A sweep without runs to compare"
    if not sweep.others:
        return f"One arm: {clean(sweep.baseline.name)}"
    if len(sweep.others) == 1:
        return f"{clean(sweep.others[0].name)} against {clean(sweep.baseline.name)}"
    return f"{len(sweep.others)} arms against {clean(sweep.baseline.name)}"


def compared(findings: Findings) -> tuple[str, ...]:
    """Sentences: arms and what they differ in, pairs, budget, target, runs left out."""
    sweep = findings.sweep
    told = []
    if sweep.baseline is None:
        return (f"No run of this sweep can be used. {_left_out(sweep)}".strip(),)
    if sweep.others:
        factors = listing([f"{clean(name)} ({_values(sweep, name)})" for name in sweep.factors])
        arms = "Two arms were" if len(sweep.arms) == 2 else f"{len(sweep.arms)} arms were"
        differ = f", which differ in {factors}" if factors else ""
        told.append(f"{arms} compared{differ}. The baseline is {clean(sweep.baseline.name)}.")
        told.append(_pairs(sweep))
    else:
        runs = int((sweep.runs["used"] & (sweep.runs["role"] != "calibration")).sum()) if len(sweep.runs) else 0
        told.append(f"The sweep has one arm, {clean(sweep.baseline.name)}, with {count(runs, 'usable run')}.")
    if findings.target is not None:
        told.append(f"The target of the convergence speed is {level(findings.target)}: {source(findings.target)}.")
    told.append(_left_out(sweep))
    return tuple(text for text in told if text)


def level(target: Target) -> str:
    """`a dev weighted F1 of 58.36 %`."""
    score = target.metric.startswith(("f1", "accuracy"))
    value = f"{number(100 * target.value, 2)} %" if score else number(target.value, 3)
    return f"a dev {metric(target.metric)} of {value}{'' if target.higher_is_better else ' or lower'}"


def source(target: Target) -> str:
    """Where the target comes from, scores as per cent."""
    text = metric(clean(target.source))
    if target.metric.startswith(("f1", "accuracy")):
        text = re.sub(r"(?<![\d.])0\.\d+", lambda match: f"{number(100 * float(match[0]), 2)} %", text)
    return text


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Verdict -> how many, in the order of VERDICTS, without those that did not come."""
    found = {word: sum(verdict.verdict == word for verdict in verdicts) for word in VERDICTS}
    return {word: n for word, n in found.items() if n}


def groups(findings: Findings) -> tuple[Group, ...]:
    """What holds, does not, is open, could not be tested: a point for each verdict; of many arms one for each metric."""
    many = len(findings.sweep.others) > _MANY_ARMS
    result = []
    for word in VERDICTS:
        verdicts = [verdict for verdict in findings.verdicts if verdict.verdict == word]
        if many:
            points = [_point_of_arms(of_metric) for of_metric in _by_metric(verdicts)]
        else:
            points = [_point(verdict, len(findings.sweep.others) > 1) for verdict in verdicts]
        if len(points) > _MOST_POINTS:
            points = [*points[:_MOST_POINTS], Point("", f"and {len(points) - _MOST_POINTS} more in the table below")]
        if points:
            result.append(Group(word, TITLES[word], tuple(points)))
    return tuple(result)


def unseen(findings: Findings) -> tuple[str, ...]:
    """What this many pairs could not have shown, and what cannot be concluded at all."""
    sweep, told = findings.sweep, []
    if sweep.baseline is None:
        told.append("Without a run of a comparison that can be used, nothing can be concluded: no claim was judged.")
    elif not sweep.others:
        told.append(
            "With one arm nothing can be concluded about a difference: no claim was judged. Add a second arm with the same "
            "seeds to this folder, for example python run.py -m loss=smoothl1 weights=basic seed=1,2,3,4,5,6 with the same "
            "sweep_name."
        )
    pairs = [len(sweep.pairs(arm)) for arm in sweep.others]
    if sweep.others and max(pairs) <= 1:
        told.append(
            "With one pair there is no spread to measure luck by: whatever differs may come from the seed alone, and "
            "nothing can be concluded."
        )
    elif sweep.others and min(pairs) < FEWEST_PAIRS:
        told.append(
            f"Below {FEWEST_PAIRS} pairs no claim is judged: the interval would say more about luck than about the arms."
        )
    return tuple(told)


def effect(verdict: Verdict) -> str:
    """`increase of 18.2 % (95 % interval 12.0 to 24.9 %)`; – where there is none.

    An effect whose whole interval goes against the claim is told as what it is: a decrease. (Of a spread, which is judged
    for the stability that it is the opposite of, a negative increase stays one.)
    """
    if not math.isfinite(verdict.estimate):
        return NONE
    claim, estimate, low, high = verdict.claim, verdict.estimate, verdict.low, verdict.high
    direction = claim.direction
    speaks_of = next((m.speaks_of for m in claim.metrics if m.label == verdict.metric), "value")
    if high < 0 and speaks_of != "stability":
        direction = {"increase": "decrease", "decrease": "increase"}[direction]
        estimate, low, high = -estimate, -high, -low
    text = f"{direction} of {quantity(estimate, claim.unit)}"
    bounds = interval(low, high, claim.unit)
    return text if bounds == NONE else f"{text} (95 % interval {bounds})"


def sizes(findings: Findings) -> tuple[Point, ...]:
    """For every metric with an interval: the smallest effect that this many pairs show, and the pairs that an open claim
    would take."""
    several = len(findings.sweep.others) > 1
    points = []
    for of_metric in _by_metric([v for v in findings.verdicts if math.isfinite(v.minimum_detectable)]):
        unit = of_metric[0].claim.unit
        smallest = [verdict.minimum_detectable for verdict in of_metric]
        low, high = min(smallest), max(smallest)
        text = f"{quantity(low, unit) if low == high else f'{interval(low, high, unit)} (by arm)'} or more"
        if high == 0.0:
            text = "all pairs came out equal, so there is no spread to measure luck by"
        needed = [v.pairs_needed for v in of_metric if v.verdict == "inconclusive" and v.pairs_needed is not None]
        if needed:
            pairs = count(max(needed), "pair") if len(needed) == 1 else f"{min(needed)} to {count(max(needed), 'pair')}"
            text += f"; if the middle of the claimed range is true, about {pairs} would show the claim"
        points.append(Point(_name(of_metric[0], several and len(of_metric) == 1), text))
    return tuple(points)


def _by_metric(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    found: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault((verdict.claim.name, verdict.metric), []).append(verdict)
    return list(found.values())


def _point_of_arms(verdicts: Sequence[Verdict]) -> Point:
    """One metric, many arms: the arms with their effects, the largest first."""
    ordered = sorted(verdicts, key=lambda v: -v.estimate if math.isfinite(v.estimate) else math.inf)
    unit = verdicts[0].claim.unit
    told = [f"{clean(v.arm)} ({quantity(v.estimate, unit, signed=True)})" for v in ordered if math.isfinite(v.estimate)]
    if not told:
        told = [clean(v.arm) for v in ordered]
    details = dict.fromkeys(verdict.detail for verdict in verdicts)
    detail = metric(clean(next(iter(details)))) if len(details) == 1 else ""
    return Point(_name(verdicts[0], False), listing(told, _MOST_ARMS), detail)


def _point(verdict: Verdict, several: bool) -> Point:
    measured = effect(verdict)
    text = f"The claim: {clean(verdict.claim.says)}"
    if measured != NONE:
        text = f"{measured}. {text}"
    detail = " ".join(
        f"{clean(part)[:1].upper()}{clean(part)[1:].rstrip('.')}." for part in (verdict.detail, verdict.note) if part
    )
    return Point(_name(verdict, several), text, metric(detail))


def _name(verdict: Verdict, several: bool) -> str:
    head = f"{heading(verdict.claim.name)} ({metric(verdict.metric)})"
    return clean(f"{verdict.arm}: {head}" if several else head)


def _pairs(sweep: Sweep) -> str:
    numbers = {arm.name: len(sweep.pairs(arm)) for arm in sweep.others}
    budget = sweep.budget
    epochs = f", {number(budget, 0)} epochs each" if math.isfinite(budget) else ""
    least, most = min(numbers.values()), max(numbers.values())
    pairs = count(least, "pair") if least == most else f"{least} to {count(most, 'pair')}"
    each = " for each arm" if len(numbers) > 1 else ""
    return f"{pairs} of runs{each}{epochs}; the two runs of a pair share a seed."


def _values(sweep: Sweep, factor: str) -> str:
    values = list(dict.fromkeys(_value(arm, factor) for arm in sweep.arms))
    if len(sweep.arms) == 2 and len(values) == 2:
        return f"{values[0]} → {values[1]}"
    return listing(values, 6)


def _value(arm: Arm, factor: str) -> str:
    value = arm.settings.get(factor)
    return "none" if value is None or value != value else clean(f"{value:g}" if isinstance(value, float) else value)


def _left_out(sweep: Sweep) -> str:
    if sweep.left_out.empty:
        return ""
    search = sweep.left_out["role"] == "search"
    status = sweep.left_out["status"].where(~search, "of a search").replace("completed", "completed but not comparable")
    kinds = listing([f"{n} {kind}" for kind, n in status.value_counts().sort_index().items()], 8)
    return f"{count(len(sweep.left_out), 'run')} of {len(sweep.runs)} left out ({kinds}); named below."
