"""Creation of the trials of a plan. For a study that is rebuilt, they get the numbers and parameters of their runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, insert, select, update

from joyful.results.finalists import REPEAT_OF, SEED
from joyful.sweeper.database import with_retries
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import Registry
from joyful.sweeper.trial_table import models, repeats

#: Largest number of trials that are created in one transaction.
BATCH = 500


@dataclass(frozen=True)
class KnownRun:
    """What the folder of a run tells about its trial.

    Attributes:
        params: Its parameters.
        seed: Its seed, if it trains a finalist again.
    """

    params: Mapping[str, Any]
    seed: int | None = None


def search_runs(known: Mapping[int, KnownRun]) -> dict[int, Mapping[str, Any]]:
    """Return the parameters of the trials of a search by their place in it, from runs by trial number."""
    repeats = [number for number, run in known.items() if run.seed is not None]
    return {
        number - sum(other < number for other in repeats): run.params
        for number, run in known.items()
        if run.seed is None
    }


def enqueue(backend: RDBStorage, registry: Registry, plan: Plan, known: Mapping[int, KnownRun]) -> None:
    """Create the trials of a plan that do not exist yet. Only one process may call it at a time.

    Args:
        backend: Optuna's storage.
        registry: The members and leases of the study.
        plan: The plan.
        known: Runs of a study that is rebuilt, by trial number. Its trials get the same parameters and numbers.
    """
    storage, study_id = get_storage(backend), registry.study_id
    number = with_retries(lambda: storage.get_n_trials(study_id))
    place = number - len(repeats(registry))
    while place < plan.n_trials or (number in known and known[number].seed is not None):
        run = known.get(number)
        if run is None:
            end = min([plan.n_trials - place + number, number + BATCH, *(other for other in known if other > number)])
            points = [dict(plan.grid[place + i]) if plan.grid is not None else {} for i in range(end - number)]
            with_retries(partial(_insert, registry, number, points))
            number = with_retries(lambda: storage.get_n_trials(study_id))
            place = number - len(repeats(registry))
            continue
        if run.seed is not None:
            template = _rebuilt_repeat(run, known, plan)
        else:
            fixed = dict(plan.grid[place] if plan.grid is not None else run.params)
            template = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": fixed})
            place += 1
        with_retries(partial(storage.create_new_trial, study_id, template))
        number += 1


def _insert(registry: Registry, number: int, points: Sequence[Mapping[str, Any]]) -> None:
    """Create waiting trials with fixed parameters, in one transaction. Optuna's own way has one for each trial.

    If the study does not have exactly `number` trials any more, another process or a repeated call was faster, and
    nothing is created.

    Args:
        registry: The registry of the study.
        number: Number of the first trial.
        points: The parameters of each trial.
    """
    trial, attribute, study = models.TrialModel, models.TrialSystemAttributeModel, models.StudyModel
    own = trial.study_id == registry.study_id
    with registry.engine.begin() as connection:
        # a write that changes nothing, so that two processes do this one after the other
        connection.execute(update(study).where(study.study_id == registry.study_id).values(study_name=study.study_name))
        if connection.execute(select(func.count()).select_from(trial).where(own)).scalar_one() != number:
            return
        rows = [
            {"study_id": registry.study_id, "number": number + i, "state": TrialState.WAITING}
            for i in range(len(points))
        ]
        connection.execute(insert(trial.__table__), rows)
        ids = {
            row.number: row.trial_id
            for row in connection.execute(select(trial.number, trial.trial_id).where(own, trial.number >= number))
        }
        fixed = [
            {"trial_id": ids[number + i], "key": "fixed_params", "value_json": json.dumps(point)}
            for i, point in enumerate(points)
        ]
        connection.execute(insert(attribute), fixed)


def _rebuilt_repeat(run: KnownRun, known: Mapping[int, KnownRun], plan: Plan) -> FrozenTrial:
    """Return a trial that trains a finalist again. The finalist is the first run with its parameters, -1 if it is lost."""
    equal = (number for number, other in sorted(known.items()) if other.seed is None and other.params == run.params)
    return optuna.trial.create_trial(
        state=TrialState.WAITING, params=dict(run.params), distributions=dict(plan.space),
        user_attrs={REPEAT_OF: next(equal, -1), SEED: run.seed},
    )  # fmt: skip
