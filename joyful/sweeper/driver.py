"""The driver of a sweep: starts workers through the launcher, and watches over them until all trials are finished.

Where a launcher gives up because a worker died, it is called again, as long as something gets done. A signal ends the workers,
within ten seconds, and leaves the trials resumable.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from joyful.records import InputError, print_error
from joyful.results import ResultsError
from joyful.runtime.signals import CTRL_C, RaisingSignals, Signalled, raise_at_ctrl_c
from joyful.sweeper import ending, gpus, identity
from joyful.sweeper.heartbeat import keep_alive
from joyful.sweeper.preparation import LOCAL_LAUNCHERS, Sweep, launcher_name, prepare
from joyful.sweeper.registry import FailureDetector, Member
from joyful.sweeper.status import Snapshot, snapshot
from joyful.sweeper.study import FINISHED, quiet, states
from joyful.sweeper.view import SweepView

log = logging.getLogger(__name__)

#: Launches in a row in which nothing got done, after which the sweep ends (its trials stay resumable).
MAXIMUM_IDLE_LAUNCHES = 3

#: Seconds that a launcher takes at most to kill all its workers after one has died.
COLLATERAL_SECONDS = 3.0

#: Seconds that workers get to end after a signal; the whole must be below 10.
STOP_SECONDS = 7.0


class SignalReceived(Signalled):
    """A signal reached the driver, and its workers were told to end."""


def main(
    hydra_context: HydraContext,
    config: DictConfig,
    sampler: Any,
    pruner: Any,
    settings: Mapping[str, Any],
    arguments: Sequence[str],
) -> int:
    """Run a sweep for a person at the shell; returns the exit code, after one clear line where it is not 0."""
    try:
        raise_at_ctrl_c()
        quiet()
        with CTRL_C.kept():
            sweep = prepare(hydra_context, config, sampler, pruner, settings, arguments)
        return Driver(sweep).run()
    except InputError as error:
        return _say(str(error), 2)
    except ResultsError as error:
        return _say(f"the sweep cannot go on: {error}", 1)
    except (SQLAlchemyError, StorageInternalError) as error:
        return _say(f"the sweep's database does not answer ({error}); the same command goes on once it does", 1)
    except SignalReceived as error:
        return _say(f"interrupted by {error}; the same command goes on", error.code)
    except KeyboardInterrupt:
        return _say("interrupted by Ctrl-C before the sweep began; nothing is lost", 130)


def _say(message: str, code: int) -> int:
    print_error(message)
    return code


class Driver:
    """Runs a prepared sweep with workers of its own; others may work on it at the same time."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._registry = sweep, sweep.registry
        self._access = sweep.task.access()
        self._signal: int | None = None  # the signal by which this driver was stopped
        self._round = 0  # launches so far
        self._detector = FailureDetector(sweep.task.settings.lease_seconds)  # of the view

    def run(self) -> int:
        """Launch workers until all trials are finished. Returns 0, or 1 where every trial failed or nothing gets done.

        Raises SignalReceived, the workers having ended.
        """
        if self._finished():
            log.info("all %d trials are finished; nothing to do", self._sweep.n_trials)
            return ending.conclude(self._sweep, self._access)
        self._me = self._registry.join("driver")
        self._bury_dead()
        done = threading.Event()
        with SweepView(self._snapshot, self._sweep.folder) as view:
            alive = (self._registry, self._me.id, done, view.update)
            pulse = threading.Thread(target=keep_alive, args=alive, daemon=True)
            pulse.start()
            try:
                self._connect_to_ray()
                numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                with RaisingSignals(self._stop_for, *numbers) as signals, signals.kept():
                    gave_up = self._launch_until_finished()
            finally:
                done.set()
                pulse.join()
                self._registry.leave(self._me.id)
        if gave_up:
            return _say(gave_up, 1)
        return ending.conclude(self._sweep, self._access)

    # --- launching

    def _launch_until_finished(self) -> str | None:
        """Launch again and again; returns why it gave up, None when all trials are finished."""
        idle = 0
        reason = "the workers ended without a word"
        while not self._finished():
            before, problems = self._progress(), []
            try:
                jobs = self._launcher().launch(self._jobs(), initial_job_idx=0)
                # a job that failed raises here what it raised there
                problems = [p for job in jobs if (p := (job.return_value or {}).get("problem"))]
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                if self._signal is None:
                    log.warning("workers ended early (%s); started again", reason)
            if self._signal is not None:  # Ray swallows what a signal's handler raises
                raise SignalReceived(self._signal)
            if problems and not self._finished():
                return f"the sweep cannot go on: {problems[0]}"
            self._count_deaths()
            idle = 0 if self._progress() > before else idle + 1
            if idle >= MAXIMUM_IDLE_LAUNCHES and not self._finished():
                return (
                    f"no trial got on in {idle} starts of the workers ({reason}); mend the cause and give the same command "
                    "again: it goes on"
                )
            self._round += 1
        return None

    def _connect_to_ray(self) -> None:
        """Under the Ray launcher connect to the cluster, or start one: ray.init sets a SIGTERM handler, to be replaced by ours."""
        launcher = self._sweep.task.config.hydra.launcher
        if self._launcher_name() == "RayLauncher":
            from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

            try:
                start_ray(launcher.ray.init)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"hydra/launcher=ray: no cluster by hydra.launcher.ray.init={launcher.ray.init} ({str(error)[:200]}); start "
                    "one (ray start --head), mend the address, or leave it out for a cluster on this machine"
                ) from None

    def _n_workers(self) -> int:
        """How many workers this driver starts: those asked for, where the launcher, the GPUs and the trials are enough."""
        settings, launcher = self._sweep.task.settings, self._sweep.task.config.hydra.launcher
        name = self._launcher_name()
        bounds = {"hydra.sweeper.n_jobs": settings.n_jobs, "the number of trials": self._sweep.n_trials}
        if name == "BasicLauncher":
            bounds["the basic launcher, which has one process (hydra/launcher=joblib has more)"] = 1
        elif name == "JoblibLauncher":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            bounds["the joblib launcher (hydra.launcher.n_jobs=N sets it)"] = (
                cores if launcher.n_jobs < 0 else launcher.n_jobs
            )
        if name in LOCAL_LAUNCHERS:
            most = gpus.most_workers(settings.workers_per_gpu)
            bounds["the GPUs (hydra.sweeper.workers_per_gpu=N)"] = settings.n_jobs if most is None else most
        least = min(bounds, key=lambda bound: bounds[bound])
        if bounds[least] < settings.n_jobs and self._round == 0:
            log.info("%d worker(s) in place of hydra.sweeper.n_jobs=%d: %s", bounds[least], settings.n_jobs, least)
        return bounds[least]

    def _launcher(self) -> Any:
        """The launcher that the configuration names, for jobs that run the worker's task without anybody's callbacks."""
        task = self._sweep.task
        context = HydraContext(task.hydra_context.config_loader, Callbacks(), task.hydra_context.execution_whitelist)
        return Plugins.instance().instantiate_launcher(
            hydra_context=context,
            task_function=dataclasses.replace(task, driver=self._me.id, gpus=self._gpus()),
            config=task.config,
        )

    def _launcher_name(self) -> str:
        return launcher_name(self._sweep.task.config)

    def _gpus(self) -> tuple[str, ...] | None:
        """This machine's GPUs, in the order in which the next workers take them: those of other commands have taken the first.
        None for launchers of other machines, whose workers look for themselves."""
        if self._launcher_name() not in LOCAL_LAUNCHERS:
            return None
        names = gpus.visible()
        members = self._registry.members().values()
        here = [m for m in members if m.role == "worker" and identity.is_local(m.identity) and not m.is_gone]
        first = len(here) % len(names) if names else 0
        return tuple(names[first:] + names[:first])

    def _jobs(self) -> list[list[str]]:
        """Override lists of the workers' jobs: folders of their own, and a value for whatever has none until a trial sets it."""
        task = self._sweep.task
        # absolute, since a cluster's processes begin in another folder
        folder = os.path.abspath(self._sweep.folder).replace("\\", "\\\\").replace("'", "\\'")
        first = [*task.plan.first_overrides(), f"hydra.sweep.dir='{folder}'"]
        n_jobs = max(1, self._n_workers() - len(self._workers(gone=False)))
        names = [f"{self._me.id[:6]}-{self._round}-{i}" for i in range(n_jobs)]
        return [[*first, f"hydra.sweep.subdir=.workers/{name}", "hydra.output_subdir=null"] for name in names]

    def _states(self) -> list[TrialState]:
        return list(states(self._registry.engine, self._registry.study).values())

    def _finished(self) -> bool:
        return all(state in FINISHED for state in self._states())

    def _progress(self) -> int:
        finished = sum(state in FINISHED for state in self._states())
        return 1000 * finished + sum(lease.epochs for lease in self._registry.leases().values())

    def _snapshot(self) -> Snapshot:
        return snapshot(self._access, self._registry, self._sweep.task.settings.lease_seconds, self._detector)

    # --- the dead

    def _count_deaths(self) -> None:
        """After a launch: release what its dead workers held. One alone is counted as its trial's death; where several died, the
        launcher killed the others with the first, and nobody can tell which trial was to blame."""
        deadline = time.monotonic() + COLLATERAL_SECONDS
        while self._workers(gone=False) and time.monotonic() < deadline:
            time.sleep(0.1)
        dead = self._workers(gone=True)
        leases = self._registry.leases()
        held = [lease for lease in leases.values() if lease.owner in dead]
        if len(held) == 1 and self._signal is None:
            self._registry.claim(held[0].number, "", held[0], died=True)
        for name in dead:
            self._registry.leave(name)

    def _workers(self, gone: bool) -> dict[str, Member]:
        """This driver's workers that have ended on this machine (gone), or the others."""
        mine = {n: m for n, m in self._registry.members().items() if m.role == "worker" and m.driver == self._me.id}
        return {n: m for n, m in mine.items() if m.is_gone == gone}

    def _bury_dead(self) -> None:
        """Strike off members of this machine that ended without a word, under whatever driver: their trials are free."""
        for name, member in self._registry.members().items():
            if member.is_gone:
                self._registry.leave(name)

    # --- the end

    def _stop_for(self, number: int) -> SignalReceived:
        """A signal's answer: the workers were told to end, and have ended."""
        if self._signal is None:
            self._signal = number
            # in a thread: what the signal interrupted may hold a lock that the database's driver needs
            stopping = threading.Thread(target=self._stop_workers, daemon=True)
            stopping.start()
            stopping.join(STOP_SECONDS + 1.0)
        return SignalReceived(number)

    def _stop_workers(self) -> None:
        """Have this driver's workers end, and kill those of this machine that do not in time."""
        self._registry.stop(self._me.id)
        deadline = time.monotonic() + STOP_SECONDS
        while alive := [m for m in self._workers(gone=False).values() if m.identity != self._me.identity]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for member in alive:
            if identity.is_local(member.identity):
                identity.kill(member.identity)
                self._registry.leave(member.id)
        for name in self._workers(gone=True):  # whoever did not come to leave
            self._registry.leave(name)
