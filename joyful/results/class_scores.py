"""Scores of classes and of a whole split, from counts of true and predicted labels.

    F1_c = 2 tp_c / (predicted_c + support_c)
    f1_weighted = sum_c support_c F1_c / sum_c support_c      an F1 without a denominator counts as 0
    f1_macro = mean of F1_c over the classes that occur in the labels or the predictions

For multi-label data each label is one class, and the accuracy is the fraction of utterances whose labels are all
predicted correctly.

Counts are an array of shape (4, C). Row 0 has the true positives, row 1 the predicted labels and row 2 the support of
each class. Element [3, 0] is the number of utterances whose labels are all correct. Counts of batches can be added.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Scores of a split, as columns of history.parquet.
SCORES = ("accuracy", "f1_weighted", "f1_macro")


def counts(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count the labels of utterances.

    Args:
        true: (N, C) bool, the labels.
        predicted: (N, C) bool, the predictions.

    Returns:
        The (4, C) counts.
    """
    result = np.zeros((4, true.shape[1]))
    result[0] = (true & predicted).sum(axis=0)
    result[1] = predicted.sum(axis=0)
    result[2] = true.sum(axis=0)
    result[3, 0] = (true == predicted).all(axis=1).sum()
    return result


def counts_of_confusion(matrix: np.ndarray) -> np.ndarray:
    """Return the (4, C) counts of a confusion matrix, whose rows are the labels and columns the predictions."""
    result = np.zeros((4, len(matrix)))
    result[0], result[1], result[2] = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    result[3, 0] = matrix.trace()
    return result


def confusion(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count the labels by the predicted classes.

    Args:
        true: (N, C) bool with one label in each row.
        predicted: (N, C) bool with one class in each row.

    Returns:
        (C, C) int64: row i and column j hold the utterances of class i that are predicted as class j.

    Example:
        >>> one_hot = np.eye(2, dtype=bool)
        >>> confusion(one_hot[[0, 0, 1]], one_hot[[0, 1, 1]]).tolist()
        [[1, 1], [0, 1]]
    """
    return true.T.astype(np.int64) @ predicted.astype(np.int64)


def scores(total: np.ndarray, utterances: float) -> dict[str, float]:
    """Return accuracy, weighted F1 and macro F1.

    Args:
        total: The (4, C) counts of a split.
        utterances: Number of utterances of the split that have a label.

    Returns:
        "accuracy", "f1_weighted" and "f1_macro" -> fraction from 0 to 1.

    Example:
        >>> one_hot = np.eye(2, dtype=bool)
        >>> total = counts(one_hot[[0, 1, 1, 1]], one_hot[[0, 0, 1, 1]])
        >>> {name: round(value, 3) for name, value in scores(total, 4).items()}
        {'accuracy': 0.75, 'f1_weighted': 0.767, 'f1_macro': 0.733}
    """
    hit, predicted, support = total[0], total[1], total[2]
    f1 = np.divide(2 * hit, predicted + support, out=np.zeros_like(hit), where=predicted + support > 0)
    occurs = predicted + support > 0
    weight = support.sum()
    return {
        "accuracy": float(total[3, 0] / utterances),
        "f1_weighted": float((support * f1).sum() / weight) if weight else 0.0,
        "f1_macro": float(f1[occurs].mean()) if occurs.any() else 0.0,
    }


def per_class(total: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the scores of each class.

    Args:
        total: The (4, C) counts of a split.
        names: C names of classes.

    Returns:
        Name -> "precision", "recall", "f1" (fractions from 0 to 1; NaN where the denominator is 0) and "support" (the
        number of utterances that have the label).

    Example:
        >>> one_hot = np.eye(2, dtype=bool)
        >>> per_class(counts(one_hot[[0, 1, 1]], one_hot[[1, 1, 1]]), ["joy", "fear"])["fear"]
        {'precision': 0.6666666666666666, 'recall': 1.0, 'f1': 0.8, 'support': 2}
    """
    return {
        name: {
            "precision": _ratio(hit, predicted),
            "recall": _ratio(hit, support),
            "f1": _ratio(2 * hit, predicted + support),
            "support": int(support),
        }
        for name, hit, predicted, support in zip(names, *total[:3].tolist(), strict=True)
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
