"""A frozen run (SIGSTOP) is taken over and completed by another process, and changes nothing when it wakes up.

Half of the runs are frozen during a write. The same for leases of a sweep: tests/sweeper/test_frozen.py.
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
from tests.support.trainers import partial_files

SETTINGS = ("training.epochs=9", "training.evaluations_per_epoch=2", "optimizer.learning_rate=0.01")

#: Approximate duration of the run in seconds, with the slow disk of the test.
LENGTH = 1.5


def written(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return name -> (content, modification time) of the files of a run."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def freeze(pid: int) -> bool:
    """Freeze a process, and return whether it is frozen; False if it has ended."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        os.kill(pid, signal.SIGSTOP)
        process = psutil.Process(pid)
        while (status := process.status()) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        return status == psutil.STATUS_STOPPED
    return False


@pytest.mark.timeout(1800)
@pytest.mark.soak("takes 8 s; tests/results/test_lock.py takes locks over")
def test_a_frozen_run_that_was_taken_over_changes_nothing_when_it_wakes(tmp_path, trainers, tally):
    freezes, chance = count(quick=2, full=80), random.Random(seed())
    trainers.run(tmp_path / "whole", *SETTINGS)
    whole = (tmp_path / "whole/history.parquet").read_bytes()
    done = caught = rounds = 0
    lost, wrong = [], []
    while done < freezes:
        rounds += 1
        folder = tmp_path / f"run-{rounds}"
        trainer = trainers.start(folder, *SETTINGS, sync_seconds=0.003)  # as on a hard disk, which lengthens writes
        if rounds % 2:
            trainer.wait_for_write(folder, skip=chance.randrange(60))
            time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.005))))
        else:
            time.sleep(chance.uniform(0.0, LENGTH))
        if not freeze(trainer.pid):
            assert trainer.wait() == 0, trainer.stderr
            continue
        done += 1
        caught += bool(partial_files(folder))
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
    print(f"{done} freezes of {rounds} runs, {caught} during a write")
    assert (lost, wrong) == ([], [])
    assert caught >= freezes / 5 or not soaking()  # of a few freezes, none may fall into a write
