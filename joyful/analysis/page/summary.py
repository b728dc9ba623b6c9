"""Sentences on the comparison: the arms, the pairs, the target, and why claims were not judged."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from joyful.analysis.arms import name_part
from joyful.analysis.columns import is_score
from joyful.analysis.convergence import Target
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import count, listing, metric, number
from joyful.analysis.page.labels import BASELINE
from joyful.analysis.page.parts import clean
from joyful.analysis.sweep import Arm, Sweep, of_task
from joyful.analysis.verdict import MINIMUM_PAIRS, VERDICTS, Verdict


def title(sweep: Sweep) -> str:
    """Return the title of the page, such as "smoothl1 0.03 against mse 0.05"."""
    if sweep.baseline is None:
        return "No runs to compare"
    if not sweep.others:
        return f"One arm: {clean(sweep.baseline.name)}"
    if len(sweep.others) == 1:
        return f"{clean(sweep.others[0].name)} against {clean(sweep.baseline.name)}"
    return f"{len(sweep.others)} arms against {clean(sweep.baseline.name)}"


def compared(findings: Findings) -> tuple[str, ...]:
    """Return sentences on the arms and their differences, the pairs, the budget, the target and the runs left out."""
    sweep = findings.sweep
    sentences = []
    if sweep.baseline is None:
        return (f"This sweep has no usable run. {_left_out(sweep)}".strip(),)
    if sweep.others:
        factors = listing([f"{clean(name)} ({_values(sweep, name)})" for name in sweep.factors])
        arms = "Two arms are" if len(sweep.arms) == 2 else f"{len(sweep.arms)} arms are"
        differences = f" They differ in {factors}." if factors else ""
        sentences.append(f"{arms} compared.{differences} The baseline is {_full_name(sweep.baseline)}.")
        sentences.append(_pairs(sweep) if sweep.design == "paired" else _independent(sweep))
        if sweep.tasks:
            sentences.append(
                f"The runs are on {count(len(sweep.tasks), 'task')}: {listing([clean(t) for t in sweep.tasks], 8)}."
            )
    else:
        runs = int((sweep.runs["used"] & (sweep.runs["role"] != "calibration")).sum()) if len(sweep.runs) else 0
        sentences.append(f"The sweep has one arm, {clean(sweep.baseline.name)}, with {count(runs, 'usable run')}.")
    if findings.target is not None:
        sentences.append(f"The target for convergence speed is {level(findings.target)}: {source(findings.target)}.")
    sentences.append(_left_out(sweep))
    return tuple(text for text in sentences if text)


def level(target: Target) -> str:
    """Return the target as text, such as "a dev weighted F1 of 58.36 %"."""
    value = f"{number(100 * target.value, 2)} %" if is_score(target.metric) else number(target.value, 3)
    return f"a dev {metric(target.metric)} of {value}{'' if target.higher_is_better else ' or lower'}"


def source(target: Target) -> str:
    """Return the origin of the target as text, with scores in per cent."""
    text = metric(clean(target.source))
    if is_score(target.metric):
        text = re.sub(r"(?<![\d.])0\.\d+", lambda match: f"{number(100 * float(match[0]), 2)} %", text)
    return text


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return the number of claims per verdict, in the order of VERDICTS. Verdicts that do not occur are omitted."""
    numbers = {name: sum(verdict.verdict == name for verdict in verdicts) for name in VERDICTS}
    return {name: n for name, n in numbers.items() if n}


def no_claim_applies(verdicts: Sequence[Verdict]) -> bool:
    """Return whether there are claims, and none of them is about a column of the runs."""
    return bool(verdicts) and all(verdict.detail.startswith("no run has a ") for verdict in verdicts)


