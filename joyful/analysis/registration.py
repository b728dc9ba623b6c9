"""What a sweep registered before its first run, and the decision rule that follows for each claim.

If the claims and the number of pairs were registered, and the sweep has these pairs, the 95 % t interval decides. In all other
cases the t confidence sequence decides, because someone may have looked at results before: pairs are bought until the claims
are decided, more pairs or another claim were added, or some planned pairs have not finished.
"""

from __future__ import annotations

from collections.abc import Sequence

from joyful.analysis.arms import Arm, find_arm
from joyful.analysis.claims_file import Claim, parse_claims
from joyful.analysis.formatting import count
from joyful.analysis.measures import Metric
from joyful.analysis.rules import ANY_SIZE, FIXED, Rule
from joyful.analysis.sweep import Sweep, cached
from joyful.results import InputError
from joyful.results.design import Design, Line

#: Statuses of runs that have ended.
_ENDED = ("completed", "failed", "pruned", "damaged", "unknown")


def rule_of(sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, target_given: bool = False) -> tuple[Rule, str]:
    """Return the rule that decides a claim, and why it is not the t interval, as a sentence.

    Args:
        sweep: The sweep.
        arm: The arm that is compared with the baseline.
        claim: The claim.
        metric: The metric.
        target_given: Whether the target of times was given for this report.

    Returns:
        The rule, and a sentence for the verdict, which is "" if the rule follows from the design of the whole sweep.
    """
    if not sweep.designs:
        return FIXED, ""
    first = sweep.designs[0]
    if changed := _not_registered(sweep, arm, claim, metric, target_given):
        return ANY_SIZE, f"{changed}, so the confidence sequence decides it."
    if first.runs_before or any(design.pairs is None for design in sweep.designs):
        return ANY_SIZE, ""
    planned, finished, decides = set(first.seeds), set(sweep.pairs(arm)), "so the confidence sequence decides"
    if extra := finished - planned:
        added = f"{count(len(extra), 'pair')} {'was' if len(extra) == 1 else 'were'} added"
        return ANY_SIZE, f"{added} to the {len(planned)} that were planned, {decides}."
    ended = _ended_seeds(sweep, arm) & _ended_seeds(sweep, sweep.arms[0])
    if planned - ended:
        return ANY_SIZE, f"{len(planned & ended)} of {len(planned)} planned pairs have finished, {decides}."
    return FIXED, ""


def _not_registered(sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, target_given: bool, number: int = 0) -> str:
    """Return what of a comparison a design did not register, or ""."""
    if target_given and metric.to_target:
        return "This target was not registered before the first run"
    if sweep.design == "unpaired":
        return "A comparison without pairs was not registered before the first run"
    if (registered := baseline_of(sweep, sweep.designs[number])) is not None and registered.name != sweep.arms[0].name:
        return "This baseline was not registered before the first run"
    claims = registered_claims(sweep, number)
    if claims is not None and claim.content not in [registered.content for registered in claims]:
        return "This claim was not registered before the first run"
    return ""


def recorded_line(
    sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, task: str, target_given: bool = False
) -> Line | None:
    """Return what was recorded of a claim while the sweep ran, or None if this is another comparison.

    Args:
        sweep: The sweep.
        arm: The arm that is compared with the baseline.
        claim: The claim.
        metric: The metric.
        task: The task, or "".
        target_given: Whether the target of times was given for this report.
    """
    if not sweep.designs or _not_registered(sweep, arm, claim, metric, target_given, len(sweep.designs) - 1):
        return None
    registered = registered_claims(sweep, len(sweep.designs) - 1) or ()
    name = next((other.name for other in registered if other.content == claim.content), claim.name)
    arms = dict(zip(sweep.runs["run"], sweep.runs["arm"], strict=True))
    return next(
        (
            line for line in sweep.decisions.lines
            if (line.claim, line.metric, line.task) == (name, metric.label, task) and arms.get(line.run) == arm.name
        ),
        None,
    )  # fmt: skip


@cached
def registered_claims(sweep: Sweep, number: int = 0) -> list[Claim] | None:
    """Return the claims of a design, or None if it names none."""
    content = sweep.designs[number].claims
    return None if content is None else parse_claims(content)


def baseline_of(sweep: Sweep, design: Design) -> Arm | None:
    """Return the arm that is the baseline of a design, or None if it is not among the runs."""
    calibrated = sweep.runs.loc[sweep.runs["role"] == "calibration", "arm"].dropna().unique()
    if len(calibrated) == 1:
        return next((arm for arm in sweep.arms if arm.name == calibrated[0]), None)
    return arm_of(sweep.arms, design.arms[0])


def arm_of(arms: Sequence[Arm], overrides: str) -> Arm | None:
    """Return the only arm that matches the overrides of an arm of a design, or None."""
    try:
        return arms[find_arm(arms, overrides)]
    except InputError:  # overrides such as ~name, or settings that the runs do not record
        return None


def sentence(sweep: Sweep) -> str:
    """Return what the sweep registered, or what a report assumes without it, as a sentence."""
    if not sweep.designs:
        return (
            "The sweep recorded no design before its first run. Its intervals assume that the number of pairs and the claims "
            "were fixed before anyone looked at results."
        )
    first = sweep.designs[0]
    claims = "no claims"
    if first.claims_digest is not None:
        claims = f"{count(len(parse_claims(first.claims)), 'claim')} (digest {first.claims_digest[:12]})"
    commit = first.git.get("commit")
    changed = " with changes" if first.git.get("dirty") else ""
    code = f" at commit {commit[:10]}{changed}" if commit else ""
    when = "before its first run" if not first.runs_before else f"after {first.runs_before} runs had started"
    text = f"The sweep registered {_size(first)} and {claims} {when}{code}. Target: {first.target}."
    later = sweep.designs[1:]
    if later:
        changes = [f"{_size(d)}{_changed_claims(first, d)} after {d.runs_before} runs" for d in later]
        text += f" It was changed to {' and to '.join(changes)}."
    if first.claims is None:
        text += " The verdicts assume that the claims were fixed before anyone looked at results."
    if first.runs_before or any(design.pairs is None for design in sweep.designs):
        text += " The confidence sequence decides, which holds however often one looks."
    return text


def _size(design: Design) -> str:
    if design.pairs is not None:
        return count(design.pairs, "pair")
    return f"pairs until its claims are decided (at most {design.max_pairs})"


def _changed_claims(first: Design, later: Design) -> str:
    return "" if first.claims == later.claims else " with other claims"


def _ended_seeds(sweep: Sweep, arm: Arm) -> set[int]:
    """Return the seeds of which all runs of an arm have ended."""
    runs = sweep.runs[(sweep.runs["arm"] == arm.name) & (sweep.runs["role"] == "comparison")]
    unfinished = set(runs.loc[~runs["status"].isin(_ENDED), "seed"].dropna().astype(int))
    return set(runs["seed"].dropna().astype(int)) - unfinished
