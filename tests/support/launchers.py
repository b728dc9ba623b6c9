"""Test suite for launchers that start workers as separate processes."""

from __future__ import annotations

import functools
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from joyful.results import HISTORY
from joyful.sweeper.registry import Lease
from joyful.training.experiment import train_run
from tests.support import small_program, sweeps
from tests.support.faults import count
from tests.support.runs import tiny_request

#: Long enough that tests can interrupt a trial before it ends.
EPOCHS = 40
#: Overrides of the trials.
TRIALS = ("seed=1", "seed=2", "seed=3")[: count(quick=2, full=3)]
COMPLETE = dict.fromkeys(range(len(TRIALS)), "COMPLETE")

#: Seconds within which the workers must end after a signal to the driver.
STOP_SECONDS = 10.0


def sweep_command(epochs: int = EPOCHS, trials: Sequence[str] = TRIALS) -> list[str]:
    """Return the command of a sweep of these trials under the basic launcher; `epochs` is per trial."""
    listed = ",".join(f"'{trial}'" for trial in trials)
    chosen = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", f"hydra.sweeper.trials=[{listed}]")
    return sweeps.command("launched", *chosen, epochs=epochs)


@functools.cache
def train_alone(epochs: int = EPOCHS, trials: tuple[str, ...] = TRIALS) -> Mapping[int, bytes]:
    """Train these trials in this process without a sweep, and return their histories; `epochs` is per trial.

    The result is shared by the tests of a process, because it depends on nothing else.
    """
    with tempfile.TemporaryDirectory(prefix="joyful-alone-") as place:
        for number, trial in enumerate(trials):
            train_run(tiny_request(Path(place, str(number)), f"training.epochs={epochs}", *trial.split()))
        return MappingProxyType({n: Path(place, str(n), HISTORY).read_bytes() for n in range(len(trials))})


def held_lease(folder: Path, epochs: int) -> Lease | None:
    """Return the lease of a trial that a live worker has trained for at least `epochs` epochs, or None."""
    alive = {worker.id for worker in sweeps.workers(folder)}
    if not alive:
        return None
    return next((x for x in sweeps.leases(folder).values() if x.owner in alive and x.epochs >= epochs), None)


def trainers(folder: Path) -> list[psutil.Process]:
    """Return the training processes of the live workers of a sweep."""
    numbers = [pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker)]
    return [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]


def have_ended(processes: list[psutil.Process]) -> bool:
    """Return whether all processes have ended. Zombies count as ended."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


class LauncherSuite:
    """Base class of the tests of a launcher.

    A subclass provides the fixture `launcher`: the overrides that select the launcher with two workers.
    """

    @pytest.fixture
    def sweep(self, launcher: list[str], tmp_path: Path) -> list[str]:
        """Return the command of a sweep of the suite's trials."""
        return [*sweep_command(), *launcher]

    def test_workers_train_all_trials(self, sweep: list[str], tmp_path: Path) -> None:
        """The sweep ends, with the same results as in a single run."""
        folder, driver = tmp_path / "multirun/launched", sweeps.start(sweep, tmp_path)
        try:
            sweeps.wait_until(lambda: trainers(folder), 300)
            self.look_at_workers(folder)
            assert driver.wait(240) == 0, (tmp_path / "sweep.log").read_text()[-3000:]
        finally:
            sweeps.kill_group(driver)
        assert sweeps.states(folder) == COMPLETE
        assert sweeps.differing_histories(sweeps.histories(folder), train_alone()) == []

    def test_a_small_program(self, launcher: list[str], tmp_path: Path) -> None:
        """A program without torch reports, returns values and takes its settings from each trial."""
        small_program.write(tmp_path)
        listed = ",".join(f"'x={x}'" for x in (0.1, 0.2, 0.3, 0.4))
        done = small_program.run(tmp_path, f"hydra.sweeper.trials=[{listed}]", *launcher)
        assert done.returncode == 0, done.stderr[-3000:]
        trials = sweeps.study(tmp_path / "multirun/main").trials
        assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
        assert [trial.value for trial in trials] == pytest.approx([0.29, 0.26, 0.25, 0.26])
        assert all(len(trial.intermediate_values) == 4 for trial in trials)

    @pytest.mark.soak("takes 2 minutes")
    def test_killed_workers_and_drivers_cost_nothing(self, sweep: list[str], tmp_path: Path) -> None:
        """Histories are unchanged if a worker is killed, the driver is stopped and killed, and the launcher changes."""
        folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
        driver = sweeps.start(sweep, tmp_path)
        try:
            killed = self._kill_a_worker(folder)
            self._stop(driver, folder, lambda: driver.send_signal(signal.SIGTERM))
            assert driver.wait() == 143, log.read_text()[-3000:]
            assert "joyful: interrupted by SIGTERM; run the same command again to resume" in log.read_text()
            assert {lease.owner for lease in sweeps.leases(folder).values()} == {""}  # no trial is held

            driver = sweeps.start(sweep, tmp_path)
            sweeps.wait_until(lambda: "COMPLETE" in sweeps.states(folder).values(), 240)
            self._stop(driver, folder, driver.kill)

            driver = sweeps.start(sweep_command(), tmp_path)  # with the basic launcher
            assert driver.wait(240) == 0, log.read_text()[-3000:]
        finally:
            sweeps.kill_group(driver)
        assert sweeps.states(folder) == COMPLETE
        assert sweeps.leases(folder)[killed].term > 1  # more than one worker has trained it
        assert sweeps.differing_histories(sweeps.histories(folder), train_alone()) == []

    def look_at_workers(self, folder: Path) -> None:
        """Hook for subclasses, called while a worker is training."""

    def _kill_a_worker(self, folder: Path) -> int:
        """Kill a worker during a trial, wait until another worker has continued it, and return its number."""
        sweeps.wait_until(lambda: held_lease(folder, epochs=2), 300)
        lease = held_lease(folder, epochs=2)
        assert lease is not None
        worker = next(w for w in sweeps.workers(folder) if w.id == lease.owner)
        orphans = [psutil.Process(pid) for pid in sweeps.trainers(worker)]
        psutil.Process(worker.identity.pid).kill()
        sweeps.wait_until(lambda: have_ended(orphans))

        def is_continued() -> bool:
            current = sweeps.leases(folder)[lease.number]
            return current.owner != lease.owner and current.epochs > lease.epochs

        sweeps.wait_until(is_continued, 300)
        return lease.number

    def _stop(self, driver: subprocess.Popen[str], folder: Path, act: Callable[[], None]) -> None:
        """Stop a driver whose workers are training, and check that they end in time."""
        sweeps.wait_until(lambda: driver.poll() is not None or trainers(folder), 300)
        processes = trainers(folder)
        assert processes
        act()
        # The process of a worker may belong to the launcher and continue, but the worker has left the sweep.
        sweeps.wait_until(lambda: have_ended(processes) and not sweeps.workers(folder), STOP_SECONDS)
        assert not {"FAIL", "PRUNED"} & set(sweeps.states(folder).values())
