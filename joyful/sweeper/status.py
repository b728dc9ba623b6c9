"""What a sweep looks like from outside, whether it runs or is dead: counts, the best so far, workers, time left."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from joyful.records import InputError
from joyful.sweeper.database import close, open_engine, open_storage, retried, storage_url
from joyful.sweeper.recovery import damage
from joyful.sweeper.registry import FailureDetector, Lease, Member, Registry
from joyful.sweeper.study import OWN, REASON, StudyAccess

#: Beside study.db in a sweep's folder: where its study is.
SWEEP_FILE = "sweep.json"

#: The keys that `python -m joyful.sweeper status --json` promises; others follow.
PROMISED = (
    "n_trials", "complete", "pruned", "failed", "running", "waiting", "best_value", "best_params", "workers"
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """Trials by state: running ones have a live worker; those whose worker died wait for another.

    best_value: of the first objective, None while nothing is complete; best_params: its parameters, or the overrides of a trial
    from a list. workers: processes alive that take trials. seconds_left: estimated, None while nothing is finished.
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
        """The snapshot as JSON can hold it, the promised keys first."""
        values = asdict(self)
        return {name: values[name] for name in (*PROMISED, *(n for n in values if n not in PROMISED))}


def snapshot(
    access: StudyAccess, registry: Registry, lease_seconds: float, detector: FailureDetector | None = None
) -> Snapshot:
    """The sweep now. watch: an observer's memory, for members of other machines; without it they count as alive."""
    study = access.open()
    trials = retried(lambda: study.get_trials(deepcopy=False))
    leases, members = registry.leases_and_members()
    detector = detector or FailureDetector(lease_seconds)
    detector.look(members)
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
        best_params=described(best) if best is not None else {},
        workers=workers,
        seconds_left=_seconds_left(trials, leases, max(workers, 1)),
        failures={t.number: str(t.user_attrs.get(REASON, "")) for t in by_state[TrialState.FAIL]},
    )


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the best first objective, the earliest among equals; None where none is complete."""
    complete = retried(lambda: study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if not complete:
        return None
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    return min(complete, key=lambda trial: (sign * trial.values[0], trial.number))


def described(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, or where a list gave it, its overrides by name."""
    if trial.params:
        return dict(trial.params)
    items = shlex.split(str(trial.user_attrs.get(OWN, "")))
    return dict(item.split("=", 1) for item in items if "=" in item)


def _seconds_left(trials: list[FrozenTrial], leases: Mapping[int, Lease], workers: int) -> float | None:
    """The epochs that are left, at the pace of trials that were never interrupted: the others' times hold the pause as well."""
    finished = [t for t in trials if t.state.is_finished() and t.duration is not None and t.number in leases]
    measured = [t for t in finished if leases[t.number].term == 1] or finished
    epochs = sum(leases[t.number].epochs for t in measured)
    if not epochs:
        return None
    # Optuna has times of day alone: the middle one of the paces is right although the clock was set under some trial
    pace = statistics.median(
        t.duration.total_seconds() / leases[t.number].epochs
        for t in measured
        if t.duration is not None and leases[t.number].epochs
    )
    if pace <= 0:
        return None
    length = epochs / len(measured)
    unfinished = [leases[t.number].epochs if t.number in leases else 0 for t in trials if not t.state.is_finished()]
    return pace * sum(max(0.0, length - done) for done in unfinished) / workers


@dataclass(frozen=True)
class OpenSweep:
    """A sweep's study and tables, found by its folder; with a `with`, its connections end with the block."""

    access: StudyAccess
    registry: Registry
    engine: sqlalchemy.Engine
    study_id: int

    def live_workers(self) -> list[Member]:
        """Workers of this machine that are alive, and all of other machines."""
        return [m for m in self.registry.members().values() if m.role == "worker" and not m.is_gone]

    def __enter__(self) -> OpenSweep:
        return self

    def __exit__(self, *_: object) -> None:
        # (a server counts connections: whoever looks again and again must not leave them to the garbage collector)
        self.engine.dispose()
        close(self.access.backend)


def open_sweep(folder: Path, storage: str | None = None) -> OpenSweep:
    """The sweep in a folder. storage: its database, where sweep.json does not say (or leaves out the password).

    Raises InputError where there is none, and where its database cannot be reached.
    """
    try:
        saved = json.loads((folder / SWEEP_FILE).read_bytes())
        name, saved_storage = str(saved["study_name"]), saved["storage"]
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected the folder of a sweep (with {SWEEP_FILE}), found none; a sweep of hydra/sweeper=optuna_pruned "
            "writes to multirun/SWEEP_NAME"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / SWEEP_FILE}: damaged ({error}); start the sweep's command again, which writes it anew"
        ) from None
    url = storage_url(storage or saved_storage, folder)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise InputError(f"{url.database}: expected the sweep's study, found none; start the sweep's command again")
    if url.get_backend_name() == "sqlite" and (why := damage(Path(str(url.database)))):
        raise InputError(
            f"{url.database}: damaged ({why}); start the sweep's command again: it sets the file aside and makes the study anew "
            "from the folders of its runs"
        )
    backend = open_storage(url)
    try:
        study_id = backend.get_study_id_from_name(name)
    except KeyError:
        close(backend)
        raise InputError(f"{url.render_as_string()}: it has no study {name}; start the sweep's command again") from None
    engine = open_engine(url)
    access = StudyAccess(
        backend, name, lambda number: optuna.samplers.RandomSampler(number), optuna.pruners.NopPruner()
    )
    return OpenSweep(access, Registry(engine, study_id), engine, study_id)
