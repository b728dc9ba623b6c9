"""A worker: a launcher job that claims trials of the study, one after another, until all are finished.

The worker composes the configuration of a trial, and a separate process, the `trainer`, runs it as a Hydra job. The
worker receives its reports, passes them to the pruner, renews the lease at each, and records the result of the trial.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from joyful.records import InputError, one_line
from joyful.results import ResultsError
from joyful.results.finalists import SEED
from joyful.runtime.hydra_request import literal
from joyful.runtime.job_log import below, terminal_handlers
from joyful.sweeper import gpus, password
from joyful.sweeper.claiming import Claiming
from joyful.sweeper.evidence import NOT_NEEDED
from joyful.sweeper.heartbeat import HEARTBEAT_SECONDS, FailureDetector, heartbeats
from joyful.sweeper.history import mark_ended, run_header
from joyful.sweeper.job_config import digest_of, identity, output_folder, without
from joyful.sweeper.pausing import NOT_PROMOTED
from joyful.sweeper.plan import override
from joyful.sweeper.registry import Lease, LeaseLostError
from joyful.sweeper.stop_signal import StopSignal
from joyful.sweeper.study import (
    ARM,
    DIGEST,
    FOLDER,
    OVERRIDES,
    OWN,
    REASON,
    SAME_AS,
    TrialAccess,
    silence_logs,
)
from joyful.sweeper.tracking import TrialTracking
from joyful.sweeper.training_process import TrainerEndedError, TrainingProcess
from joyful.sweeper.worker_task import WorkerTask

log = logging.getLogger(__name__)

#: Seconds without a heartbeat after which a driver on this machine counts as dead although its process runs.
RUNNING_DRIVER_SECONDS = 60.0

#: Maximum seconds that a stopped worker waits for the driver's other workers to leave. Less than `driver.STOP_SECONDS`.
LEAVE_SECONDS = 5.0

#: Worker failures in a row, without a new step between them, after which a trial fails.
MAXIMUM_FAILURES = 3


class Stopped(BaseException):  # not an Exception, so that no `except Exception` catches it
    """The driver has ended, or has asked its workers to stop."""


class Worker:
    def __init__(self, task: WorkerTask, folder: Path, index: int) -> None:
        self._task = task
        silence_logs()
        for handler in terminal_handlers():  # the view of the driver shows failures
            handler.addFilter(below("joyful.sweeper", logging.ERROR))
        self._access = task.access()
        self._registry = self._access.registry
        self._detector = FailureDetector(task.settings.lease_seconds)
        self._trainer = TrainingProcess(folder / "trainer.log", gpus.environment(index, task.gpus), task.program)
        self._lease: Lease | None = None  # of the trial in progress
        self._tracking: TrialTracking | None = None  # of the same trial
        self._stop_signal = StopSignal(self._trainer)
        self._counts: dict[str, Any] = {"complete": 0, "pruned": 0, "failed": 0}
        self._evidence = task.evidence()
        self._pausing = task.pausing(self._registry)
        self._paused = False  # whether the trial in progress was told to pause

    def work(self) -> dict[str, Any]:
        self._me = self._registry.join("worker", self._task.driver)
        self._claiming = Claiming(self._registry, self._me.id, self._detector, self._pausing)
        driver = self._registry.member(self._task.driver)
        is_driver = driver is not None and driver.identity == self._me.identity
        # the machine may be overloaded, so a driver whose process runs on it gets more time
        usual = FailureDetector(max(6.0, min(8.0, self._task.settings.lease_seconds)))
        patient = FailureDetector(RUNNING_DRIVER_SECONDS)
        try:
            with (
                self._stop_signal.active() as done,
                heartbeats(self._registry, self._me.id, done, partial(self._check, usual, patient)),
            ):
                self._process_trials()
        except Stopped:
            pass
        except (OSError, InputError) as error:
            self._counts["problem"] = one_line(error, 5000)
        finally:
            self._trainer.close()
            with contextlib.suppress(ResultsError):  # the disk is full: others see that this process has ended
                self._registry.leave(self._me.id)
        if self._stop_signal.is_set() and not is_driver:
            # The launcher's process would wait for more work from a driver that has ended.
            self._wait_for_other_workers()
            logging.shutdown()
            os._exit(143)
        return self._counts

    def _process_trials(self) -> None:
        while not self._stop_signal.is_set():
            self._judge()
            found = self._claiming.next()
            if found.lease is not None:
                self._run_trial(found.lease)
            elif not found.unfinished:
                break
            elif not found.lost:
                self._stop_signal.wait(HEARTBEAT_SECONDS)

    def _judge(self) -> None:
        """Judge the claims of the sweep if a further pair has finished."""
        if self._evidence is None:
            return
        try:
            self._evidence.judge(self._access, self._me.id, self._detector)
        except OSError:
            raise
        except Exception as error:
            log.debug("judging failed", exc_info=True)
            raise InputError(f"its claims cannot be judged ({one_line(error, 500)})") from None

    def _wait_for_other_workers(self) -> None:
        """Wait until the driver's other workers have left.

        When one process of joblib's pool exits, joblib kills the others, even while they write.
        """
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline:
            workers = self._registry.members(role="worker", driver=self._task.driver).values()
            if all(worker.identity.has_ended for worker in workers):
                break
            time.sleep(0.05)

    # --- stopping

    def _stop_requested(self) -> bool:
        """Return whether the database asks to stop. The stop signal may not be set yet."""
        driver = self._registry.member(self._task.driver)
        return driver is None or driver.stop

    def _check(self, usual: FailureDetector, patient: FailureDetector) -> bool:
        """Kill the training of a trial that another worker has taken over, then see `_check_driver`."""
        lease = self._lease
        if lease is not None and not self._registry.is_held(lease):
            self._trainer.kill()
        return self._check_driver(usual, patient)

    def _check_driver(self, usual: FailureDetector, patient: FailureDetector) -> bool:
        """Set the stop signal if the driver asks to stop or has failed, and return whether it does or has.

        `patient` decides about a driver whose process runs on this machine, and `usual` about others.
        """
        driver = self._registry.member(self._task.driver)
        for detector in (usual, patient):
            detector.observe({driver.id: driver} if driver is not None else {})
        runs = driver is not None and driver.identity.is_local and not driver.identity.is_stopped
        stop = (patient if runs else usual).is_dead(driver) or (driver is not None and driver.stop)
        if stop:
            self._stop_signal.set()
        return stop

    # --- one trial

    def _run_trial(self, lease: Lease) -> None:
        paused = frozenset() if self._pausing is None else self._pausing.paused()
        trial = TrialAccess(self._access, lease.number, paused)
        try:
            if lease.worker_failures >= MAXIMUM_FAILURES:
                self._give_up(trial, lease, "its worker failed")
                return
            if self._evidence is not None and not self._evidence.is_needed(lease.number):
                self._tell(trial, lease, TrialState.PRUNED, reason=NOT_NEEDED)
                return
            if self._pausing is not None and self._pausing.ends(lease.number):
                self._end_paused(trial, lease)
                return
            self._train(trial, lease)
        except (LeaseLostError, UpdateFinishedTrialError) as error:  # the latter if another worker has finished it
            log.warning("%s; this worker stops training it", error)
            self._trainer.close(grace=0.0)
            self._tracking = None  # its trackers are those of the other worker now
        finally:
            if self._tracking is not None:
                self._tracking.close()
                self._tracking = None
            with contextlib.suppress(ResultsError):
                self._registry.release(lease.number, self._me.id)

    def _train(self, trial: TrialAccess, lease: Lease) -> None:
        plan = self._task.plan
        overrides = plan.overrides(lease.number, trial.ask(plan.space))
        if trial.further_seed is not None:
            overrides.append(override(self._task.settings.seed_key, trial.further_seed))
        try:
            config = self._compose(overrides, lease.number)
            values = identity(config)
            folder = output_folder(config)
        except Exception as error:
            if self._stop_requested():  # a driver that is its own worker was interrupted here
                raise Stopped from error
            reason = one_line(error, 500) or type(error).__name__
            self._tell(trial, lease, TrialState.FAIL, reason=reason)
            return
        # settings such as folders and trackers do not make another configuration, unless the sweep compares them
        digest = digest_of(without(values, set(self._task.settings.may_differ) - plan.varied()))
        choices = {k: str(v) for k, v in config.hydra.runtime.choices.items() if v is not None}
        header = run_header(
            self._task.settings, plan.role(lease.number), self._task.program.git, choices, values, digest
        )
        attributes: dict[str, Any] = {
            DIGEST: digest,
            OVERRIDES: shlex.join(overrides),
            OWN: shlex.join(overrides[len(plan.fixed) :]),
        }
        attributes |= {FOLDER: str(folder), ARM: plan.arm(lease.number), SEED: header["seed"]}
        trial.set_user_attrs(**{name: value for name, value in attributes.items() if value is not None})
        other = self._find_duplicate(trial, digest)
        if other is not None:
            if other.state.is_finished():
                self._registry.renew(lease)
                trial.copy_result(other)
                log.info("trial %d has the configuration of trial %d and takes its result", lease.number, other.number)
            return  # an unfinished duplicate waits: `Claiming` skips the trial until the other is finished
        self._tracking = TrialTracking(self._task.settings, folder, self._task.folder, header, plan.varied())
        request = {
            "config": self._task.program.pickle(config), "number": lease.number, "header": header,
            "objectives": len(self._task.settings.directions), "targets": self._targets(lease.number),
            "tracked": self._tracking.is_on,
        }  # fmt: skip
        while True:
            resumed = folder.is_dir() and any(folder.iterdir())
            self._lease = lease
            try:
                end = self._exchange_messages(trial, lease, {"run": request | {"resumed": resumed}})
            except TrainerEndedError as error:
                end = {"end": "paused" if self._paused else "died", "reason": str(error)}
            finally:
                self._lease = None
            if end["end"] != "died":
                self._finish(trial, lease, end)
                return
            if self._stop_signal.is_set():
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
            config.hydra.sweep.dir = literal(self._task.folder)
        return config

    def _find_duplicate(self, trial: TrialAccess, digest: str) -> FrozenTrial | None:
        """Return the other trial that trains or has trained the same configuration, None if there is none."""
        number = self._registry.claim_configuration(digest, trial.number)
        if number == trial.number:
            return None
        other = TrialAccess(self._access, number).frozen()
        if other.state == TrialState.FAIL and self._registry.replace_failed(digest, number, trial.number):
            return None
        trial.set_user_attrs(**{SAME_AS: number})
        return other

    def _exchange_messages(self, trial: TrialAccess, lease: Lease, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a trial in the training process, and return the message with its end.

        Raises:
            TrainerEndedError: If the process ends without such a message.
            LeaseLostError: If another worker has taken over the trial.
        """
        self._trainer.send(request)
        self._paused = False
        if self._stop_signal.is_set():  # there may have been no process when it was set
            self._trainer.terminate()
        while True:
            message = self._trainer.receive()
            if "end" in message:
                return message
            step, value, before = int(message["report"]), float(message["value"]), trial.last_step
            self._registry.renew(lease, trial.steps_with(step))
            prune = not trial.report(step, value)
            if self._evidence is not None:
                prune = prune or not self._evidence.is_needed(lease.number)
            pause = False
            if self._pausing is not None and trial.further_seed is None and self._pausing.reaches_rung(step, before):
                prune = prune or not math.isfinite(value)
                pause = not prune and self._pausing.pauses(lease.number, self._claiming.look_at_all())
            self._trainer.send({"prune": prune, "pause": pause, "targets": self._targets(lease.number)})
            self._paused = pause
            if self._tracking is not None:
                self._tracking.report(message)

    def _targets(self, number: int) -> list[Mapping[str, Any]]:
        """Return the dev values at which a trial may end."""
        return [] if self._evidence is None else self._evidence.targets(number)

    def _finish(self, trial: TrialAccess, lease: Lease, end: Mapping[str, Any]) -> None:
        status = end["end"]
        if status == "interrupted":
            raise Stopped
        if status == "paused":  # its lease is released, and `Claiming` claims it again when it is promoted
            return
        if status == "taken over":  # the trainer was frozen, and another process holds the lock of the folder now
            raise LeaseLostError(lease.number)
        if status in ("refused", "unusable"):
            raise ResultsError(errno.EIO, end["reason"])
        if status == "completed":
            self._tell(trial, lease, TrialState.COMPLETE, [float(value) for value in end["values"]])
        else:
            state = TrialState.PRUNED if status == "pruned" else TrialState.FAIL
            self._tell(trial, lease, state, reason=end["reason"])

    def _give_up(self, trial: TrialAccess, lease: Lease, cause: str) -> None:
        reason = (
            f"{cause}, {lease.worker_failures} times in a row without completing a step; if memory ran out, make the "
            "program use less, or run fewer workers on this machine (hydra.sweeper.n_jobs)"
        )
        folder = trial.frozen().user_attrs.get(FOLDER)
        if folder is not None:
            mark_ended(Path(folder), "failed", reason)
        self._tell(trial, lease, TrialState.FAIL, reason=reason)

    def _end_paused(self, trial: TrialAccess, lease: Lease) -> None:
        folder = trial.frozen().user_attrs.get(FOLDER)
        self._registry.renew(lease)
        if folder is not None:
            mark_ended(Path(folder), "pruned", NOT_PROMOTED)
        self._tell(trial, lease, TrialState.PRUNED, reason=NOT_PROMOTED)

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
            trial.set_user_attrs(**{REASON: reason})
        trial.tell(state, values)
        if self._tracking is not None:
            self._tracking.finish(state, values)
        name = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(state, "failed")
        self._counts[name] += 1
        if state == TrialState.FAIL:
            log.warning("trial %d failed: %s", lease.number, reason)
