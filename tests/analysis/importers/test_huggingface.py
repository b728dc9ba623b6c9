"""Import of Hugging Face's trainer_state.json."""

import json

import pytest

from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal

SOURCE = FIXTURES / "huggingface"
OPTIONS = ("--arm-from", "^lr_([0-9.]+)", "--seed-from", "seed_(.)")


def test_the_last_state_of_each_run_is_read():
    runs = read_runs_of("huggingface", SOURCE, *OPTIONS)
    assert [(run.name, run.arm, run.seed) for run in runs] == [
        ("lr_0.01-seed_1/trainer_state.json", "0.01", 1),
        ("lr_0.1-seed_1/trainer_state.json", "0.1", 1),
    ]
    run = runs[1]
    assert curve(run, "dev", "accuracy") == [(6, 0.9166666666666666), (12, 1.0)]
    assert curve(run, "dev", "loss", "epoch") == [(1.0, 0.48471951484680176), (2.0, 0.3957017660140991)]
    assert curve(run, "train", "loss", "epoch") == [
        (0.6666666666666666, 0.7666429877281189), (1.3333333333333333, 0.5289646983146667), (2.0, 0.40032070875167847),
    ]  # fmt: skip
    assert curve(run, "train", "seconds") == [(4, 0.1815), (8, 0.4133), (12, 0.4279)]
    assert curve(run, "dev", "tokens") == [(6, 48), (12, 96)]


def test_a_checkpoint_stands_for_its_run(tmp_path):
    source = copied("huggingface", tmp_path)
    for path in source.glob("*/trainer_state.json"):
        path.unlink()
    runs = read_runs_of("huggingface", source, *OPTIONS)
    assert [curve(run, "dev", "accuracy") for run in runs][1] == [(6, 0.9166666666666666), (12, 1.0)]
    assert [run.name for run in runs][1] == "lr_0.1-seed_1/trainer_state.json"


def test_a_resumed_run_and_an_evaluation_that_was_logged_twice(tmp_path):
    log = [
        {"step": 5, "epoch": 0.5, "loss": 2.0, "train_runtime": 10.0},
        {"step": 10, "epoch": 1.0, "loss": 1.0, "train_runtime": 3.0},
        {"step": 10, "epoch": 1.0, "eval_loss": 0.7},
        {"step": 10, "epoch": 1.0, "eval_loss": 0.6},
    ]
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "trainer_state.json").write_text(json.dumps({"global_step": 10, "log_history": log}))
    run = read_runs_of("huggingface", tmp_path, "--arm", "a", "--seed-from", "run-(.)")[0]
    assert curve(run, "train", "seconds") == [(5, 10.0), (10, 13.0)]
    assert curve(run, "dev", "loss") == [(10, 0.6)]
    assert run.repeated == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"step": 6', '"step": 6,,', "trainer_state.json, line 30: not JSON"),
        ("0.9166666666666666", '"x"', "entry 2 of log_history: eval_accuracy: expected a number, got 'x'"),
        ('"step": 6', '"stop": 6', "entry 2 of log_history: expected an object with an integer step"),
        ('"log_history"', '"log"', "expected an object with the list log_history"),
        ('"epoch": 1.0', '"epoch": -1.0', "entry 2 of log_history: epoch: expected a number >= 0, got '-1'"),
    ],
)
def test_damaged_files_are_refused_with_the_entry(tmp_path, old, new, message):
    path = copied("huggingface", tmp_path) / "lr_0.1-seed_1" / "trainer_state.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert message in refusal("huggingface", tmp_path / "huggingface", *OPTIONS)


def test_a_truncated_file_is_refused(tmp_path):
    path = copied("huggingface", tmp_path) / "lr_0.1-seed_1" / "trainer_state.json"
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path}, line 3" in refusal("huggingface", tmp_path / "huggingface", *OPTIONS)
