"""The finalists of a search: choose them, and create the trials that train them on further seeds (`hydra.sweeper.seeds`).

A trial of the search has the seed of the program. When all trials of the search are finished, its best configurations are
its finalists, and each gets a trial for every further seed. These repeats have the parameters of the finalist, so no
sampler is asked for them, and `study.TrialAccess` hides them from samplers and pruners.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from joyful.records import InputError
from joyful.results.finalists import REPEAT_OF, SEED, is_repeat
from joyful.sweeper.database import with_retries
from joyful.sweeper.job_config import pop_key
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import Lease
from joyful.sweeper.settings import Finals, SweepSettings
from joyful.sweeper.study import DIGEST, StudyAccess


def finals_of(settings: SweepSettings, plan: Plan, config: Mapping[str, Any]) -> Finals | None:
    """Return how finalists are trained, None with `hydra.sweeper.seeds=1`.

    Args:
        settings: The settings of the sweep.
        plan: Its plan.
        config: The configuration of a trial, see `job_config.identity`.

    Raises:
        InputError: If the program has no integer seed, or if the sweep searches it.
    """
    if settings.seeds == 1:
        return None
    key, what = settings.seed_key, f"hydra.sweeper.seeds={settings.seeds}"
    if key in plan.space:
        raise InputError(
            f"{what}: expected one seed for all trials of the search, got {key} in the search space; set {key} to a number"
        )
    seed = pop_key(json.loads(json.dumps(config)), key)
    if not isinstance(seed, int) or isinstance(seed, bool):
        got = "none" if seed is None else repr(seed)
        raise InputError(
            f"{what}: expected an integer in the program's setting {key}, got {got}; set {key}=NUMBER, or "
            "hydra.sweeper.seed_key to the setting with the seed"
        )
    return Finals(settings.finalists, tuple(range(seed + 1, seed + settings.seeds)), key)


def chosen(trials: Sequence[FrozenTrial], count: int, maximize: bool) -> list[FrozenTrial]:
    """Return the finalists: the best complete trials of a search, each configuration once.

    Args:
        trials: The trials of the study.
        count: Largest number of finalists.
        maximize: Whether larger values are better.
    """
    sign = -1.0 if maximize else 1.0
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and not is_repeat(trial)]
    complete.sort(key=lambda trial: (sign * trial.values[0], trial.number))
    distinct: dict[Any, FrozenTrial] = {}
    for trial in complete:
        distinct.setdefault(trial.user_attrs.get(DIGEST, trial.number), trial)
    return list(distinct.values())[:count]


def missing(trials: Sequence[FrozenTrial], finals: Finals | None, maximize: bool) -> list[tuple[FrozenTrial, int]]:
    """Return each finalist with a further seed for which it has no trial yet; [] while the search is not over.

    Args:
        trials: The trials of the study.
        finals: How finalists are trained.
        maximize: Whether larger values are better.
    """
    if finals is None or not _is_over(trials):
        return []
    existing = {(trial.user_attrs[REPEAT_OF], trial.user_attrs[SEED]) for trial in trials if is_repeat(trial)}
    finalists = chosen(trials, finals.count, maximize)
    return [(trial, seed) for seed in finals.seeds for trial in finalists if (trial.number, seed) not in existing]


def most_missing(trials: Sequence[FrozenTrial], finals: Finals | None, maximize: bool) -> int:
    """Return how many repeats may be created: exactly, or at most while the search is not over."""
    if finals is None or _is_over(trials):
        return len(missing(trials, finals, maximize))
    return finals.most


def _is_over(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state.is_finished() for trial in trials if not is_repeat(trial))


def read_missing(access: StudyAccess, finals: Finals) -> list[tuple[FrozenTrial, int]]:
    """Return what `missing` returns for the current trials of a study."""
    study = access.open()
    trials = with_retries(lambda: study.get_trials(deepcopy=False))
    return missing(trials, finals, study.directions[0] == StudyDirection.MAXIMIZE)


def add(access: StudyAccess, finals: Finals, lease: Lease) -> None:
    """Create the trials that the finalists lack. Only the holder of the lease on creating trials may call it.

    A trial and its attributes are written in one transaction, so a kill leaves whole trials, and the next call creates the
    others. If a trial were created twice, it would take the result of the first, as all trials of one configuration do.

    Args:
        access: The study.
        finals: How finalists are trained.
        lease: The lease, which is renewed before each trial.

    Raises:
        LeaseLostError: If another process has taken over the lease.
    """
    for trial, seed in read_missing(access, finals):
        access.registry.renew(lease)
        template = repeat_of(trial.number, trial, seed)
        with_retries(partial(access.backend.create_new_trial, access.registry.study_id, template))


def repeat_of(number: int, trial: FrozenTrial, seed: int) -> FrozenTrial:
    """Return a waiting trial with the parameters of a trial of the search and another seed."""
    return create_trial(
        state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
        user_attrs={REPEAT_OF: number, SEED: seed},
    )  # fmt: skip


def read_finals(path: Path) -> Finals | None:
    """Return how a sweep trains its finalists from its sweep.json; None if it does not, or if the file cannot be read."""
    try:
        found = json.loads(path.read_bytes())["finalists"]
        return Finals(int(found["count"]), tuple(map(int, found["seeds"])), str(found["seed_key"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
