"""The Optuna study of a sweep: create or open it, check its settings, create its trials, ask and tell them.

Optuna stores states, parameters and values. The registry decides which worker may work on a trial. All calls are safe
to repeat, so a restart of the database only causes a delay.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, Trial, TrialState

from joyful.compat import storage_view
from joyful.records import InputError
from joyful.results.finalists import REPEAT_OF, SEED
from joyful.sweeper.database import close_storage, with_retries
from joyful.sweeper.registry import Registry
from joyful.sweeper.settings import Direction
from joyful.validation import differences

log = logging.getLogger(__name__)

#: What to set for another study, in messages. A study is named after its folder.
OTHER_STUDY = "choose another folder with hydra.sweep.dir=FOLDER"

#: The study attribute that holds the settings that may not change during a study.
DESCRIPTION = "joyful"

#: Trial attributes: the reason for its state; the trial with the same configuration whose result it takes; the digest
#: of its configuration; all its overrides; and its overrides without those that all trials share.
REASON, SAME_AS, DIGEST, OVERRIDES, OWN = "reason", "same_as", "config_hash", "overrides", "own_overrides"

#: Trial attributes: its output folder; and the overrides of its arm. `joyful.results.finalists` has those of its seed.
FOLDER, ARM = "folder", "arm"


@dataclass(frozen=True)
class StudyAccess:
    """A study in its database. A context manager that closes the connections.

    Attributes:
        backend: Optuna's storage.
        registry: The members and leases of the study.
        name: Name of the study.
        sampler_for: Maps a trial number to its sampler.
        pruner: The pruner.
    """

    backend: RDBStorage
    registry: Registry
    name: str
    sampler_for: Callable[[int], BaseSampler]
    pruner: BasePruner

    def open(self, number: int = 0, storage: BaseStorage | None = None) -> optuna.Study:
        """Open the study with the sampler of trial `number`, through `storage` if given.

        Each trial opens it again, so that nothing is cached that `retry` may change.
        """
        sampler, storage = self.sampler_for(number), storage or self.backend
        return with_retries(
            lambda: optuna.load_study(study_name=self.name, storage=storage, sampler=sampler, pruner=self.pruner)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A database server limits connections, so do not leave them to the garbage collector.
        self.registry.engine.dispose()
        close_storage(self.backend)


def silence_logs() -> None:
    """Turn off Optuna's log, its warnings of experimental features, and the launchers' lists of overrides."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.raiseExceptions = False  # no traceback for a log file on a full disk
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_or_create(
    backend: RDBStorage,
    name: str,
    directions: list[Direction],
    description: dict[str, Any],
    metric_names: list[str] | None = None,
) -> int:
    """Open a study, or create it if it does not exist.

    Args:
        backend: Optuna's storage.
        name: Name of the study.
        directions: Direction of each objective.
        description: The settings that may not change during a study, as JSON types. A list of trials may become longer
            if it starts with the old list.
        metric_names: Name of each objective, which dashboards show; None: leave them unnamed.

    Returns:
        Optuna's id of the study.

    Raises:
        InputError: If the study exists with other directions, another search space, list of trials or base
            configuration. The message names the differences.
    """
    storage = get_storage(backend)
    study = with_retries(
        lambda: optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    )
    existing = [direction.name.lower() for direction in study.directions]
    if existing != directions:
        raise InputError(
            f"study {name}: expected the directions {', '.join(directions)}, got a study with {', '.join(existing)}; "
            f"{OTHER_STUDY}, or set hydra.sweeper.direction as before"
        )
    study_id = with_retries(lambda: storage.get_study_id_from_name(name))
    before = study.user_attrs.get(DESCRIPTION)
    if before is None:
        if with_retries(lambda: storage.get_n_trials(study_id)) > 0:
            raise InputError(
                f"study {name}: its {len(study.trials)} trials were not created by this sweeper; {OTHER_STUDY}"
            )
    elif lines := _changes(before, description):
        raise InputError(
            f"study {name} was created with other settings ({'; '.join(lines)}); {OTHER_STUDY} for the new settings, or "
            "use the old settings to resume"
        )
    if before != description:
        with_retries(lambda: study.set_user_attr(DESCRIPTION, description))
    if metric_names is not None:
        with_retries(lambda: study.set_metric_names(metric_names))
    return study_id


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = dict(before), dict(after)
    for name in ("objectives", "target"):  # until version 0.2 they were settings of the sweeper
        if name in old and name not in new:
            value = old.pop(name)
            if name in new["base"]:
                old["base"] = {**old["base"], name: None if value == ["dev_f1"] else value}
    if old.get("trials") and new.get("trials") and new["trials"][: len(old["trials"])] == old["trials"]:
        old["trials"] = new["trials"]
    if isinstance(old.get("trials"), list) and isinstance(new.get("trials"), list):  # one line per trial
        old["trials"] = {f"{i}": t for i, t in enumerate(old["trials"])}
        new["trials"] = {f"{i}": t for i, t in enumerate(new["trials"])}
    lines = differences(old, new)
    return [*lines[:8], f"and {len(lines) - 8} more"] if len(lines) > 8 else lines


