"""A clock that jumps by an hour both ways, under runs and sweeps: by libfaketime, which every process of theirs loads."""

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
from tests.support.trainers import Trainers

LIBRARY = next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))), None)

#: What the clock says, in seconds from the true time; each stands for a moment, then comes the next.
JUMPS = ("-3600", "+3600", "+0")
SECONDS = 0.3

LONG = ("training.epochs=40", "optimizer.learning_rate=0.01")


#: libfaketime up to 0.9.10 makes a mistake with sleeps until a moment of the monotonic clock, which Python's are: EINVAL.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """The time of day for the processes that have its environment; what counts seconds since the start of the machine is true."""

    def __init__(self, folder: Path) -> None:
        self._file, self._next, self.jumps = folder / "clock", itertools.cycle(JUMPS), 0
        self._say("+3600")
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(SLEEP)
        self.environment = {
            "LD_PRELOAD": LIBRARY or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")])),
            "NO_FAKE_STAT": "1",  # (files keep the time at which they were written)
        }

    def _say(self, offset: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        os.replace(new, self._file)

    def jump(self) -> None:
        """Set it."""
        self._say(next(self._next))
        self.jumps += 1


@pytest.fixture
def clock(tmp_path):
    if LIBRARY is None:
        pytest.skip("there is no libfaketime here (apt-get install faketime)")
    clock = Clock(tmp_path)
    told = subprocess.check_output(["date", "+%s"], env={**os.environ, **clock.environment}, text=True)
    assert abs(int(told) - 3600 - time.time()) < 60, "libfaketime does not set the clock"
    return clock


def bad_times(run, most):
    """What is wrong with a run's durations: the clock of the machine has gone on by at most so many seconds."""
    seconds = [row["seconds"] for row in results.RunFolder.open(run).timing_rows()]
    if not seconds or min(seconds) < 0 or not 0 < sum(seconds) < most:
        return [f"{run.name}: {len(seconds)} rows from {min(seconds, default=0)}, {sum(seconds)} s of {most} s"]
    return []


@pytest.mark.xdist_group("sweep")
def test_a_clock_that_jumps_costs_a_sweep_nothing(tmp_path, clock, tally, monkeypatch):
    folder, log, epochs = tmp_path / "multirun/launched", tmp_path / "sweep.log", count(quick=8, full=60)
    # (a lease of 30 s, as it is: far less than an hour, and more than a busy machine lets a process wait)
    command = [*launchers.sweep_command(epochs), "hydra/launcher=joblib"]
    began = time.monotonic()
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
                assert time.monotonic() < began + 300, log.read_text()[-3000:]
            clock.jump()
            training += bool(launchers.held(folder, epochs=1))
        seconds = time.monotonic() - began
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
    wrong += sweeps.unlike(sweeps.histories(folder), launchers.alone(tmp_path / "alone", epochs))
    tally("a clock that jumps by an hour, under a sweep", clock.jumps, len(lost), len(wrong))
    assert (lost, wrong) == ([], [])


def test_a_clock_that_jumps_costs_a_run_nothing(tmp_path, clock, tally):
    """Its durations are those of the monotonic clock, its bytes those of a run without jumps."""
    whole, folder, wrong = tmp_path / "whole", tmp_path / "run", []
    with Trainers(tmp_path, clock.environment) as trainers:
        trainers.run(whole, *LONG)
        began = time.monotonic()
        trainer = trainers.start(folder, *LONG)
        while trainer.running:
            clock.jump()
            time.sleep(0.05)
        seconds = time.monotonic() - began
        assert trainer.wait() == 0, trainer.said
    wrong = bad_times(folder, seconds)
    wrong += (
        [] if (folder / "history.parquet").read_bytes() == (whole / "history.parquet").read_bytes() else ["history"]
    )
    tally("a clock that jumps by an hour, under a run", clock.jumps, 0, len(wrong))
    assert wrong == []
    assert clock.jumps > 10
