"""Processes of a sweep are killed at random moments. The restarted sweep loses nothing."""

import os
import random
import signal
import time

import pyarrow.parquet as pq
import pytest

from joyful.sweeper.worker import MAXIMUM_FAILURES
from tests.support import launchers, sweeps
from tests.support.faults import count, seed

EPOCHS, NUMBER = count(quick=6, full=12), count(quick=2, full=6)
TRIALS = tuple(f"loss={loss} seed={seed}" for seed in (1, 2, 3) for loss in ("mse", "smoothl1"))[:NUMBER]
COMMAND = [*launchers.sweep_command(EPOCHS, TRIALS), "hydra/launcher=joblib", "hydra.sweeper.lease_seconds=5"]


def victim(folder, driver, rng):
    """Return the process id of a random process of the sweep."""
    workers = sweeps.workers(folder)
    if rng.random() < 0.4 or not workers:
        return driver.pid
    worker = rng.choice(workers)
    leases = sweeps.leases(folder).values()
    if any(
        lease.worker_failures >= MAXIMUM_FAILURES - 1 and lease.epochs <= lease.epochs_at_failure for lease in leases
    ):
        return driver.pid  # a third failure in a row would end the trial, as in test_worker_failures.py
    trainers = sweeps.trainers(worker)
    return rng.choice([worker.identity.pid, *trainers])


@pytest.mark.timeout(3600)
def test_a_killed_and_restarted_sweep_loses_nothing(tmp_path, tally):
    kills, expected = count(quick=1, full=40), launchers.train_alone(EPOCHS, TRIALS)
    folder = tmp_path / "multirun/launched"
    rng, killed, starts = random.Random(seed()), 0, 0
    driver, lost, wrong = None, [], []
    try:
        while True:
            if driver is None or driver.poll() is not None:
                states = sweeps.states(folder) if folder.exists() else {}
                if len(states) == len(TRIALS) and set(states.values()) == {"COMPLETE"} and killed >= kills:
                    break
                if len(states) == len(TRIALS) and set(states.values()) <= {"COMPLETE", "PRUNED", "FAIL"}:
                    # all trials finished before the last kill: start a new sweep
                    lost, wrong = lost + unfinished(folder), wrong + differences(folder, expected)
                    folder.rename(tmp_path / f"multirun/launched-{starts}")
                driver, starts = sweeps.start(COMMAND, tmp_path), starts + 1
            if killed < kills:
                time.sleep(rng.uniform(0.5, 9.0))
                pid = victim(folder, driver, rng) if driver.poll() is None else None
                if pid is not None:
                    try:
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass  # the process has ended already
                    if pid == driver.pid:
                        driver.wait()
            else:
                assert driver.wait(240) == 0, (tmp_path / "sweep.log").read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
    lost, wrong = lost + unfinished(folder), wrong + differences(folder, expected)
    tally("SIGKILL of a sweep's driver, worker or training", killed, len(lost), len(wrong))
    print(f"{killed} kills, {starts} starts")
    assert lost == []
    assert wrong == []


def unfinished(folder):
    """Return the trials that are not complete."""
    states = sweeps.states(folder)
    return [(number, states.get(number)) for number in range(len(TRIALS)) if states.get(number) != "COMPLETE"]


def differences(folder, expected):
    """Return the differences from the undisturbed histories, and unexpected histories."""
    histories = sweeps.histories(folder)
    assert {n: len(pq.read_table(folder / str(n) / "history.parquet")) for n in histories}  # they are readable
    return sweeps.differing_histories(histories, expected)
