"""The states of a whole sweep, and what can happen next in each: a statement of any process, or a fault."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from joyful.sweeper.promotion import Policy
from joyful.sweeper.registry import Registry
from tests.exhaustive.actors import COMPLETED, DIED, INTERRUPTED, TAKEN_OVER, Code, Phase, name_of, number_of
from tests.exhaustive.databases import Content, Databases
from tests.exhaustive.stepping import Replay, Statement, Suspended

#: Statements about a trial that no process asks about which does not hold it. Others read the states of all trials.
OWN = {"get_trial", "set_trial_intermediate_value", "set_trial_user_attr"}

RUNNING, FROZEN, DEAD = "running", "frozen", "dead"


class Process(NamedTuple):
    """A process in a state.

    Attributes:
        local: Number of its phase with the answers so far, see `World.locals`.
        status: running, frozen or dead.
        was_frozen: Whether it was frozen in this phase, so that others may have judged it dead.
        knows: Whether a statement has told it that it lost its lease.
    """

    local: int
    status: str = RUNNING
    was_frozen: bool = False
    knows: bool = False


class State(NamedTuple):
    """A state of the sweep.

    Attributes:
        database: Content of the database.
        locks: For each trial, the process whose training holds the lock of the run; None for none.
        trained: For each trial, the steps that are saved in its folder.
        ends: For each trial, how often a training process reached its end.
        faults: Faults so far.
        processes: The processes in the order of their start.
    """

    database: Content
    locks: tuple[int | None, ...]
    trained: tuple[int, ...]
    ends: tuple[int, ...]
    faults: int
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Step:
    """What happens between two states.

    Attributes:
        process: Number of the process.
        what: What happens, in words; empty for a statement of the database.
        statement: The statement that was run, None for faults and starts.
        kind: "statement", "fault" or "wake".
    """

    process: int
    what: str
    statement: Statement | None = None
    kind: str = "statement"

    def __str__(self) -> str:
        return f"p{self.process}: {self.what or self.statement}"


@dataclass(frozen=True)
class Local:
    """A phase, the numbers of the answers so far, and the next statement; None where it waits or has ended."""

    phase: Phase
    answers: tuple[int, ...]
    pending: Statement | None


class World:
    """The sweep of some workers and trials.

    Args:
        workers: Number of workers that a driver launches.
        trials: Number of trials.
        faults: Most faults of a schedule: a crash or a freeze of a process, or the end of a training process.
        same_machine: Whether all processes run on one machine.
        commands: Most commands, each with a driver. A further one starts after a crash of the driver.
        registry: The registry under test.
        steps: Steps that a trial trains.
        policy: The rule that pauses and promotes trials, None for none.
    """

    def __init__(
        self,
        workers: int,
        trials: int,
        faults: int,
        same_machine: bool = False,
        commands: int = 1,
        registry: type[Registry] = Registry,
        steps: int = 1,
        policy: Policy | None = None,
    ) -> None:
        self.steps, self.policy = steps, policy
        self._own = OWN if policy is None else OWN - {"set_trial_intermediate_value"}  # the rule reads these values
        self.workers, self.trials, self.faults, self.commands = workers, trials, faults, commands
        self.databases = Databases(trials)
        registry.__init__(Registry.__new__(Registry), self.databases.engine, self.databases.study_id)  # the tables
        engine, storage, study_id = self.databases.engine, self.databases.storage, self.databases.study_id
        self._code = Code(engine, storage, study_id, same_machine, registry, steps, policy)
        self.locals: list[Local] = []
        self._numbers: dict[Hashable, int] = {}
        self._statements_by_key: dict[Hashable, Statement] = {}
        self._after: dict[tuple[int, int], int] = {}

    def start(self) -> State:
        """Return the state with waiting trials and a driver that starts."""
        none: tuple[None, ...] = (None,) * self.trials
        zeros = (0,) * self.trials
        return State(self.databases.keep(), none, zeros, zeros, 0, (Process(self._local(Phase("join", 0, 0))),))

    def rows(self, state: State, part: str, query: int = 0) -> list[tuple[Any, ...]]:
        """Return rows of the database in a state, see `Databases.rows`."""
        return self.databases.rows(state.database, part, query)

    def phase(self, process: Process) -> Phase:
        """Return the phase of a process."""
        return self.locals[process.local].phase

    def is_driver(self, process: Process) -> bool:
        """Return whether a process is a driver."""
        phase = self.phase(process)
        return phase.process == phase.driver

    def has_ended(self, process: Process) -> bool:
        """Return whether a process does nothing more."""
        return process.status == DEAD or self.phase(process).name.startswith(("ended", "failed"))

    def successors(self, state: State) -> Iterator[tuple[Step, State]]:
        """Yield everything that can happen next.

        A crash or a freeze is a process that takes no further step, for good or for a while. Whether it is one is decided
        when another process first asks, because nothing depends on it before. Then the fault is counted.
        """
        for number, process in enumerate(state.processes):
            if state.faults == self.faults and self._is_independent(state, number, process):
                yield from self._statements(state, number, process)
                return
        fresh: set[int] = set()  # drivers one of whose workers has not started: the others that have not are its equals
        for number, process in enumerate(state.processes):
            phase = self.phase(process)
            if self.has_ended(process) or (phase.name == "join" and phase.driver in fresh):
                continue
            if phase.name == "join":
                fresh.add(phase.driver)
            if process.status == FROZEN:
                awake = _with(state, number, process._replace(status=RUNNING))
                for step, after in self._statements(awake, number, awake.processes[number]):
                    yield Step(number, f"wakes up; {step.what or step.statement}", step.statement, "wake"), after
            else:
                yield from self._statements(state, number, process)
        yield from self._restart(state)

    def _is_independent(self, state: State, number: int, process: Process) -> bool:
        """Return whether the next statement of a process commutes with all that the others can do before it.

        That is so for the statements about its own trial, if no further fault can take the trial from it and no former
        holder is left. Then only that statement needs to be tried: the other orders lead to the same states.
        """
        local = self.locals[process.local]
        statement, lease = local.pending, local.phase.lease
        if lease is None or statement is None or process.status != RUNNING or process.was_frozen:
            return False
        is_own = statement.kind in ("lock", "train") or statement.part == "configuration"
        is_own = is_own or (statement.part == "trials" and str(statement.key[0]) in self._own)  # type: ignore[index]
        driver = state.processes[local.phase.driver]
        if not is_own or driver.status == FROZEN or self.has_ended(driver):
            return False
        if self.owner(state, lease.number) != name_of(number):
            return False
        others = (p for n, p in enumerate(state.processes) if n != number and not self.has_ended(p))
        return all((own := self.phase(p).lease) is None or own.number != lease.number for p in others)

    # --- one process

    def _statements(self, state: State, number: int, process: Process) -> Iterator[tuple[Step, State]]:
        local = self.locals[process.local]
        phase, statement = local.phase, local.pending
        if phase.name == "wait":
            own = [n for n, p in enumerate(state.processes) if self.phase(p).driver == number != n]
            crashed = self._dead(state, *own)
            if crashed is not None:
                after = self._go_to(crashed, number, Phase("count", number, number))
                yield Step(number, "finds that its workers have ended", kind=_kind(state, after)), after
            return
        assert statement is not None
        if phase.name == "claim" and not local.answers:
            without = self._silent(state, phase.driver)
            if without is not None:
                leaving = self._go_to(without, number, Phase("leave", number, phase.driver))
                yield Step(number, "stops without its driver", kind=_kind(state, leaving)), leaving
        if statement.kind in ("read", "write"):
            assert statement.action is not None
            database, answer = self.databases.run(state.database, statement)
            yield Step(number, "", statement), self._answered(state._replace(database=database), number, answer)
            return
        options = getattr(self, f"_{statement.kind}")
        for what, key, value, after in options(state, number, statement):
            answer = self.databases.answers.number((statement.kind, key), value)
            step = Step(number, f"{statement.kind} {what}", statement, _kind(state, after))
            yield step, self._answered(after, number, answer)

    def _members(self, state: State, number: int, statement: Statement) -> Iterator[Any]:
        """The members, with each choice of those that the failure detector finds silent for too long."""
        assert statement.action is not None
        _, answer = self.databases.run(state.database, statement)
        rows = self.databases.answers.values[answer]
        others = [row.id for row in rows if number_of(row.id) != number]
        for size in range(len(others) + 1):
            for silent in itertools.combinations(others, size):
                after = self._silent(state, *(number_of(name) for name in silent))
                if after is not None:
                    what = f"are read; silent for too long: {', '.join(silent) or 'none'}"
                    yield what, (answer, silent), (rows, frozenset(silent)), after

    def _ended(self, state: State, number: int, statement: Statement) -> Iterator[Any]:
        target = int(str(statement.key))
        if not self.has_ended(state.processes[target]):
            yield f"? p{target}: no", False, False, state
        crashed = self._dead(state, target)
        if crashed is not None:
            yield f"? p{target}: yes", True, True, crashed

    def _kill(self, state: State, number: int, statement: Statement) -> Iterator[Any]:
        target = int(str(statement.key))
        yield f"p{target}", None, None, self._ended_by_signal(state, target)

    def _lock(self, state: State, number: int, statement: Statement) -> Iterator[Any]:
        trial = int(str(statement.key))
        yield f"of trial {trial}", None, None, state._replace(locks=_put(state.locks, trial, number))

    def _train(self, state: State, number: int, statement: Statement) -> Iterator[Any]:
        """A message of the training process: a step, the end, that it lost the lock, died or was interrupted."""
        trial = int(str(statement.key))
        released = state._replace(locks=tuple(None if holder == number else holder for holder in state.locks))
        if state.locks[trial] != number:
            yield f"trial {trial}: {TAKEN_OVER}", TAKEN_OVER, TAKEN_OVER, state
        elif state.trained[trial] < self.steps:
            step = state.trained[trial] + 1
            yield f"trial {trial}: step {step}", step, step, state._replace(trained=_put(state.trained, trial, step))
        else:
            ends = _put(state.ends, trial, state.ends[trial] + 1)
            yield f"trial {trial}: {COMPLETED}", COMPLETED, COMPLETED, state._replace(ends=ends)
        if self.owner(state, trial) != name_of(number):
            yield f"trial {trial}: killed, because the lease is lost", DIED, DIED, released
        elif state.faults < self.faults:
            yield f"trial {trial}: {DIED}", DIED, DIED, released._replace(faults=state.faults + 1)
        without = self._silent(released, self.phase(state.processes[number]).driver)
        if without is not None:
            yield f"trial {trial}: {INTERRUPTED}", INTERRUPTED, INTERRUPTED, without

    def owner(self, state: State, trial: int) -> str | None:
        """Return the owner of a trial's lease, None if it was never claimed."""
        return next((row[1] for row in self.rows(state, "lease") if row[0] == trial), None)

    # --- faults

    def _silent(self, state: State, *targets: int) -> State | None:
        """Return the state where some processes are found silent; None if that needs too many faults."""
        processes, faults = list(state.processes), state.faults
        for target in targets:
            process = processes[target]
            if process.status == RUNNING and not self.has_ended(process):
                processes[target], faults = process._replace(status=FROZEN, was_frozen=True), faults + 1
        return None if faults > self.faults else state._replace(processes=tuple(processes), faults=faults)

    def _dead(self, state: State, *targets: int) -> State | None:
        """Return the state where some processes are found to have ended, likewise."""
        for target in targets:
            process = state.processes[target]
            if not self.has_ended(process):
                faults = state.faults + (process.status == RUNNING)
                state = self._ended_by_signal(state._replace(faults=faults), target)
        return None if state.faults > self.faults else state

    def _ended_by_signal(self, state: State, target: int) -> State:
        if self.has_ended(state.processes[target]):
            return state
        phase = self.phase(state.processes[target])
        locks = tuple(None if holder == target else holder for holder in state.locks)
        process = Process(self._local(Phase("ended", target, phase.driver)), DEAD)
        return _with(state._replace(locks=locks), target, process)

    def _restart(self, state: State) -> Iterator[tuple[Step, State]]:
        """A new command starts where the driver has crashed and no worker of the sweep runs any more."""
        numbers = [n for n, p in enumerate(state.processes) if self.is_driver(p)]
        driver = state.processes[numbers[-1]]
        workers = [p for p in state.processes if not self.is_driver(p)]
        if (self.has_ended(driver) and driver.status != DEAD) or not workers or len(numbers) == self.commands:
            return
        if all(worker.status == FROZEN or self.has_ended(worker) for worker in workers):
            crashed = self._dead(state, numbers[-1])
            if crashed is not None:
                number = len(state.processes)
                new = Process(self._local(Phase("join", number, number)))
                after = crashed._replace(processes=(*crashed.processes, new))
                yield Step(number, "a new command starts", kind=_kind(state, after)), after

    # --- changes of a state

    def _answered(self, state: State, number: int, answer: int) -> State:
        """Return the state after a process has got an answer."""
        process = state.processes[number]
        key = (process.local, answer)
        if key not in self._after:
            old = self.locals[process.local]
            self._after[key] = self._local(old.phase, (*old.answers, answer))
        local = self._after[key]
        if self.locals[local].answers:  # the phase goes on
            return _with(state, number, process._replace(local=local))
        return self._entered(state, number, local)

    def _go_to(self, state: State, number: int, phase: Phase) -> State:
        return self._entered(state, number, self._local(phase))

    def _entered(self, state: State, number: int, local: int) -> State:
        """Return the state after a process has entered a phase. A lock is released, and a driver launches workers."""
        process = state.processes[number]._replace(local=local, was_frozen=False, knows=False)
        locks = tuple(None if holder == number else holder for holder in state.locks)
        state = _with(state._replace(locks=locks), number, process)
        if self.locals[local].phase.name != "wait":
            return state
        first = len(state.processes)
        new = [Process(self._local(Phase("join", first + i, number))) for i in range(self.workers)]
        return state._replace(processes=(*state.processes, *new))

    def _local(self, phase: Phase, answers: tuple[int, ...] = ()) -> int:
        """Return the number of a phase with answers. A phase that ends with them is that of the next phase."""
        key = (phase, answers)
        if key not in self._numbers:
            pending = None
            if not phase.name.startswith(("ended", "failed", "wait")):
                replay = Replay([self.databases.answers.values[answer] for answer in answers])
                try:
                    following = self._code.run(phase, replay)
                except Suspended:
                    pending = replay.pending
                else:
                    self._numbers[key] = self._local(following)
                    return self._numbers[key]
            if pending is not None:  # equal statements are one object, which is fast to compare
                pending = self._statements_by_key.setdefault((pending.kind, pending.key), pending)
            self._numbers[key] = len(self.locals)
            self.locals.append(Local(phase, answers, pending))
        return self._numbers[key]


def _kind(before: State, after: State) -> str:
    return "fault" if after.faults > before.faults else "statement"


def _with(state: State, number: int, process: Process) -> State:
    return state._replace(processes=_put(state.processes, number, process))


def _put(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])