def unseen(findings: Findings) -> tuple[str, ...]:
    """Return the reasons why claims were not judged at all, with advice on what to add."""
    sweep, sentences = findings.sweep, []
    if sweep.baseline is None:
        sentences.append("No claim was judged, because the sweep has no usable comparison run.")
    elif not sweep.others:
        sentences.append(
            "No claim was judged, because the sweep has only one arm. Add a second arm with the same seeds and the "
            "same sweep_name, for example with python run.py -m loss=smoothl1 weights=basic seed=1,2,3,4,5,6."
        )
    if no_claim_applies(findings.verdicts):
        sentences.append(
            "None of the claims is about a column of these runs. Write a claims file about their columns, and set it with "
            "--claims (docs/CONVERGENCE_ANALYSIS.md, Claims are data)."
        )
    parts = [of_task(sweep, task) for task in sweep.tasks] or [sweep]
    pairs = [_size(part, arm) for part in parts for arm in sweep.others]
    if sweep.others and max(pairs) <= 1:
        sentences.append(
            "No claim was judged. With fewer than two pairs the variation between seeds cannot be estimated, so any "
            "difference may be due to the seed alone."
        )
    elif sweep.others and min(pairs) < MINIMUM_PAIRS:
        sentences.append(
            f"A claim is judged only with at least {MINIMUM_PAIRS} {'pairs' if sweep.design == 'paired' else 'runs of each arm'}. "
            "With fewer, no sign-flip test can reach p < 0.05."
        )
    return tuple(sentences)


def _pairs(sweep: Sweep) -> str:
    parts = [of_task(sweep, task) for task in sweep.tasks] or [sweep]
    numbers = [_size(part, arm) for part in parts for arm in sweep.others]
    each = f" per {'arm' if len(sweep.others) > 1 else 'task'}" if len(numbers) > 1 else ""
    text = f"The comparison uses {_range_of(numbers)} of runs{each}{_lengths(sweep)}."
    if _shares_randomness(sweep):
        return f"{text} The two runs of a pair share a seed."
    return (
        f"{text} Runs with the same seed are taken as pairs: set --design unpaired if the program does not start both arms from "
        "the same random state."
    )


def _independent(sweep: Sweep) -> str:
    sizes = listing([f"{len(sweep.seeds(arm))} of {clean(arm.name)}" for arm in sweep.arms], 8)
    return f"The comparison uses independent runs, without pairs: {sizes}{_lengths(sweep)}."


def _size(sweep: Sweep, arm: Arm) -> int:
    """Return the number of pairs, or in an unpaired design the smaller number of runs."""
    if sweep.design == "paired":
        return len(sweep.pairs(arm))
    return min(len(sweep.seeds(sweep.arms[0])), len(sweep.seeds(arm)))


def _lengths(sweep: Sweep) -> str:
    shortest, longest = sweep.lengths
    lengths = f"{longest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
    return f", {lengths} {sweep.unit} each" if math.isfinite(longest) else ""


def _shares_randomness(sweep: Sweep) -> bool:
    """Return whether the runs are known to use their seed alike: they are runs of joyful, which record their settings."""
    return any("training.epochs" in arm.config for arm in sweep.arms)


def _range_of(pairs: Sequence[int], always: bool = False) -> str:
    """Return numbers of pairs as text, such as "6 pairs", or "6 to 8 pairs" if they differ or if `always`."""
    least, most = min(pairs), max(pairs)
    return count(most, "pair") if least == most and not always else f"{least} to {count(most, 'pair')}"


def _full_name(baseline: Arm) -> str:
    """Return the name of the baseline, or its settings if its label does not say them."""
    if baseline.name != BASELINE:
        return clean(baseline.name)
    return clean(" ".join(name_part(factor, value) for factor, value in baseline.settings.items()))


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
    status = sweep.left_out["status"].where(sweep.left_out["role"] != "search", "from a search")
    status = status.replace("completed", "completed but not comparable")
    kinds = listing([f"{n} {kind}" for kind, n in status.value_counts().sort_index().items()], 8)
    n = len(sweep.left_out)
    return f"{n} of {count(len(sweep.runs), 'run')} {'is' if n == 1 else 'are'} left out ({kinds}); see the section Runs left out."
