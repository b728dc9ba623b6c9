"""A worker: one launcher job that takes trials of the study, one after another, until all of them are finished.

It composes a trial's configuration and runs it by Hydra's own run_job, so that folders, logs and callbacks are those of any
job; the training itself runs in a process of its own (`trainer`), to which the worker is the observer: it renews the lease
before every write, reports every epoch, asks the pruner, and tells how the trial ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from joyful.config import LESS_MEMORY, check, config_hash
from joyful.results import ResultsError
from joyful.runtime import hydra_request
from joyful.sweeper import gpus, identity, outcome, password
from joyful.sweeper.database import open_engine, open_storage
from joyful.sweeper.heartbeat import BEAT, keep_alive
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import FailureDetector, Lease, LeaseLostError, Registry
from joyful.sweeper.settings import SweepSettings
from joyful.sweeper.stop_signal import StopSignal
from joyful.sweeper.study import (
    DIGEST,
    FINISHED,
    OVERRIDES,
    OWN,
    REASON,
    SAME_AS,
    StudyAccess,
    TrialAccess,
    quiet,
    same_as,
    states,
)
from joyful.sweeper.training_process import TrainerEndedError, TrainingProcess

log = logging.getLogger(__name__)

#: Seconds without a sign of life after which a driver of this machine is given up although its process runs.
LATE_SECONDS = 60.0

#: Seconds that a worker which was told to end waits at most for the others to be done; the driver waits longer.
LAST_SECONDS = 5.0

#: Deaths in a row, without a whole epoch in between, after which a trial is given up.
MAXIMUM_FAILURES = 3

#: Seconds that a trial waits for its former owner to leave the folder, before it takes the lock.
TAKE_OVER_AFTER = 5.0


class Stopped(BaseException):  # (like KeyboardInterrupt: no `except Exception` may swallow it)
    """The driver has ended, or told its workers to."""


@dataclass(frozen=True)
class WorkerTask:
    """What a launcher runs as the task of a worker's job. Picklable; everything else is made where it runs.

    hydra_context, config: of the sweep, for composing trials. url: of the database. driver: the id of the member
    that launches it. sampler_for: trial number -> sampler. gpus: those that the workers take in turn, None: those that they see.
    """

    hydra_context: HydraContext
    config: DictConfig
    settings: SweepSettings
    plan: Plan
    url: str
    study_name: str
    study_id: int
    driver: str
    sampler_for: Any
    pruner: BasePruner
    gpus: tuple[str, ...] | None = None

    def access(self) -> StudyAccess:
        """The study, by a connection of the calling process."""
        return StudyAccess(open_storage(make_url(self.url)), self.study_name, self.sampler_for, self.pruner)

    def __call__(self, job: DictConfig) -> dict[str, Any]:
        """Work until all trials are finished; returns how many of them this worker ended, by state, and under "problem" why it
        ended before its time, if it did: what is raised would end the other workers in the middle of their work."""
        from hydra.core.hydra_config import HydraConfig

        runtime = HydraConfig.get()
        # relative paths, of the sweep and of the data, are the driver's: a cluster's processes begin elsewhere
        with contextlib.chdir(self.config.hydra.runtime.cwd):
            return _Worker(self, Path(runtime.runtime.output_dir), int(runtime.job.num)).work()


class _Worker:
    def __init__(self, task: WorkerTask, folder: Path, index: int) -> None:
        self._task, self._index = task, index
        quiet()
        url = make_url(task.url)
        self._engine = open_engine(url)
        self._access = task.access()
        self._registry = Registry(self._engine, task.study_id)
        self._detector = FailureDetector(task.settings.lease_seconds)
        environment = gpus.environment(index, None if task.gpus is None else list(task.gpus))
        self._trainer = TrainingProcess(folder / "trainer.log", environment)
        self._stop_signal = StopSignal(self._trainer)
        self._counts: dict[str, Any] = {"complete": 0, "pruned": 0, "failed": 0}

    def work(self) -> dict[str, Any]:
        self._me = self._registry.join("worker", self._task.driver)
        driver = self._registry.member(self._task.driver)
        here = driver is not None and identity.is_local(driver.identity)
        self._driver_pid = driver.identity.pid if driver is not None and here else None
        try:
            with self._stop_signal.active() as done, self._pulse(done):
                self._work_on()
        except Stopped:
            pass
        except OSError as error:
            self._counts["problem"] = " ".join(str(error).split())
        finally:
            self._trainer.close()
            with contextlib.suppress(ResultsError):  # a study without room: whoever looks finds this process gone
                self._registry.leave(self._me.id)
        if self._stop_signal.is_set.is_set() and os.getpid() != self._driver_pid:
            # a launcher's process would wait for more work from a driver that has ended
            self._let_others_end()
            logging.shutdown()
            os._exit(143)
        return self._counts

    def _work_on(self) -> None:
        while not self._stop_signal.is_set.is_set():
            claimed, unfinished = self._claim()
            if claimed is not None:
                self._run(claimed)
            elif not unfinished:
                break
            else:
                self._stop_signal.is_set.wait(BEAT)

    def _let_others_end(self) -> None:
        """Wait until this driver's other workers have left, too: where one of its processes ends, joblib's pool kills the rest, in
        the middle of what they write."""
        deadline = time.monotonic() + LAST_SECONDS
        while time.monotonic() < deadline:
            members = self._registry.members().values()
            if not any(m.role == "worker" and m.driver == self._task.driver and not m.is_gone for m in members):
                break
            time.sleep(0.05)

    # --- being told to end

    @contextlib.contextmanager
    def _pulse(self, done: threading.Event) -> Iterator[None]:
        """Shows life inside, until it is done, and rings the bell when the driver has ended or says stop."""
        silence = FailureDetector(max(6.0, min(8.0, self._task.settings.lease_seconds))), FailureDetector(LATE_SECONDS)

        def beat() -> None:
            if keep_alive(self._registry, self._me.id, done, partial(self._is_alone, *silence)):
                self._stop_signal.set()

        pulse = threading.Thread(target=beat, daemon=True)
        pulse.start()
        try:
            yield
        finally:
            done.set()
            pulse.join()

    def _is_told_to_stop(self) -> bool:
        """Whether the driver was stopped, asked of the study: the bell may not have rung yet."""
        driver = self._registry.member(self._task.driver)
        return driver is None or driver.stop

    def _is_alone(self, usual: FailureDetector, late: FailureDetector) -> bool:
        """Whether the driver has said stop, or shows no life: for as long as is `usual`, or, while it can be seen to run on this
        machine (which has too much to do), until it is `late`."""
        driver = self._registry.member(self._task.driver)
        for detector in (usual, late):
            detector.look({driver.id: driver} if driver is not None else {})
        runs = driver is not None and identity.is_local(driver.identity) and not identity.is_stopped(driver.identity)
        return (late if runs else usual).is_dead(driver) or (driver is not None and driver.stop)

    # --- claiming

    def _claim(self) -> tuple[Lease | None, bool]:
        """The lease of the next trial, None where none is free; and whether any trial is unfinished."""
        leases, members = self._registry.leases_and_members()
        self._detector.look(members)
        all_states = states(self._engine, self._task.study_id)
        unfinished = [number for number, state in all_states.items() if state not in FINISHED]
        same = same_as(self._engine, self._task.study_id)
        for number in unfinished:
            if number in same and all_states[same[number]] not in FINISHED:
                continue  # another trial is training its configuration just now
            lease = leases.get(number)
            owner = members.get(lease.owner) if lease is not None and lease.owner else None
            if lease is not None and lease.owner and not self._detector.is_dead(owner):
                continue
            died = owner is not None and not self._detector.is_dead(members.get(owner.driver))
            claimed = self._registry.claim(number, self._me.id, lease, died=died)
            if claimed is None:
                continue
            if owner is not None and identity.is_local(owner.identity):
                identity.kill(owner.identity)  # frozen, and not dead: it must not wake and write
            if all_states[number] == TrialState.RUNNING:
                log.info("trial %d was begun by another worker and is gone on with", number)
            return claimed, True
        return None, bool(unfinished)

    # --- one trial

    def _run(self, lease: Lease) -> None:
        trial = TrialAccess(self._access, lease.number)
        try:
            if lease.worker_failures >= MAXIMUM_FAILURES:
                self._give_up(trial, lease, "its worker died")
                return
            self._train(trial, lease)
        except LeaseLostError as error:
            log.warning("%s; this worker leaves it", error)
            self._trainer.close(grace=0.0)
        finally:
            with contextlib.suppress(ResultsError):
                self._registry.release(lease.number, self._me.id)

    def _train(self, trial: TrialAccess, lease: Lease) -> None:
        overrides = self._task.plan.overrides(lease.number, trial.ask(self._task.plan.space))
        try:
            config = self._compose(overrides, lease.number)
            settings = check(hydra_request.plain(config))
        except Exception as error:
            if self._is_told_to_stop():  # a driver that is its own worker was interrupted in it
                raise Stopped from error
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            self._tell(trial, lease, TrialState.FAIL, reason=reason)
            return
        digest = config_hash(settings)
        own = overrides[len(self._task.plan.fixed) :]
        trial.note(**{DIGEST: digest, OVERRIDES: shlex.join(overrides), OWN: shlex.join(own)})
        other = self._same(trial, digest)
        if other is not None:
            if other.state in FINISHED:
                self._tell_as(trial, lease, other)
            return  # (otherwise it waits: `_claim` passes over it until the other is finished)
        while True:
            returned = run_job(
                hydra_context=self._task.hydra_context,
                task_function=partial(self._converse, trial, lease),
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            end = returned.return_value
            if end["end"] != "died":
                self._finish(trial, lease, config, end)
                return
            if self._stop_signal.is_set.is_set():
                raise Stopped
            lease = self._registry.count_failure(lease)
            log.warning("trial %d: %s (%d in a row)", lease.number, end["reason"], lease.worker_failures)
            if lease.worker_failures >= MAXIMUM_FAILURES:
                self._give_up(trial, lease, end["reason"])
                return

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self._task.hydra_context.config_loader.load_sweep_config(self._task.config, list(overrides))
        password.hide_in(config, self._task.settings.storage)
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
        return config

    def _same(self, trial: TrialAccess, digest: str) -> FrozenTrial | None:
        """The other trial that trains, or has trained, this very configuration; None where this one shall."""
        trainer = self._registry.trainer_of(digest, trial.number)
        if trainer == trial.number:
            return None
        other = TrialAccess(self._access, trainer).frozen()
        if other.state == TrialState.FAIL and self._registry.succeed(digest, trainer, trial.number):
            return None
        trial.note(**{SAME_AS: trainer})
        return other

    def _converse(self, trial: TrialAccess, lease: Lease, config: DictConfig) -> dict[str, Any]:
        """Have the trainer train the running job, and answer its questions. Returns the message that ends it, or that it died, or
        that the study has no room: what is raised here, Hydra would announce as an error of the job."""
        try:
            return self._conversation(trial, lease, config)
        except TrainerEndedError as error:
            return {"end": "died", "reason": str(error)}
        except ResultsError as error:
            return {"end": "disk", "reason": str(error)}

    def _conversation(self, trial: TrialAccess, lease: Lease, config: DictConfig) -> dict[str, Any]:
        request = asdict(hydra_request.from_hydra(config))
        request |= {"folder": str(request["folder"]), "overridden": list(request["overridden"])}
        self._trainer.send({"run": request | {"take_over_after": TAKE_OVER_AFTER}})
        if self._stop_signal.is_set.is_set():  # (when the bell rang there may have been no process to ask)
            self._trainer.ask_to_end()
        while True:
            message = self._trainer.receive()
            if "end" in message:
                return message
            try:
                self._trainer.send({"answer": self._answer(trial, lease, message)})
            except LeaseLostError:
                self._trainer.send({"answer": "stop"})
                self._trainer.receive()
                raise

    def _answer(self, trial: TrialAccess, lease: Lease, message: Mapping[str, Any]) -> str:
        whole = message["ask"] == "evaluated" and float(message["epoch"]).is_integer()
        self._registry.renew(lease, epochs=int(message["epoch"]) if whole else None)
        if whole:
            go_on = trial.report(int(message["epoch"]), float(message["best"]))
            return "go" if go_on else "prune"
        return "go"

    def _finish(self, trial: TrialAccess, lease: Lease, config: DictConfig, end: Mapping[str, Any]) -> None:
        status = end["end"]
        if status == "interrupted":
            raise Stopped
        if status == "taken over":  # (its trainer was frozen and has found another's lock)
            raise LeaseLostError(lease.number)
        if status == "disk":
            raise ResultsError(end["reason"])
        if status == "pruned":
            self._tell(trial, lease, TrialState.PRUNED, reason=end["reason"])
        elif status == "completed":
            folder = Path(config.hydra.runtime.output_dir)
            values = outcome.objectives(self._task.settings, folder, float(end["objective"]))
            if not trial.frozen().intermediate_values:  # trained before the study was made
                trial.report_all(outcome.best_by_epoch(folder))
            self._tell(trial, lease, TrialState.COMPLETE, values)
        else:
            self._tell(trial, lease, TrialState.FAIL, reason=end["reason"])

    def _give_up(self, trial: TrialAccess, lease: Lease, why: str) -> None:
        reason = f"{why}, {lease.worker_failures} times without completing an epoch in between; where memory ran out, {LESS_MEMORY}"
        folder = Path(self._task.config.hydra.sweep.dir) / str(lease.number)
        outcome.mark_failed(folder, reason)
        self._tell(trial, lease, TrialState.FAIL, reason=reason)

    def _tell(
        self,
        trial: TrialAccess,
        lease: Lease,
        state: TrialState,
        values: list[float] | None = None,
        reason: str | None = None,
    ) -> None:
        self._registry.renew(lease)
        if reason is not None:
            trial.note(**{REASON: reason})
        trial.tell(state, values)
        name = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(state, "failed")
        self._counts[name] += 1
        if state == TrialState.FAIL:
            log.warning("trial %d failed: %s", lease.number, reason)

    def _tell_as(self, trial: TrialAccess, lease: Lease, other: FrozenTrial) -> None:
        self._registry.renew(lease)
        trial.tell_as(other)
        log.info("trial %d is trial %d again and was told its value", lease.number, other.number)
