"""Comparisons: the design that a sweep registers, and pairs until its claims are decided (`hydra.sweeper.pairs=auto`).

All pairs up to `max_pairs` are trials of the study, in the order of their seeds. Workers claim them in this order. After a
pair has finished, one worker judges the claims on all pairs up to it (`joyful.analysis.sequential`) and replaces
decisions.json. A trial of an arm whose claims are all decided is not trained: the worker that claims it prunes it at once.
The verdicts do not depend on the number of workers, because pairs are judged in the order of their seeds.

`joyful.analysis` is imported here only, and only for sweeps with claims.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from joyful.records import InputError
from joyful.results import read_run
from joyful.results.design import (
    DECISIONS,
    Decisions,
    Design,
    Line,
    read_decisions,
    record_design,
    write_decisions,
)
from joyful.sweeper.database import with_retries
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import LeaseLostError, Registry
from joyful.sweeper.settings import SweepSettings
from joyful.sweeper.study import ARM, FOLDER, StudyAccess
from joyful.sweeper.trial_table import pruned_for, requeue, states

#: The reason of a trial that was not trained, because nothing depended on it.
NOT_NEEDED = "not needed: its claims are decided"

#: The number of the lease on judging. Trials have numbers from 0.
_JUDGE = -2

#: Seconds that a judge waits for the files of a complete trial of another machine to become visible.
VISIBLE_SECONDS = 60.0


def make_design(settings: SweepSettings, plan: Plan) -> Design:
    """Return the design that a sweep with arms registers, without the state of the code.

    Args:
        settings: The settings of the sweep.
        plan: Its plan.

    Raises:
        InputError: If the claims file cannot be read or is invalid, or if claims on speed have no target.
    """
    content, timed = None, False
    if settings.claims is not None:
        from joyful.analysis.claims_file import find_claims, read_content

        content, claims = read_content(find_claims(settings.claims, Path(sys.argv[0]).parent))
        timed = any(metric.to_target for claim in claims for metric in claim.metrics)
    assert plan.arms is not None
    assert plan.seeds is not None
    calibration = tuple(dict.fromkeys(plan.seeds[: plan.n_calibration]))
    auto = settings.pairs == "auto"
    if auto and timed and not calibration:
        raise InputError(
            "hydra.sweeper.calibration: expected true with pairs=auto and claims on the time to a target, because the target "
            "must not depend on the compared runs; set hydra.sweeper.calibration=true"
        )
    runs = (
        f"calibration runs with seeds {', '.join(map(str, calibration))}"
        if calibration
        else "compared runs of the baseline"
    )
    return Design(
        None if settings.pairs == "auto" else settings.pairs, settings.max_pairs if auto else None, settings.first_seed,
        tuple(dict.fromkeys(plan.arms)), calibration, content, f"95 % of the way from start to end of the {runs}",
        (settings.metric_names or ["objective"])[0], {},
    )  # fmt: skip


def register(design: Design, folder: Path, registry: Registry) -> None:
    """Record the design of a sweep. If its claims have changed, start judging again.

    Only one process may call it at a time.

    Args:
        design: The design.
        folder: The sweep folder.
        registry: The registry of the study.

    Raises:
        InputError: If design.json is damaged.
        ResultsError: If it cannot be written.
    """
    not_needed = pruned_for(registry, NOT_NEEDED)
    started = sum(state != TrialState.WAITING for state in states(registry).values()) - len(not_needed)
    started = max(started, sum(1 for _ in folder.glob("*/run.json")))  # the study may have been rebuilt
    designs = record_design(folder, replace(design, runs_before=started))
    if (
        len(designs) > 1
        and designs[-1].runs_before == started
        and designs[-1].claims_digest != designs[-2].claims_digest
    ):
        (folder / DECISIONS).unlink(missing_ok=True)
        requeue(registry, not_needed)


class Evidence:
    """Which trials of a sweep are needed, and the judging of its claims.

    Args:
        folder: The sweep folder.
        plan: The plan of the sweep.
        with_folds: Whether a run is one of several folds, whose curves are averaged.
    """

    def __init__(self, folder: Path, plan: Plan, *, with_folds: bool) -> None:
        assert plan.arms is not None
        assert plan.seeds is not None
        self._folder, self._plan, self._with_folds = folder, plan, with_folds
        self._arms, self._seeds = plan.arms, plan.seeds
        self._read: tuple[int, Decisions] = (-1, Decisions())
        self._waiting_since: float | None = None

    def decisions(self) -> Decisions:
        """Return what is decided so far."""
        try:
            changed = os.stat(self._folder / DECISIONS).st_mtime_ns
        except FileNotFoundError:
            return Decisions()
        if self._read[0] != changed:
            self._read = changed, read_decisions(self._folder)
        return self._read[1]

    def is_needed(self, number: int) -> bool:
        """Return whether a trial may still change a verdict."""
        decisions = self.decisions()
        if number < self._plan.n_calibration or not decisions.lines:
            return True
        return self._arms[number] not in self._closed_arms(decisions)

    def targets(self, number: int) -> list[Mapping[str, Any]]:
        """Return the dev values at which a trial has shown all that its open claims need, or [] to train it to its end."""
        decisions = self.decisions()
        if number < self._plan.n_calibration or self._with_folds or not self.is_needed(number):
            return []
        open_lines = [line for line in decisions.open if self._arms[number] in (line.overrides, self._arms[0])]
        stops = [line.stop for line in open_lines]
        return (
            [stop for i, stop in enumerate(stops) if stop is not None and stop not in stops[:i]] if all(stops) else []
        )

    def _closed_arms(self, decisions: Decisions) -> set[str]:
        """Return the arms without open claims. The baseline is closed once all others are."""
        of_arms: dict[str, list[Line]] = {}
        for line in decisions.lines:
            of_arms.setdefault(line.overrides, []).append(line)
        open_arms = {line.overrides for line in decisions.open}
        others = set(self._arms) - {self._arms[0]}
        closed = {arm for arm in others if arm in of_arms and arm not in open_arms}
        return closed | {self._arms[0]} if closed == others else closed

    def judge(self, access: StudyAccess, member: str, detector: FailureDetector) -> None:
        """Judge the claims if a further pair has finished and no other worker is judging.

        Args:
            access: The study.
            member: Id of this worker.
            detector: Its failure detector.

        Raises:
            InputError: If the runs cannot be compared.
            ResultsError: If the decisions cannot be written.
        """
        registry = access.registry
        while (through := self._next(states(registry))) is not None:
            leases, members = registry.leases_and_members()
            detector.observe(members)
            previous = leases.get(_JUDGE)
            if previous is not None and previous.owner and not detector.is_dead(members.get(previous.owner)):
                return
            lease = registry.claim(_JUDGE, member, previous)
            if lease is None:
                return
            try:
                if self._next(states(registry)) != through:  # another worker has judged since
                    continue
                arm_of_run = self._runs(access, through)
                if arm_of_run is None:
                    return
                from joyful.analysis.sequential import decide_claims

                decisions = decide_claims(self._folder, through, arm_of_run)
                registry.renew(lease)
                write_decisions(self._folder, decisions)
            except LeaseLostError:  # this worker was frozen, and another one has judged
                return
            finally:
                registry.release(_JUDGE, member)

    def _next(self, of_trials: Mapping[int, TrialState]) -> int | None:
        """Return the seed of the last pair to judge now, or None if there is no further pair or no open claim."""
        decisions = self.decisions()
        if decisions.lines and not decisions.open:
            return None
        through = self._finished_through(of_trials, self._closed_arms(decisions))
        judged = -1 if decisions.through is None else decisions.through
        return None if through is None or through <= judged else through

    def _finished_through(self, of_trials: Mapping[int, TrialState], closed: set[str]) -> int | None:
        """Return the seed of the last pair such that all trials up to it have finished, or None before the first pair.

        Trials of closed arms count as finished.
        """
        last, previous = None, None
        for number, seed in enumerate(self._seeds):
            if number >= self._plan.n_calibration and seed != previous:
                last, previous = previous, seed
            if not of_trials[number].is_finished() and self._arms[number] not in closed:
                return last
        return previous

    def _runs(self, access: StudyAccess, through: int) -> dict[str, str] | None:
        """Return the arm of each run of the pairs up to a seed; None while files of another machine are not visible."""
        study = access.open()
        trials = with_retries(lambda: study.get_trials(deepcopy=False))
        chosen = [t for t in trials if t.number < self._plan.n_calibration or self._seeds[t.number] <= through]
        names = {trial.number: self._name(trial) for trial in chosen if FOLDER in trial.user_attrs}
        complete = [names[t.number] for t in chosen if t.state == TrialState.COMPLETE and t.number in names]
        known = [name for name in complete if self._is_complete(name)]
        if known and len(known) < len(complete):  # a program that reports no metrics has no runs at all
            self._waiting_since = self._waiting_since or time.monotonic()
            if time.monotonic() - self._waiting_since < VISIBLE_SECONDS:
                return None
        self._waiting_since = None
        return {names[t.number]: str(t.user_attrs[ARM]) for t in chosen if t.number in names}

    def _name(self, trial: FrozenTrial) -> str:
        return Path(os.path.relpath(trial.user_attrs[FOLDER], self._folder)).as_posix()

    def _is_complete(self, name: str) -> bool:
        try:
            return bool(read_run(self._folder / name)["status"] == "completed")
        except (OSError, InputError):
            return False
