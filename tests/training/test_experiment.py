"""`train_run`: folder, results, resume, fork, and errors before training."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from joyful import results
from joyful.data import description
from joyful.data.loading import load
from joyful.records import InputError
from joyful.training import experiment
from joyful.training.coach import Coach, TrainingFailedError
from joyful.training.restoring import OtherDataError
from tests.support.runs import TINY, tiny_request


def train(folder: Path, *overrides: str) -> float:
    return experiment.train_run(tiny_request(folder, *overrides))


def history(folder: Path) -> bytes:
    return (folder / "history.parquet").read_bytes()


def stop_after(monkeypatch, epoch: float, error: BaseException) -> None:
    """Make training raise an error after the record of this epoch has been written."""
    original = Coach.train

    def train_until(self):
        for record in original(self):
            yield record
            if record.epoch == epoch:
                raise error

    monkeypatch.setattr(Coach, "train", train_until)


def test_a_run_writes_the_documented_files(tmp_path):
    objective = train(tmp_path / "run", "seed=3", "role=calibration", "training.evaluations_per_epoch=2")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(info) == {*results.RUN_KEYS, *results.OUTCOME_KEYS}
    assert info["data"] == {
        "name": "synthetic", "digest": info["data"]["digest"], "dimensions": {"audio": 5, "text": 9, "visual": 7},
        "text_encoder": "file", "text_encoder_digest": None, "labels": ["hap", "sad", "neu", "ang"],
        "speakers": 2, "multilabel": False,
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{16}", info["data"]["digest"])
    assert (info["status"], info["seed"], info["role"], info["epochs"], info["threads"]) == (
        "completed",
        3,
        "calibration",
        3,
        1,
    )
    assert info["objective"] == objective
    assert info["history_sha256"] == [hashlib.sha256(history(tmp_path / "run")).hexdigest()]
    assert info["choices"]["loss"] == "mse"
    assert info["config"]["weights"]["encoder_loss_weight"] == 0.03
    frame = results.load(tmp_path)
    dev = frame[frame["split"] == "dev"]
    assert list(dev["epoch"]) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert dev["f1_weighted"].max() == objective
    assert len(frame[frame["split"] == "train"]) == 3
    best = frame[frame["epoch"] == dev.loc[dev["f1_weighted"].idxmax(), "epoch"]].set_index("split")
    assert info["confusion"]["labels"] == info["data"]["labels"]
    for split in ("dev", "test"):
        matrix = np.array(info["confusion"][split])
        assert matrix.shape == (4, 4)
        assert matrix.trace() / matrix.sum() == pytest.approx(best.loc[split, "accuracy"])
    timing = results.RunFolder.open(tmp_path / "run").timing_rows()
    assert {row["phase"] for row in timing} == {"train", "evaluate", "write", "checkpoint"}
    assert [row["epoch"] for row in timing if row["phase"] == "checkpoint"] == [1.0, 2.0, 3.0]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoint").glob("*.json")) == ["best.json", "last.json"]


def test_a_complete_run_is_not_trained_again(tmp_path, monkeypatch):
    objective = train(tmp_path / "run")
    monkeypatch.setattr(Coach, "train", lambda self: pytest.fail("trained again"))
    assert train(tmp_path / "run") == objective


def test_the_final_status_is_written_last(tmp_path, monkeypatch):
    """Leftover files of a run with a final status would never be removed."""
    original, files = results.RunFolder.set_status, {}

    def record_files(run, status, *values, **named):
        files[status] = sorted(path.name for path in (run.path / "checkpoint").glob("*.json"))
        original(run, status, *values, **named)

    monkeypatch.setattr(results.RunFolder, "set_status", record_files)
    train(tmp_path / "run")
    assert files["completed"] == ["best.json", "last.json"]


MORE = pytest.mark.soak("takes 3 s; another epoch")


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [pytest.param(1.0, marks=MORE), 2.0, pytest.param(3.0, marks=MORE)])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, monkeypatch, epoch):
    objective = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, epoch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    assert results.read_run(tmp_path / "broken")["status"] == "interrupted"
    assert train(tmp_path / "elsewhere", f"resume={tmp_path / 'broken'}") == objective
    assert history(tmp_path / "broken") == history(tmp_path / "whole")
    assert results.read_run(tmp_path / "broken")["status"] == "completed"
    assert results.read_run(tmp_path / "broken")["confusion"] == results.read_run(tmp_path / "whole")["confusion"]
    assert not (tmp_path / "elsewhere").exists()


def test_the_same_command_on_the_same_folder_resumes(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2.0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    train(tmp_path / "broken")
    assert history(tmp_path / "broken") == history(tmp_path / "whole")


def test_resuming_with_another_setting_is_refused_with_the_difference(tmp_path, tally):
    train(tmp_path / "run")
    before = history(tmp_path / "run")
    with pytest.raises(InputError, match=r"training\.epochs: 3 -> 5.*fork="):
        train(tmp_path / "x", f"resume={tmp_path / 'run'}", "training.epochs=5")
    with pytest.raises(InputError, match=r"loss\.name: 'mse' -> 'smoothl1'"):
        train(tmp_path / "x", f"resume={tmp_path / 'run'}", "loss=smoothl1")
    with pytest.raises(InputError, match=r"a different configuration.*seed: 24 -> 25"):
        train(tmp_path / "run", "seed=25")
    assert history(tmp_path / "run") == before
    tally("resume with a changed configuration", 3)


@pytest.mark.slow
def test_a_fork_continues_into_a_new_folder(tmp_path, tally):
    train(tmp_path / "run")
    longer = tmp_path / "longer"
    train(longer, f"fork={tmp_path / 'run'}", "training.epochs=5", "weights.encoder_loss_weight=0.5")
    train(tmp_path / "whole", "training.epochs=5")
    rows, whole = (results.RunFolder.open(folder).history_rows() for folder in (longer, tmp_path / "whole"))
    assert [row["epoch"] for row in rows if row["split"] == "dev"] == [1, 2, 3, 4, 5]
    assert rows[:9] == whole[:9]
    assert rows[9]["weight_encoder"] == 0.5 != whole[9]["weight_encoder"]
    assert results.read_run(tmp_path / "run")["epochs"] == 3
    tally("fork with a changed configuration", 1)


def test_a_fork_that_changes_the_model_is_refused(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(InputError, match="one of this model"):
        train(tmp_path / "new", f"fork={tmp_path / 'run'}", "model.hidden_size=16")


def test_other_data_are_refused_on_resume(tmp_path, monkeypatch, tally):
    with monkeypatch.context() as patch:
        stop_after(patch, 2.0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run")
    monkeypatch.setattr(description, "data_digest", lambda data: "other")
    with pytest.raises(InputError, match="expected the data that the run was trained on"):
        train(tmp_path / "x", f"resume={tmp_path / 'run'}")
    tally("resume with other data", 1)


def test_a_complete_run_and_the_other_runs_of_a_multirun_are_not_mixed_with_other_data(tmp_path, monkeypatch):
    train(tmp_path / "0")
    digest = results.read_run(tmp_path / "0")["data"]["digest"]
    monkeypatch.setattr(description, "data_digest", lambda data: "other")
    message = (
        rf"/0: expected the data that the run was trained on \(digest {digest}\), got different .* \(digest other\)"
    )
    with pytest.raises(OtherDataError, match=message):
        train(tmp_path / "0")
    with pytest.raises(OtherDataError, match=message):
        train(tmp_path / "1", "seed=2")
    assert not (tmp_path / "1").exists()
    train(tmp_path / "2", "data.synthetic.seed=3")  # other settings of the data may have other data
    run_json = tmp_path / "0/run.json"
    info = json.loads(run_json.read_text())
    del info["data"]
    run_json.write_text(json.dumps(info))  # as version 0.1 wrote it
    train(tmp_path / "0")
    train(tmp_path / "1", "seed=2")


def test_other_names_of_the_classes_are_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2.0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "0")
    before = (tmp_path / "0/run.json").read_bytes()
    monkeypatch.setattr(experiment, "load", lambda *of: replace(load(*of), labels=("hap", "sad", "neu", "calm")))
    message = (
        r"/0: expected the classes that the run was trained on \(hap, sad, neu, ang\), got hap, sad, neu, calm; provide"
    )
    for folder, *overrides in (("x", f"resume={tmp_path / '0'}"), ("y", f"fork={tmp_path / '0'}"), ("1", "seed=2")):
        with pytest.raises(InputError, match=message):
            train(tmp_path / folder, *overrides)
    assert (tmp_path / "0/run.json").read_bytes() == before


def test_resume_of_nothing_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"resume=.*expected the folder of a run"):
        train(tmp_path / "x", f"resume={tmp_path / 'nothing'}")
    with pytest.raises(InputError, match="got both"):
        train(tmp_path / "x", "resume=a", "fork=b")


def test_a_failed_run_says_why(tmp_path):
    with pytest.raises(TrainingFailedError):
        train(tmp_path / "run", "optimizer=sgd", "optimizer.learning_rate=10", "training.max_grad_norm=0",
              "weights.encoder_loss_weight=1000000", "training.epochs=20")  # fmt: skip
    info = results.read_run(tmp_path / "run")
    assert info["status"] == "failed"
    assert "epoch" in info["reason"]


def test_a_locked_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with results.lock(tmp_path / "run"), pytest.raises(InputError, match=f"pid.*{os.getpid()}|{os.getpid()}"):
        train(tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("modalities=tv", "data.synthetic.dimensions={audio: 5}"), "modalities"),
        (("model.context=transformer", "model.context_heads=5"), "model.context_heads"),
        (("data.source=nowhere",), "nowhere"),
        (("training.evaluations_per_epoch=99",), "training.evaluations_per_epoch"),
    ],
)
def test_bad_settings_are_refused_before_training(tmp_path, monkeypatch, overrides, message):
    monkeypatch.setattr(Coach, "_train_step", lambda *_: pytest.fail("a step was trained"))
    request = tiny_request(tmp_path / "run")
    config = (
        tiny_request(tmp_path / "run", *overrides).config if "dimensions" not in overrides[-1] else _without(request)
    )
    with pytest.raises(InputError, match=message):
        experiment.train_run(replace(request, config=config))


def _without(request: experiment.Request) -> dict:
    config = json.loads(json.dumps(request.config))
    config["data"]["synthetic"]["dimensions"] = {"audio": 5}
    config["modalities"] = "tv"
    return config


def test_missing_cuda_is_one_clear_line():
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is available")
    with pytest.raises(
        InputError, match="device=cuda: expected a CUDA device, found none; set device=auto or device=cpu"
    ):
        experiment.choose_device("cuda")
    assert experiment.choose_device("auto") == torch.device("cpu")


def test_threads_are_all_cores_alone_and_one_in_a_multirun():
    assert experiment.choose_threads("auto", multirun=True) == 1
    assert experiment.choose_threads("auto", multirun=False) == len(os.sched_getaffinity(0))
    assert experiment.choose_threads(3, multirun=True) == 3


def test_a_run_uses_deterministic_algorithms_without_filling_memory(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        experiment.prepare_torch(torch.device("cpu"), torch.get_num_threads())
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(before)


def test_tiny_overrides_are_the_ones_that_tests_rely_on():
    assert "training.threads=1" in TINY  # bytes are compared, and they depend on the number of threads
