"""What a running sweep does: its running trials, their steps, and what is left.

The view reads it about once a second. All statements are bounded by the number of running trials and of new steps, or
are sums that the database computes, so a study of thousands of trials costs about as much as a small one.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select

from joyful.results.design import Design, read_decisions, read_designs
from joyful.results.finalists import Finalist, best_finalist
from joyful.sweeper.database import with_retries
from joyful.sweeper.evidence import NOT_NEEDED
from joyful.sweeper.finalists import most_missing, read_finals
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.metric import Metric, metric_of
from joyful.sweeper.observed import Tracked
from joyful.sweeper.pausing import count_paused
from joyful.sweeper.registry import Lease, Member
from joyful.sweeper.status import (
    SWEEP_FILE,
    Snapshot,
    all_trials,
    described_finalists,
    params_or_overrides,
    read_policy,
)
from joyful.sweeper.study import StudyAccess
from joyful.sweeper.trial_table import (
    FINISHED,
    best_complete,
    count_states,
    failures,
    models,
    pruned_for,
    recent_finished,
    steps_of_running,
)

#: Finished trials whose pace is used for the estimate of the time left.
RECENT = 20


@dataclass(frozen=True)
class RunningTrial:
    """A trial that a worker holds.

    Attributes:
        number: Its number.
        settings: Name -> value of what differs between the trials, as text.
        phase: What it does before its first step; "" afterwards.
        done: Steps so far.
        total: Its steps, None if they are not known.
        value: Its current value.
        best: Its best value so far.
        elapsed: Seconds since its start.
        left: Estimated seconds to its end, None if they are not known.
        failures: Worker failures in a row.
    """

    number: int
    settings: Mapping[str, str]
    phase: str = ""
    done: int = 0
    total: int | None = None
    value: float | None = None
    best: float | None = None
    elapsed: float = 0.0
    left: float | None = None
    failures: int = 0


@dataclass(frozen=True)
class LiveState:
    """The state of a running sweep.

    Attributes:
        snapshot: Its counts, its best trial and its claims.
        running: The running trials by number.
        reports: Each new step since the last read, as the trial was then, in the order of the trials.
        metric: Its first objective.
        unit: What a step is: "epoch" or "step".
        done: Steps so far, of all trials.
        total: Steps of all trials, None if they are not known.
        at_most: Whether trials may end before.
        drivers: Live drivers.
    """

    snapshot: Snapshot
    running: tuple[RunningTrial, ...] = ()
    reports: tuple[RunningTrial, ...] = ()
    metric: Metric = field(default_factory=Metric)
    unit: str = "step"
    done: int = 0
    total: int | None = None
    at_most: bool = False
    drivers: int = 1


class LiveReader:
    """Reads the state of a running sweep again and again.

    Args:
        access: The study.
        detector: The observer's failure detector.
        folder: The sweep folder.
        steps: Steps of a trial, as far as they are known before it runs.
    """

    def __init__(self, access: StudyAccess, detector: FailureDetector, folder: Path, steps: int | None = None) -> None:
        self._access, self._registry = access, access.registry
        self._detector, self._folder, self._steps = detector, folder, steps
        study = access.open()
        self._maximize = study.directions[0] == StudyDirection.MAXIMIZE
        names = study.metric_names
        self._metric = metric_of(names[0] if names else None)
        description: Any = study.user_attrs.get("joyful") or {}
        self._prunes = description.get("trials") is None
        self._tracked: dict[int, Tracked] = {}  # by Optuna's id of the trial
        self._paces: deque[float] = deque(maxlen=RECENT)  # seconds per step of finished trials
        self._counts: tuple[int, ...] = ()
        self._best: tuple[int | None, float | None, Mapping[str, Any]] = (None, None, {})
        self._finals, self._more, self._trials = read_finals(folder / SWEEP_FILE), 0, 0
        self._policy = read_policy(folder)
        self._mean: Finalist | None = None
        self._finalists: list[dict[str, Any]] = []
        self._failures: dict[int, str] = {}
        self._not_needed = self._finished_steps = 0
        self._usual_steps: int | None = None  # of the complete trials
        self._last_value = self._first_value_id()
        self._sample_finished()

    def read(self) -> LiveState:
        """Return the current state."""
        counts = count_states(self._registry)
        self._update_finished(counts)
        leases, members = self._held_leases(), self._registry.members()
        self._detector.observe(members)
        live = {name: member for name, member in members.items() if not self._detector.is_dead(member)}
        running = self._running_ids()
        now = time.monotonic()
        held = {}
        for trial_id, number in running.items():
            if number in leases and leases[number].owner in live:
                held[trial_id] = self._track(trial_id, leases[number], now)
        reports = self._new_steps(leases, now, set(held))
        for trial_id in self._tracked.keys() - running.keys():
            if (pace := self._tracked.pop(trial_id).pace()) is not None:
                self._paces.append(pace)
        rows = tuple(sorted((self._row(trial, now) for trial in held.values()), key=lambda row: row.number))
        snapshot = self._snapshot(counts, {trial.number for trial in held.values()}, live)
        done, total = self._progress(counts, rows)
        left = self._seconds_left(rows, done, total, snapshot.workers)
        return LiveState(
            replace(snapshot, seconds_left=left), rows, tuple(reports), self._metric,
            "epoch" if self._steps is not None or any(trial.of_epochs for trial in held.values()) else "step",
            done, total, self._prunes or snapshot.max_pairs is not None,
            sum(member.role == "driver" for member in live.values()),
        )  # fmt: skip

    # --- statements

    def _where_study(self) -> Any:
        return models.TrialModel.study_id == self._registry.study_id

    def _held_leases(self) -> dict[int, Lease]:
        return {number: lease for number, lease in self._registry.held_leases().items() if number >= 0}

    def _running_ids(self) -> dict[int, int]:
        trial = models.TrialModel
        query = select(trial.trial_id, trial.number).where(self._where_study(), trial.state == TrialState.RUNNING)
        return {row.trial_id: row.number for row in self._registry.read(query)}

    def _first_value_id(self) -> int:
        value = models.TrialIntermediateValueModel.trial_intermediate_value_id
        return int(self._registry.read(select(func.max(value)))[0][0] or 0)

    def _sample_finished(self) -> None:
        """Take the pace of some trials that finished before this reader began."""
        for trial in recent_finished(self._registry, RECENT, TrialState.COMPLETE):
            if trial.term == 1 and trial.epochs:
                self._paces.append(trial.seconds / trial.epochs)

    def _frozen(self, trial_id: int) -> FrozenTrial:
        return with_retries(lambda: self._access.backend.get_trial(trial_id))

    # --- trials

    def _track(self, trial_id: int, lease: Lease | None, now: float) -> Tracked:
        term, failures = (lease.term, lease.worker_failures) if lease is not None else (1, 0)
        tracked = self._tracked.get(trial_id)
        if tracked is None or tracked.term != term:
            tracked = Tracked(self._frozen(trial_id), term, now, self._maximize)
            self._tracked[trial_id] = tracked
        elif not tracked.is_known:  # the worker stores what it knows of a trial after it has started it
            tracked.update(self._frozen(trial_id))
        tracked.failures = failures
        return tracked

    def _new_steps(self, leases: Mapping[int, Lease], now: float, held: set[int]) -> list[RunningTrial]:
        value, trial = models.TrialIntermediateValueModel, models.TrialModel
        query = (
            select(
                value.trial_intermediate_value_id, value.trial_id, trial.number, value.step, value.intermediate_value
            )
            .outerjoin(
                trial, (trial.trial_id == value.trial_id) & self._where_study()
            )  # inner, SQLite reads all trials
            .where(value.trial_intermediate_value_id > self._last_value)
            .order_by(value.trial_intermediate_value_id)
        )
        for row in self._registry.read(query):
            self._last_value = max(self._last_value, row.trial_intermediate_value_id)
            if row.number is None:  # of another study
                continue
            tracked = self._track(row.trial_id, leases.get(row.number), now)
            tracked.add(row.step, row.intermediate_value, now)
        reports = []
        for trial_id, tracked in sorted(self._tracked.items(), key=lambda item: item[1].number):
            if self._metric.column is not None:
                tracked.read_current(self._metric.column)
            for step in tracked.take_new(wait=trial_id in held and self._metric.column is not None):
                reports.append(self._row(tracked, now, step))
        return reports

    def _row(self, tracked: Tracked, now: float, step: int | None = None) -> RunningTrial:
        """Return the state of a trial; with a step, as it was at that step."""
        done, value, best = tracked.at(step, has_current=self._metric.column is not None)
        phase = tracked.phase(self._steps is not None, now) if step is None and not done else ""
        total = tracked.total or self._steps or self._usual_steps  # the phase may have read that of the trial
        left = tracked.left(total, now) if step is None else None
        settings = {name: setting_text(setting) for name, setting in tracked.settings.items()}
        return RunningTrial(
            tracked.number, settings, phase, done, total, value, best, tracked.elapsed(now), left, tracked.failures
        )

    # --- the whole sweep

    def _snapshot(self, counts: Mapping[TrialState, int], held: Set[int], live: Mapping[str, Member]) -> Snapshot:
        auto = self._auto()
        decisions = read_decisions(self._folder) if auto is not None else None
        number, value, params = self._best
        running = len(held)
        waiting = counts.get(TrialState.WAITING, 0) + counts.get(TrialState.RUNNING, 0) - running
        paused = count_paused(self._registry, self._policy, held)
        return Snapshot(
            n_trials=sum(counts.values()) - self._not_needed,
            complete=counts.get(TrialState.COMPLETE, 0),
            pruned=counts.get(TrialState.PRUNED, 0) - self._not_needed,
            failed=counts.get(TrialState.FAIL, 0),
            running=running, waiting=waiting - sum(paused.values()), best_value=value, best_params=params,
            workers=sum(member.role == "worker" for member in live.values()),
            name=self._access.name, best_trial=number, seconds_left=None, failures=self._failures,
            pairs=None if decisions is None else decisions.pairs,
            max_pairs=None if auto is None else auto.max_pairs,
            claims=() if decisions is None else [asdict(line) for line in decisions.lines],
            paused=paused,
            more_trials=self._more, finalists=self._finalists,
            best_seeds=None if self._mean is None else self._mean.seeds,
            best_standard_error=None if self._mean is None else self._mean.standard_error,
        )  # fmt: skip

    def _update_finished(self, counts: Mapping[TrialState, int]) -> None:
        """Read again what only changes when a trial finishes."""
        finished = tuple(counts.get(state, 0) for state in FINISHED)
        before, self._counts = self._counts, finished
        if before == finished and sum(counts.values()) == self._trials:
            return
        self._trials = sum(counts.values())
        self._best = self._read_best()
        self._read_finalists()
        self._finished_steps = self._registry.steps() - self._running_steps()
        self._usual_steps = self._read_usual_steps()
        if finished[1] and self._auto() is not None:
            self._not_needed = len(pruned_for(self._registry, NOT_NEEDED))
        if not before or finished[2] != before[2]:
            self._failures = failures(self._registry)

    def _read_best(self) -> tuple[int | None, float | None, Mapping[str, Any]]:
        best = best_complete(self._registry, self._maximize)
        if best is None:
            return None, None, {}
        trial_id, number, value = best
        same = number == self._best[0]
        return number, value, self._best[2] if same else params_or_overrides(self._frozen(trial_id))

    def _running_steps(self) -> int:
        """Return the steps of all running trials."""
        return sum(steps * trials for steps, trials in steps_of_running(self._registry).items())

    def _read_usual_steps(self) -> int | None:
        """Return the number of steps that complete trials have reported, None if those with the highest numbers differ."""
        steps = {trial.epochs for trial in recent_finished(self._registry, RECENT, TrialState.COMPLETE)} - {0}
        return steps.pop() if len(steps) == 1 else None

    def _auto(self) -> Design | None:
        """Return the design of a sweep with pairs=auto, None for other sweeps."""
        designs = read_designs(self._folder)
        return designs[-1] if designs and designs[-1].pairs is None else None

    def _read_finalists(self) -> None:
        """Read the finalists. All trials are read, but only for a sweep with finalists."""
        if self._finals is None:
            return
        trials = all_trials(self._access)
        self._more = most_missing(trials, self._finals, self._maximize)
        self._finalists, self._mean = (
            described_finalists(trials, self._maximize), best_finalist(trials, self._maximize)
        )  # fmt: skip
        if self._mean is not None:
            self._best = self._mean.trial, self._mean.mean, self._finalists[0]["params"]

    def _progress(self, counts: Mapping[TrialState, int], rows: tuple[RunningTrial, ...]) -> tuple[int, int | None]:
        """Return the steps so far and in all."""
        done, finished = self._finished_steps + self._running_steps(), self._finished_steps
        known = [row.total for row in rows if row.total is not None]
        typical = self._steps or (round(statistics.median(known)) if known else self._usual_steps)
        if typical is None:
            return done, None
        unfinished = counts.get(TrialState.WAITING, 0) + counts.get(TrialState.RUNNING, 0)
        total = finished + sum(row.total or typical for row in rows) + typical * (unfinished - len(rows) + self._more)
        return done, max(done, total)

    def _seconds_left(self, rows: tuple[RunningTrial, ...], done: int, total: int | None, workers: int) -> float | None:
        paces = [*self._paces, *(pace for trial in self._tracked.values() if (pace := trial.pace()) is not None)]
        if total is None or not paces:
            return None
        return statistics.median(paces) * max(0, total - done) / max(workers, 1)


def setting_text(value: Any) -> str:
    """Return the value of a setting as short text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
