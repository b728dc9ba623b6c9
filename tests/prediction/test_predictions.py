"""Predictions: equal to those of the run's own evaluation, whatever the batch, for one model or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.data.loading import load as load_data
from joyful.prediction import load
from joyful.records import InputError
from joyful.results import read_predictions
from tests.support.predicting import cache_vectors, table_of, train
from tests.support.runs import TINY, tiny_settings

CLASSES = ["probability_anger", "probability_fear", "probability_joy"]


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Assert that probabilities differ by rounding at most. The last bit depends on the alignment of the features."""
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=0, atol=2e-7)


def test_the_predictions_are_those_of_the_best_evaluation(corpus, run):
    own = read_predictions(run)
    own = own[own["split"] == "test"].reset_index(drop=True)
    found = load(run).predict(corpus.split("test"))
    assert list(found.columns) == ["dialogue", "place", "speaker", "text", "label", "predicted", *CLASSES]
    assert found["predicted"].tolist() == own["predicted"].tolist()
    same(found[CLASSES], own[CLASSES])
    assert found["probability_joy"].dtype == np.float32
    np.testing.assert_allclose(found[CLASSES].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("modalities=atv",), ("modalities=v", "model.context=lstm"), ("model.context=transformer", "training.precision=bf16"),
     ("model.context=gru", "fusion=hierarchical", "fusion.use_ulgm=true", "training.moving_average=0.9")],
    ids=lambda options: options[-1],
)  # fmt: skip
def test_a_run_of_another_source_takes_tables_with_the_default_names(tmp_path, options):
    overrides = (*TINY, *options, "data.synthetic.speakers=3")
    train(tmp_path / "run", *overrides)
    settings = tiny_settings(*overrides[len(TINY) :])
    data = load_data(settings.data, settings.modality_names)
    found = load(tmp_path / "run").predict(table_of(data, "test"))
    own = read_predictions(tmp_path / "run")
    own = own[own["split"] == "test"].reset_index(drop=True)
    assert found["predicted"].tolist() == own["predicted"].tolist()
    names = [name for name in found if name.startswith("probability_")]
    same(found[names], own[names])


def test_a_column_split_is_ignored(corpus, run):
    model, test = load(run), corpus.split("test")
    splits = [("train", "dev")[row % 2] for row in range(len(test))]  # training refuses a dialogue in two splits
    assert model.predict(test.assign(split=splits)).equals(model.predict(test))


def test_a_prediction_does_not_depend_on_the_other_dialogues(corpus, run):
    model, test = load(run), corpus.split("test")
    together = model.predict(test)
    for _, rows in test.groupby("dialogue"):
        alone = model.predict(rows)
        np.testing.assert_allclose(alone[CLASSES], together.loc[rows.index, CLASSES], atol=1e-6)
        assert alone["predicted"].tolist() == together.loc[rows.index, "predicted"].tolist()


def test_the_rows_have_the_order_of_the_table(corpus, run):
    model, test = load(run), corpus.split("test")
    expected = model.predict(test).set_index(["dialogue", "place"])
    shuffled = test.sample(frac=1, random_state=1)
    found = model.predict(shuffled)
    assert found["place"].tolist() == shuffled["place"].tolist()
    assert found["text"].tolist() == shuffled["text"].tolist()
    found = found.set_index(["dialogue", "place"]).loc[expected.index]
    # other first rows, so other batches; the slots of the speakers are counted in the order of the places
    np.testing.assert_allclose(found[CLASSES], expected[CLASSES], atol=1e-6)


def test_several_models_predict_the_mean_of_their_probabilities(corpus, run, second):
    test = corpus.split("test")
    one, other = (load(folder).predict(test)[CLASSES].to_numpy(np.float64) for folder in (run, second))
    assert not np.allclose(one, other)
    model = load([run, second])
    found = model.predict(test)
    np.testing.assert_allclose(found[CLASSES], (one + other) / 2, rtol=1e-6)
    names = np.array(model.labels)[((one + other) / 2).argmax(axis=1)]
    assert found["predicted"].tolist() == names.tolist()
    assert load(f"{run.parent}/*").predict(test).equals(found)
    assert load([run, run, str(run)]).predict(test).equals(load(run).predict(test))  # a model counts once


