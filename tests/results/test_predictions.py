"""predictions.parquet: the bytes that are written, and reading of good and of hostile files."""

import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from joyful import results
from joyful.records import InputError
from joyful.results.predictions import SplitPredictions, predictions_bytes
from joyful.results.tables import decode_predictions, history_bytes
from tests.support.analysis import NOTE_ARMS, history, write_run


def part(true, predicted, labelled=None, lengths=(2, 1)):
    true = np.array(true, dtype=bool)
    return SplitPredictions(
        dialogues=[f"d{i}" for i in range(len(lengths))],
        lengths=np.array(lengths),
        true=true,
        labelled=np.ones(len(true), dtype=bool) if labelled is None else np.array(labelled),
        predicted=np.array(predicted, dtype=bool),
        probabilities=np.array(predicted, dtype=np.float32) * np.float32(0.75),
    )


ONE = part([[1, 0], [0, 1], [0, 0]], [[1, 0], [1, 0], [0, 1]], [True, True, False])
SEVERAL = part([[1, 1], [0, 0], [0, 0]], [[1, 0], [1, 1], [0, 0]], [True, True, False])


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path, history(NOTE_ARMS[0], 3, 2, np.random.default_rng(1), np.random.default_rng(2)), {})

    def put(data, digest=None):
        (tmp_path / results.PREDICTIONS).write_bytes(data)
        info = json.loads((tmp_path / "run.json").read_text())
        info["predictions_sha256"] = digest or hashlib.sha256(data).hexdigest()
        (tmp_path / "run.json").write_text(json.dumps(info))
        return tmp_path

    return put


def test_one_label(run):
    folder = run(predictions_bytes({"dev": ONE, "test": ONE}, ["joy", "fear"], multilabel=False))
    frame = results.read_predictions(folder)
    assert list(frame.columns) == [*results.PREDICTION_COLUMNS, "probability_joy", "probability_fear"]
    assert list(frame["split"]) == ["dev"] * 3 + ["test"] * 3
    dev = frame[frame["split"] == "dev"]
    assert list(dev["dialogue"]) == ["d0", "d0", "d1"]
    assert list(dev["place"]) == [0, 1, 0]
    assert list(dev["label"][:2]) == ["joy", "fear"]
    assert pd.isna(dev["label"][2])
    assert list(dev["predicted"]) == ["joy", "joy", "fear"]
    assert list(dev["probability_joy"]) == [0.75, 0.75, 0.0]
    assert frame["probability_joy"].dtype == np.float32


def test_lists_of_labels(run):
    folder = run(predictions_bytes({"dev": SEVERAL, "test": SEVERAL}, ["joy", "fear"], multilabel=True))
    frame = results.read_predictions(folder)
    assert list(frame["label"]) == [["joy", "fear"], [], None] * 2
    assert list(frame["predicted"]) == [["joy"], ["joy", "fear"], []] * 2


def test_other_programs_read_the_file(run):
    folder = run(predictions_bytes({"dev": ONE}, ["joy", "fear"], multilabel=False))
    frame = pd.read_parquet(folder / results.PREDICTIONS)
    assert list(frame["label"][:2]) == ["joy", "fear"]
    assert [str(kind) for kind in frame.dtypes] == ["str", "str", "int32", "str", "str", "float32", "float32"]


def test_strange_names_of_classes_and_dialogues(run):
    labels = ["joy", "a\ud800b", "joy (2)", "", "🙂 =,\n", "joy"]
    assert results.class_names(labels) == ("joy", "a\\ud800b", "joy (2)", "", "🙂 =,\n", "joy (3)")
    assert results.class_names(["joy", "joy", "joy (2)"]) == ("joy", "joy (2)", "joy (2) (2)")
    each = np.eye(6, dtype=bool)
    strange = SplitPredictions(
        ["\ud800", "d\n"], np.array([4, 2]), each, np.ones(6, bool), each, each.astype(np.float32)
    )
    frame = results.read_predictions(run(predictions_bytes({"dev": strange}, labels, multilabel=False)))
    assert list(frame["label"]) == list(results.class_names(labels))
    assert list(frame["dialogue"].unique()) == ["\\ud800", "d\n"]
    assert [name.removeprefix("probability_") for name in frame.columns[5:]] == list(results.class_names(labels))


def test_a_run_without_predictions_has_none(tmp_path, run):
    folder = run(b"from a run that was pruned and then resumed")
    info = json.loads((folder / "run.json").read_text())
    del info["predictions_sha256"]
    (folder / "run.json").write_text(json.dumps(info))
    assert results.read_predictions(folder) is None


def test_damage_is_one_clear_line(run):
    good = predictions_bytes({"dev": ONE}, ["joy", "fear"], multilabel=False)
    with pytest.raises(InputError, match=r"predictions\.parquet: its SHA-256 is not in run\.json"):
        results.read_predictions(run(good, digest="0" * 64))
    folder = run(good)
    (folder / results.PREDICTIONS).unlink()
    with pytest.raises(InputError, match=r"predictions\.parquet: it is missing; restore it from a copy"):
        results.read_predictions(folder)
    with pytest.raises(InputError, match=r"predictions\.parquet: it cannot be read as a Parquet file"):
        results.read_predictions(run(b"PAR1"))
    with pytest.raises(InputError, match=r"expected the columns split, dialogue, place.*got step, epoch, split"):
        results.read_predictions(run(history_bytes([])))


def written(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, store_schema=False)
    return sink.getvalue().to_pybytes()


TEXT = pa.array(["x", "y"])
GOOD = {"split": TEXT, "dialogue": TEXT, "place": pa.array([0, 1], pa.int32()), "label": TEXT, "predicted": TEXT}


@pytest.mark.parametrize(
    "changed",
    [
        {"place": pa.array([0.0, 1.0])},
        {"label": pa.array([1, 2])},
        {"predicted": pa.array([["x"], []])},
        {"dialogue": pa.array([b"\xff", b"x"])},
        {"joy": pa.array([0.5, 0.5], pa.float32())},
        {"probability_joy": pa.array(["a", "b"])},
    ],
)
def test_columns_of_other_types_are_refused(changed):
    assert decode_predictions(written(**GOOD)).num_rows == 2
    with pytest.raises(InputError, match="expected the columns"):
        decode_predictions(written(**{**GOOD, **changed}))


def test_a_long_text_that_is_repeated_takes_its_memory_once(run):
    n = 20_000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * 2**20]))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), text)
    place = pa.array(np.zeros(n, np.int32))
    for label in (text, lists):  # as text, these columns would be 80 GB
        data = written(split=text, dialogue=text, place=place, label=label, predicted=label)
        frame = results.read_predictions(run(data))
        assert len(frame) == n


def test_the_outcome_goes_when_a_pruned_run_goes_on(tmp_path):
    keys = ("objective_name", "role", "epochs", "config_hash", "device", "threads", "choices", "config", "seed")
    run = results.RunFolder.create(tmp_path / "run", dict.fromkeys(keys))
    run.set_status("pruned", "why", 0.5, {"predictions_sha256": "x", "per_class": {"dev": {}}})
    assert list(results.read_run(tmp_path / "run"))[-2:] == ["per_class", "predictions_sha256"]
    run.set_status("running")
    assert not results.OUTCOME_KEYS.keys() & results.read_run(tmp_path / "run").keys()
    with pytest.raises(InputError, match="outcome: expected keys of per_class, confusion, predictions_sha256, got f1"):
        run.set_status("completed", outcome={"f1": 1})
