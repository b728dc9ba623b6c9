"""The Optuna study of a sweep: opened or made, held against what was asked, its trials created, one asked and told at a time.

Optuna keeps states, parameters and values; who may work on a trial is the registry's business. All calls may be repeated, so a
database that restarts costs patience and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import delete, select, update

from joyful.config import differences
from joyful.records import InputError
from joyful.sweeper.database import retried
from joyful.sweeper.plan import Plan
from joyful.sweeper.settings import Direction

log = logging.getLogger(__name__)

#: The study attribute that holds what may not change while the study lives.
DESCRIPTION = "joyful"

#: Trial attributes: why it ended so; the trial whose training gave its value; the digest of its configuration; all its
#: overrides; and those of them that it does not share with every trial.
REASON, SAME_AS, DIGEST, OVERRIDES, OWN = "reason", "same_as", "config_hash", "overrides", "own_overrides"

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class StudyAccess:
    """A study by name, opened anew for each trial: nothing is cached that a `retry` could change."""

    backend: RDBStorage
    name: str
    sampler_for: Callable[[int], BaseSampler]
    pruner: BasePruner

    def open(self, number: int = 0) -> optuna.Study:
        """The study, with the sampler of trial `number`."""
        storage = get_storage(self.backend)
        return retried(
            lambda: optuna.load_study(
                study_name=self.name, storage=storage, sampler=self.sampler_for(number), pruner=self.pruner
            )
        )


def quiet() -> None:
    """Optuna's log and warnings of experimental features off, and the launchers' lists of overrides: the sweep has its own view."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.raiseExceptions = False  # (a log that finds no room is no reason for a traceback)
    for name in ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_or_create(backend: RDBStorage, name: str, directions: list[Direction], description: dict[str, Any]) -> int:
    """The id of the study of that name, made where there is none.

    Raises InputError where it exists with another objective, search space, list of trials or base configuration, the
    differences named. A longer list that begins with the old one is taken as its extension.
    """
    storage = get_storage(backend)
    study = retried(
        lambda: optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    )
    found = [direction.name.lower() for direction in study.directions]
    if found != directions:
        raise InputError(
            f"study {name}: it has the objectives {', '.join(found)}, expected {', '.join(directions)}; choose another "
            "sweep_name, or the objectives that the study was begun with"
        )
    before = study.user_attrs.get(DESCRIPTION)
    if before is None:
        if retried(lambda: storage.get_n_trials(study._study_id)) > 0:
            raise InputError(
                f"study {name}: its {len(study.trials)} trials were not made by this sweeper; choose another sweep_name"
            )
    elif lines := _changes(before, description):
        raise InputError(
            f"study {name} was begun with other settings ({'; '.join(lines)}); choose another sweep_name for the new ones, or "
            "give the old ones again to go on"
        )
    if before != description:
        retried(lambda: study.set_user_attr(DESCRIPTION, description))
    return study._study_id


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = dict(before), dict(after)
    if old.get("trials") and new.get("trials") and new["trials"][: len(old["trials"])] == old["trials"]:
        old["trials"] = new["trials"]
    if isinstance(old.get("trials"), list) and isinstance(new.get("trials"), list):  # one line for each that differs
        old["trials"] = {f"{i}": t for i, t in enumerate(old["trials"])}
        new["trials"] = {f"{i}": t for i, t in enumerate(new["trials"])}
    lines = differences(old, new)
    return [*lines[:8], f"and {len(lines) - 8} more"] if len(lines) > 8 else lines


def enqueue(
    backend: RDBStorage, study_id: int, plan: Plan, known: Mapping[int, Mapping[str, Any]] | None = None
) -> int:
    """Create the trials that are missing to the plan's number; returns how many there are. One caller at a time.

    known: parameters that trials of a search shall have, by number.
    """
    storage = get_storage(backend)
    count = retried(lambda: storage.get_n_trials(study_id))
    for number in range(count, plan.n_trials):
        fixed = dict(plan.grid[number]) if plan.grid is not None else dict((known or {}).get(number, {}))
        template = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": fixed})
        retried(lambda template=template: storage.create_new_trial(study_id, template))  # type: ignore[misc]
    return max(count, plan.n_trials)


def sampler_factory(build: Callable[..., BaseSampler], seed: int, reseed: bool) -> Callable[[int], BaseSampler]:
    """Trial number -> its sampler, whose random numbers are a function of (seed, number): who asks, and when, changes nothing.

    reseed: False for samplers that take their place in a sequence from the storage (quasi-random ones).
    """

    def sampler_for(number: int) -> BaseSampler:
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        return build(seed=int.from_bytes(digest[:4], "big") if reseed else seed)

    return sampler_for


