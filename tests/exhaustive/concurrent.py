"""Random schedules of the same steps by concurrent transactions, on a database server.

Each worker is a thread. All wait before their next statement, then some of them, chosen at random, run theirs at the same
time. The invariants are checked while all wait.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from joyful.sweeper.registry import Registry
from tests.exhaustive.actors import COMPLETED, DIED, TAKEN_OVER, Code, Phase, name_of, number_of, value_at
from tests.exhaustive.databases import answer_of, create_study
from tests.exhaustive.stepping import Statement, Suspended

#: Most faults of a schedule.
FAULTS = 2

#: Chance of a fault before each round of statements.
CHANCE = 0.03


class Actor(threading.Thread):
    """A worker that stops before each of its statements.

    Args:
        code: The code under test.
        number: Number of the process.
    """

    def __init__(self, code: Code, number: int) -> None:
        super().__init__(daemon=True)
        self.number, self.phase, self.pending = number, Phase("join", number, 0), None  # type: ignore[var-annotated]
        self.status, self.was_frozen, self.answer = "running", False, None  # type: ignore[var-annotated]
        self._code, self.waits, self.goes = code, threading.Event(), threading.Event()
        self.start()

    @property
    def has_ended(self) -> bool:
        """Whether it does nothing more."""
        return self.status == "dead" or self.phase.name.startswith(("ended", "failed"))

    def run(self) -> None:
        """Run phase after phase."""
        try:
            while not self.has_ended:
                self.phase = self._code.run(self.phase, self)
                self.was_frozen = False
        except Suspended:
            pass
        except Exception as error:
            self.phase = Phase(f"failed: {error!r}", self.number, 0)
        self.waits.set()

    def step(self, describe: Callable[[], Statement]) -> Any:
        """Wait for the turn, then run a statement."""
        if self.status == "dead":
            raise Suspended
        self.pending = describe()
        self.waits.set()
        self.goes.wait()
        self.goes.clear()
        if self.status == "dead":
            raise Suspended
        answer = self.answer if self.pending.action is None else answer_of(self.pending.action)
        if isinstance(answer, Exception):
            raise answer
        return (answer, self.answer) if self.pending.kind == "members" else answer


class Schedule:
    """One random schedule of two or more workers on a new study.

    Args:
        storage: Optuna's storage.
        engine: The engine of the sweeper's tables.
        seed: Seed of the choices; also the name of the study.
        workers: Number of workers.
        trials: Number of trials.
        registry: The registry under test.
    """

    def __init__(
        self,
        storage: Any,
        engine: Any,
        seed: int,
        workers: int = 2,
        trials: int = 2,
        registry: type[Registry] = Registry,
    ) -> None:
        self._random, self._engine, self._trials, self.faults = random.Random(seed), engine, trials, 0
        self._study = create_study(storage, f"schedule {seed}", trials)
        self._code = Code(engine, storage, self._study, same_machine=False, registry=registry)
        self._locks: list[int | None] = [None] * trials
        self._trained, self._ends, self.statements = [0] * trials, [0] * trials, 0
        driver = Actor(self._code, 0)  # it only joins: its workers are started again below
        self._actors = [driver]
        driver.waits.wait()
        self._go([driver])
        driver.waits.wait()
        self._workers = workers
        self._launch()

    def run(self) -> str | None:
        """Run it to its end. Return which invariant is broken, None for none."""
        problem = None
        while problem is None:
            awake = [actor for actor in self._actors[1:] if actor.status == "running" and not actor.has_ended]
            if not awake and not self._wake():
                if all(
                    row.state == "COMPLETE" for row in self._rows("SELECT state FROM trials WHERE study_id = :study")
                ):
                    break
                self._launch()
                continue
            self._fail_some(awake)
            awake = [actor for actor in awake if actor.status == "running"]
            if awake:
                chosen = self._random.sample(awake, self._random.randint(1, len(awake)))
                for actor in chosen:
                    self._answer(actor)
                self._go(chosen)
                for actor in chosen:
                    actor.waits.wait(30)
            if self._random.random() < 0.1:
                self._wake()
            problem = self._problem()
        problem = problem or self._problem_at_end()
        for actor in self._actors:
            actor.status = "dead"
            actor.goes.set()
            actor.join(10)
        return problem

    def _launch(self) -> None:
        first = len(self._actors)
        self._actors += [Actor(self._code, first + i) for i in range(self._workers)]
        for actor in self._actors[first:]:
            actor.waits.wait(30)

    def _go(self, actors: list[Actor]) -> None:
        for actor in actors:
            actor.waits.clear()
        for actor in actors:
            self.statements += 1
            actor.goes.set()

    def _wake(self) -> bool:
        frozen = [actor for actor in self._actors if actor.status == "frozen"]
        for actor in frozen[:1]:
            actor.status = "running"
        return bool(frozen)

    def _fail_some(self, awake: list[Actor]) -> None:
        if awake and self.faults < FAULTS and self._random.random() < CHANCE:
            actor, self.faults = self._random.choice(awake), self.faults + 1
            actor.status = self._random.choice(["frozen", "dead"])
            actor.was_frozen = True

    def _answer(self, actor: Actor) -> None:
        """Set the answer of the world to the next statement of a worker."""
        statement = actor.pending
        assert statement is not None
        if statement.kind == "members":
            away = [a for a in self._actors if a.status in ("frozen", "dead")]
            actor.answer = frozenset(name_of(a.number) for a in away if self._random.random() < 0.7)
        elif statement.kind == "lock":
            self._locks[int(str(statement.key))] = actor.number
        elif statement.kind == "train":
            actor.answer = self._train(int(str(statement.key)), actor.number)

    def _train(self, trial: int, number: int) -> Any:
        if self.faults < FAULTS and self._random.random() < CHANCE:
            self.faults += 1
            return DIED
        if self._locks[trial] != number:
            return TAKEN_OVER
        if self._trained[trial] == 0:
            self._trained[trial] = 1
            return 1
        self._ends[trial] += 1
        return COMPLETED

    def _rows(self, query: str) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(query), {"study": self._study}))

    def _problem(self) -> str | None:
        leases = {row.number: row for row in self._rows("SELECT * FROM joyful_lease WHERE study = :study")}
        for actor in self._actors[1:]:
            lease = actor.phase.lease
            if actor.phase.name.startswith("failed"):
                return f"worker p{actor.number} {actor.phase.name}"
            if lease is None or actor.has_ended or actor.was_frozen:
                continue
            if number_of(leases[lease.number].owner or "p-1") != actor.number:
                return f"p{actor.number} lost trial {lease.number} although it was never frozen"
        if any(row.deaths > self.faults for row in leases.values()):
            return f"more worker failures than the {self.faults} faults"
        return None

    def _problem_at_end(self) -> str | None:
        query = "SELECT number, value FROM trials JOIN trial_values USING (trial_id) WHERE study_id = :study"
        values = {row.number: row.value for row in self._rows(query)}
        if values != {trial: value_at(trial, 1) for trial in range(self._trials)}:
            return f"the values are {values}"
        return "a trial was trained too often" if max(self._ends) > 1 + self.faults else None
