"""A loss that is not finite, due to a large learning rate, weight or feature, fails its run and no other run."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest

from joyful import results
from joyful.data import prepared
from joyful.data.loading import load
from joyful.records import InputError
from joyful.training.coach import TrainingFailedError
from joyful.training.experiment import train_run
from tests.support import sweeps
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import tiny_request, tiny_settings

#: Diverges in the first epochs: no clipping, a large learning rate and a dominant reconstruction loss.
DIVERGES = (
    "optimizer=sgd",
    "optimizer.learning_rate=10",
    "training.max_grad_norm=0",
    "weights.encoder_loss_weight=1000000",
)
REASON = re.compile(
    r"epoch [0-9.]+: (nll|loss_\w+) of the (train|dev|test) split is (nan|inf|-inf); expected a finite number: "
)


def prepared_with(folder: Path, value: float) -> str:
    """Write the tiny dataset with one feature of this value in its training split, and return the folder."""
    settings = tiny_settings()
    data = load(settings.data, settings.modality_names)
    part = data.splits["train"]
    features = {name: array.copy() for name, array in part.features.items()}
    features["audio"][3, 2] = value
    splits = {**data.splits, "train": part.__class__(**{**part.__dict__, "features": features})}
    prepared.write_folder(data.__class__(**{**data.__dict__, "splits": splits}), folder, {})
    return str(folder)


@pytest.mark.parametrize(
    "overrides",
    [
        DIVERGES,
        (*DIVERGES, "fusion=auto"),
        (*DIVERGES, "training.evaluations_per_epoch=2", "training.train_metrics=running"),
        (*DIVERGES, "weighting=normalised"),
        ("data.source=prepared", "data.root={folder}", "model.standardise=false"),
    ],
    ids=["learning_rate", "auto", "running", "normalised", "feature_of_1e38"],
)
def test_a_run_fails_with_epoch_and_component(overrides: tuple[str, ...], tmp_path: Path, tally: Tally) -> None:
    folder = prepared_with(tmp_path / "data", 3e38) if "data.source=prepared" in overrides else ""
    formatted = tuple(item.format(folder=folder) for item in overrides)
    with pytest.raises(TrainingFailedError) as caught:
        train_run(tiny_request(tmp_path / "run", *formatted, "training.epochs=30"))
    info = results.read_run(tmp_path / "run")
    assert info["status"] == "failed"
    assert REASON.match(info["reason"]), info["reason"]
    assert info["reason"] == str(caught.value)
    rows = results.RunFolder.open(tmp_path / "run").history_rows()
    assert all(math.isfinite(row["nll"]) for row in rows)  # the rows before the failure are kept
    tally("loss that is not finite", 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_refused_before_training(value: float, tmp_path: Path, tally: Tally) -> None:
    folder = prepared_with(tmp_path / "data", value)
    with pytest.raises(
        InputError, match=r"train: audio: utterance \d+ of dialogue .* has a value that is not finite"
    ) as caught:
        train_run(tiny_request(tmp_path / "run", "data.source=prepared", f"data.root={folder}"))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()
    tally("feature that is not finite", 1)


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.soak("another launcher"))])
def test_one_of_a_stock_multirun_fails_and_the_others_are_trained(
    launcher: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    steady = ("training.max_grad_norm=0", "optimizer=sgd", "weights.encoder_loss_weight=1000000")
    command = sweeps.command(
        "grid", *steady, "optimizer.learning_rate=10,1e-9", "seed=1,2", f"hydra/launcher={launcher}"
    )
    done = sweeps.run(command, tmp_path, fork_server)
    folder = tmp_path / "multirun/grid"
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert [results.read_run(folder / str(n))["status"] for n in range(4)] == [
        "failed",
        "failed",
        "completed",
        "completed",
    ]
    assert REASON.match(results.read_run(folder / "0")["reason"])
    assert "joyful: 2 runs failed" in done.stderr
    assert "joyful: run 1 failed: epoch" in done.stderr
    tally("loss that is not finite", 2)


@pytest.mark.soak("takes 4 s; the test above has two failed runs")
def test_all_of_a_stock_multirun_fail_with_a_summary(fork_server: ForkServer, tmp_path: Path, tally: Tally) -> None:
    done = sweeps.run(sweeps.command("bad", *DIVERGES, "seed=1,2"), tmp_path, fork_server)
    assert done.returncode == 1
    assert "joyful: 2 runs failed" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    tally("loss that is not finite", 2)


@pytest.mark.soak("takes 8 s; a run and our sweep fail in the tests below")
def test_all_of_stock_optuna_fail_with_a_summary(fork_server: ForkServer, tmp_path: Path, tally: Tally) -> None:
    """The stock sweeper raises an error if no trial has a value, but the program ends with the summary."""
    chosen = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "seed=range(1,9)")
    done = sweeps.run(sweeps.command("bad", *DIVERGES, *chosen), tmp_path, fork_server)
    assert done.returncode == 1
    assert "joyful: 2 runs failed" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    tally("loss that is not finite", 2)


def test_all_of_our_sweep_fail_with_a_summary_and_retry_queues_them(
    fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    ours = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", "hydra.sweeper.trials=['seed=1','seed=2']")
    done = sweeps.run(sweeps.command("bad", *DIVERGES, *ours), tmp_path, fork_server)
    folder = tmp_path / "multirun/bad"
    assert done.returncode == 1
    assert "every trial failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sweeps.states(folder) == {0: "FAIL", 1: "FAIL"}
    assert all(REASON.match(trial.user_attrs["reason"]) for trial in sweeps.study(folder).trials)
    tally("loss that is not finite", 2)

    def sweeper(*arguments: str) -> str:
        done = fork_server.run(["-m", "joyful.sweeper", *arguments], tmp_path, os.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "trials 0, 1 are queued again" in sweeper("retry", str(folder), "--failed")
    snapshot = json.loads(sweeper("status", str(folder), "--json"))
    assert (snapshot["waiting"], snapshot["failed"], snapshot["best_value"]) == (2, 0, None)
    assert "no trial failed" in sweeper("retry", str(folder), "--failed")


def test_a_single_run_is_one_line_and_code_1(fork_server: ForkServer, tmp_path: Path, tally: Tally) -> None:
    command = [item for item in sweeps.command("x", *DIVERGES) if item != "-m"]
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 1
    *log, error = done.stderr.splitlines()
    assert not any(line.startswith("joyful: ") or "Traceback" in line for line in log)
    assert REASON.match(error.removeprefix("joyful: "))
    tally("loss that is not finite", 1)
