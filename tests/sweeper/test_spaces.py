"""Search spaces with the real command: glob, a relative database, and a grid that is trained in parts."""

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import pytest

from joyful.results import read_run
from tests.support import sweeps


@pytest.mark.soak("takes 10 s; tests/sweeper/test_plan.py has the choice of points")
@pytest.mark.slow
def test_a_grid_in_parts(tmp_path, fork_server):
    def run(n_trials):
        command = sweeps.command(
            "grid", "hydra/sweeper=optuna_pruned", "hydra/sweeper/sampler=grid", "hydra/sweeper/pruner=none",
            "loss=glob(*mse)", "seed=5,7", f"hydra.sweeper.n_trials={n_trials}",
            "hydra.sweeper.storage=sqlite:///mine.db", epochs=1,
        )  # fmt: skip
        result = sweeps.run(command, tmp_path, fork_server)
        assert result.returncode == 0, result.stderr
        trials = sweeps.study(tmp_path / "multirun/grid", f"sqlite:///{tmp_path}/mine.db").trials
        return result.stdout + result.stderr, [(trial.params["loss"], trial.params["seed"]) for trial in trials]

    output, first = run(2)
    assert "2 of 4 grid points are trained, spread over the grid; set hydra.sweeper.n_trials=4 for all" in output
    assert {loss for loss, _ in first} == {"mse", "weighted_mse"}
    assert {seed for _, seed in first} == {5, 7}
    runs = [read_run(tmp_path / f"multirun/grid/{number}") for number in (0, 1)]
    assert [(run["choices"]["loss"], run["seed"]) for run in runs] == first
    status = ["-m", "joyful.sweeper", "status", str(tmp_path / "multirun/grid")]
    assert "2/2 trials" in fork_server.run(status, Path("/"), os.environ).stdout

    # as if an earlier version, with another order of the points, had trained another point in the place of the last
    missing = {(loss, seed) for loss in ("mse", "weighted_mse") for seed in (5, 7)} - set(first)
    loss, seed = min(missing)
    with contextlib.closing(sqlite3.connect(tmp_path / "mine.db")) as database, database:
        changed = database.execute(
            "UPDATE trial_system_attributes SET value_json = ? WHERE key LIKE 'fixed_params%' AND trial_id = "
            "(SELECT trial_id FROM trials WHERE number = 1)",
            [json.dumps({"loss": loss, "seed": seed})],
        )
        assert changed.rowcount == 1
    output, points = run(4)
    assert "grid points" not in output
    assert points[0] == first[0]
    assert set(points[2:]) == {first[1], max(missing)}
