"""Asynchronous successive halving with promotions: the rule that pauses, promotes and ends trials, without a database.

A trial that reaches a rung (a step such as 3, 9, 27) is paused there, unless it is among the best 1/eta of all trials
that have reached the rung. A paused trial is promoted when it gets among them, because others have reached the rung with
worse values. When no trial is left to start and none can be promoted, the paused trials are ended.

A rung is closed when no further trial can reach it. At least one trial is promoted from a closed rung, so that a search of
few trials trains one of them to its end.

Source: Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning, MLSys. There the number of trials is not
limited, and closed rungs do not occur.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class State(enum.Enum):
    """The state of a trial: not started; a worker trains it; started, but no worker trains it; and how it has ended."""

    WAITING = "waiting"
    HELD = "held"
    FREE = "free"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Policy:
    """The settings of the rule.

    Attributes:
        first_rung: Step of the first rung.
        reduction_factor: Each rung is at this multiple of the one before, and about 1 of so many trials continues.
        maximize: Whether larger values are better.
        breadth_first: Whether new trials are started before paused trials are promoted.
        last_step: Last step of a trial, at which it is not paused. None: not known before a trial is complete.
    """

    first_rung: int
    reduction_factor: int
    maximize: bool
    breadth_first: bool = False
    last_step: int | None = None

    def rungs(self, step: int) -> list[int]:
        """Return the rungs up to a step, lowest first.

        Example:
            >>> Policy(first_rung=3, reduction_factor=3, maximize=True, last_step=27).rungs(40)
            [3, 9]
        """
        found, rung = [], self.first_rung
        while rung <= step and (self.last_step is None or rung < self.last_step):
            found.append(rung)
            rung *= self.reduction_factor
        return found


@dataclass(frozen=True)
class Action:
    """What a free worker does.

    Attributes:
        kind: "resume" a trial whose worker has failed, "start" a new trial, "promote" a paused trial, "end" paused trials,
            or "wait".
        numbers: The trials: one, or for "end" all paused trials, or for "wait" none.
    """

    kind: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """What is known of a trial.

    Attributes:
        state: Its state.
        keys: For each rung that it has reached its cost (smaller is better) and its number.
        last: Its last step, 0 before the first.
        at_rung: Whether it reached its highest rung at its last step.
    """

    state: State
    keys: tuple[tuple[float, int], ...]
    last: int
    at_rung: bool

    @property
    def level(self) -> int:
        return len(self.keys) - 1


class Ladder:
    """The trials of a search and their rungs.

    `put` costs little when one trial changes, and a decision about 10,000 trials takes about a millisecond.

    Args:
        policy: The settings of the rule.

    Example:
        >>> ladder = Ladder(Policy(first_rung=1, reduction_factor=2, maximize=True))
        >>> ladder.put(0, State.HELD, {1: 0.5})
        >>> ladder.pauses(0)  # no other trial can reach the rung
        False
        >>> ladder.put(1, State.WAITING, {})
        >>> ladder.pauses(0)
        True
        >>> ladder.put(0, State.FREE, {1: 0.5})
        >>> ladder.next_action()
        Action(kind='start', numbers=(1,))
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._entries: dict[int, _Entry] = {}
        self._rungs: list[list[tuple[float, int]]] = []
        self._groups: dict[str, set[int]] = {"waiting": set(), "held": set(), "interrupted": set(), "paused": set()}
        self._longest: int | None = None  # last step of the longest complete trial

    # --- the trials

    def put(self, number: int, state: State, values: Mapping[int, float]) -> None:
        """Add a trial, or replace what is known of it.

        Args:
            number: Its number.
            state: Its state.
            values: Its values by step. NaN counts as the worst value. Those of a trial that waits are ignored.
        """
        self.remove(number)
        values = {} if state == State.WAITING else values
        entry = self._entry(number, state, values)
        self._entries[number] = entry
        if state != State.FAILED:
            for level, key in enumerate(entry.keys):
                while len(self._rungs) <= level:
                    self._rungs.append([])
                insort(self._rungs[level], key)
        if state == State.COMPLETE and entry.last > (self._longest or 0):
            self._longest = entry.last
            for other in self._groups["paused"] | self._groups["interrupted"]:
                self._assign(other)
        self._assign(number)

    def remove(self, number: int) -> None:
        """Forget a trial, if it is known."""
        entry = self._entries.pop(number, None)
        if entry is None:
            return
        for group in self._groups.values():
            group.discard(number)
        if entry.state != State.FAILED:
            for level, key in enumerate(entry.keys):
                del self._rungs[level][bisect_left(self._rungs[level], key)]

    def _entry(self, number: int, state: State, values: Mapping[int, float]) -> _Entry:
        steps = sorted(values)
        last = steps[-1] if steps else 0
        reached = [steps[bisect_left(steps, rung)] for rung in self.policy.rungs(last)]
        keys = tuple((self._cost(values[step]), number) for step in reached)
        return _Entry(state, keys, last, bool(reached) and reached[-1] == last)

    def _cost(self, value: float) -> float:
        if math.isnan(value):
            return math.inf
        return -value if self.policy.maximize else value

    def _assign(self, number: int) -> None:
        """Put a trial into the group of its state."""
        entry = self._entries[number]
        for group in self._groups.values():
            group.discard(number)
        if entry.state == State.FREE:
            self._groups["paused" if self._is_stopped(entry) else "interrupted"].add(number)
        elif entry.state in (State.WAITING, State.HELD):
            self._groups[entry.state.value].add(number)

    def _is_stopped(self, entry: _Entry) -> bool:
        """Return whether a trial is at a rung. A trial as long as the longest complete trial has nothing left to train."""
        return entry.at_rung and (self._longest is None or entry.last < self._longest)

    # --- decisions

    def paused(self) -> dict[int, int]:
        """Return the paused trials, and the rung (a step) of each."""
        rungs = self.policy.rungs(max((self._entries[n].last for n in self._groups["paused"]), default=0))
        return {number: rungs[self._entries[number].level] for number in sorted(self._groups["paused"])}

    def pauses(self, number: int) -> bool:
        """Return whether a held trial is paused after the report of its last step, which it has reported for the first time.

        Args:
            number: Its number.
        """
        entry = self._entries[number]
        if not self._is_stopped(entry):
            return False
        if self.policy.breadth_first and self._groups["waiting"]:
            return True
        for level, best in enumerate(self._promotable()):
            if level == entry.level:
                return entry.keys[level] not in best
        return True

    def next_action(self) -> Action:
        """Return what a free worker does next."""
        waiting, interrupted = self._groups["waiting"], self._groups["interrupted"]
        if interrupted:
            return Action("resume", (min(interrupted),))
        promoted = None if waiting and self.policy.breadth_first else self._promotion()
        if promoted is not None:
            return Action("promote", (promoted,))
        if waiting:
            return Action("start", (min(waiting),))
        if self._groups["held"] or not self._groups["paused"]:
            return Action("wait")
        return Action("end", tuple(sorted(self._groups["paused"])))

    def _promotion(self) -> int | None:
        """Return the trial to promote: from the highest rung, and there the best. None if there is none."""
        found = None
        for level, best in enumerate(self._promotable()):
            found = next((number for _, number in best if self._is_paused_at(number, level)), found)
        return found

    def _promotable(self) -> Iterator[list[tuple[float, int]]]:
        """Yield for each rung, lowest first, the best trials, which may leave it."""
        held = min((self._entries[number].level for number in self._groups["held"]), default=len(self._rungs))
        is_open = bool(self._groups["waiting"] or self._groups["interrupted"])
        for level, rung in enumerate(self._rungs):
            is_open = is_open or held < level
            quota = len(rung) // self.policy.reduction_factor
            best = rung[: quota if is_open else max(1, quota)]
            yield best
            # a trial that is promoted from this rung may reach the next ones
            is_open = is_open or any(self._is_paused_at(number, level) for _, number in best)

    def _is_paused_at(self, number: int, level: int) -> bool:
        return number in self._groups["paused"] and self._entries[number].level == level
