"""The history of a trial's metrics: its rows, and what a process that ends in the middle leaves."""

import math
import subprocess
import sys

import pytest

from joyful.records import InputError
from joyful.results import LockLostError, RunFolder, lock, read_run
from joyful.sweeper.history import JOURNAL, History, split_rows

HEADER = {
    "objective_name": "loss", "seed": 1, "role": "comparison", "epochs": None, "config_hash": "0" * 16, "device": None,
    "threads": None, "choices": {}, "config": {"x": 1}, "git": {"commit": None, "dirty": None},
}  # fmt: skip


def rows(folder):
    return [(row["step"], row["split"], row["loss"]) for row in RunFolder.open(folder, reading=True).history_rows()]


def test_prefixes_name_the_split_and_names_become_columns():
    assert split_rows(2, {"test/Loss": 1, "train_loss": 2, "val-loss": 3, "loss_train": 4}) == [
        {"step": 2, "split": "train", "loss": 2.0},
        {"step": 2, "split": "dev", "loss": 3.0, "loss_train": 4.0},
        {"step": 2, "split": "test", "loss": 1.0},
    ]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"": 1}, "names that start with a letter"),
        ({"1st": 1}, "names that start with a letter"),
        ({"seed": 1}, "are not reserved"),
        ({"val_loss": 1, "dev_loss": 2}, "two that give loss of dev"),
        ({"step": 1}, "two that give step of dev"),
        ({"loss": "low"}, "loss: expected a number, got 'low'"),
    ],
)
def test_invalid_metrics_are_refused(metrics, message):
    with pytest.raises(InputError, match=message):
        split_rows(1, metrics)


def test_a_finished_history_has_its_rows_in_order_and_no_journal(tmp_path):
    history = History(tmp_path, HEADER)
    for step in (1, 2):
        history.add(step, {"train_loss": step, "loss": math.nan if step == 2 else 0.5})
    assert read_run(tmp_path)["status"] == "running"
    history.finish("completed", objective=0.5)
    assert rows(tmp_path)[:3] == [(1, "train", 1.0), (1, "dev", 0.5), (2, "train", 2.0)]
    assert math.isnan(rows(tmp_path)[3][2])
    info = read_run(tmp_path)
    assert (info["status"], info["objective"], info["seed"], info["config"]) == ("completed", 0.5, 1, {"x": 1})
    assert not (tmp_path / JOURNAL).exists()
    lock(tmp_path).release()  # it is free


def test_without_metrics_nothing_is_written(tmp_path):
    History(tmp_path, HEADER).finish("completed", objective=1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_lost_the_lock_adds_nothing_to_the_journal(tmp_path):
    history = History(tmp_path, HEADER)
    history.add(1, {"loss": 1})
    take_over = "import sys; from joyful import results; results.lock(sys.argv[1], take_over_after=0).release()"
    subprocess.run([sys.executable, "-c", take_over, tmp_path], check=True)
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(LockLostError):
        history.add(2, {"loss": 2})
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_a_history_continues_where_an_ended_process_left_it(tmp_path):
    ended = History(tmp_path, HEADER)
    for step in range(5):
        ended.add(step, {"loss": step})
    ended._lock.release()  # as the kernel does when the process ends
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"step": 5, "spl')  # cut by a power failure
    resumed = History(tmp_path, HEADER)
    resumed.add(3, {"loss": 30})  # from a checkpoint
    resumed.finish("interrupted")
    assert rows(tmp_path) == [(0, "dev", 0.0), (1, "dev", 1.0), (2, "dev", 2.0), (3, "dev", 30.0)]
    last = History(tmp_path, HEADER)
    last.add(0, {"loss": 7})  # a program without checkpoint starts again
    last.finish("completed")
    assert rows(tmp_path) == [(0, "dev", 7.0)]
