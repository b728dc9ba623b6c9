"""What does not fit is refused in one line that says what was expected, what came and what to set."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from joyful.data.description import text_encoder_digest
from joyful.prediction import export, load
from joyful.prediction.predictor import open_predictor
from joyful.records import InputError
from joyful.training.checkpoints import file_sha256
from tests.support.predicting import cache_vectors, train, write_corpus, write_encoder
from tests.support.runs import TINY


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of a run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def change(folder: Path, **data: object) -> None:
    """Change values of `data` in run.json; ... removes one. Other keys of run.json have the prefix run_."""
    info = json.loads((folder / "run.json").read_text())
    for name, value in data.items():
        place, key = (info, name[4:]) if name.startswith("run_") else (info["data"], name)
        if value is ...:
            del place[key]
        else:
            place[key] = value
    (folder / "run.json").write_text(json.dumps(info))


# --- what is not a model


def test_folders_without_a_model(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", tmp_path / "nothing", tmp_path / "empty" / "*"):
        with pytest.raises(InputError, match=r"expected (the folder of a run|folders of runs).*, found n"):
            load(name)
    with pytest.raises(InputError, match="expected at least one model, got none"):
        load([])


def test_a_sweep_is_refused_without_best(run, second):
    with pytest.raises(InputError, match=r"holds 2 runs \(.*/0, .*/1\); give one of them, .* or add --best"):
        load(run.parent)
    scores = {folder: json.loads((folder / "run.json").read_text())["objective"] for folder in (run, second)}
    (model,) = load(run.parent, best=True).models
    assert model.folder == max(scores, key=scores.get)


def test_best_skips_damaged_and_unfinished_runs(run, copy, tmp_path):
    change(copy, run_status="interrupted", run_objective=2.0)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    shutil.copytree(run, tmp_path / "whole")
    assert load(tmp_path, best=True).models[0].folder == tmp_path / "whole"


def test_a_run_without_an_evaluation_says_how_to_go_on(copy):
    shutil.rmtree(copy / "checkpoint")
    change(copy, run_status="interrupted")
    with pytest.raises(
        InputError, match=r"got one without checkpoint/best.json \(status interrupted\); resume it with"
    ):
        load(copy)


def test_a_running_run_is_used_with_a_note(corpus, copy):
    change(copy, run_status="running")
    model = load(copy)
    assert model.notes == (f"{copy} has the status running; its best evaluation so far is used",)
    with pytest.warns(UserWarning, match="has the status running; its best evaluation so far is used") as told:
        assert len(model.predict(corpus.split("test"))) == len(corpus.split("test"))
    assert [(len(told), warning.filename) for warning in told] == [(1, __file__)]


def test_a_checkpoint_that_is_replaced_while_it_is_read(copy, monkeypatch):
    """A running training replaces best.json and its tensors; the first read then finds no tensors."""
    from joyful.training import checkpoints

    original, calls = checkpoints.read, []

    def read(folder, name):
        if not calls:
            (folder / "best.json").write_text((folder / "best.json").read_text() + "\n")
        calls.append(name)
        if len(calls) == 1:
            raise InputError("checkpoint: its tensors are missing")
        return original(folder, name)

    monkeypatch.setattr(checkpoints, "read", read)
    load(copy)
    assert calls == ["best", "best"]


def test_damaged_weights(copy):
    (path,) = (copy / "checkpoint").glob("best-*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"best.json: expected a checkpoint written by joyful, got a damaged one"):
        load(copy)


def test_weights_of_another_model(copy):
    change(copy, labels=["a", "b", "c", "d"])
    with pytest.raises(InputError, match="expected weights that fit its configuration, got others"):
        load(copy)


def test_a_configuration_of_a_huge_model_takes_no_memory(copy):
    info = json.loads((copy / "run.json").read_text())
    info["config"]["model"] |= {"fusion_hidden_size": 1_000_000, "inter_size": 1_000_000}
    change(copy, run_config=info["config"])
    with pytest.raises(InputError, match="expected weights that fit its configuration, got others"):
        load(copy)


def test_weights_of_another_type(run, tmp_path):
    folder = export(run, tmp_path / "model")
    weights = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    document = json.loads((folder / "config.json").read_text())
    document["sha256"] = file_sha256(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"has the type torch\.float64, not torch\.float32"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_config": {}}, "expected a run that joyful trained, got one of another program"),
        ({"run_data": None}, "expected a run that describes its data, got one of version 0.1; train it again"),
        ({"dimensions": {"audio": "x"}}, "expected labels, dimensions and speakers of its data"),
        ({"labels": "joy"}, "expected labels, dimensions and speakers of its data"),
        ({"speakers": 0}, "expected labels, dimensions and speakers of its data"),
        ({"multilabel": 1}, "expected labels, dimensions and speakers of its data"),
    ],
)
def test_a_run_json_that_is_not_usable(copy, changes, message):
    change(copy, **changes)
    with pytest.raises(InputError, match=message):
        load(copy)


def test_a_run_of_an_earlier_version_is_used_with_a_note(corpus, run, copy):
    change(copy, text_encoder_digest=..., speakers=..., multilabel=...)
    model = load(copy)
    assert model.speakers == 2
    told = model.label(model.read(corpus.split("test")))
    assert told.notes == (f"the text encoder {corpus.encoder} could not be checked: the run did not record its digest",)
    assert told.frame.equals(load(run).predict(corpus.split("test")))


# --- ensembles


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", ["anger", "fear", "hope"]),
        ("dimensions", {"audio": 5, "text": 9}),
        ("multilabel", True),
        ("text_encoder_digest", "0" * 16),
    ],
)
def test_models_of_other_data_are_not_averaged(run, copy, name, value):
    change(copy, **{name: value})
    with pytest.raises(InputError, match=rf"{run} and {copy}: expected models with the same {name}, got .* and "):
        open_predictor([run, copy])


def test_a_model_without_a_digest_does_not_hide_two_that_differ(run, second, copy, tmp_path):
    old = Path(shutil.copytree(run, tmp_path / "old"))
    change(old, text_encoder_digest=None)
    change(copy, text_encoder_digest="0" * 16)
    assert len(open_predictor([old, run, second]).models) == 3
    for order in ([old, run, copy], [old, copy, run], [run, old, copy], [run, copy, old]):
        with pytest.raises(InputError, match="expected models with the same text_encoder_digest, got"):
            open_predictor(order)


def test_a_dialogue_must_fit_all_models(run, copy):
    change(copy, speakers=5)
    assert open_predictor([copy]).speakers == 5
    assert open_predictor([run, copy]).speakers == 2


def test_the_same_encoder_under_another_name_is_averaged(run, copy):
    change(copy, text_encoder="/elsewhere/encoder")
    assert len(load([run, copy]).models) == 2
    change(copy, text_encoder_digest=None)
    with pytest.raises(InputError, match="the same text_encoder, got"):
        load([run, copy])


# --- the text encoder


@pytest.fixture
def other(tmp_path):
    """A corpus of its own, whose encoder a test may change."""
    return write_corpus(tmp_path / "other", ("joy", "anger", "fear"))


@pytest.mark.slow
def test_an_encoder_that_has_changed(other):
    run = other.train(other.folder / "run", "modalities=t")
    before = text_encoder_digest(str(other.encoder), other.folder)
    write_encoder(other.encoder, "other weights")
    cache_vectors(other, [f"sentence {n}" for n in range(30)])
    found = text_encoder_digest(str(other.encoder), other.folder)
    with pytest.raises(
        InputError, match=rf"expected the encoder of the training \(.*, digest {before}\), got .* {found}"
    ):
        load(run)
    predictor = open_predictor(run)
    table = predictor.read(other.split("test"))
    with pytest.raises(InputError, match=f"digest {before}"):
        predictor.label(table)


@pytest.mark.slow
def test_an_encoder_elsewhere(other):
    run = other.train(other.folder / "run", "modalities=t")
    expected = load(run).predict(other.split("test"))
    moved = other.encoder.rename(other.folder / "moved")
    cache_vectors(other, [f"sentence {n}" for n in range(30)], moved)
    assert load(run, text_encoder=str(moved)).predict(other.split("test")).equals(expected)
    write_encoder(moved, "other weights")
    with pytest.raises(InputError, match="expected the encoder of the training"):
        load(run, text_encoder=str(moved))


@pytest.mark.slow
def test_an_encoder_that_is_not_here_but_cached(other):
    run = other.train(other.folder / "run", "modalities=t")
    shutil.rmtree(other.encoder)
    cache_vectors(other, [f"sentence {n}" for n in range(30)])
    predictor = load(run)
    told = predictor.label(predictor.read(other.split("test")))
    assert told.notes == (f"the text encoder {other.encoder} could not be checked: it is not on this machine",)


def test_vectors_of_another_width(corpus, run, copy):
    change(copy, dimensions={"audio": 5, "text": 9})
    predictor = open_predictor(copy)
    predictor.networks = []  # the weights would be refused first
    with pytest.raises(InputError, match="expected vectors of 9 numbers, as in training, got 8"):
        predictor.label(predictor.read(corpus.split("test")))


@pytest.mark.slow
def test_a_model_of_text_vectors_from_a_file_cannot_encode(tmp_path):
    train(tmp_path / "run", *TINY, "modalities=t")
    model = load(tmp_path / "run")
    table = pd.DataFrame({"dialogue": ["a"], "text": ["Hello"]})
    with pytest.raises(
        InputError, match=r"trained on vectors from a file \(9 numbers\).*; add columns text_0 to text_8"
    ):
        model.predict(table)
    for column in range(9):
        table[f"text_{column}"] = 0.1
    assert len(model.predict(table)) == 1


# --- the table


def test_a_table_that_does_not_fit(corpus, run):
    model, test = load(run), corpus.split("test")
    audio = [f"audio_{column}" for column in range(5)]
    for table, message in (
        (
            test.drop(columns=audio),
            r"expected features of the modality audio, .* \(5 numbers\), got none; add columns audio_0",
        ),
        (test.drop(columns="audio_4"), "expected 5 numbers of audio, as in training, got 4"),
        (test.assign(**dict.fromkeys(audio, np.nan)), "audio is missing in all utterances, but the model needs it"),
        (test.drop(columns="text"), "expected text, which the model needs, got none"),
        (test.drop(columns="dialogue"), "the DataFrame: expected a column 'dialogue'"),
        (test.iloc[:0], "the DataFrame has no rows"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(table)
    with pytest.raises(InputError, match="expected a file or a pandas DataFrame, got list"):
        model.predict([1, 2])


def test_a_label_column_of_the_run_may_be_absent(corpus, run, copy):
    info = json.loads((copy / "run.json").read_text())
    info["config"]["data"]["table"]["columns"]["label"] = "emotion"
    (copy / "run.json").write_text(json.dumps(info))
    test = corpus.split("test")
    model, expected = load(copy), load(run).predict(test)
    pd.testing.assert_frame_equal(model.predict(test.drop(columns="label")), expected.drop(columns="label"))
    pd.testing.assert_frame_equal(model.predict(test.rename(columns={"label": "emotion"})), expected)
    with pytest.raises(InputError, match="expected a column 'mood' for the label"):
        model.predict(test, {"label": "mood"})


def test_a_folder_of_tables_is_refused(corpus, run, tmp_path):
    for name in ("train.csv", "test.csv"):
        corpus.split("test").to_csv(tmp_path / name, index=False)
    with pytest.raises(
        InputError, match="expected one file with a table of dialogues, got a folder; predict its files one"
    ):
        load(run).predict(tmp_path)


def test_too_many_speakers_are_refused_before_anything_is_encoded(corpus, run):
    test = corpus.split("test")
    test["speaker"] = [f"s{n}" for n in range(len(test))]
    test["text"] = "is not in the cache"
    predictor = open_predictor(run)
    message = r"row 1: expected at most 2 speakers .* got \d in 'd11'; .* train with data.table.speakers=\d"
    with pytest.raises(InputError, match=message):
        predictor.label(predictor.read(test))
    assert "networks" not in vars(predictor)


@pytest.mark.slow
def test_a_run_can_be_trained_for_more_speakers_than_it_has(corpus, tmp_path):
    run = corpus.train(tmp_path / "run", "modalities=t", "data.table.speakers=6")
    test = corpus.split("test").groupby("dialogue").head(6).copy()
    test["speaker"] = [f"s{n % 6}" for n in range(len(test))]
    assert len(load(run).predict(test)) == len(test)


def test_files_that_cannot_be_read(run, copy, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(run).predict(tmp_path / "nothing.csv")
    if os.geteuid():
        (copy / "run.json").chmod(0)
        with pytest.raises(InputError, match="cannot be read"):
            load(copy)