def test_several_labels_at_once_and_missing_audio(several, several_run):
    own = read_predictions(several_run)
    own = own[own["split"] == "test"].reset_index(drop=True)
    test = several.split("test")
    assert test["audio_0"].isna().any()
    found = load(several_run).predict(test)
    assert found["predicted"].tolist() == own["predicted"].tolist()
    same(found[CLASSES], own[CLASSES])
    for predicted, row in zip(found["predicted"], found[CLASSES].to_numpy(), strict=True):
        assert predicted == [name for name, p in zip(["anger", "fear", "joy"], row, strict=True) if p > 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("standardised", [True, False])
def test_missing_features_are_filled_as_in_training(several, tmp_path, standardised):
    run = several.train(tmp_path / "run", "modalities=a", f"model.standardise={str(standardised).lower()}")
    own = read_predictions(run)
    model = load(run)
    found = model.predict(several.split("test"))
    lacking = several.split("test")["audio_0"].isna().sum()
    (note,) = model.label(model.read(several.split("test"))).notes
    assert note == f"{lacking} of {len(found)} utterances lack audio; it is filled as in training"
    same(found[CLASSES], own.loc[own["split"] == "test", CLASSES])


def test_scores_are_those_of_the_utterances_with_a_label(corpus, run):
    import json

    model = load(run)
    test = corpus.split("test")
    told = model.label(model.read(test))
    rows = pd.read_parquet(run / "history.parquet")
    best = json.loads((run / "checkpoint" / "best.json").read_text())["state"]["best"]
    row = rows[(rows["split"] == "test") & (rows["step"] == best["step"])].iloc[0]
    assert told.labelled == test["label"].notna().sum() < len(test)
    assert told.scores == {name: pytest.approx(row[name]) for name in ("accuracy", "f1_weighted", "f1_macro")}
    without = model.label(model.read(test.drop(columns="label")))
    assert (without.scores, without.labelled) == ({}, 0)
    assert "label" not in without.frame
    assert without.frame[CLASSES].equals(told.frame[CLASSES])


def test_labels_of_other_classes_are_not_scored(corpus, run):
    model = load(run)
    table = corpus.split("test").assign(label="surprise")
    told = model.label(model.read(table))
    assert told.scores == {}
    assert "no scores, because the labels are not those of the model" in told.notes[-1]
    assert "surprise" in told.notes[-1]


def test_columns_can_have_other_names_and_need_no_dialogue(corpus, run):
    model, test = load(run), corpus.split("test")
    renamed = test.rename(columns={"text": "message", "speaker": "who"})
    expected = model.predict(test)
    assert model.predict(renamed, {"text": "message", "speaker": "who"}).equals(expected)
    one = test[test["dialogue"] == "d12"].reset_index(drop=True)
    found = model.predict(one.drop(columns="dialogue"), {"dialogue": None})
    assert found["predicted"].tolist() == expected.loc[expected["dialogue"] == "d12", "predicted"].tolist()
    with pytest.raises(InputError, match="columns: expected one of dialogue, place, speaker, text, label, got 'txt'"):
        model.predict(test, {"txt": "message"})


@pytest.mark.slow
def test_a_run_with_its_own_names_of_columns_keeps_them(corpus, tmp_path):
    table = corpus.table.rename(columns={"text": "message"})
    table.to_parquet(tmp_path / "other.parquet", index=False)
    run = corpus.train(
        tmp_path / "run", f"data.root={tmp_path / 'other.parquet'}", "data.table.columns.text=message", "modalities=t"
    )
    test = table[table["split"] == "test"].drop(columns="split")
    own = read_predictions(run)
    assert load(run).predict(test)["predicted"].tolist() == own.loc[own["split"] == "test", "predicted"].tolist()


def test_text_vectors_of_the_table_are_used_with_a_note(corpus, run):
    model = load(run)
    table = corpus.split("test").drop(columns="text")
    for column in range(8):
        table[f"text_{column}"] = np.float32(0.5)
    told = model.label(model.read(table))
    assert "has vectors of text; they are used as they are" in told.notes[0]
    assert len(told.frame) == len(table)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_files_give_what_a_frame_gives(corpus, run, tmp_path, ending):
    test, path = corpus.split("test"), tmp_path / f"chat.{ending}"
    if ending == "csv":
        test.to_csv(path, index=False)
    elif ending == "jsonl":
        test.to_json(path, orient="records", lines=True, double_precision=15)
    else:
        test.to_parquet(path)
    model = load(run)
    pd.testing.assert_frame_equal(model.predict(path), model.predict(test), rtol=1e-6)


def test_new_texts_are_looked_up_in_the_cache_of_the_run(corpus, run, second):
    cache_vectors(corpus, ["never seen before"])
    table = pd.DataFrame({"dialogue": ["x"], "text": ["never seen before"]} | {f"audio_{c}": [0.1] for c in range(5)})
    assert len(load([run, second]).predict(table)) == 1


def test_the_example_of_the_module(corpus, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus.split("test").to_csv("chat.csv", index=False)
    Path("outputs").mkdir()
    Path("outputs/run").symlink_to(run)
    model = load("outputs/run")
    table = model.predict("chat.csv")
    assert set(table["predicted"]) <= set(model.labels)
