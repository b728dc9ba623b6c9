"""Selecting a trial of a search."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from joyful.results import InputError
from study.select_trial import choose, main, overrides, read_trials
from tests.support.analysis import write_run

ROOT = Path(__file__).resolve().parents[2]

#: run -> (encoder weight, status, dev weighted F1 at epochs 1, 2 and 3)
TRIALS = {
    "0": (0.001, "completed", (0.50, 0.61, 0.70)),
    "1": (0.002, "completed", (0.60, 0.69, 0.68)),  # the first to reach 0.6, one point below the best
    "2": (0.003, "completed", (0.62, 0.63, 0.64)),  # as fast, but six points below
    "10": (0.004, "completed", (0.20, 0.30, 0.40)),
    "3": (0.005, "failed", (0.99, 0.99, 0.99)),
}


@pytest.fixture
def search(tmp_path):
    for name, (rate, status, curve) in TRIALS.items():
        columns = {
            "step": [1, 1, 2, 2, 3, 3],
            "epoch": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
            "split": ["train", "dev"] * 3,
            "f1_weighted": [value for dev in curve for value in (1.0, dev)],
        }
        settings = {"role": "search", "weights.encoder_loss_weight": rate}
        write_run(tmp_path / "search" / name, columns, settings, seed=5000, status=status)
    return tmp_path / "search"


def test_the_first_at_the_target_of_those_that_are_good_enough(search):
    trials, settings = read_trials(search, target=0.6)
    assert list(trials.index) == ["0", "1", "2", "10"]
    assert list(trials["epochs"]) == [2.0, 1.0, 1.0, float("inf")]
    assert list(trials["f1"]) == [0.70, 0.69, 0.64, 0.40]
    assert settings == ("weights.encoder_loss_weight",)
    assert choose(trials, within=0.0) == ["0"]
    assert choose(trials, within=0.02) == ["1"]
    assert choose(trials, within=0.2) == ["1"]  # of two equally fast trials, the better one
    assert overrides(trials, "1", settings) == ["weights.encoder_loss_weight=0.002"]
    named = trials.assign(**{"loss.beta": 0.123456, "loss.name": "smoothl1"})
    assert overrides(named, "1", ["loss.beta", "loss.name"]) == ["loss=smoothl1", "loss.beta=0.1235"]


def test_where_none_reaches_the_target_the_best_is_taken(search):
    trials, _ = read_trials(search, target=0.9)
    assert choose(trials, within=0.05) == ["0"]


@pytest.fixture
def finalists(tmp_path):
    """Return a folder with two settings of two seeds each, whose dev F1 rises to a plateau with a noise of its own."""
    noise = np.random.default_rng(0).standard_normal(40)
    for rate, rise, size in ((0.1, 4, 0.02), (0.2, 5, 0.005)):
        for seed in (5001, 5002):
            epochs = np.arange(1.0, 41)
            dev = np.minimum(0.7, 0.7 * epochs / (rise + seed - 5001)) + size * noise
            columns = {
                "step": np.repeat(np.arange(1, 41), 2).tolist(),
                "epoch": np.repeat(epochs, 2).tolist(),
                "split": ["train", "dev"] * 40,
                "f1_weighted": np.repeat(dev, 2).tolist(),
            }
            settings = {"role": "comparison", "optimizer.learning_rate": rate}
            write_run(tmp_path / "finalists" / f"{rate}_{seed}", columns, settings, seed=seed)
    return tmp_path / "finalists"


def test_the_product_rule_weighs_epochs_and_spread_over_the_seeds_of_a_setting(finalists, capsys):
    trials, settings = read_trials(finalists, target=0.6)
    assert settings == ("optimizer.learning_rate",)
    assert trials["seeds"].tolist() == [2, 2]
    one, other = trials.index
    assert trials["epochs"][one] < trials["epochs"][other] == pytest.approx((5 * 6) ** 0.5, rel=0.2)
    assert trials["product"][one] == pytest.approx(4 * trials["product"][other], rel=0.3)  # spread 4 times as large
    assert choose(trials, within=0.1) == [one]
    assert choose(trials, within=0.1, rule="product") == [other]
    assert choose(trials, within=0.1, rule="product", count=3) == [other, one]
    command = [str(finalists), "--target", "0.6", "--within", "0.1", "--rule", "product", "--count", "2"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["optimizer.learning_rate=0.2", "optimizer.learning_rate=0.1"]
    assert ", spread 0." in lines[0] + lines[1]


def test_the_command_shows_every_trial_and_the_overrides_of_the_selected_one(search, capsys):
    assert main([str(search), "--target", "0.6", "--within", "0.02"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "* 1: 69.00 %, 1 epochs: weights.encoder_loss_weight=0.002"
    assert lines[3] == "  10: 40.00 %, not reached: weights.encoder_loss_weight=0.004"
    assert lines[-1] == "weights.encoder_loss_weight=0.002"


def test_a_closed_pipe_is_no_error(search):
    for number in range(400):  # more lines than the pipe and its reader hold
        shutil.copytree(search / "0", search / f"2{number:03}")
    command = [sys.executable, "-m", "study.select_trial", str(search), "--target", "0.6", "--within", "0.02"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT, text=True, pipesize=4096) as process:
        assert process.stdout.readline().startswith("  0: 70.00 %")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_bad_input_is_one_line(search, tmp_path, capsys):
    assert main([str(search), "--target", "62", "--within", "0.02"]) == 2
    assert "--target: expected a fraction from 0 to 1, got 62" in capsys.readouterr().err
    assert main([str(search), "--target", "0.6", "--within", "0.02", "--count", "0"]) == 2
    assert "--count: expected 1 or more, got 0" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="complete trials"):
        read_trials(tmp_path / "nothing", 0.5)
