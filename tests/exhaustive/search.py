"""Visit every state of a sweep, the nearest first, and check the invariants.

Of a state that was visited, only a digest of 64 bits is kept (hash compaction; Wolper & Leroy, "Reliable Hashing without
Collision Detection", 1993). Two of n states have the same digest with a probability of at most n^2 / 2^65: 3e-6 for ten million.
"""

from __future__ import annotations

import hashlib
import marshal
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

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
        self._numbers: dict[int, int] = {}  # digest of a state -> its number
        self._parents = array("q")
        self._good = bytearray()  # for each state, whether it needs no further step
        self._from, self._to = array("I"), array("I")  # the steps that are neither a fault nor a wake-up

    def run(self) -> Outcome:
        """Visit the states, and return what was found."""
        outcome, started = Outcome(), time.monotonic()
        with modelled():
            self._start = self._world.start()
            self._visit(outcome)
            if outcome.problem is None and outcome.complete:
                self._check_that_all_can_finish(outcome)
        outcome.states, outcome.seconds = len(self._numbers), time.monotonic() - started
        return outcome

    def _visit(self, outcome: Outcome) -> None:
        world = self._world
        self._add(digest(self._start), self._start, -1)
        present = [(0, self._start)]  # the states at this depth
        following: list[tuple[int, State]] = []  # those at the next one
        while present:
            for number, state in present:
                if self._most is not None and len(self._numbers) > self._most:
                    outcome.complete = False
                    return
                for step, after in self._steps(state):
                    outcome.transitions += 1
                    problem = broken_step(world, state, step, after)
                    code = digest(after)
                    known = self._numbers.get(code)
                    if known is None:
                        known = self._add(code, after, number)
                        following.append((known, after))
                        problem = problem or broken_state(world, after)
                    if step.kind == "statement":
                        self._from.append(number)
                        self._to.append(known)
                    if problem is not None:
                        outcome.problem, outcome.schedule = problem, [*self._path(number), str(step)]
                        return
            present, following = following, []
            outcome.depth += bool(present)

    def _steps(self, state: State) -> Iterator[tuple[Step, State]]:
        for step, after in self._world.successors(state):
            yield step, told(self._world, state, step, after)

    def _add(self, code: int, state: State, parent: int) -> int:
        number = self._numbers[code] = len(self._numbers)
        self._parents.append(parent)
        self._good.append(self._is_good(state))
        return number

    def _path(self, number: int) -> list[str]:
        """Return the steps from the start to a state."""
        numbers = [number]
        while (parent := self._parents[numbers[-1]]) >= 0:
            numbers.append(parent)
        state, path = self._start, []
        for wanted in numbers[-2::-1]:
            step, state = next(
                (step, after) for step, after in self._steps(state) if self._numbers[digest(after)] == wanted
            )
            path.append(str(step))
        return path

    def _check_that_all_can_finish(self, outcome: Outcome) -> None:
        """From each state, statements alone must lead to one where all trials have finished.

        That is required while a worker and its driver live on: a frozen process may never wake up.
        """
        good = np.frombuffer(self._good, dtype=np.bool_).copy()
        sources, targets = (np.frombuffer(ends, dtype=np.uint32) for ends in (self._from, self._to))
        while len(found := np.unique(sources[good[targets] & ~good[sources]])):
            good[found] = True
        lost = np.flatnonzero(~good)
        if len(lost):
            outcome.problem, outcome.schedule = "the trials cannot finish any more", self._path(int(lost[0]))

    def _is_good(self, state: State) -> bool:
        if all_finished(self._world, state):
            return True
        world = self._world
        if any(p.status == RUNNING and not world.has_ended(p) and not world.is_driver(p) for p in state.processes):
            return False
        drivers = [p for p in state.processes if world.is_driver(p)]
        abandoned = drivers[-1].status == DEAD and len(drivers) == world.commands
        return abandoned or any(p.status == FROZEN for p in state.processes)


def digest(state: State) -> int:
    """Return a digest of 64 bits."""
    processes = [value for process in state.processes for value in process]
    values = (*state.database, *state.locks, *state.trained, *state.ends, state.faults, *processes)
    written = marshal.dumps(values, 2)  # version 2 has no references, which depend on the identity of the values
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest())
