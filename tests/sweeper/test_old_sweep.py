"""A sweep of version 0.1 that was killed can be read, resumed and reported.

The archive holds the sweep folder: three complete trials, one killed in epoch 42 of 60, two waiting trials, and
study.db. It was written by commit b9c9074 with `command("version_0_1", *SEARCH, epochs=60)`, its process group killed.
Paths of the machine were replaced by /home/user.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from joyful.analysis.report import main as report
from joyful.results.machine import machine
from tests.support.faults import soaking
from tests.support.sweeps import command, histories, kill_group, start, states, wait_until

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures/version_0_1.tar.xz"

#: The overrides of the command that started it.
SEARCH = (
    "hydra/sweeper=optuna_pruned",
    "hydra/sweeper/pruner=median",
    "hydra.sweeper.n_trials=6",
    "hydra.sweeper.n_jobs=1",
    "hydra/sweeper/sampler=tpe",
    "hydra.sweeper.sampler.seed=1",
    "seed=5",
    "loss=choice(mse,smoothl1)",
    "weights.encoder_loss_weight=tag(log,interval(0.001,1))",
)

#: Epochs that the killed trial recorded.
RECORDED = 42


@pytest.fixture
def sweep(tmp_path):
    """The sweep as if its processes had been killed on this machine, so that nobody waits for their leases to end."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "multirun", filter="data")
    folder = tmp_path / "multirun" / "version_0_1"
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute("UPDATE joyful_member SET machine = ?", [machine()])
    return folder


def rows_of(folder):
    return pq.read_table(folder / "history.parquet").to_pylist()


def test_status_of_an_old_sweep(sweep):
    done = subprocess.run(
        [sys.executable, "-m", "joyful.sweeper", "status", str(sweep), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert states(sweep) == {0: "COMPLETE", 1: "COMPLETE", 2: "COMPLETE", 3: "RUNNING", 4: "WAITING", 5: "WAITING"}
    shown = json.loads(done.stdout)
    assert {name: shown[name] for name in ("n_trials", "complete", "running", "waiting", "best_trial")} == {
        "n_trials": 6, "complete": 3, "running": 0, "waiting": 3, "best_trial": 0,
    }  # fmt: skip


@pytest.mark.soak("takes 20 s; the test above reads the sweep")
def test_an_old_sweep_is_resumed_by_the_same_command(sweep, tmp_path):
    before, rows_before = histories(sweep), rows_of(sweep / "3")
    driver = start(command("version_0_1", *SEARCH, epochs=60), sweep.parents[1], tmp_path / "sweep.log")
    try:  # a soak waits for the two waiting trials too
        wait_until(lambda: driver.poll() is not None or (not soaking() and states(sweep)[3] != "RUNNING"), 240)
        driver.terminate()
        assert driver.wait(30) in (0, 143), (tmp_path / "sweep.log").read_text()
    finally:
        kill_group(driver)
    assert set(states(sweep).values()) <= {"COMPLETE", "PRUNED"} | (set() if soaking() else {"RUNNING", "WAITING"})
    assert states(sweep)[3] in ("COMPLETE", "PRUNED")
    after = histories(sweep)
    assert all(after[number] == before[number] for number in (0, 1, 2))
    # the killed trial was resumed: its recorded rows are unchanged
    resumed = rows_of(sweep / "3")
    recorded = [row for row in rows_before if row["epoch"] < RECORDED]
    assert resumed[: len(recorded)] == recorded
    assert len(resumed) >= len(rows_before)
    assert report([str(sweep)]) == 0
    assert (sweep / "report" / "index.html").is_file()
