"""A run is frozen (SIGSTOP), half of the times in a write; another process takes it over and ends it; woken, it changes nothing.

The same with the leases of a sweep: tests/sweeper/test_frozen.py.
"""

import contextlib
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from joyful.training import experiment
from tests.support.faults import count, seed, soaking
from tests.support.runs import tiny_request
from tests.support.trainers import half_written

SETTINGS = ("training.epochs=9", "training.evaluations_per_epoch=2", "optimizer.learning_rate=0.01")

#: Seconds that a run of so many epochs takes about, on that disk.
LENGTH = 1.5


def written(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What the run has written, with the times of writing."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def freeze(pid: int) -> bool:
    """Whether the process stands still; not where it has ended before."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        os.kill(pid, signal.SIGSTOP)
        process = psutil.Process(pid)
        while (status := process.status()) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        return status == psutil.STATUS_STOPPED
    return False


@pytest.mark.timeout(1800)
def test_a_run_that_is_frozen_at_any_moment_and_taken_over_wakes_and_changes_nothing(tmp_path, trainers, tally):
    freezes, chance = count(quick=4, full=80), random.Random(seed())
    trainers.run(tmp_path / "whole", *SETTINGS)
    whole = (tmp_path / "whole/history.parquet").read_bytes()
    done = caught = rounds = 0
    lost, wrong = [], []
    while done < freezes:
        rounds += 1
        folder = tmp_path / f"run-{rounds}"
        trainer = trainers.start(folder, *SETTINGS, sync_seconds=0.003)  # as a turning disk: there are moments to hit
        if rounds % 2:
            trainer.until_a_write(folder, passing=chance.randrange(60))
            time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.005))))
        else:
            time.sleep(chance.uniform(0.0, LENGTH))
        if not freeze(trainer.pid):
            assert trainer.wait() == 0, trainer.said
            continue
        done += 1
        caught += bool(half_written(folder))
        try:
            experiment.train_run(replace(tiny_request(folder, *SETTINGS), take_over_after=0.0))
            before = written(folder)
        finally:
            os.kill(trainer.pid, signal.SIGCONT)
        trainer.wait()
        if written(folder) != before:
            changed = {name for name, _ in written(folder).items() ^ before.items()}
            wrong.append(f"run {rounds}: {sorted(changed)} changed")
        if before["history.parquet"][0] != whole:
            lost.append(f"run {rounds}: another history")
    tally("a run frozen, taken over and woken", done, len(lost), len(wrong))
    print(f"{done} freezes of {rounds} runs, {caught} in a write")
    assert (lost, wrong) == ([], [])
    assert caught >= freezes / 5 or not soaking()  # the freezes do fall into writes; of a handful it may be none
