"""Creation of the trials of a plan. For a study that is rebuilt, they get the numbers and parameters of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState

from joyful.results.finalists import REPEAT_OF, SEED
from joyful.sweeper.database import with_retries
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import Registry
from joyful.sweeper.trial_table import repeats


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
        run = known.get(number, KnownRun({}))
        if run.seed is not None:
            template = _rebuilt_repeat(run, known, plan)
        else:
            fixed = dict(plan.grid[place] if plan.grid is not None else run.params)
            template = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": fixed})
            place += 1
        with_retries(partial(storage.create_new_trial, study_id, template))
        number += 1


def _rebuilt_repeat(run: KnownRun, known: Mapping[int, KnownRun], plan: Plan) -> FrozenTrial:
    """Return a trial that trains a finalist again. The finalist is the first run with its parameters, -1 if it is lost."""
    equal = (number for number, other in sorted(known.items()) if other.seed is None and other.params == run.params)
    return optuna.trial.create_trial(
        state=TrialState.WAITING, params=dict(run.params), distributions=dict(plan.space),
        user_attrs={REPEAT_OF: next(equal, -1), SEED: run.seed},
    )  # fmt: skip
