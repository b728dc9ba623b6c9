"""The state of a sweep: trials by state, the best trial, workers and the estimated time left."""

from __future__ import annotations

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from joyful.records import InputError
from joyful.results.design import read_decisions, read_designs
from joyful.results.finalists import Finalist, best_finalist, finalists_of, is_repeat
from joyful.sweeper.database import close_storage, open_engine, open_storage, storage_url, with_retries
from joyful.sweeper.evidence import NOT_NEEDED
from joyful.sweeper.finalists import most_missing, read_finals
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.pausing import count_paused
from joyful.sweeper.promotion import Policy
from joyful.sweeper.recovery import find_damage
from joyful.sweeper.registry import Registry
from joyful.sweeper.study import OWN, StudyAccess
from joyful.sweeper.trial_table import (
    FinishedTrial,
    best_complete,
    count_states,
    failures,
    numbers_in,
    pruned_for,
    recent_finished,
    repeats,
    steps_of_running,
)

#: File in the sweep folder that has the name and the database of its study.
SWEEP_FILE = "sweep.json"

#: Finished trials with the highest numbers, from which the time left is estimated.
RECENT = 50


@dataclass(frozen=True)
class Snapshot:
    """The state of a sweep at one moment, and the keys of `joyful sweep status --json` in this order.

    The keys up to `workers` stay the same and stay first in future versions.

    Attributes:
        n_trials: Number of trials.
        complete: Complete trials.
        pruned: Pruned trials.
        failed: Failed trials.
        running: Trials that a live worker holds.
        waiting: Trials that wait for a worker, including those whose worker has failed, without the paused ones.
        best_value: Best value of the first objective, None if no trial is complete.
        best_params: Parameters of the trial with that value; for a list of trials, its overrides.
        workers: Live workers.
        name: Name of the study.
        best_trial: Number of the trial with the best value.
        seconds_left: Estimated seconds to the end, None if no trial has finished.
        failures: Number of each failed trial -> reason.
        pairs: With pairs=auto, number of pairs on which the claims were judged. None for other sweeps.
        max_pairs: Largest number of pairs. None for other sweeps.
        claims: State of each claim, with the attributes of `joyful.results.design.Line`. () for other sweeps.
        paused: Number of paused trials at each rung that has any, by the step of the rung.
        more_trials: Largest number of trials of finalists that do not exist yet. 0 with one seed.
        finalists: Finalists with runs on further seeds, the best first: `trial`, `mean`, `standard_error` (null for one
            seed), `seeds` and `params`.
        best_seeds: Number of seeds of which `best_value` is the mean. None while it is the value of one trial.
        best_standard_error: Its standard error.
    """

    n_trials: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best_value: float | None
    best_params: Mapping[str, Any]
    workers: int
    name: str
    best_trial: int | None
    seconds_left: float | None
    failures: Mapping[int, str]
    pairs: int | None = None
    max_pairs: int | None = None
    claims: Sequence[Mapping[str, Any]] = ()
    paused: Mapping[int, int] = field(default_factory=dict)
    more_trials: int = 0
    finalists: Sequence[Mapping[str, Any]] = ()
    best_seeds: int | None = None
    best_standard_error: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all trials are finished and no more can be added."""
        return self.done >= self.n_trials and not self.more_trials

    @property
    def done(self) -> int:
        """Number of finished trials."""
        return self.complete + self.pruned + self.failed


def take_snapshot(access: StudyAccess, detector: FailureDetector, folder: Path) -> Snapshot:
    """Read the current state of a sweep.

    Trials that were not trained because their claims are decided are not counted.

    Args:
        access: The study.
        detector: The observer's failure detector. For a new one, members of other machines are alive.
        folder: The sweep folder.
    """
    registry, maximize = access.registry, is_maximized(access)
    designs = read_designs(folder)
    auto = designs[-1] if designs and designs[-1].pairs is None else None
    not_needed = len(pruned_for(registry, NOT_NEEDED)) if auto is not None else 0
    decisions = read_decisions(folder) if auto is not None else None
    held, members = registry.held_and_members()
    detector.observe(members)
    live = {name for name, member in members.items() if not detector.is_dead(member)}
    workers = sum(members[name].role == "worker" for name in live)
    counts = Counter(count_states(registry))
    owned = {number for number, lease in held.items() if lease.owner in live}
    running = len(numbers_in(registry, owned, TrialState.RUNNING))
    paused = count_paused(registry, read_policy(folder), owned)
    finals = read_finals(folder / SWEEP_FILE)
    trials = all_trials(access) if finals is not None or repeats(registry) else []
    found, mean = described_finalists(trials, maximize), best_finalist(trials, maximize)
    more = most_missing(trials, finals, maximize)
    best = _best_trial(access, trials, mean)
    best_value = best.values[0] if best is not None else None
    unfinished = counts[TrialState.WAITING] + counts[TrialState.RUNNING]
    left = None
    if auto is None:
        left = _seconds_left(
            recent_finished(registry, RECENT), steps_of_running(registry), unfinished + more, max(workers, 1)
        )
    return Snapshot(
        n_trials=sum(counts.values()) - not_needed,
        complete=counts[TrialState.COMPLETE],
        pruned=counts[TrialState.PRUNED] - not_needed,
        failed=counts[TrialState.FAIL],
        running=running,
        waiting=unfinished - running - sum(paused.values()),
        best_value=best_value if mean is None else mean.mean,
        best_params=params_or_overrides(best) if best is not None else {},
        workers=workers,
        name=access.name,
        best_trial=best.number if best is not None else None,
        seconds_left=left,
        failures=failures(registry),
        pairs=None if decisions is None else decisions.pairs,
        max_pairs=None if auto is None else auto.max_pairs,
        claims=() if decisions is None else [asdict(line) for line in decisions.lines],
        paused=paused,
        more_trials=more,
        finalists=found,
        best_seeds=None if mean is None else mean.seeds,
        best_standard_error=None if mean is None else mean.standard_error,
    )


def read_policy(folder: Path) -> Policy | None:
    """Return the rule by which a sweep pauses trials, None if it pauses none."""
    saved = _read_sweep(folder).get("promotion")
    try:
        return Policy(**saved) if isinstance(saved, Mapping) else None
    except TypeError:  # of a later version
        return None


def described_finalists(trials: Sequence[FrozenTrial], maximize: bool) -> list[dict[str, Any]]:
    """Return `Snapshot.finalists` from trials of the study."""
    by_number = {trial.number: trial for trial in trials}
    return [
        {
            "trial": one.trial, "mean": one.mean, "standard_error": one.standard_error, "seeds": one.seeds,
            "params": params_or_overrides(by_number[one.trial]),
        }
        for one in finalists_of(trials, maximize)
    ]  # fmt: skip


def _best_trial(access: StudyAccess, trials: Sequence[FrozenTrial], mean: Finalist | None) -> FrozenTrial | None:
    """Return the complete trial of the search with the best first objective, None if there is none.

    Of equals, the first wins. When the finalists have been trained on further seeds, it is the trial of the best finalist.

    Args:
        access: The study.
        trials: Its trials; [] without finalists.
        mean: The best finalist, None if there is none yet.
    """
    if mean is not None:
        return next(trial for trial in trials if trial.number == mean.trial)
    best = best_complete(access.registry, is_maximized(access))
    return None if best is None else with_retries(lambda: access.backend.get_trial(best[0]))


def is_maximized(access: StudyAccess) -> bool:
    """Return whether larger values of the first objective are better."""
    directions = with_retries(lambda: access.backend.get_study_directions(access.registry.study_id))
    return directions[0] == StudyDirection.MAXIMIZE


def all_trials(access: StudyAccess) -> list[FrozenTrial]:
    """Return all trials. Only sweeps with finalists need them for their state."""
    return with_retries(lambda: access.backend.get_all_trials(access.registry.study_id, deepcopy=False))


def params_or_overrides(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial, with the seed of a finalist's. For a list of trials, return its overrides by name."""
    if trial.params and not is_repeat(trial):
        return dict(trial.params)
    items = shlex.split(str(trial.user_attrs.get(OWN, "")))
    return dict(trial.params) | dict(item.split("=", 1) for item in items[len(trial.params) :] if "=" in item)


