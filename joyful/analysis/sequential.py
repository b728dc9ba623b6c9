"""Judging the claims of a sweep while it runs, after each finished pair."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from joyful.analysis import measures
from joyful.analysis.arms import Arm
from joyful.analysis.claims_file import Claim, claimed, parse_claims
from joyful.analysis.lines import ALL_TASKS, ClaimLine
from joyful.analysis.measures import Metric
from joyful.analysis.rules import ANY_SIZE
from joyful.analysis.statistics import UNKNOWN
from joyful.analysis.sweep import Sweep, read_sweep
from joyful.analysis.verdict import MINIMUM_PAIRS
from joyful.results import InputError, ResultsWarning
from joyful.results.design import DECIDED, NOT_TESTABLE, OPEN, Decisions, Design, Line, read_decisions, read_designs

#: Pairs after which a claim that is not testable yet is given up. Without a single complete pair it is MINIMUM_PAIRS.
GIVEN_UP_AFTER = 2 * MINIMUM_PAIRS


def decide_claims(folder: Path, through: int, arm_of_run: Mapping[str, str]) -> Decisions:
    """Judge the claims of a sweep on its first pairs.

    Claims that were decided or given up before keep their verdict and their pairs.

    Args:
        folder: Folder of the sweep, with its design.
        through: Seed of the last pair to judge. All pairs up to it have finished.
        arm_of_run: Name of each run -> the overrides of its arm in the design.

    Returns:
        The state of each claim, for `write_decisions`.

    Raises:
        InputError: If the runs cannot be compared, or a file is damaged.
    """
    design, before = read_designs(folder)[-1], read_decisions(folder)
    claims = parse_claims(design.claims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)
        sweep = read_sweep(folder, sorted({metric.of for claim in claims for metric in claim.metrics}))
    if sweep.runs.empty:
        raise InputError(
            f"{folder}: expected runs with measurements to judge, found none; give metrics to trial.report in the program"
        )
    runs = _runs_of_arms(sweep, arm_of_run)
    finished = sum(seed <= through for seed in design.seeds)
    lines: list[Line] = []
    if _has_baseline(sweep, design, runs, arm_of_run):
        for arm in [arm for arm in sweep.others if arm.name in runs]:
            for claim in claims:
                for metric in claim.metrics:
                    lines += _lines(sweep, arm, claim, metric, through, finished)
    lines = [replace(line, run=runs[line.arm], overrides=arm_of_run[runs[line.arm]]) for line in lines]
    judged = {line.overrides for line in lines}
    if finished >= MINIMUM_PAIRS:
        why = "none of its runs completed" if lines else "no run of the baseline completed"
        absent = [arm for arm in design.arms[1:] if arm not in judged]
        lines += [
            Line("", "", arm, NOT_TESTABLE, "not testable", why, None, None, None, (), overrides=arm) for arm in absent
        ]
    kept = before.by_key
    return Decisions(through, finished, tuple(_kept(kept.get(line.key), line) for line in lines))


def _has_baseline(sweep: Sweep, design: Design, runs: Mapping[str, str], arm_of_run: Mapping[str, str]) -> bool:
    """Return whether there are runs of the baseline of the design.

    Raises:
        InputError: If the runs have another baseline than the design.
    """
    if sweep.baseline is None or design.arms[0] not in {arm_of_run[run] for run in runs.values()}:
        return False
    found = arm_of_run.get(runs.get(sweep.baseline.name, ""))
    if found != design.arms[0]:
        raise InputError(
            f"expected the baseline {design.arms[0]!r}, the first arm, got {found!r} from the settings of the runs; set "
            "hydra.sweeper.calibration=true, so that the calibration runs tell the baseline"
        )
    return True


def _kept(before: Line | None, line: Line) -> Line:
    """Return the earlier state of a claim that is not open any more, else the new state."""
    return before if before is not None and before.state != OPEN else line


def _runs_of_arms(sweep: Sweep, arm_of_run: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the first run of each arm."""
    runs = sweep.runs[sweep.runs["arm"].notna() & sweep.runs["run"].isin(list(arm_of_run))].sort_values("seed")
    return {str(arm): str(group["run"].iloc[0]) for arm, group in runs.groupby("arm")}


def _lines(sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, through: int, finished: int) -> list[Line]:
    line = ClaimLine(sweep, arm, claim, metric, None, ANY_SIZE, through)
    tasks: list[tuple[str, ...]] = [(task,) for task in sweep.tasks or ("",)]
    return [_line(line, names, finished) for names in (*tasks, *([sweep.tasks] if sweep.tasks else []))]


def _line(line: ClaimLine, tasks: Sequence[str], finished: int) -> Line:
    """Return the state of a claim on one task, or on all together."""
    part = line.deciding(tuple(tasks))
    found, problem = line.compare_on(part, tuple(tasks))
    word, detail = line.verdict(found)
    state = OPEN
    if word in ("supported", "contradicted"):
        state = DECIDED
    elif problem or (word == "not testable" and finished >= (GIVEN_UP_AFTER if line.seeds(part) else MINIMUM_PAIRS)):
        state = NOT_TESTABLE
    effect = UNKNOWN if problem else found.interval(line.rule).map(line.scale.effect)
    estimate, low, high = (value if math.isfinite(value) else None for value in vars(effect).values())
    seeds = set() if problem else {int(seed) for seed in found.differences.index.get_level_values(-1)}
    return Line(
        line.claim.name, line.metric.label, line.arm.name, state, word, detail, estimate, low, high, tuple(sorted(seeds)),
        ALL_TASKS if len(tasks) > 1 else tasks[0], claimed=claimed(line.claim), stop=_stop(line, part, tasks),
    )  # fmt: skip


def _stop(line: ClaimLine, sweep: Sweep, tasks: Sequence[str]) -> Mapping[str, object] | None:
    """Return the target at which runs may end for this claim, or None if it needs whole runs."""
    if not line.metric.to_target or any(tasks):  # each task has its own target
        return None
    target = measures.target_of(sweep, line.metric)
    if target is None:
        return None
    return {"metric": target.metric, "value": target.value, "higher_is_better": target.higher_is_better}
