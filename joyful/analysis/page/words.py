"""Verdicts in plain words: "not faster: 0.4 % slower (1.3 % slower to 0.5 % faster)", and the sentence that answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from joyful.analysis.claims_file import Claim
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import NONE, count, listing, metric, number, quantity
from joyful.analysis.lines import ALL_TASKS
from joyful.analysis.measures import Metric
from joyful.analysis.page.labels import BASELINE
from joyful.analysis.page.parts import clean
from joyful.analysis.statistics import Estimate
from joyful.analysis.sweep import Sweep
from joyful.analysis.verdict import Verdict

#: Kind of a metric -> the words for an increase and for a decrease.
_CHANGES = {"speed": ("faster", "slower"), "stability": ("steadier", "less steady"), "value": ("higher", "lower")}

#: Kind of a metric -> the word for an improvement in a sentence on several claims.
_IMPROVED = {"speed": "faster", "stability": "steadier", "value": "better"}

#: Kinds of claims whose range is a margin around zero.
MARGINS = ("within", "no_worse_than")

#: Maximum number of arms, and of metrics that became worse, that the sentence names.
_MOST_NAMED = 3


def change(claim: Claim, of: Metric, effect: Estimate) -> str:
    """Return an effect and its interval in words, such as "0.4 % slower (1.3 % slower to 0.5 % faster)", or "–".

    Args:
        claim: The claim, which gives the unit and the direction.
        of: The metric.
        effect: The effect with its interval, in the unit of the claim and positive in the claimed direction.
    """
    estimate, low, high = effect.estimate, effect.low, effect.high
    if not math.isfinite(estimate):
        return NONE
    up, down = _words(claim, of)

    def named(value: float) -> str:
        return f"{quantity(abs(value), claim.unit, claim.digits)} {up if value > 0 else down}"

    unchanged = number(estimate, claim.digits) == number(0, claim.digits)
    text = "no change" if unchanged else named(estimate)
    if math.isnan(low) or math.isnan(high) or (math.isinf(low) and math.isinf(high)):
        return text
    if math.isinf(high):
        return f"{text} ({'at least' if low >= 0 else 'at most'} {named(low)})"
    if math.isinf(low):
        return f"{text} ({'at most' if high > 0 else 'at least'} {named(high)})"
    if low < 0 < high:
        return f"{text} ({named(low)} to {named(high)})"
    near, far = sorted((abs(low), abs(high)))
    word = f" {up if high > 0 else down}" if unchanged else ""
    return f"{text} ({number(near, claim.digits)} to {quantity(far, claim.unit, claim.digits)}{word})"


def result(verdict: Verdict) -> str:
    """Return the result of a verdict in a few words: "not 15 % faster", "slower", or "faster, but by less than claimed"."""
    claim = verdict.claim
    up, down = _words(claim, verdict.metric)
    if verdict.verdict == "not testable":
        return "not testable"
    if verdict.verdict == "inconclusive":
        return "undecided"
    if claim.kind in MARGINS:
        inside = "equal within the margin" if claim.kind == "within" else "no worse than the margin"
        return inside if verdict.verdict == "supported" else verdict.detail
    if verdict.verdict == "supported":
        return f"{up}, more than claimed" if verdict.detail else f"{up} as claimed"
    if verdict.high < 0:
        return down
    if verdict.low > 0:
        return f"{up}, but by less than claimed"
    return f"not {_edge(claim.lower, claim)} {up}" if claim.lower else f"not {up}"


def claimed(claim: Claim, of: Metric) -> str:
    """Return the claimed range in words, such as "15 to 25 % faster" or "at most 0.5 points worse"."""
    up, _ = _words(claim, of)
    lower, upper = claim.lower, claim.upper
    if claim.kind == "within":
        return f"a change of less than {_edge(upper, claim)}"
    if claim.kind == "no_worse_than":
        return f"at most {_edge(-lower, claim)} worse"
    if math.isinf(upper):
        return f"at least {_edge(lower, claim)} {up}"
    return f"{lower:g} to {_edge(upper, claim)} {up}".replace("-", "−")


def headline(findings: Findings) -> str:
    """Return the sentence that answers the claims of a report, or "" if none was judged. See `sentence`."""
    return sentence(findings.sweep, findings.verdicts)


def sentence(sweep: Sweep, found: Sequence[Verdict]) -> str:
    """Return the sentence that answers the claims, or "" if none was judged.

    Args:
        sweep: The sweep.
        found: The verdicts on it, as returned by `joyful.analysis.claims.judge`.

    Example: "smoothl1 0.03 is not faster, steadier or better than mse 0.05 as claimed; its train reconstruction MSE is 10.1 %
    worse".
    """
    verdicts = [v for v in found if v.task == ALL_TASKS] or list(found)
    judged = [v for v in verdicts if v.verdict != "not testable"]
    if not judged or sweep.baseline is None:
        return ""
    baseline = clean(sweep.baseline.name)
    baseline = f"the {baseline}" if baseline == BASELINE else baseline
    start = f"Over {len(sweep.tasks)} tasks, " if any(v.task == ALL_TASKS for v in judged) else ""
    by_arm: dict[str, list[Verdict]] = {}
    for verdict in judged:
        by_arm.setdefault(_subject(verdict), []).append(verdict)
    if len(by_arm) == 1:
        ((arm, of_arm),) = by_arm.items()
        text = _of_one_arm(clean(arm), of_arm, baseline)
        return f"{start}{text}" if start or text.startswith(clean(arm)) else f"{text[0].upper()}{text[1:]}"
    noun = "arms on a task" if any(v.task not in ("", ALL_TASKS) for v in judged) else "arms"
    all_judged = len(by_arm) == len({_subject(v) for v in verdicts})
    text = _of_arms(by_arm, baseline, noun if all_judged else f"{noun} that could be judged")
    return f"{start}{text}" if start else f"{text[0].upper()}{text[1:]}"


def _subject(verdict: Verdict) -> str:
    return verdict.arm if verdict.task == ALL_TASKS else verdict.subject


def _of_one_arm(arm: str, verdicts: Sequence[Verdict], baseline: str) -> str:
    """Return the sentence on one arm: what is as claimed, what is not, and what became worse or is undecided."""
    supported = [v for v in verdicts if v.verdict == "supported"]
    contradicted = [v for v in verdicts if v.verdict == "contradicted"]
    smaller = [v for v in contradicted if v.low > 0 and v.claim.kind not in MARGINS]
    worse = [v for v in contradicted if v.high < 0 and _improves(v)]
    denied = [v for v in contradicted if v not in smaller]
    undecided = [v for v in verdicts if v.verdict == "inconclusive"]
    clauses = []
    both = _in_several(supported, denied, smaller, undecided)
    if supported:
        clauses.append(f"is {_listing(supported, both)} {_than(supported)} {baseline}")
    if denied:
        words = _listing([v for v in denied if v.claim.kind not in MARGINS], both, "or")
        as_claimed = " as claimed" if any(v.high >= 0 for v in denied) else ""
        clauses += [f"is not {words}" + ("" if supported else f" than {baseline}") + as_claimed] if words else []
        margins = [f"{v.detail} in {metric(v.metric.label)}" for v in denied if v.claim.kind in MARGINS]
        clauses += [f"is {listing(margins)}"] if margins else []
    if smaller:
        amounts = listing([f"{_amount(v)} {_words(v.claim, v.metric)[0]}{_in(v)}" for v in smaller], _MOST_NAMED)
        clauses.append(f"is {amounts}" + ("" if clauses else f" than {baseline}") + ", less than claimed")
    if not clauses:
        return f"it is undecided whether {arm} is {_listing(undecided, set(), 'or')} {_than(undecided)} {baseline}"
    head, *rest = clauses
    sentence = f"{arm} {head}" + "".join(f"; it {clause}" for clause in rest)
    if worse:
        most = max(worse, key=lambda v: abs(v.estimate) / max(abs(v.claim.lower), 1e-9))
        sentence += (
            f"; its {_column(most)} is {_amount(most)} worse"
            if most.metric.kind == "value"
            else (f"; it is {_amount(most)} {_words(most.claim, most.metric)[1]}{_in(most)}")
        )
        if len(worse) > 1:
            sentence += f", and {count(len(worse) - 1, 'other measure is', 'other measures are')} worse too"
    if undecided:
        sentence += f"; whether it is {_listing(undecided, both, 'or')} is undecided"
    return sentence


def _of_arms(by_arm: dict[str, list[Verdict]], baseline: str, judged: str) -> str:
    """Return the sentence on several arms: which are as claimed, and in what."""
    everything = [v for verdicts in by_arm.values() for v in verdicts]
    good = {arm: [v for v in verdicts if v.verdict == "supported"] for arm, verdicts in by_arm.items()}
    good = {arm: verdicts for arm, verdicts in good.items() if verdicts}
    undecided = sum(v.verdict == "inconclusive" for v in everything)
    tail = f"; {count(undecided, 'comparison is', 'comparisons are')} undecided" if undecided else ""
    words = _listing(everything, set(), "or")
    if not good:
        return f"none of {len(by_arm)} {judged} is {words} {_than(everything)} {baseline} as claimed{tail}"
    named = []
    for arm, verdicts in list(good.items())[:_MOST_NAMED]:
        rest_of_arm = [v for v in by_arm[arm] if v.verdict != "supported"]
        named.append(f"{clean(arm)} is {_listing(verdicts, _in_several(verdicts, rest_of_arm))}")
    more = [f"{len(good) - _MOST_NAMED} more arms have a supported claim"] if len(good) > _MOST_NAMED else []
    rest = len(by_arm) - len(good)
    others = (
        f"; the other {rest if rest > 1 else ''}".rstrip()
        + f" arm{'s' * (rest > 1)} bear{'s' * (rest == 1)} out no claim"
    )
    return f"against {baseline}, {'; '.join([*named, *more])}{others if rest else ''}{tail}"


def _in_several(*classes: Sequence[Verdict]) -> set[str]:
    """Return the words of verdicts that occur in several classes, so that the word alone would be ambiguous."""
    words = [{_word(verdict) for verdict in found} for found in classes]
    return {word for word in set().union(*words) if sum(word in found for found in words) > 1}


def _improves(verdict: Verdict) -> bool:
    """Return whether the claim is that something gets better."""
    return verdict.direction == verdict.metric.better_direction


def _listing(verdicts: Sequence[Verdict], qualified: set[str], last: str = "and") -> str:
    """Return the improvements as text: "faster, steadier or better". Words in `qualified` name their columns too."""
    columns: dict[str, list[str]] = {}
    for verdict in verdicts:
        columns.setdefault(_word(verdict), []).append(_column(verdict))
    words = [
        f"{word} in {listing(names, _MOST_NAMED)}" if word in qualified else word for word, names in columns.items()
    ]
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def _word(verdict: Verdict) -> str:
    if verdict.claim.kind == "within":
        return "equal"
    if verdict.claim.kind == "no_worse_than":
        return "no worse"
    return _IMPROVED[verdict.metric.kind] if _improves(verdict) else _words(verdict.claim, verdict.metric)[0]


def _than(verdicts: Sequence[Verdict]) -> str:
    return "to" if all(v.claim.kind == "within" for v in verdicts) else "than"


def _words(claim: Claim, of: Metric) -> tuple[str, str]:
    """Return the words for a positive and for a negative effect."""
    increase, decrease = _CHANGES[of.kind]
    return (increase, decrease) if claim.direction_of(of) == "increase" else (decrease, increase)


def _amount(verdict: Verdict) -> str:
    return quantity(abs(verdict.estimate), verdict.claim.unit, verdict.claim.digits)


def _in(verdict: Verdict) -> str:
    return f" in {_column(verdict)}"


def _column(verdict: Verdict) -> str:
    return metric(clean(f"{verdict.metric.split} {verdict.metric.of}"))


def _edge(value: float, claim: Claim) -> str:
    """Return an edge of the claimed range with its unit, as it was written."""
    unit = {"percent": " %", "points": " point" if value == 1 else " points"}.get(claim.unit, "")
    return f"{value:g}{unit}"