@dataclass(frozen=True)
class SamplerFactory:
    """Builds the sampler of a trial from the trial's number.

    The random numbers of a sampler are a function of (seed, trial number). They do not depend on the worker or the
    time.

    Attributes:
        build: Returns a sampler for a `seed`.
        seed: Seed of the sweep.
        reseed: Whether each trial gets another seed. False for quasi-random samplers, which read their position in the
            sequence from the storage.
    """

    build: Callable[..., BaseSampler]
    seed: int
    reseed: bool

    def __call__(self, number: int) -> BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return self.build(seed=int.from_bytes(digest[:4], "big") if self.reseed else self.seed)


class TrialAccess:
    """Access to one trial of a study, for the worker that holds its lease.

    Args:
        access: The study.
        number: Number of the trial.
        paused: Paused trials of the study. A sampler learns from them as from pruned ones.
    """

    def __init__(self, access: StudyAccess, number: int, paused: Set[int] = frozenset()) -> None:
        self.number = number
        self._storage = storage_view(access.backend, REPEAT_OF, paused - {number})  # what samplers and pruners see
        self.study, study_id = access.open(number, self._storage), access.registry.study_id
        self._attributes: dict[str, Any] | None = None  # as they were first read
        self._id = with_retries(lambda: self._storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def frozen(self) -> FrozenTrial:
        """Return the trial as stored in the database."""
        return with_retries(lambda: self._storage.get_trial(self._id))

    @property
    def further_seed(self) -> int | None:
        """The seed of a trial that trains a finalist again; None for a trial of the search."""
        if self._attributes is None:  # not a cached_property, whose lock all threads share before Python 3.12
            self._attributes = self.frozen().user_attrs
        return int(self._attributes[SEED]) if REPEAT_OF in self._attributes else None

    def ask(self, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        """Start or resume the trial, and return its parameters. Missing parameters are sampled from `space`."""
        self._start()
        params = self.frozen().params
        if all(name in params for name in space):
            return dict(params)

        def suggest() -> dict[str, Any]:
            trial = Trial(self.study, self._id)
            return {name: _suggest(trial, name, distribution) for name, distribution in space.items()}

        return with_retries(suggest)

    def set_user_attrs(self, **attributes: Any) -> None:
        """Store user attributes of the trial, which must be JSON types."""
        for name, value in attributes.items():
            with_retries(partial(self._storage.set_trial_user_attr, self._id, name, value))

    @property
    def last_step(self) -> int:
        """Return the last step reported so far, 0 if there is none."""
        return max(self._reported, default=0)

    def steps_with(self, step: int) -> int:
        """Return the number of steps reported so far, including `step`."""
        return len(self._reported.keys() | {step})

    def report(self, step: int, value: float) -> bool:
        """Store the value at a step. A value that is not finite is not stored.

        Returns:
            True if the trial should continue, False if the pruner ends it. A trial that has reached the last step of
            the longest complete trial is not ended, because it has trained to its end, and neither is a finalist's.
        """
        self.report_all({step: value})
        no_pruning = len(self.study.directions) > 1 or isinstance(self.study.pruner, NopPruner)
        if no_pruning or self.further_seed is not None:
            return True
        trial = self.frozen()
        if not with_retries(lambda: self.study.pruner.prune(self.study, trial)):
            return True
        complete = with_retries(lambda: self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        return step >= max((other.last_step or 0 for other in complete), default=step + 1)

    def report_all(self, values: Mapping[int, float]) -> None:
        """Store values by step, except those that are stored already or are not finite."""
        for step, value in values.items():
            if self._reported.get(step) != value and math.isfinite(value):
                with_retries(partial(self._storage.set_trial_intermediate_value, self._id, step, value))
                self._reported[step] = value

    @functools.cached_property
    def _reported(self) -> dict[int, float]:
        """The values by step. Only the worker that holds the lease changes them, so they are read once."""
        return dict(self.frozen().intermediate_values)

    def tell(self, state: TrialState, values: list[float] | None = None) -> None:
        """Finish the trial. A trial that is finished already does not change."""
        self._start()
        with_retries(lambda: self.study.tell(self.number, values, state=state, skip_if_finished=True))

    def _start(self) -> None:
        if self.frozen().state == TrialState.WAITING:
            with_retries(lambda: self._storage.set_trial_state_values(self._id, TrialState.RUNNING))

    def copy_result(self, other: FrozenTrial) -> None:
        """Finish the trial with the state and the values of another trial, which has the same configuration."""
        self.report_all(other.intermediate_values)
        self.tell(other.state, list(other.values) if other.state == TrialState.COMPLETE else None)


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Return the trial's value of a parameter."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
