"""Runs and sweeps on a clock that jumps by an hour in both directions, simulated by libfaketime in every process."""

import glob
import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest

from joyful import results
from tests.support import launchers, sweeps
from tests.support.faults import count
from tests.support.trainers import TrainerServer

LIBRARY = next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))), None)

#: Offsets of the clock from the true time in seconds. Each is used for SECONDS, in turn.
JUMPS = ("-3600", "+3600", "+0")
SECONDS = 0.3

LONG = ("training.epochs=20", "optimizer.learning_rate=0.01")


#: Replacement of time.sleep, which uses the monotonic clock and fails (EINVAL) under libfaketime up to 0.9.10.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """A false time of day for processes with its `environment`. Their monotonic clock is true."""

    def __init__(self, folder: Path) -> None:
        self._file, self._next, self.jumps = folder / "clock", itertools.cycle(JUMPS), 0
        self._set_offset("+3600")
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(SLEEP)
        self.environment = {
            "LD_PRELOAD": LIBRARY or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")])),
            "NO_FAKE_STAT": "1",  # file times stay true
        }

    def _set_offset(self, offset: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        os.replace(new, self._file)

    def jump(self) -> None:
        """Set the next offset."""
        self._set_offset(next(self._next))
        self.jumps += 1


@pytest.fixture
def clock(tmp_path):
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    clock = Clock(tmp_path)
    seconds = subprocess.check_output(["date", "+%s"], env={**os.environ, **clock.environment}, text=True)
    assert abs(int(seconds) - 3600 - time.time()) < 60, "libfaketime does not set the clock"
    return clock


def bad_times(run, most):
    """Return errors in the durations of a run, which must be positive and sum to less than `most` seconds."""
    seconds = [row["seconds"] for row in results.RunFolder.open(run).timing_rows()]
    if not seconds or min(seconds) < 0 or not 0 < sum(seconds) < most:
        return [f"{run.name}: {len(seconds)} rows from {min(seconds, default=0)}, {sum(seconds)} s of {most} s"]
    return []


@pytest.mark.soak("takes 29 s; the clock jumps under a run below, test_registry.py waits for the leases of a sweep")
def test_a_clock_that_jumps_costs_a_sweep_nothing(tmp_path, clock, tally, monkeypatch):
    folder, log, epochs = tmp_path / "multirun/launched", tmp_path / "sweep.log", count(quick=4, full=60)
    # The default lease of 30 s is far shorter than an hour, and longer than the delays of a busy machine.
    command = [*launchers.sweep_command(epochs), "hydra/launcher=joblib"]
    started = time.monotonic()
    with monkeypatch.context() as environment:
        for name, value in clock.environment.items():
            environment.setenv(name, value)
        driver = sweeps.start(command, tmp_path)
    training = 0
    try:
        while True:
            try:
                driver.wait(SECONDS)
                break
            except subprocess.TimeoutExpired:
                assert time.monotonic() < started + 300, log.read_text()[-3000:]
            clock.jump()
            training += bool(launchers.held_lease(folder, epochs=1))
        seconds = time.monotonic() - started
    finally:
        sweeps.kill_group(driver)
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert training > 2
    states, leases = sweeps.states(folder), sweeps.leases(folder)
    wrong = [f"trial {n}: {state}" for n, state in states.items() if state != "COMPLETE"]
    wrong += [
        f"a live trial was declared dead: {lease}"
        for lease in leases.values()
        if lease.term != 1 or lease.worker_failures
    ]
    wrong += [line for number in launchers.COMPLETE for line in bad_times(folder / str(number), seconds)]
    lost = sorted(set(launchers.COMPLETE) - set(states))
    wrong += sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(epochs))
    tally("a clock that jumps by an hour, under a sweep", clock.jumps, len(lost), len(wrong))
    assert (lost, wrong) == ([], [])


@pytest.mark.soak("takes 7 s, and clocks rarely jump")
def test_a_clock_that_jumps_costs_a_run_nothing(tmp_path, clock, tally):
    """Durations come from the monotonic clock, and the history equals that of a run without jumps."""
    whole, folder, wrong = tmp_path / "whole", tmp_path / "run", []
    with TrainerServer(tmp_path, clock.environment) as trainers:
        trainers.run(whole, *LONG)
        started = time.monotonic()
        trainer = trainers.start(folder, *LONG)
        while trainer.running:
            clock.jump()
            time.sleep(0.05)
        seconds = time.monotonic() - started
        assert trainer.wait() == 0, trainer.stderr
    wrong = bad_times(folder, seconds)
    wrong += (
        [] if (folder / "history.parquet").read_bytes() == (whole / "history.parquet").read_bytes() else ["history"]
    )
    tally("a clock that jumps by an hour, under a run", clock.jumps, 0, len(wrong))
    assert wrong == []
    assert clock.jumps > 10
