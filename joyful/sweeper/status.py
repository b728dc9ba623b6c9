"""The state of a sweep: trials by state, the best trial, workers and the estimated time left."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from joyful.records import InputError
from joyful.sweeper.database import close_storage, open_engine, open_storage, storage_url, with_retries
from joyful.sweeper.recovery import find_damage
from joyful.sweeper.registry import FailureDetector, Lease, Member, Registry
from joyful.sweeper.study import OWN, REASON, StudyAccess

#: File in the sweep folder that has the name and the database of its study.
SWEEP_FILE = "sweep.json"

#: The first keys of `joyful sweep status --json`, which stay the same in future versions. Other keys follow.
STABLE_KEYS = (
    "n_trials", "complete", "pruned", "failed", "running", "waiting", "best_value", "best_params", "workers"
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """The state of a sweep at one moment.

    Attributes:
        name: Name of the study.
        n_trials: Number of trials.
        complete: Complete trials.
        pruned: Pruned trials.
        failed: Failed trials.
        running: Trials that a live worker holds.
        waiting: Trials that wait for a worker, including those whose worker has failed.
        best_value: Best value of the first objective, None if no trial is complete.
        best_trial: Number of the trial with that value.
        best_params: Its parameters; for a list of trials, its overrides.
        workers: Live workers.
        seconds_left: Estimated seconds to the end, None if no trial has finished.
        failures: Number of each failed trial -> reason.
    """

    name: str
    n_trials: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best_value: float | None
    best_trial: int | None
    best_params: Mapping[str, Any]
    workers: int
    seconds_left: float | None
    failures: Mapping[int, str]

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON types, the keys of STABLE_KEYS first."""
        values = asdict(self)
        return {name: values[name] for name in (*STABLE_KEYS, *(n for n in values if n not in STABLE_KEYS))}


def take_snapshot(
    access: StudyAccess, registry: Registry, lease_seconds: float, detector: FailureDetector | None = None
) -> Snapshot:
    """Read the current state of a sweep.

    Args:
        access: The study.
        registry: Its members and leases.
        lease_seconds: Seconds without a heartbeat after which a member counts as dead.
        detector: The observer's failure detector; None: a new one, for which members of other machines are alive.
    """
    study = access.open()
    trials = with_retries(lambda: study.get_trials(deepcopy=False))
    leases, members = registry.leases_and_members()
    detector = detector or FailureDetector(lease_seconds)
    detector.observe(members)
    live = {name for name, member in members.items() if not detector.is_dead(member)}
    by_state = {state: [t for t in trials if t.state == state] for state in TrialState}
    running = [t for t in by_state[TrialState.RUNNING] if t.number in leases and leases[t.number].owner in live]
    workers = sum(1 for name in live if members[name].role == "worker")
    best = best_trial(study)
    waiting = len(by_state[TrialState.WAITING]) + len(by_state[TrialState.RUNNING]) - len(running)
    return Snapshot(
        name=access.name,
        n_trials=len(trials),
        complete=len(by_state[TrialState.COMPLETE]),
        pruned=len(by_state[TrialState.PRUNED]),
        failed=len(by_state[TrialState.FAIL]),
        running=len(running),
        waiting=waiting,
        best_value=best.values[0] if best is not None else None,
        best_trial=best.number if best is not None else None,
        best_params=params_or_overrides(best) if best is not None else {},
        workers=workers,
        seconds_left=_seconds_left(trials, leases, max(workers, 1)),
        failures={t.number: str(t.user_attrs.get(REASON, "")) for t in by_state[TrialState.FAIL]},
    )


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the complete trial with the best first objective, None if there is none. Of equals, the first wins."""
    complete = with_retries(lambda: study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if not complete:
        return None
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    return min(complete, key=lambda trial: (sign * trial.values[0], trial.number))


def params_or_overrides(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial. For a list of trials, return its overrides by name."""
    if trial.params:
        return dict(trial.params)
    items = shlex.split(str(trial.user_attrs.get(OWN, "")))
    return dict(item.split("=", 1) for item in items if "=" in item)


def _seconds_left(trials: list[FrozenTrial], leases: Mapping[int, Lease], workers: int) -> float | None:
    """Estimate the seconds left from the epochs left and the seconds per epoch.

    Only trials that were never interrupted are measured, because the times of others include the interruption. If there
    are none, all finished trials are measured.
    """
    finished = [t for t in trials if t.state.is_finished() and t.duration is not None and t.number in leases]
    measured = [t for t in finished if leases[t.number].term == 1] or finished
    epochs = sum(leases[t.number].epochs for t in measured)
    if not epochs:
        return None
    # Optuna stores wall-clock times. The median is robust against a change of the clock during a trial.
    seconds_per_epoch = statistics.median(
        t.duration.total_seconds() / leases[t.number].epochs
        for t in measured
        if t.duration is not None and leases[t.number].epochs
    )
    if seconds_per_epoch <= 0:
        return None
    epochs_per_trial = epochs / len(measured)
    unfinished = [leases[t.number].epochs if t.number in leases else 0 for t in trials if not t.state.is_finished()]
    return seconds_per_epoch * sum(max(0.0, epochs_per_trial - done) for done in unfinished) / workers


@dataclass(frozen=True)
class OpenSweep:
    """An open sweep. A context manager that closes the connections.

    Attributes:
        access: The study.
        registry: Its members and leases.
    """

    access: StudyAccess
    registry: Registry

    def live_workers(self) -> list[Member]:
        """Return the workers whose process has not ended. Workers of other machines are included."""
        return [m for m in self.registry.members(role="worker").values() if not m.identity.has_ended]

    def __enter__(self) -> OpenSweep:
        return self

    def __exit__(self, *_: object) -> None:
        # A database server limits connections, so do not leave them to the garbage collector.
        self.registry.engine.dispose()
        close_storage(self.access.backend)


def open_sweep(folder: Path, storage: str | None = None) -> OpenSweep:
    """Open the sweep in a folder.

    Args:
        folder: The sweep folder.
        storage: Database URL to use instead of that in sweep.json, which has no password.

    Raises:
        InputError: If there is no sweep, or if its database is damaged or cannot be reached.
    """
    try:
        saved = json.loads((folder / SWEEP_FILE).read_bytes())
        name, saved_storage = str(saved["study_name"]), saved["storage"]
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected the folder of a sweep (with {SWEEP_FILE}), found none; set the folder of a sweep with "
            "hydra/sweeper=optuna_pruned, such as multirun/SWEEP_NAME"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / SWEEP_FILE}: damaged ({error}); run the sweep's command again to rewrite it"
        ) from None
    url = storage_url(storage or saved_storage, folder)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise InputError(f"{url.database}: expected the sweep's study, found none; run the sweep's command again")
    if url.get_backend_name() == "sqlite" and (problem := find_damage(Path(str(url.database)))):
        raise InputError(
            f"{url.database}: damaged ({problem}); run the sweep's command again to set the file aside and rebuild the "
            "study from its run folders"
        )
    backend = open_storage(url)
    try:
        study_id = backend.get_study_id_from_name(name)
    except KeyError:
        close_storage(backend)
        raise InputError(
            f"{url.render_as_string()}: expected the study {name}, found none; run the sweep's command again"
        ) from None
    access = StudyAccess(backend, name, optuna.samplers.RandomSampler, optuna.pruners.NopPruner())
    return OpenSweep(access, Registry(open_engine(url), study_id))
