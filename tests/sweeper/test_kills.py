"""A sweep is killed at random moments, its driver or a worker or the process that trains, and started again: nothing is lost."""

import os
import random
import signal
import time

import pyarrow.parquet as pq
import pytest

from joyful.sweeper.worker import MAXIMUM_FAILURES
from tests.support import sweeps
from tests.support.faults import count, seed

TRIALS = [f"'loss={loss} seed={seed}'" for seed in (1, 2, 3) for loss in ("mse", "smoothl1")]


def killed_command(epochs):
    return sweeps.command(
        "killed",
        "hydra/sweeper=optuna_pruned",
        "hydra/sweeper/pruner=none",
        "hydra/launcher=joblib",
        f"hydra.sweeper.trials=[{','.join(TRIALS)}]",
        "hydra.sweeper.lease_seconds=5",
        epochs=epochs,
    )


def victim(folder, driver, chance):
    """A process of the sweep to kill, None where there is none yet."""
    workers = sweeps.workers(folder)
    if chance.random() < 0.4 or not workers:
        return driver.pid
    worker = chance.choice(workers)
    leases = sweeps.leases(folder).values()
    if any(
        lease.worker_failures >= MAXIMUM_FAILURES - 1 and lease.epochs <= lease.epochs_at_failure for lease in leases
    ):
        return driver.pid  # a third death without an epoch in between would rightly end the trial (test_deaths.py)
    trainers = sweeps.trainers(worker)
    return chance.choice([worker.identity.pid, *trainers])


@pytest.mark.timeout(3600)
def test_a_sweep_that_is_killed_and_started_again_loses_nothing(tmp_path, tally):
    kills, epochs = count(quick=5, full=40), 12
    (tmp_path / "calm").mkdir()
    calm = sweeps.run(killed_command(epochs), tmp_path / "calm")
    assert calm.returncode == 0, calm.stderr
    expected = sweeps.histories(tmp_path / "calm/multirun/killed")
    assert sorted(expected) == list(range(len(TRIALS)))

    folder = tmp_path / "multirun/killed"
    chance, killed, starts = random.Random(seed()), 0, 0
    driver, lost, wrong = None, [], []
    try:
        while True:
            if driver is None or driver.poll() is not None:
                states = sweeps.states(folder) if folder.exists() else {}
                if len(states) == len(TRIALS) and set(states.values()) == {"COMPLETE"} and killed >= kills:
                    break
                if len(states) == len(TRIALS) and set(states.values()) <= {"COMPLETE", "PRUNED", "FAIL"}:
                    # all done before all kills were made: once more from the start
                    lost, wrong = lost + unfinished(folder), wrong + other(folder, expected)
                    folder.rename(tmp_path / f"multirun/killed-{starts}")
                driver, starts = sweeps.start(killed_command(epochs), tmp_path), starts + 1
            if killed < kills:
                time.sleep(chance.uniform(0.5, 9.0))
                pid = victim(folder, driver, chance) if driver.poll() is None else None
                if pid is not None:
                    try:
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass  # it ended in between
                    if pid == driver.pid:
                        driver.wait()
            else:
                assert driver.wait(240) == 0, (tmp_path / "sweep.log").read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
    lost, wrong = lost + unfinished(folder), wrong + other(folder, expected)
    tally("SIGKILL of a sweep's driver, worker or training", killed, len(lost), len(wrong))
    print(f"{killed} kills, {starts} starts")
    assert lost == []
    assert wrong == []


def unfinished(folder):
    """Trials that are not complete."""
    states = sweeps.states(folder)
    return [(number, states.get(number)) for number in range(len(TRIALS)) if states.get(number) != "COMPLETE"]


def other(folder, expected):
    """What is other than in the undisturbed histories, or that nobody asked for."""
    found = sweeps.histories(folder)
    assert {n: len(pq.read_table(folder / str(n) / "history.parquet")) for n in found}  # they can be read
    return sweeps.unlike(found, expected)
