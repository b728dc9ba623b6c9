"""What a sweep owes its user under every launcher that starts workers as processes of their own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from joyful.results import HISTORY
from joyful.sweeper.registry import Lease
from joyful.training.experiment import train_run
from tests.support import sweeps
from tests.support.runs import tiny_request

#: Long enough to be met in the middle of a trial.
EPOCHS = 40
SEEDS = (1, 2, 3)
COMPLETE = dict.fromkeys(range(len(SEEDS)), "COMPLETE")

#: What the program promises: stopped by any signal, a driver's workers are gone after so many seconds.
STOP_SECONDS = 10.0


def sweep_command(epochs: int = EPOCHS) -> list[str]:
    """A sweep of the suite's trials, under the basic launcher. epochs: of each trial."""
    trials = ",".join(f"'seed={seed}'" for seed in SEEDS)
    chosen = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", f"hydra.sweeper.trials=[{trials}]")
    return sweeps.command("launched", *chosen, epochs=epochs)


def alone(folder: Path, epochs: int = EPOCHS) -> dict[int, bytes]:
    """The histories of the suite's trials, each trained alone, without a sweep, in the calling process. epochs: of each trial."""
    for number, seed in enumerate(SEEDS):
        train_run(tiny_request(folder / str(number), f"training.epochs={epochs}", f"seed={seed}"))
    return {number: (folder / str(number) / HISTORY).read_bytes() for number in range(len(SEEDS))}


def held(folder: Path, epochs: int) -> Lease | None:
    """The lease of a trial that a living worker has trained for at least so many epochs, None where there is none."""
    alive = {worker.id for worker in sweeps.workers(folder)}
    if not alive:
        return None
    return next((x for x in sweeps.leases(folder).values() if x.owner in alive and x.epochs >= epochs), None)


def trainers(folder: Path) -> list[psutil.Process]:
    """The training processes of a sweep's living workers."""
    numbers = [pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker)]
    return [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]


def ended(processes: list[psutil.Process]) -> bool:
    """Whether all of them have ended, but for what nobody has waited for."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


class LauncherSuite:
    """Subclass it, with a fixture `launcher`: the overrides that choose the launcher, for two workers."""

    @pytest.fixture
    def sweep(self, launcher: list[str], tmp_path: Path) -> list[str]:
        """The command of a sweep of three trials."""
        return [*sweep_command(), *launcher]

    def test_killed_workers_and_drivers_cost_nothing(self, sweep: list[str], tmp_path: Path) -> None:
        """A worker is killed, its trial goes on; the driver is stopped, then killed; another launcher ends the sweep.

        What comes out is, byte for byte, what the same trials give alone.
        """
        folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
        driver = sweeps.start(sweep, tmp_path)
        try:
            killed = self._kill_a_worker(folder)
            self._stop(driver, folder, lambda: driver.send_signal(signal.SIGTERM))
            assert driver.wait() == 143, log.read_text()[-3000:]
            assert "joyful: interrupted by SIGTERM; the same command goes on" in log.read_text()
            assert {lease.owner for lease in sweeps.leases(folder).values()} == {""}  # no trial is held

            driver = sweeps.start(sweep, tmp_path)
            sweeps.until(lambda: "COMPLETE" in sweeps.states(folder).values(), 240)
            self._stop(driver, folder, driver.kill)

            driver = sweeps.start(sweep_command(), tmp_path)  # under the basic launcher
            assert driver.wait(240) == 0, log.read_text()[-3000:]
        finally:
            sweeps.kill_group(driver)
        assert sweeps.states(folder) == COMPLETE
        assert sweeps.leases(folder)[killed].term > 1  # more than one worker had it
        assert sweeps.unlike(sweeps.histories(folder), alone(tmp_path / "alone")) == []

    def look_at_workers(self, folder: Path) -> None:
        """For subclasses: called while workers are at work."""

    def _kill_a_worker(self, folder: Path) -> int:
        """Kill a worker in the middle of its trial, and wait until another has got on with it; returns the trial's number."""
        sweeps.until(lambda: held(folder, epochs=2), 300)
        lease = held(folder, epochs=2)
        assert lease is not None
        self.look_at_workers(folder)
        worker = next(w for w in sweeps.workers(folder) if w.id == lease.owner)
        orphans = [psutil.Process(pid) for pid in sweeps.trainers(worker)]
        psutil.Process(worker.identity.pid).kill()
        sweeps.until(lambda: ended(orphans))

        def goes_on() -> bool:
            now = sweeps.leases(folder)[lease.number]
            return now.owner != lease.owner and now.epochs > lease.epochs

        sweeps.until(goes_on, 300)
        return lease.number

    def _stop(self, driver: subprocess.Popen[str], folder: Path, act: Callable[[], None]) -> None:
        """Stop a driver whose workers are training, and see them end in time."""
        sweeps.until(lambda: driver.poll() is not None or trainers(folder), 300)
        processes = trainers(folder)
        assert processes
        act()
        # (a worker's process may be the launcher's, and stay; the worker has left the sweep)
        sweeps.until(lambda: ended(processes) and not sweeps.workers(folder), STOP_SECONDS)
        assert not {"FAIL", "PRUNED"} & set(sweeps.states(folder).values())
