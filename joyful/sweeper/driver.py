"""The driver of a sweep: launch workers through Hydra's launcher, and monitor them until all trials are finished.

A launcher that gives up because a worker failed is called again, as long as trials make progress. A signal ends the
workers within ten seconds, and the trials can be resumed.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from joyful.compat import start_ray
from joyful.records import InputError, one_line, print_error
from joyful.results import ResultsError
from joyful.results.machine import cores
from joyful.runtime import closed_pipes
from joyful.runtime.command import is_dated, print_how_to_go_on, resuming_sweep
from joyful.runtime.hydra_request import LOCAL_LAUNCHERS, launcher_name, literal
from joyful.runtime.signals import CTRL_C, RaisingSignals, Signalled, raise_on_ctrl_c
from joyful.sweeper import ending, finalists, gpus
from joyful.sweeper.heartbeat import FailureDetector, heartbeats
from joyful.sweeper.live import LiveReader
from joyful.sweeper.preparation import exclusive, prepare
from joyful.sweeper.registry import LeaseLostError, Member
from joyful.sweeper.status import steps_of
from joyful.sweeper.study import StudyAccess, silence_logs
from joyful.sweeper.trial_table import FINISHED, count_states, has_unfinished
from joyful.sweeper.view import SweepView
from joyful.sweeper.worker_task import WorkerTask

log = logging.getLogger(__name__)

#: Launches in a row without progress, after which the sweep ends. Its trials can be resumed.
MAXIMUM_IDLE_LAUNCHES = 3

#: Maximum seconds that a launcher needs to kill its other workers after one has failed.
COLLATERAL_SECONDS = 3.0

#: Seconds that workers get to end after a signal. The driver must end within 10 s in total.
STOP_SECONDS = 7.0


class SignalReceived(Signalled):
    """The driver received a signal and has stopped its workers."""


def main(hydra_context: HydraContext, config: DictConfig, arguments: Sequence[str], task_function: TaskFunction) -> int:
    """Run a sweep. On failure, print one line to standard error.

    Args:
        hydra_context: Hydra's context.
        config: The composed configuration.
        arguments: The overrides of the command line.
        task_function: The function of the program.

    Returns:
        The exit code: 0, 1 if every trial failed or the sweep cannot continue, 2 for bad input, 130 or 143 after a
        signal.
    """
    try:
        closed_pipes.tolerate()
        raise_on_ctrl_c()
        silence_logs()
        with CTRL_C.prefer_signal():
            task, access = prepare(hydra_context, config, arguments, task_function)
        return Driver(task, access).run()
    except InputError as error:
        return _fail(str(error), 2)
    except ResultsError as error:
        return _fail(f"the sweep cannot continue: {error}", 1)
    except (SQLAlchemyError, StorageInternalError) as error:
        return _fail(f"the sweep's database does not answer ({error}); {_how_to_resume(config)} once it does", 1)
    except SignalReceived as error:
        print_error(f"interrupted by {error}; {_how_to_resume(config)}")
        code = error.code
    except KeyboardInterrupt:
        print_error("interrupted by Ctrl-C before the sweep started; nothing is lost")
        code = 130
    folder = str(config.hydra.sweep.dir)
    print_how_to_go_on(folder, resuming_sweep(folder))
    return code


def _how_to_resume(config: DictConfig) -> str:
    folder = str(config.hydra.sweep.dir)
    if is_dated(folder):
        return f"run the same command with hydra.sweep.dir={folder} to resume"
    return "run the same command again to resume"


def _fail(message: str, code: int) -> int:
    print_error(message)
    return code


class Driver:
    """Runs a prepared sweep. Other drivers may run the same sweep at the same time.

    Args:
        task: The task of the workers, without the id of their driver.
        access: The study.
    """

    def __init__(self, task: WorkerTask, access: StudyAccess) -> None:
        self._task, self._access, self._registry = task, access, access.registry
        self._launcher_name = launcher_name(task.config)
        self._signal: int | None = None  # the signal that stopped this driver
        self._round = 0  # number of launches so far

    def run(self) -> int:
        """Launch workers until all trials are finished.

        Returns:
            The exit code: 0, or 1 if every trial failed or the sweep cannot continue.

        Raises:
            SignalReceived: After a signal, when the workers have ended.
        """
        if self._finished() and not self._add_finalists():
            log.info("all %d trials are finished; nothing to do", self._n_trials())
            return ending.conclude(self._task, self._access)
        self._me = self._registry.join("driver")
        for name, member in self._registry.members().items():
            if member.identity.has_ended:  # on this machine, without leaving
                self._registry.leave(name)
        detector = FailureDetector(self._task.settings.lease_seconds)
        reader = LiveReader(self._access, detector, self._task.folder, steps_of(self._task.folder))
        n_workers = self._n_workers()
        idle = f"starting {n_workers} worker{'s' * (n_workers > 1)} ({self._launcher_name})"
        with SweepView(reader.read, self._task.folder, idle=idle) as view:
            try:
                with heartbeats(self._registry, self._me.id, threading.Event(), view.update):
                    self._connect_to_ray()
                    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                    with RaisingSignals(self._stop_for, *numbers) as signals, signals.prefer_signal():
                        failure = self._launch_until_finished()
                        while not failure and self._add_finalists():
                            failure = self._launch_until_finished()
                        if not failure:
                            self._judge()
            finally:
                self._registry.leave(self._me.id)
        if failure:
            return _fail(failure, 1)
        return ending.conclude(self._task, self._access)

    def _judge(self) -> None:
        """Judge the last pairs if the worker that was judging them has failed."""
        if (evidence := self._task.evidence()) is not None:
            evidence.judge(self._access, self._me.id, FailureDetector(self._task.settings.lease_seconds))

    def _add_finalists(self) -> bool:
        """Create the trials of finalists that do not exist yet. Return whether any trial is unfinished now."""
        finals = self._task.plan.finals
        if finals is None:
            return False
        if finalists.read_missing(self._access, finals):
            log.info("the search is over; up to %d finalists are trained on further seeds", finals.count)
            with (
                suppress(LeaseLostError),  # another driver creates them
                exclusive(self._registry, self._task.settings.lease_seconds) as lease,
            ):
                finalists.add(self._access, finals, lease)
        return not self._finished()

    # --- launching

    def _launch_until_finished(self) -> str | None:
        """Launch workers repeatedly. Return why the sweep cannot continue, None if all trials are finished."""
        idle = 0
        reason = "the workers ended without an error message"
        while not self._finished():
            before, problems = self._progress(), []
            try:
                jobs = self._launcher().launch(self._jobs(), initial_job_idx=0)
                # `return_value` raises the exception of a failed job
                problems = [p for job in jobs if (p := (job.return_value or {}).get("problem"))]
            except Exception as error:
                reason = f"{type(error).__name__}: {one_line(error, 500)}"
                if self._signal is None:
                    log.warning("workers ended early (%s); launching them again", reason)
            if self._signal is not None:  # Ray suppresses exceptions of signal handlers
                raise SignalReceived(self._signal)
            if problems and not self._finished():
                return f"the sweep cannot continue: {problems[0]}"
            self._count_failure()
            idle = 0 if self._progress() > before else idle + 1
            if idle >= MAXIMUM_IDLE_LAUNCHES and not self._finished():
                return (
                    f"no trial made progress in {idle} launches of the workers ({reason}); fix the cause, then "
                    f"{_how_to_resume(self._task.config)}"
                )
            self._round += 1
        return None

    def _connect_to_ray(self) -> None:
        """Under the Ray launcher, connect to the cluster or start one.

        ray.init installs a SIGTERM handler. It must run before the driver installs its own.
        """
        if self._launcher_name != "RayLauncher":
            return
        init = self._task.config.hydra.launcher.ray.init
        try:
            start_ray(init)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"hydra.launcher.ray.init: expected a Ray cluster, got {init} ({str(error)[:200]}); start one (ray "
                "start --head), correct the address, or remove it to start a cluster on this machine"
            ) from None

    def _n_workers(self) -> int:
        """Return the number of workers: hydra.sweeper.n_jobs, limited by the launcher, the GPUs and the trials."""
        settings, name = self._task.settings, self._launcher_name
        bounds = {"hydra.sweeper.n_jobs": settings.n_jobs, "the number of trials": self._n_trials()}
        if name == "BasicLauncher":
            bounds["the basic launcher, which has one process (set hydra/launcher=joblib for more)"] = 1
        elif name == "JoblibLauncher":
            n_jobs = self._task.config.hydra.launcher.n_jobs
            bounds["the joblib launcher (set hydra.launcher.n_jobs=N)"] = cores() if n_jobs < 0 else n_jobs
        if name in LOCAL_LAUNCHERS and (names := gpus.visible()):
            bounds["the GPUs (set hydra.sweeper.workers_per_gpu=N)"] = len(names) * settings.workers_per_gpu
        least = min(bounds, key=lambda bound: bounds[bound])
        if bounds[least] < settings.n_jobs and self._round == 0:
            log.info(
                "%d worker(s) instead of hydra.sweeper.n_jobs=%d, limited by %s", bounds[least], settings.n_jobs, least
            )
        return bounds[least]

    def _launcher(self) -> Any:
        """Return the configured launcher, for jobs that run the task of a worker without callbacks."""
        task = dataclasses.replace(self._task, driver=self._me.id, gpus=self._gpus())
        context = task.hydra_context
        without_callbacks = HydraContext(context.config_loader, type(context.callbacks)(), context.execution_whitelist)
        return Plugins.instance().instantiate_launcher(
            hydra_context=without_callbacks, task_function=task, config=task.config
        )

    def _gpus(self) -> tuple[str, ...] | None:
        """Return this machine's GPUs in the order of assignment. It starts after the GPUs of workers that run already.

        None for launchers of other machines, whose workers detect their GPUs themselves.
        """
        if self._launcher_name not in LOCAL_LAUNCHERS:
            return None
        names = gpus.visible()
        workers = self._registry.members(role="worker").values()
        running = [m for m in workers if m.identity.is_local and not m.identity.has_ended]
        first = len(running) % len(names) if names else 0
        return tuple(names[first:] + names[:first])

    def _jobs(self) -> list[list[str]]:
        """Return the overrides of each worker's job: its folder, and values that complete the configuration."""
        # absolute, because workers on a cluster start in another working directory
        folder = literal(os.path.abspath(self._task.folder)).replace("\\", "\\\\").replace("'", "\\'")
        first = [*self._task.plan.first_overrides(), f"hydra.sweep.dir='{folder}'"]
        n_jobs = max(1, self._n_workers() - len(self._workers(ended=False)))
        names = [f"{self._me.id[:6]}-{self._round}-{i}" for i in range(n_jobs)]
        return [[*first, f"hydra.sweep.subdir=.workers/{name}", "hydra.output_subdir=null"] for name in names]

    def _n_trials(self) -> int:
        return sum(count_states(self._registry).values())

    def _finished(self) -> bool:
        return not has_unfinished(self._registry)

    def _progress(self) -> int:
        counts = count_states(self._registry)
        return 1000 * sum(counts.get(state, 0) for state in FINISHED) + self._registry.steps()

    # --- ended workers

    def _count_failure(self) -> None:
        """Release the trials of failed workers after a launch. Count the failure if they held a single trial.

        If they held several, the launcher killed the other workers after the first one failed. Then the trial that
        caused the failure is unknown.
        """
        deadline = time.monotonic() + COLLATERAL_SECONDS
        while self._workers(ended=False) and time.monotonic() < deadline:
            time.sleep(0.1)
        failed = self._workers(ended=True)
        held = [lease for lease in self._registry.held_leases().values() if lease.owner in failed]
        if len(held) == 1 and self._signal is None:
            self._registry.claim(held[0].number, "", held[0], owner_failed=True)
        for name in failed:
            self._registry.leave(name)

    def _workers(self, ended: bool) -> dict[str, Member]:
        """Return this driver's workers whose `has_ended` is `ended`."""
        workers = self._registry.members(role="worker", driver=self._me.id)
        return {n: m for n, m in workers.items() if m.identity.has_ended == ended}

    # --- stopping

    def _stop_for(self, number: int) -> SignalReceived:
        """Stop the workers after a signal, and return the exception to raise."""
        if self._signal is None:
            self._signal = number
            # Use a thread: the interrupted code may hold a lock that the database driver needs.
            stopping = threading.Thread(target=self._stop_workers, daemon=True)
            stopping.start()
            stopping.join(STOP_SECONDS + 1.0)
        return SignalReceived(number)

    def _stop_workers(self) -> None:
        """Ask this driver's workers to stop, and kill those on this machine that do not end in time."""
        self._registry.stop(self._me.id)
        deadline = time.monotonic() + STOP_SECONDS
        while remaining := [m for m in self._workers(ended=False).values() if m.identity != self._me.identity]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for member in remaining:
            if member.identity.is_local:
                member.identity.kill()
                self._registry.leave(member.id)
        for name in self._workers(ended=True):  # workers that have ended without leaving
            self._registry.leave(name)
