"""The predictions, scores per class and confusion matrices that a run leaves: they are those of its best evaluation."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics as sklearn_metrics

from joyful import results
from joyful.data.loading import load
from joyful.prediction.saved import open_model
from joyful.records import InputError
from joyful.training import checkpoints, experiment
from joyful.training.coach import Coach
from joyful.training.progress import closing_table
from tests.support.runs import tiny_request, tiny_settings

LABELS = ("hap", "sad", "neu", "ang")

#: Settings of a run whose best evaluation is the second of four.
SECOND_BEST = ("optimizer.learning_rate=0.05", "training.epochs=4", "seed=5")


def train(folder, *overrides, observer=None):
    return experiment.train_run(tiny_request(folder, *overrides), observer)


def dataset(multilabel=False, unlabelled=False):
    """The tiny dataset, on request with several labels at once, and with every fifth utterance without a label."""
    settings = tiny_settings()
    data, rng = load(settings.data, settings.modality_names), np.random.default_rng(0)
    splits = {}
    for name, part in data.splits.items():
        several = (rng.random((len(part.labels), 4)) < 0.5).astype(np.float32)
        labels = several if multilabel else part.labels.copy()
        if unlabelled:
            labels[::5] = -1
        splits[name] = replace(part, labels=labels)
    return replace(data, multilabel=multilabel, splits=splits)


def as_numbers(frame, multilabel):
    """Labels and predictions in the form that scikit-learn expects."""
    if not multilabel:
        return frame["label"].astype(str), frame["predicted"].astype(str)
    return tuple(np.array([[name in row for name in LABELS] for row in frame[c]]) for c in ("label", "predicted"))


@pytest.mark.slow
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("more", [(), ("training.moving_average=0.9", "training.evaluations_per_epoch=2")])
def test_the_scores_follow_from_the_predictions(tmp_path, monkeypatch, multilabel, more):
    data = dataset(multilabel, unlabelled=bool(more))
    monkeypatch.setattr(experiment, "load", lambda *_: data)
    # so fast that the best evaluation is not the last
    folder = tmp_path / "run"
    objective = train(folder, "optimizer.learning_rate=0.05", "training.epochs=6", *more)
    info, frame = results.read_run(folder), results.read_predictions(folder)
    rows = results.RunFolder.open(folder).history_rows()
    best = max((row for row in rows if row["split"] == "dev"), key=lambda row: row["f1_weighted"])
    assert best["step"] < rows[-1]["step"]
    for split in ("dev", "test"):
        (row,) = (row for row in rows if row["split"] == split and row["step"] == best["step"])
        part, expected = frame[frame["split"] == split], data.splits[split]
        assert list(part["label"].notna()) == list(expected.labelled)
        assert list(part["dialogue"].unique()) == list(expected.ids)
        assert list(part["place"]) == [place for length in expected.lengths for place in range(length)]
        part, labels = part[part["label"].notna()], expected.labels[expected.labelled]
        true, predicted = as_numbers(part, multilabel)
        for name in ("weighted", "macro"):
            score = sklearn_metrics.f1_score(true, predicted, average=name, zero_division=0)
            if name == "weighted" or multilabel or set(true) | set(predicted) == set(LABELS):
                assert score == pytest.approx(row[f"f1_{name}"], abs=1e-12)
        assert sklearn_metrics.accuracy_score(true, predicted) == pytest.approx(row["accuracy"], abs=1e-12)
        probabilities = part[[f"probability_{name}" for name in LABELS]].to_numpy()
        if multilabel:
            assert np.array_equal(probabilities > 0.5, predicted)
            assert "confusion" not in info
        else:
            assert [LABELS[c] for c in probabilities.argmax(axis=1)] == list(predicted)
            assert probabilities.sum(axis=1) == pytest.approx(1)
            matrix = sklearn_metrics.confusion_matrix(true, predicted, labels=LABELS)
            assert info["confusion"][split] == matrix.tolist()
            likelihood = probabilities[np.arange(len(part)), labels]
            assert -np.log(likelihood).mean() == pytest.approx(row["nll"], rel=1e-4)
        columns = sklearn_metrics.precision_recall_fscore_support(
            true, predicted, zero_division=np.nan, labels=None if multilabel else LABELS
        )
        for c, name in enumerate(LABELS):
            found = [np.nan if value is None else value for value in info["per_class"][split][name].values()]
            assert found == pytest.approx([column[c] for column in columns], nan_ok=True)
    assert objective == best["f1_weighted"]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1.0, pytest.param(3.0, marks=pytest.mark.soak("takes 3 s; other epochs")), 4.0])
def test_a_killed_run_leaves_the_same_bytes(tmp_path, monkeypatch, epoch):
    """The best evaluation is the second, before or after the kill; at the last epoch only the end was missing."""
    train(tmp_path / "whole", *SECOND_BEST)
    best = checkpoints.read(tmp_path / "whole/checkpoint", "best").state["best"]
    assert best["epoch"] == 2
    original = Coach.train

    def train_until(self):
        for record in original(self):
            yield record
            if record.epoch == epoch:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Coach, "train", train_until)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", *SECOND_BEST)
    assert not (tmp_path / "killed" / results.PREDICTIONS).exists()
    train(tmp_path / "killed", *SECOND_BEST)
    whole, killed = ((tmp_path / name / results.PREDICTIONS).read_bytes() for name in ("whole", "killed"))
    assert killed == whole
    infos = [results.read_run(tmp_path / name) for name in ("whole", "killed")]
    assert all(infos[0][key] == infos[1][key] for key in results.OUTCOME_KEYS)
    assert infos[0]["predictions_sha256"] == hashlib.sha256(whole).hexdigest()


class PruneAfter:
    def __init__(self, epoch):
        self.epoch = epoch

    def evaluated(self, record, best):
        return record.epoch < self.epoch


@pytest.mark.slow
def test_a_pruned_run_has_predictions_and_new_ones_after_it_has_gone_on(tmp_path):
    with pytest.raises(experiment.PrunedError):
        train(tmp_path / "pruned", *SECOND_BEST, observer=PruneAfter(1))
    first = results.read_predictions(tmp_path / "pruned")
    assert first is not None
    train(tmp_path / "pruned", *SECOND_BEST)
    train(tmp_path / "whole", *SECOND_BEST)
    whole, pruned = ((tmp_path / name / results.PREDICTIONS).read_bytes() for name in ("whole", "pruned"))
    assert pruned == whole
    assert not first.equals(results.read_predictions(tmp_path / "pruned"))


def without_logits(original):
    """Return `Coach.state_dict` of an earlier version, which kept no logits of the best evaluation."""

    def state_dict(self):
        whole = original(self)
        return checkpoints.Checkpoint({k: v for k, v in whole.tensors.items() if "logits" not in k}, whole.state)

    return state_dict


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("training.moving_average=0.5", "training.evaluations_per_epoch=2")])
def test_a_checkpoint_of_an_earlier_version_gives_the_same_bytes(tmp_path, monkeypatch, more):
    """A run that is resumed from it evaluates its best model again, and trains on as if nothing had happened."""
    train(tmp_path / "whole", *SECOND_BEST, *more)
    with monkeypatch.context() as patch:
        patch.setattr(Coach, "state_dict", without_logits(Coach.state_dict))
        with pytest.raises(experiment.PrunedError):
            train(tmp_path / "run", *SECOND_BEST, *more, observer=PruneAfter(3))
    (tmp_path / "run" / results.PREDICTIONS).unlink()
    train(tmp_path / "run", *SECOND_BEST, *more)
    for name in (results.PREDICTIONS, "history.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    infos = [results.read_run(tmp_path / name) for name in ("whole", "run")]
    assert all(infos[0][key] == infos[1][key] for key in results.OUTCOME_KEYS)
    whole, run = (load_file(next((tmp_path / name / "checkpoint").glob("last-*"))) for name in ("whole", "run"))
    assert whole.keys() == run.keys()
    assert all(torch.equal(whole[name], run[name]) for name in whole)


@pytest.mark.slow
def test_without_its_best_model_such_a_run_says_that_it_has_no_predictions(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Coach, "state_dict", without_logits(Coach.state_dict))
        with pytest.raises(experiment.PrunedError):
            train(tmp_path / "run", *SECOND_BEST, observer=PruneAfter(3))
    (tmp_path / "run" / "checkpoint" / "best.json").unlink()
    (tmp_path / "run" / results.PREDICTIONS).unlink()
    train(tmp_path / "run", *SECOND_BEST)
    told = "the model of the best evaluation so far is lost; until there is a better one, the run has no best model"
    assert capsys.readouterr().err.count(f"{told}, and no predictions and scores per class\n") == 1
    assert results.read_run(tmp_path / "run")["status"] == "completed"
    assert results.read_predictions(tmp_path / "run") is None
    assert not results.OUTCOME_KEYS.keys() & results.read_run(tmp_path / "run").keys()


#: Settings of a fork that trains on, but finds no better evaluation.
STAYS = ("training.epochs=5", "optimizer.learning_rate=1e-12")


@pytest.mark.slow
def test_a_fork_without_a_better_evaluation_has_the_model_of_its_source(tmp_path):
    train(tmp_path / "run", *SECOND_BEST)
    train(tmp_path / "fork", f"fork={tmp_path / 'run'}", *STAYS)
    train(tmp_path / "again", f"fork={tmp_path / 'fork'}", "training.epochs=6")
    best, *others = (checkpoints.read(tmp_path / name / "checkpoint", "best") for name in ("run", "fork", "again"))
    predictions = (tmp_path / "run" / results.PREDICTIONS).read_bytes()
    for name, other in zip(("fork", "again"), others, strict=True):
        assert other.state == best.state
        assert all(torch.equal(value, best.tensors[key]) for key, value in other.tensors.items())
        assert (tmp_path / name / results.PREDICTIONS).read_bytes() == predictions


@pytest.mark.slow
def test_a_fork_of_a_run_with_a_damaged_best_model_goes_on(tmp_path, capsys):
    train(tmp_path / "run", *SECOND_BEST)
    (tmp_path / "run/checkpoint/best.json").write_text("{")
    capsys.readouterr()
    train(tmp_path / "fork", f"fork={tmp_path / 'run'}", *STAYS)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "best" in line and "lost" in line)
    assert "got a damaged one" in line
    assert "predictions" not in line
    assert results.read_run(tmp_path / "fork")["status"] == "completed"
    assert not (tmp_path / "fork/checkpoint/best.json").exists()
    assert (tmp_path / "fork" / results.PREDICTIONS).read_bytes() == (
        tmp_path / "run" / results.PREDICTIONS
    ).read_bytes()
    with pytest.raises(
        InputError, match=r"\(status completed\); restore its checkpoint from a copy, or train it again"
    ):
        open_model(tmp_path / "fork")


def test_logits_of_other_data_are_refused(tmp_path, monkeypatch):
    saved = Coach.state_dict

    def cut(self):
        whole = saved(self)
        tensors = {k: v[1:] if "logits" in k else v for k, v in whole.tensors.items()}
        return checkpoints.Checkpoint(tensors, whole.state)

    with monkeypatch.context() as patch:
        patch.setattr(Coach, "state_dict", cut)
        with pytest.raises(experiment.PrunedError):
            train(tmp_path / "run", observer=PruneAfter(1))
    with pytest.raises(InputError, match="its logits are those of other data"):
        train(tmp_path / "run")


def test_the_table_at_the_end_shows_each_class(tmp_path, capsys):
    train(tmp_path / "run")
    info = results.read_run(tmp_path / "run")
    closing_table("joyful", tmp_path, info, {}, 1.0)
    text = capsys.readouterr().out
    for name, scores in info["per_class"]["test"].items():
        f1 = "–" if scores["f1"] is None else f"{100 * scores['f1']:.1f} %"
        assert re.search(rf"│ {name} .*│ +{f1} │ +{scores['support']} │\n", text), text
    closing_table("joyful", tmp_path, {"status": "completed"}, {}, 1.0)
    assert "F1 per class" not in capsys.readouterr().out


def test_the_table_of_many_classes_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    scores = {f"[class] {i} of many, with a long name": {"f1": 1.0, "support": 10**6 + i} for i in range(30)}
    closing_table("joyful", "folder", {"status": "x", "per_class": {"dev": scores, "test": scores}}, {}, 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "18 more in run.json" in "\n".join(lines)
    assert [line.split("of")[0].split()[-1] for line in lines if "[class]" in line] == [str(i) for i in range(18, 30)]