class TrialAccess:
    """One trial of a study, for the worker that holds its lease."""

    def __init__(self, access: StudyAccess, number: int) -> None:
        self._access, self.number = access, number
        self.study = access.open(number)
        self._storage: BaseStorage = self.study._storage
        study_id = self.study._study_id
        # Optuna's cache takes parameters only for trials that it has read
        retried(lambda: self._storage.get_all_trials(study_id, deepcopy=False))
        self._id = retried(lambda: self._storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def frozen(self) -> FrozenTrial:
        """The trial as the database has it."""
        return retried(lambda: self._storage.get_trial(self._id))

    def ask(self, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        """Begin the trial, or go on with it, and return its parameters: sampled where they are missing."""
        if self.frozen().state == TrialState.WAITING:
            retried(lambda: self._storage.set_trial_state_values(self._id, TrialState.RUNNING))
        if all(name in self.frozen().params for name in space):
            return dict(self.frozen().params)

        def suggest() -> dict[str, Any]:
            trial = Trial(self.study, self._id)
            return {name: trial._suggest(name, distribution) for name, distribution in space.items()}

        return retried(suggest)

    def note(self, **attributes: Any) -> None:
        """Keep something about the trial, as JSON can hold it."""
        for name, value in attributes.items():
            retried(lambda name=name, value=value: self._storage.set_trial_user_attr(self._id, name, value))  # type: ignore[misc]

    def report(self, epoch: int, value: float) -> bool:
        """Tell the best value up to the end of an epoch; returns whether the pruner wants the trial to go on."""
        if epoch not in self.frozen().intermediate_values and math.isfinite(value):
            retried(lambda: self._storage.set_trial_intermediate_value(self._id, epoch, value))
        return not retried(lambda: self.study.pruner.prune(self.study, self.frozen()))

    def report_all(self, best: Mapping[int, float]) -> None:
        """Tell what was not told yet of epoch -> best value, as of a run that was trained before its study was made."""
        told = self.frozen().intermediate_values
        for epoch, value in best.items():
            if epoch not in told and math.isfinite(value):
                retried(lambda e=epoch, v=value: self._storage.set_trial_intermediate_value(self._id, e, v))  # type: ignore[misc]

    def tell(self, state: TrialState, values: list[float] | None = None) -> None:
        """End the trial; one that has ended already stays as it is."""

        def tell() -> None:
            self.study.tell(self.number, values, state=state, skip_if_finished=True)

        if self.frozen().state == TrialState.WAITING:
            retried(lambda: self._storage.set_trial_state_values(self._id, TrialState.RUNNING))
        retried(tell)

    def tell_as(self, other: FrozenTrial) -> None:
        """End the trial as another of the same configuration ended."""
        for step, value in other.intermediate_values.items():
            retried(lambda step=step, value=value: self._storage.set_trial_intermediate_value(self._id, step, value))  # type: ignore[misc]
        self.tell(other.state, list(other.values) if other.state == TrialState.COMPLETE else None)


def states(engine: sqlalchemy.Engine, study_id: int) -> dict[int, TrialState]:
    """Trial number -> state, without the trials' contents: workers look often."""
    query = select(models.TrialModel.number, models.TrialModel.state).where(models.TrialModel.study_id == study_id)

    def read() -> dict[int, TrialState]:
        with engine.connect() as connection:
            return {row.number: row.state for row in connection.execute(query.order_by(models.TrialModel.number))}

    return retried(read)


def same_as(engine: sqlalchemy.Engine, study_id: int) -> dict[int, int]:
    """Running trials that wait for another one's value -> that other trial's number."""
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    query = (
        select(trial.number, attribute.value_json)
        .join(attribute, attribute.trial_id == trial.trial_id)
        .where(trial.study_id == study_id, trial.state == TrialState.RUNNING, attribute.key == SAME_AS)
    )

    def read() -> dict[int, int]:
        with engine.connect() as connection:
            return {row.number: int(json.loads(row.value_json)) for row in connection.execute(query)}

    return retried(read)


def renew_failed(engine: sqlalchemy.Engine, study_id: int) -> list[int]:
    """Make failed trials wait again, under their numbers and with their parameters; returns the numbers.

    Optuna has no call for it (a finished trial is final there), so its tables are written; the version is pinned and a test
    holds the tables to what is used here.
    """
    trial = models.TrialModel
    failed = select(trial.trial_id).where(trial.study_id == study_id, trial.state == TrialState.FAIL)

    def renew() -> list[int]:
        with engine.begin() as connection:
            condition = (trial.study_id == study_id, trial.state == TrialState.FAIL)
            numbers = list(connection.scalars(select(trial.number).where(*condition).order_by(trial.number)))
            attribute = models.TrialUserAttributeModel
            connection.execute(delete(attribute).where(attribute.trial_id.in_(failed), attribute.key == REASON))
            for model in (models.TrialValueModel, models.TrialIntermediateValueModel):
                connection.execute(delete(model).where(model.trial_id.in_(failed)))
            waiting = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}
            table = trial.__table__
            connection.execute(
                update(table).where(table.c.study_id == study_id, table.c.state == TrialState.FAIL).values(**waiting)
            )
            return numbers

    return retried(renew)
