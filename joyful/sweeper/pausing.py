"""Paused trials of a study: the pruner `asha_promotion`, and what `promotion` needs to know, read from the database.

A trial is paused if it is running for Optuna, no worker holds it, and its last step is the first at or past a rung. So a
worker that is killed right after a report at a rung leaves the same state as one that pauses the trial.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select

from joyful.sweeper.promotion import Action, Ladder, Policy, State
from joyful.sweeper.registry import Lease, Member, Registry
from joyful.sweeper.trial_table import models, repeats

#: Reason of trials that were paused when nothing was left to promote.
NOT_PROMOTED = "not promoted: others were better at the same step"

#: Largest number of trials whose values are read by number; for more, those of all trials are read.
_MOST_NUMBERS = 500

_STATES = {
    TrialState.WAITING: State.WAITING, TrialState.RUNNING: State.FREE, TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED, TrialState.FAIL: State.FAILED,
}  # fmt: skip


@dataclass(frozen=True)
class Trials:
    """The state of all trials of a study, as a worker has read it.

    Attributes:
        states: The state of each trial.
        leases: Their leases, read before the states.
        members: The members of the sweep.
        held: The trials that a live worker holds.
        blocked: The trials that wait for the result of another trial.
        repeats: The trials that train a finalist again. They are not paused.
    """

    states: Mapping[int, TrialState]
    leases: Mapping[int, Lease]
    members: Mapping[str, Member]
    held: Set[int]
    blocked: Set[int]
    repeats: Set[int] = frozenset()

    @property
    def unfinished(self) -> list[int]:
        """The trials that are not finished."""
        return [number for number, state in self.states.items() if not state.is_finished()]

    @property
    def free(self) -> list[int]:
        """The unfinished trials that a worker may claim."""
        return [number for number in self.unfinished if number not in self.held and number not in self.blocked]


class PromotionPruner(BasePruner):
    """Asynchronous successive halving that pauses trials and promotes them later (Li et al. 2020).

    It prunes nothing itself: the workers pause, promote and end trials, see `joyful.sweeper.promotion`.

    Args:
        min_resource: Step of the first rung. None: a quarter of the last step, rounded up, or 3 if that is not known.
        reduction_factor: Each rung is at this multiple of the one before, and one of so many trials continues.
        max_resource: Last step of a trial. None: that of the program, if it is known, see `for_steps`.
        breadth_first: Whether all trials are started before any is promoted.
        fewest_trials: A sweep of fewer trials pauses none.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        min_resource: int | None = None,
        reduction_factor: int = 2,
        max_resource: int | None = None,
        breadth_first: bool = False,
        fewest_trials: int = 8,
    ) -> None:
        least = {"min_resource": 1, "reduction_factor": 2, "max_resource": 1, "fewest_trials": 1}
        values = {
            "min_resource": min_resource, "reduction_factor": reduction_factor, "max_resource": max_resource,
            "fewest_trials": fewest_trials,
        }  # fmt: skip
        for name, value in values.items():
            if value is None and name in ("min_resource", "max_resource"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
                raise ValueError(f"{name}: expected an integer >= {least[name]}, got {value!r}")
        if not isinstance(breadth_first, bool):
            raise ValueError(f"breadth_first: expected true or false, got {breadth_first!r}")
        self._settings = (min_resource, reduction_factor, max_resource, breadth_first)
        self.fewest_trials = fewest_trials

    def for_sweep(self, n_trials: int, steps: int | None) -> BasePruner:
        """Return the pruner of a sweep.

        Args:
            n_trials: Number of its trials.
            steps: Number of steps of a trial; None: not known.
        """
        if n_trials < self.fewest_trials:
            return NopPruner()
        first, factor, last, breadth_first = self._settings
        return PromotionPruner(first, factor, last or steps, breadth_first, self.fewest_trials)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return False."""
        return False

    def policy(self, maximize: bool) -> Policy:
        """Return the settings of the rule.

        Args:
            maximize: Whether larger values are better.
        """
        first, factor, last, breadth_first = self._settings
        quarter = math.ceil(last / 4) if last is not None else 3
        return Policy(first or quarter, factor, maximize, breadth_first, last)


def policy_of(pruner: BasePruner, directions: Sequence[str]) -> Policy | None:
    """Return the rule of a sweep, None if it pauses no trials. A sweep with several objectives pauses none.

    Args:
        pruner: Its pruner.
        directions: Its directions.
    """
    if not isinstance(pruner, PromotionPruner) or len(directions) > 1:
        return None
    return pruner.policy(directions[0] == "maximize")


class Pausing:
    """A worker's view of the rungs. It keeps the values of trials that have not changed since it read them.

    Args:
        registry: The members and leases of the study.
        policy: The rule.
    """

    def __init__(self, registry: Registry, policy: Policy) -> None:
        self._registry, self.policy = registry, policy
        self._ladder = Ladder(policy)
        self._known: dict[int, object] = {}  # what each trial on the ladder was when its values were read
        self._ending: Set[int] = frozenset()

    def next_action(self, now: Trials) -> Action:
        """Return what a free worker does next.

        Args:
            now: The state of all trials.
        """
        self._update(now)
        action = self._ladder.next_action()
        self._ending = frozenset(action.numbers) if action.kind == "end" else frozenset()
        return action

    def order(self, now: Trials) -> Iterator[int]:
        """Yield the trials that a free worker tries to claim, until it has one. See `next_action`."""
        while numbers := self.next_action(now).numbers:
            yield from numbers
            now = replace(now, held={*now.held, *numbers})  # other workers were faster
        yield from (number for number in now.free if number in now.repeats)

    def paused(self) -> frozenset[int]:
        """Return the paused trials, as they were when `next_action` or `pauses` was called last."""
        return frozenset(self._ladder.paused())

    def ends(self, number: int) -> bool:
        """Return whether a claimed trial is to be ended without further training."""
        return number in self._ending

    def reaches_rung(self, step: int, before: int) -> bool:
        """Return whether a report at a step reaches a rung that the trial has not reached at step `before`."""
        return len(self.policy.rungs(step)) > len(self.policy.rungs(before))

    def pauses(self, number: int, now: Trials) -> bool:
        """Return whether a trial is paused at the rung that it has just reached. See `next_action`."""
        self._update(replace(now, held={*now.held, number}))
        return self._ladder.pauses(number)

    def _update(self, now: Trials) -> None:
        changed = {}
        for number, optuna_state in now.states.items():
            if number in now.repeats:
                continue
            state = State.HELD if number in now.held and not optuna_state.is_finished() else _STATES[optuna_state]
            lease = now.leases.get(number)
            # reports of a held trial may arrive at any time
            known = (state, lease.term, lease.epochs) if lease is not None else (state, 0, 0)
            if number in now.blocked:
                self._ladder.remove(number)
                self._known.pop(number, None)
            elif state == State.HELD or self._known.get(number) != known:
                changed[number] = state, known
        values = self._read([number for number, (state, _) in changed.items() if state != State.WAITING])
        for number, (state, known) in changed.items():
            self._ladder.put(number, state, values.get(number, {}))
            if state == State.HELD:
                self._known.pop(number, None)
            else:
                self._known[number] = known

    def _read(self, numbers: Sequence[int]) -> dict[int, dict[int, float]]:
        """Return the values by step of some trials."""
        if not numbers:
            return {}
        value, trial = models.TrialIntermediateValueModel, models.TrialModel
        query = (
            select(trial.number, value.step, value.intermediate_value)
            .join(value, value.trial_id == trial.trial_id)
            .where(trial.study_id == self._registry.study_id, value.intermediate_value.is_not(None))
        )
        if len(numbers) <= _MOST_NUMBERS:
            query = query.where(trial.number.in_(numbers))
        found: dict[int, dict[int, float]] = {}
        for row in self._registry.read(query):
            found.setdefault(row.number, {})[row.step] = row.intermediate_value
        return found


def count_paused(registry: Registry, policy: Policy | None, held: Set[int]) -> dict[int, int]:
    """Return the number of paused trials at each rung that has any, by the step of the rung.

    Args:
        registry: The members and leases of the study.
        policy: The rule; None for a sweep that pauses no trials.
        held: The trials that a live worker holds.
    """
    if policy is None:
        return {}
    value, trial = models.TrialIntermediateValueModel, models.TrialModel
    found: dict[int, tuple[int, int]] = {}  # number -> its highest rung, and its steps from there
    rung = policy.first_rung
    while policy.last_step is None or rung < policy.last_step:
        query: Any = (
            select(trial.number, func.count().label("steps"))
            .join(value, value.trial_id == trial.trial_id)
            .where(trial.study_id == registry.study_id, trial.state == TrialState.RUNNING, value.step >= rung)
            .group_by(trial.number)
        )
        rows = registry.read(query)
        if not rows:
            break
        found |= {row.number: (rung, row.steps) for row in rows}
        rung *= policy.reduction_factor
    others = held | repeats(registry)
    counts = Counter(rung for number, (rung, steps) in found.items() if steps == 1 and number not in others)
    return dict(sorted(counts.items()))
