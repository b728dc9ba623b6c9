"""The processes of a sweep: the real code of worker and driver, cut into phases that keep nothing but their argument.

A phase is run from its start with the recorded answers of its statements, up to the next statement. When it ends, it
names the next phase. `tests/exhaustive/world.py` has the training process, the clock and the faults.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from joyful.sweeper import claiming as claiming_module
from joyful.sweeper import driver as driver_module
from joyful.sweeper import identity as identity_module
from joyful.sweeper import registry as registry_module
from joyful.sweeper import worker as worker_module
from joyful.sweeper.claiming import Claiming
from joyful.sweeper.driver import Driver
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.pausing import Pausing
from joyful.sweeper.promotion import Policy
from joyful.sweeper.registry import Lease, Registry
from joyful.sweeper.study import StudyAccess, TrialAccess
from joyful.sweeper.training_process import TrainerEndedError
from joyful.sweeper.worker import Stopped, Worker
from tests.exhaustive.stepping import Statement, SteppedStorage, Stepper, stepped_registry

#: Answers of the training process, beside the number of a step.
COMPLETED, TAKEN_OVER, DIED, INTERRUPTED = "completed", "taken over", "died", "interrupted"


@dataclass(frozen=True)
class Phase:
    """A part of a process's work.

    Attributes:
        name: Of a worker: join, claim, run, leave. Of a driver: join, check, wait, count, leave. Of both: ended.
        process: Number of the process.
        driver: Number of the driver that started it; for a driver its own number.
        lease: The lease of a phase "run".
        ends: Whether that phase ends a paused trial that is not promoted.
    """

    name: str
    process: int
    driver: int
    lease: Lease | None = None
    ends: bool = False


def name_of(process: int) -> str:
    """Return the id of the member that a process is."""
    return f"p{process}"


def number_of(name: str) -> int:
    """Return the number of the process with an id."""
    return int(name[1:])


@dataclass(frozen=True)
class Code:
    """The code under test, and the database it uses.

    Attributes:
        engine: The engine of the database.
        storage: Optuna's storage.
        study_id: Optuna's id of the study.
        same_machine: Whether all processes run on one machine, where they see each other end and can be killed.
        registry: The registry; a test exchanges it for a broken one.
        steps: Steps that a trial trains.
        policy: The rule that pauses and promotes trials, None for none.
    """

    engine: Any
    storage: Any
    study_id: int
    same_machine: bool
    registry: type[Registry] = Registry
    steps: int = 1
    policy: Policy | None = None

    def run(self, phase: Phase, stepper: Stepper) -> Phase:
        """Run a phase to its end, and return the next one."""
        registry = stepped_registry(self.registry, stepper, self.engine, self.study_id)
        _current.enter(phase.process, stepper, self.same_machine)
        if phase.process == phase.driver:
            return _driver_phase(phase, registry)
        storage = SteppedStorage(stepper, self.storage, self.study_id)
        return _worker_phase(phase, registry, storage, stepper, self)


def _worker_phase(phase: Phase, registry: Registry, storage: Any, stepper: Stepper, code: Code) -> Phase:
    """The phases follow `Worker.work`."""

    def then(name: str, lease: Lease | None = None, ends: bool = False) -> Phase:
        return Phase(name, phase.process, phase.driver, lease, ends)

    if phase.name == "join":
        registry.join("worker", name_of(phase.driver))
        return then("claim")
    if phase.name == "leave":
        registry.leave(name_of(phase.process))
        return then("ended")
    worker = ModelledWorker(phase, registry, storage, stepper, code)
    if phase.name == "claim":
        lease, unfinished, _ = worker._claiming.next()
        if lease is None:
            return then("claim" if unfinished else "leave")
        return then("run", lease, worker._pausing is not None and worker._pausing.ends(lease.number))
    assert phase.lease is not None
    try:
        worker._run_trial(phase.lease)
    except Stopped:
        return then("leave")
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        return then(f"failed: {type(error).__name__}: {error}")
    assert worker._lease is None, "a lease outlives its phase"
    assert worker._tracking is None, "tracking outlives its phase"
    return then("claim")


def _driver_phase(phase: Phase, registry: Registry) -> Phase:
    """The phases follow `Driver.run`. Between "check" and "wait" it launches workers."""

    def then(name: str) -> Phase:
        return Phase(name, phase.process, phase.driver)

    driver = Driver.__new__(Driver)
    driver._registry, driver._signal = registry, None
    driver._me = SimpleNamespace(id=name_of(phase.process))  # type: ignore[assignment]
    if phase.name == "join":
        registry.join("driver")
        for name, member in registry.members().items():
            if member.identity.has_ended:
                registry.leave(name)
        return then("check")
    if phase.name == "check":
        return then("leave" if driver._finished() else "wait")
    if phase.name == "count":
        driver._count_failure()
        return then("check")
    registry.leave(name_of(phase.process))
    return then("ended")


class ModelledWorker(Worker):
    """A worker whose training process, failure detector and configurations are modelled. The rest is the real code."""

    def __init__(self, phase: Phase, registry: Registry, storage: Any, stepper: Stepper, code: Code) -> None:
        self._me = SimpleNamespace(id=name_of(phase.process))  # type: ignore[assignment]
        self._registry, self._detector = registry, ModelledDetector(registry)
        self._access = StudyAccess(storage, registry, "study", lambda number: RandomSampler(seed=number), NopPruner())
        self._pausing = None if code.policy is None else Pausing(registry, code.policy)
        if self._pausing is not None and phase.lease is not None and phase.ends:
            self._pausing._ending = frozenset({phase.lease.number})
        self._claiming = Claiming(registry, name_of(phase.process), self._detector, self._pausing)
        self._paused = False
        self._trainer = ModelledTrainer(stepper, code.steps)  # type: ignore[assignment]
        self._stop_signal = SimpleNamespace(is_set=lambda: self._trainer.interrupted)  # type: ignore[assignment, attr-defined]
        self._lease = self._tracking = self._evidence = None
        self._counts = {"complete": 0, "pruned": 0, "failed": 0}
        settings = SimpleNamespace(directions=("maximize",), may_differ=())
        plan = SimpleNamespace(
            space={}, fixed=(), overrides=lambda number, params: [str(number)], varied=set, role=lambda number: "run",
            arm=lambda number: None,
        )  # fmt: skip
        program = SimpleNamespace(git=None, pickle=lambda config: "")
        task: Any = SimpleNamespace(
            plan=plan, settings=settings, program=program, folder=Path("sweep"), driver=name_of(phase.driver)
        )
        self._task = task

    def _compose(self, overrides: Any, number: int) -> Any:
        return SimpleNamespace(hydra=SimpleNamespace(runtime=SimpleNamespace(choices={})), number=number)

    def _stop_requested(self) -> bool:
        return False


class ModelledTrainer:
    """The training process: it takes the lock of the run, then trains, and reports each step."""

    def __init__(self, stepper: Stepper, steps: int) -> None:
        self._stepper, self._steps, self._number = stepper, steps, -1
        self.interrupted = self._pauses = False

    def send(self, message: dict[str, Any]) -> None:
        if "run" in message:
            self._number = message["run"]["number"]
            self._stepper.step(lambda: Statement("lock", self._number))
        self._pauses = bool(message.get("pause"))

    def receive(self) -> dict[str, Any]:
        if self._pauses:
            return {"end": "paused"}
        answer = self._stepper.step(lambda: Statement("train", self._number))
        if answer == DIED:
            raise TrainerEndedError("its process was killed")
        if answer == INTERRUPTED:
            self.interrupted = True
        if isinstance(answer, int):
            return {"report": answer, "value": value_at(self._number, answer)}
        return {"end": answer, "values": [value_at(self._number, self._steps)]}

    def close(self, grace: float = 0.0) -> None:
        pass  # the lock is released when the phase ends

    def terminate(self) -> None:
        pass


def value_at(number: int, step: int) -> float:
    """Return the value of a trial at a step. Training is a function of the trial, whoever trains it."""
    return number + step / 10


class ModelledDetector(FailureDetector):
    """The real detector, except that the world says who was silent for too long when the members were read."""

    def __init__(self, registry: Any) -> None:
        super().__init__(1.0)
        self._registry = registry

    def observe(self, members: Any) -> None:
        silent = self._registry.silent
        self._seen = {name: (member.beats, 2.0 if name in silent else 0.0) for name, member in members.items()}


class _Current(threading.local):
    """The process whose code this thread runs, for the functions that ask the operating system."""

    def enter(self, process: int, stepper: Stepper, same_machine: bool) -> None:
        self.process, self.stepper, self.same_machine = process, stepper, same_machine

    def machine(self) -> str:
        return "machine" if self.same_machine else f"machine {self.process}"

    def start_time(self, pid: int) -> float | None:
        return None if pid != self.process and self.stepper.step(lambda: Statement("ended", pid)) else 1.0

    def kill(self, pid: int, _: int) -> None:
        self.stepper.step(lambda: Statement("kill", pid))


_current = _Current()


class _NoTracking:
    """Trackers are not part of the model."""

    is_on = False

    def __init__(self, *_: object) -> None:
        pass

    def report(self, *_: object) -> None:
        pass

    close = finish = report


@contextlib.contextmanager
def modelled() -> Iterator[None]:
    """Replace what is not part of the model: composing, folders, trackers, process ids and waiting."""
    config = {
        "identity": lambda config: {"number": config.number}, "output_folder": lambda config: Path("/nonexistent"),
        "digest_of": lambda values: f"digest {values['number']}", "without": lambda values, keys: values,
        "run_header": lambda *_: {"seed": None}, "TrialTracking": _NoTracking, "mark_ended": lambda *_: None,
    }  # fmt: skip
    duplicates = {"waiting_duplicates": lambda registry: {}, "blocked_duplicates": lambda registry: set()}
    system: Any = SimpleNamespace(kill=_current.kill)
    here = lambda: identity_module.Identity(_current.machine(), _current.process, 1.0)  # noqa: E731
    unique = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=name_of(_current.process)))
    level = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        for module, values in (
            (worker_module, config),
            (claiming_module, duplicates),
            (driver_module, {"COLLATERAL_SECONDS": 0.0}),
            (identity_module, {"machine": _current.machine, "_start_time": _current.start_time, "os": system}),
            (registry_module, {"current_process": here, "uuid": unique}),
        ):
            stack.enter_context(mock.patch.multiple(module, **values))
        logging.disable(logging.ERROR)
        # Python 3.11 has one lock for a cached property of all objects, which workers in threads must not wait for
        stack.enter_context(
            mock.patch.object(vars(TrialAccess)["_reported"], "lock", contextlib.nullcontext(), create=True)
        )
        stack.callback(logging.disable, level)
        yield
