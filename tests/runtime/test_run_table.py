"""The table of all runs at the end of a multirun of Hydra's own sweepers and of the stock Optuna sweeper."""

import io
import os
import re

import pytest
from rich.console import Console

from joyful.results import RunFolder
from joyful.runtime.run_table import MOST_RUNS, print_runs
from tests.support import sweeps
from tests.support.runs import TINY

HEADER = {
    "objective_name": "best dev f1_weighted", "role": "comparison", "epochs": 2, "config_hash": "0", "device": "cpu",
    "threads": 1, "choices": {"loss": "mse"},
}  # fmt: skip

JOBLIB = pytest.mark.soak("takes 16 s; tests/test_run.py has a multirun of joblib, the grid has the table")

OURS = pytest.mark.soak("takes 7 s; tests/sweeper/test_live.py has the table of our sweeper")


def write(folder, seed, dev, test, status="completed"):
    """Write a run whose best dev F1 is that of its second epoch."""
    run = RunFolder.create(folder, HEADER | {"seed": seed, "config": {"weights": {"encoder_loss_weight": seed / 10}}})
    rows = [
        {"step": step, "epoch": float(step), "split": split, "f1_weighted": value + 0.1 * (step - 2)}
        for step in (1, 2)
        for split, value in (("dev", dev), ("test", test))
    ]
    run.write_history(rows)
    run.set_status(status, objective=dev if status == "completed" else None)


def printed(folder, terminal=False, width=80):
    output = Console(file=io.StringIO(), force_terminal=terminal, width=width, no_color=True, highlight=False)
    print_runs(folder, output)
    return output.file.getvalue()


def test_the_best_run_is_first_and_unfinished_ones_are_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, dev in enumerate((0.5, 0.7, 0.6)):
        write(tmp_path / "many" / str(number), number, dev, dev - 0.2)
    write(tmp_path / "many/3", 3, 0.9, 0.9, "interrupted")
    (tmp_path / "many/4").mkdir()
    (tmp_path / "many/4/run.json").write_text("{")
    rows = [line.split() for line in printed(tmp_path / "many").splitlines()]
    assert rows == [
        ["run", "settings", "dev", "F1", "test", "F1", "status", "folder"],
        ["1", "encoder_loss_weight=0.1", "seed=1", "70.00", "%", "50.00", "%", "completed", "many/1"],
        ["2", "encoder_loss_weight=0.2", "seed=2", "60.00", "%", "40.00", "%", "completed", "many/2"],
        ["0", "encoder_loss_weight=0", "seed=0", "50.00", "%", "30.00", "%", "completed", "many/0"],
        ["3", "encoder_loss_weight=0.3", "seed=3", "90.00", "%", "interrupted", "many/3"],
    ]


def test_twenty_runs_are_listed_and_the_others_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(MOST_RUNS + 3):
        write(tmp_path / "many" / str(number), number, number / 100, 0.1, "completed" if number else "failed")
    lines = printed(tmp_path / "many", terminal=True).splitlines()
    assert len(lines) == MOST_RUNS + 2
    assert lines[-1].startswith("and 3 more runs (2 completed, 1 failed) in ")
    shown = [re.sub(r"\x1b(\[[0-9;]*m|\]8;[^\x1b]*\x1b\\)", "", line) for line in lines[:-1]]
    assert max(map(len, shown)) < 80
    assert f"file://{tmp_path}/many/22\x1b\\many/22\x1b]8;;\x1b\\" in lines[1]


@pytest.mark.parametrize(
    ("sweeper", "runs"),
    [
        (("loss=mse,smoothl1", "seed=1,2"), 4),
        pytest.param(("loss=mse,smoothl1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), 2, marks=JOBLIB),
        (("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "weights.encoder_loss_weight=interval(0.01,0.1)"), 2),
        pytest.param(
            ("hydra/sweeper=optuna_pruned", "hydra.sweeper.trials=['loss=mse','loss=smoothl1']"), 2, marks=OURS
        ),
    ],
    ids=["grid", "joblib", "optuna", "optuna_pruned"],
)
@pytest.mark.slow
def test_every_multirun_ends_with_the_table(tmp_path, fork_server, sweeper, runs):
    arguments = [str(sweeps.RUN), "-m", *TINY, "training.epochs=1", "hydra.sweep.dir=many", *sweeper]
    done = fork_server.run(arguments, tmp_path, os.environ)
    assert done.returncode == 0, done.stderr
    header = re.search(r"^(run|trial)  settings +dev F1 +test F1 +(state|status) +folder$", done.stdout, re.M)
    assert header, done.stdout
    rows = done.stdout[header.end() :].strip().splitlines()[:runs]
    values = [float(re.search(r"([\d.]+) %", row)[1]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert sorted(row.split()[-1] for row in rows) == [f"many/{i}" for i in range(runs)]


def test_a_refused_multirun_has_no_table(tmp_path, fork_server):
    done = fork_server.run([str(sweeps.RUN), "-m", "training.epochs=-1", "seed=1,2"], tmp_path, os.environ)
    assert (done.returncode, done.stdout) == (2, "")
