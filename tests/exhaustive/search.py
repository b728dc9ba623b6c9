"""Visit every state of a sweep, the nearest first, and check the invariants."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field

from tests.exhaustive.actors import modelled
from tests.exhaustive.invariants import all_finished, broken_state, broken_step, told
from tests.exhaustive.world import DEAD, FROZEN, RUNNING, State, Step, World


@dataclass
class Outcome:
    """What a search found.

    Attributes:
        states: States visited.
        transitions: Steps between them.
        depth: Steps of the longest shortest path.
        seconds: Seconds that it took.
        complete: Whether all states were visited.
        problem: The invariant that is broken, None for none.
        schedule: The steps that lead there.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = True
    problem: str | None = None
    schedule: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        figures = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, {self.seconds:.0f} s"
        if self.problem is None:
            return figures + ("" if self.complete else " (not all states)")
        return "\n".join(
            [f"{self.problem} ({figures})", *(f"  {i:3} {line}" for i, line in enumerate(self.schedule, 1))]
        )


class Search:
    """A search of all states of a world.

    Args:
        world: The world.
        most: Largest number of states; None for no limit.
    """

    def __init__(self, world: World, most: int | None = None) -> None:
        self._world, self._most = world, most
        self._numbers: dict[State, int] = {}
        self._states: list[State] = []
        self._parents = array("q")
        self._from, self._to = array("I"), array("I")  # the steps that are neither a fault nor a wake-up

    def run(self) -> Outcome:
        """Visit the states, and return what was found."""
        outcome, started = Outcome(), time.monotonic()
        with modelled():
            self._visit(outcome)
            if outcome.problem is None and outcome.complete:
                self._check_that_all_can_finish(outcome)
        outcome.states, outcome.seconds = len(self._states), time.monotonic() - started
        return outcome

    def _visit(self, outcome: Outcome) -> None:
        world = self._world
        self._add(world.start(), -1)
        number, end = 0, 1  # the end of the present depth
        while number < len(self._states):
            if number == end:
                outcome.depth, end = outcome.depth + 1, len(self._states)
            if self._most is not None and len(self._states) > self._most:
                outcome.complete = False
                return
            state = self._states[number]
            for step, after in world.successors(state):
                outcome.transitions += 1
                after = told(world, state, step, after)
                known = self._numbers.get(after)
                problem = broken_step(world, state, step, after)
                if known is None:
                    known = self._add(after, number)
                    problem = problem or broken_state(world, after)
                if step.kind == "statement":
                    self._from.append(number)
                    self._to.append(known)
                if problem is not None:
                    outcome.problem, outcome.schedule = problem, [*self._path(number), str(step)]
                    return
            number += 1

    def _add(self, state: State, parent: int) -> int:
        number = self._numbers[state] = len(self._states)
        self._states.append(state)
        self._parents.append(parent)
        return number

    def _path(self, number: int) -> list[str]:
        """Return the steps from the start to a state."""
        path: list[Step] = []
        while (parent := self._parents[number]) >= 0:
            state = self._states[parent]
            steps = self._world.successors(state)
            path.append(next(s for s, after in steps if told(self._world, state, s, after) == self._states[number]))
            number = parent
        return [str(step) for step in reversed(path)]

    def _check_that_all_can_finish(self, outcome: Outcome) -> None:
        """From each state, statements alone must lead to one where all trials have finished.

        That is required while a worker and its driver live on: a frozen process may never wake up.
        """
        good = bytearray(self._is_good(state) for state in self._states)
        before: dict[int, list[int]] = {}
        for source, target in zip(self._from, self._to, strict=True):
            before.setdefault(target, []).append(source)
        reached = [number for number, value in enumerate(good) if value]
        while reached:
            for source in before.get(reached.pop(), ()):
                if not good[source]:
                    good[source] = 1
                    reached.append(source)
        lost = good.find(0)
        if lost >= 0:
            outcome.problem, outcome.schedule = "the trials cannot finish any more", self._path(lost)

    def _is_good(self, state: State) -> bool:
        if all_finished(self._world, state):
            return True
        world = self._world
        if any(p.status == RUNNING and not world.has_ended(p) and not world.is_driver(p) for p in state.processes):
            return False
        drivers = [p for p in state.processes if world.is_driver(p)]
        abandoned = drivers[-1].status == DEAD and len(drivers) == world.commands
        return abandoned or any(p.status == FROZEN for p in state.processes)
