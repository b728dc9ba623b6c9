"""Utterances without a label are context only, and a missing modality is the mean of the training split."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from joyful.data.description import data_digest
from joyful.data.loading import load, select_modalities
from joyful.data.validation import validate
from joyful.losses.classification import class_weights
from joyful.records import SPLITS, InputError
from joyful.training import objective
from joyful.training.experiment import build_coach
from tests.support.runs import tiny_settings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset_of(settings):
    return load(settings.data, settings.modality_names)


def without_labels(data, share, multilabel=False):
    """Remove the labels of a random share of the utterances of each split."""
    splits = {}
    for number, (split, part) in enumerate(data.splits.items()):
        labels = np.eye(len(data.labels), dtype=np.float32)[part.labels] if multilabel else part.labels.copy()
        labels[np.random.default_rng(number).random(len(labels)) < share] = -1
        splits[split] = replace(part, labels=labels)
    return replace(data, splits=splits, multilabel=multilabel)


def without_modality(data, modality, share=0.3):
    """Remove a modality from a random share of the utterances of each split."""
    splits = {}
    for number, (split, part) in enumerate(data.splits.items()):
        missing = np.random.default_rng(number).random(len(part.labels)) < share
        features = {name: x.copy() for name, x in part.features.items()}
        features[modality][missing] = 0.0
        splits[split] = replace(part, features=features, missing={modality: missing})
    return replace(data, splits=splits)


def logits_of(coach, split):
    coach.model.eval()
    with torch.inference_mode():
        return torch.cat([coach.model(batch).logits for batch in coach.splits[split].batches_in_order(3)])


@pytest.mark.parametrize("multilabel", [False, True])
def test_scores_are_those_of_the_labelled_utterances(multilabel):
    settings = tiny_settings("training.epochs=1", "training.train_metrics=full")
    data = without_labels(dataset_of(settings), 0.4, multilabel)
    validate(data)
    coach = build_coach(settings, data, CPU)
    (record,) = coach.train()
    for row in record.rows:
        part, logits = data.splits[row["split"]], logits_of(coach, row["split"])
        scored = part.labelled
        assert 0 < scored.sum() < len(scored)
        true = part.labels[scored]
        predicted = ((logits > 0).int() if multilabel else logits.argmax(dim=1)).numpy()[scored]
        f1 = sklearn_metrics.f1_score(true, predicted, average="weighted", zero_division=0)
        assert row["f1_weighted"] == pytest.approx(f1)
        assert row["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
        chosen, expected = logits[torch.from_numpy(scored)], torch.from_numpy(true)
        loss = torch.nn.BCEWithLogitsLoss() if multilabel else torch.nn.CrossEntropyLoss()
        assert row["nll"] == pytest.approx(loss(chosen, expected).item(), rel=1e-5)
        assert row["loss_classification"] == pytest.approx(row["nll"], rel=1e-5)


@pytest.mark.parametrize("overrides", [(), ("classification=focal",)])
def test_an_unlabelled_utterance_enters_no_classification_loss(overrides):
    """The gradient of the loss with respect to the logits of unlabelled utterances is 0."""
    settings = tiny_settings(*overrides)
    data = without_labels(dataset_of(settings), 0.5)
    coach = build_coach(settings, data, CPU)
    batch = coach.splits["train"].batch(np.arange(3))
    logits = torch.randn(batch.n_utterances, len(data.labels), requires_grad=True)
    objective.classification_loss(logits, batch, coach._criterion).backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(dim=1) > 0
    assert touched.tolist() == (batch.labels >= 0).tolist()


def test_class_weights_count_labels_only():
    settings = tiny_settings("classification.class_weight=inverse")
    data = dataset_of(settings)
    labels = data.splits["train"].labels
    partial = np.where(np.arange(len(labels)) % 2, labels, -1)
    train = replace(data.splits["train"], labels=partial)
    coach = build_coach(settings, replace(data, splits={**data.splits, "train": train}), CPU)
    expected = class_weights(torch.bincount(torch.from_numpy(labels[1::2]), minlength=len(data.labels)), "inverse")
    host_labels = coach.splits["train"].host_labels
    found = objective.weights_of_classes(settings.classification, host_labels, len(data.labels))
    assert found is not None
    assert torch.equal(found, expected)


def test_a_batch_without_labels_trains_the_other_losses():
    settings = tiny_settings("training.epochs=1", "training.batch_size=1", "training.train_metrics=running")
    data = dataset_of(settings)
    train = data.splits["train"]
    labels = train.labels.copy()
    labels[train.lengths[0] :] = -1  # only the first dialogue has labels
    coach = build_coach(settings, replace(data, splits={**data.splits, "train": replace(train, labels=labels)}), CPU)
    (record,) = coach.train()
    row = next(row for row in record.rows if row["split"] == "train")
    assert all(np.isfinite(row[name]) for name in ("nll", "loss_classification", "loss_encoder", "f1_weighted"))
    assert row["loss_encoder"] > 0


def test_unlabelled_utterances_change_the_predictions_of_others():
    """They are context: without them, the predictions of their neighbours differ."""
    settings = tiny_settings()
    data = without_labels(dataset_of(settings), 0.4)
    coach = build_coach(settings, data, CPU)
    before = logits_of(coach, "dev")
    coach.splits["dev"].features["text"][torch.from_numpy(~data.splits["dev"].labelled)] += 1.0
    after = logits_of(coach, "dev")
    scored = torch.from_numpy(data.splits["dev"].labelled)
    assert not torch.equal(before[scored], after[scored])


@pytest.mark.parametrize("modality", ["audio", "text", "visual"])
def test_a_missing_modality_is_0_after_standardisation(modality):
    settings = tiny_settings("model.standardise=true")
    data = without_modality(dataset_of(settings), modality)
    validate(data)
    coach = build_coach(settings, data, CPU)
    layer = coach.model.standardise[modality]
    train = data.splits["train"]
    present = train.features[modality][~train.missing[modality]].astype(np.float64)
    assert layer.mean.numpy() == pytest.approx(present.mean(axis=0), abs=1e-6)
    for split in SPLITS:
        scaled = layer(coach.splits[split].features[modality])
        missing = torch.from_numpy(data.splits[split].missing[modality])
        assert missing.any()
        assert (scaled[missing] == 0).all()
        assert (scaled[~missing] != 0).any()


def test_a_missing_modality_stays_0_without_standardisation():
    settings = tiny_settings("model.standardise=false")
    data = without_modality(dataset_of(settings), "audio")
    coach = build_coach(settings, data, CPU)
    missing = torch.from_numpy(data.splits["dev"].missing["audio"])
    assert (coach.splits["dev"].features["audio"][missing] == 0).all()


def test_the_digest_tells_missing_features_from_features_of_0():
    settings = tiny_settings()
    data = without_modality(dataset_of(settings), "audio")
    zeros = replace(data, splits={name: replace(part, missing={}) for name, part in data.splits.items()})
    assert data_digest(data) != data_digest(zeros)


def test_only_the_masks_of_the_chosen_modalities_are_kept():
    settings = tiny_settings()
    data = without_modality(dataset_of(settings), "audio")
    assert select_modalities(data, settings.data, ("text",)).splits["dev"].missing == {}
    assert list(select_modalities(data, settings.data, ("audio",)).splits["dev"].missing) == ["audio"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: {"labels": np.full_like(part.labels, -1)}, "a label for at least one utterance expected"),
        (lambda part: {"labels": np.full_like(part.labels, -2)}, "labels from -1 to 3 expected, got -2"),
        (lambda part: {"missing": {"audio": np.ones(len(part.labels), bool)}}, "audio: 0 where it is missing"),
        (lambda part: {"missing": {"audio": np.zeros(2, bool)}}, "missing: audio bool of shape"),
        (lambda part: {"missing": {"smell": np.zeros(len(part.labels), bool)}}, "missing: one of"),
    ],
)
def test_invalid_partial_data_is_refused(change, message):
    data = dataset_of(tiny_settings())
    part = data.splits["dev"]
    with pytest.raises(InputError, match=message):
        validate(replace(data, splits={**data.splits, "dev": replace(part, **change(part))}))


def test_a_modality_that_no_training_utterance_has_is_refused():
    data = dataset_of(tiny_settings())
    train = data.splits["train"]
    features = {**train.features, "audio": np.zeros_like(train.features["audio"])}
    part = replace(train, features=features, missing={"audio": np.ones(len(train.labels), bool)})
    with pytest.raises(InputError, match="audio in at least one utterance expected, got none"):
        validate(replace(data, splits={**data.splits, "train": part}))
