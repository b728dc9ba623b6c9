"""SIGKILL at random moments of a run, half of them during a write of a file, loses nothing that was complete.

The same for sweeps: tests/sweeper/test_kills.py.
"""

import math
import os
import random
import signal
import time
from pathlib import Path

import pytest

from joyful import results
from joyful.training.checkpoints import read
from tests.support.faults import count, seed
from tests.support.trainers import partial_files

EPOCHS = 9

#: Approximate duration of a run in seconds, within which random kills fall.
LENGTH = 0.8


def history(folder: Path) -> bytes:
    return (folder / "history.parquet").read_bytes()


def predictions(folder: Path) -> bytes:
    return (folder / "predictions.parquet").read_bytes()


def epochs_written(folder: Path) -> float:
    """Return the number of complete epochs in the history. A damaged folder fails the test."""
    if not (folder / "run.json").exists():
        return 0.0
    frame = results.load(folder)
    assert frame.attrs["damaged"] == {}
    return float(frame["epoch"].max() // 1) if len(frame) else 0.0


def epochs_saved(folder: Path) -> float:
    """Return the epoch of the last checkpoint, which may still be named "previous". A damaged one fails the test."""
    saved = read(folder / "checkpoint", "last") or read(folder / "checkpoint", "previous")
    read(folder / "checkpoint", "best")
    return float(saved.state["epoch"]) if saved is not None else 0.0


@pytest.mark.timeout(3600)
def test_kills_at_random_moments_lose_nothing(tmp_path, trainers, tally):
    kills = count(quick=4, full=200)
    chance, rounds = random.Random(seed()), 0
    done, caught = {"written": 0, "random": 0}, 0
    lost, wrong = [], []

    def more() -> bool:
        """Whether kills are missing; on a busy machine, more are needed until enough of them fall into writes."""
        number = sum(done.values())
        return number < kills or (caught < kills / 5 and number < 4 * kills)

    while more():
        rounds += 1
        settings = (
            f"training.epochs={EPOCHS}",
            f"seed={chance.randrange(10**6)}",
            f"training.evaluations_per_epoch={chance.choice((1, 2))}",
            "optimizer.learning_rate=0.01",  # with which the checkpoint "best" changes often
        )
        whole, folder = tmp_path / f"whole-{rounds}", tmp_path / f"run-{rounds}"
        trainers.run(whole, *settings)
        complete = 0.0  # epochs that are completely written, according to a process or a checkpoint
        while more():
            trainer = trainers.start(folder, *settings)
            kind = chance.choice(("written", "random"))
            if kind == "written":
                trainer.wait_for_write(folder, skip=chance.randrange(20))
                time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.002))))
            else:
                time.sleep(chance.uniform(0.0, LENGTH))
            if trainer.running:
                os.kill(trainer.pid, signal.SIGKILL)
            if trainer.wait() != -signal.SIGKILL:  # it ended before the kill
                assert trainer.wait() == 0, trainer.stderr
                break
            done[kind] += 1
            caught += bool(partial_files(folder))
            if trainer.epochs and trainer.epochs[0] <= complete:
                lost.append(f"run {rounds}: epoch {trainer.epochs[0]:g} was trained again")
            complete = max([complete, *(math.ceil(epoch) - 1.0 for epoch in trainer.epochs)])
            written, saved = epochs_written(folder), epochs_saved(folder)
            if min(written, saved) < complete:
                lost.append(f"run {rounds}: {written:g} epochs written, {saved:g} saved, {complete:g} were complete")
            complete = max(complete, saved)
        trainers.run(folder, *settings)
        if predictions(folder) != predictions(whole):
            wrong.append(f"run {rounds}: other predictions")
        if history(folder) != history(whole) or results.read_run(folder)["status"] != "completed":
            wrong.append(f"run {rounds}: another history")
        left = sorted(entry.name for entry in [*folder.iterdir(), *(folder / "checkpoint").iterdir()])
        if len(left) != len([*whole.iterdir(), *(whole / "checkpoint").iterdir()]):
            wrong.append(f"run {rounds}: left {left}")
    assert {path.stat().st_mode for path in (folder / "checkpoint").iterdir()} == {(folder / "run.json").stat().st_mode}
    tally("SIGKILL while a file of a run is written", done["written"], len(lost), len(wrong))
    tally("SIGKILL at a random moment of a run", done["random"])
    print(f"{done} kills of {rounds} runs, {caught} left a partially written file")
    assert lost == []
    assert wrong == []
    assert sum(done.values()) >= kills
    assert caught >= kills / 5  # enough kills fall into writes
