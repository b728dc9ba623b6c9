"""Scores of classes and splits from counts, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from joyful.results.class_scores import confusion, counts, counts_of_confusion, per_class, scores


def one_hot(places, classes):
    return np.asarray(places)[:, None] == np.arange(classes)


@pytest.fixture
def labels():
    rng = np.random.default_rng(3)
    true = rng.integers(4, size=57)  # class 4 does not occur in the labels
    return true, np.where(rng.random(57) < 0.6, true, rng.integers(5, size=57))


def test_classes_against_sklearn(labels):
    true, predicted = labels
    found = per_class(counts(one_hot(true, 5), one_hot(predicted, 5)), "abcde")
    expected = sklearn_metrics.precision_recall_fscore_support(true, predicted, labels=range(5), zero_division=np.nan)
    for c, name in enumerate("abcde"):
        assert list(found[name].values()) == pytest.approx([column[c] for column in expected], nan_ok=True)


def test_several_labels_at_once_against_sklearn():
    rng = np.random.default_rng(4)
    true = rng.random((57, 5)) < 0.4
    predicted = true ^ (rng.random((57, 5)) < 0.2)
    found = per_class(counts(true, predicted), "abcde")
    expected = sklearn_metrics.precision_recall_fscore_support(true, predicted, zero_division=np.nan)
    for c, name in enumerate("abcde"):
        assert list(found[name].values()) == pytest.approx([column[c] for column in expected], nan_ok=True)


def test_the_confusion_matrix_against_sklearn(labels):
    true, predicted = labels
    matrix = confusion(one_hot(true, 5), one_hot(predicted, 5))
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(true, predicted, labels=range(5)))
    assert np.array_equal(counts_of_confusion(matrix), counts(one_hot(true, 5), one_hot(predicted, 5)))


def test_what_cannot_be_divided_is_not_a_number():
    found = per_class(counts(one_hot([0, 0], 3), one_hot([0, 1], 3)), "abc")
    assert found["a"] == {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2}
    assert (found["b"]["precision"], found["b"]["f1"], found["b"]["support"]) == (0.0, 0.0, 0)
    assert math.isnan(found["b"]["recall"])
    assert all(math.isnan(found["c"][name]) for name in ("precision", "recall", "f1"))


def test_scores_are_plain_numbers():
    assert all(type(value) is float for value in scores(np.zeros((4, 2)), 1).values())