def _seconds_left(
    finished: Sequence[FinishedTrial], running: Mapping[int, int], unfinished: int, workers: int
) -> float | None:
    """Estimate the seconds left from the epochs left and the seconds per epoch.

    Only trials that were never interrupted are measured, because the times of others include the interruption. If there
    are none, all are measured.

    Args:
        finished: Finished trials.
        running: Epochs of running trials -> number of trials.
        unfinished: Number of unfinished trials, the running ones included.
        workers: Number of workers.
    """
    measured = [trial for trial in finished if trial.term == 1] or finished
    epochs = sum(trial.epochs for trial in measured)
    if not epochs:
        return None
    # Optuna stores wall-clock times. The median is robust against a change of the clock during a trial.
    seconds_per_epoch = statistics.median(trial.seconds / trial.epochs for trial in measured if trial.epochs)
    if seconds_per_epoch <= 0:
        return None
    epochs_per_trial = epochs / len(measured)
    done = sum(trials * min(epochs, epochs_per_trial) for epochs, trials in running.items())
    return seconds_per_epoch * (epochs_per_trial * unfinished - done) / workers


def steps_of(folder: Path) -> int | None:
    """Return the number of steps of a trial from sweep.json; None if it is not known."""
    steps = _read_sweep(folder).get("steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def _read_sweep(folder: Path) -> Mapping[str, Any]:
    """Return the content of sweep.json, {} if it cannot be read."""
    try:
        saved = json.loads((folder / SWEEP_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, Mapping) else {}


def open_sweep(folder: Path, storage: str | None = None) -> StudyAccess:
    """Open the study of the sweep in a folder, without its sampler and pruner.

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
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        if not path.is_file():
            raise InputError(f"{path}: expected the sweep's study, found none; run the sweep's command again")
        if problem := find_damage(path):
            raise InputError(
                f"{path}: damaged ({problem}); run the sweep's command again to set the file aside and rebuild the "
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
    registry = Registry(open_engine(url), study_id)
    return StudyAccess(backend, registry, name, optuna.samplers.RandomSampler, optuna.pruners.NopPruner())
