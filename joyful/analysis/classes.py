"""Scores per class at the best evaluation, as run.json records them. The file is not trusted: what has another form is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joyful.results import class_names
from joyful.results.class_scores import counts_of_confusion, per_class

#: The splits that have scores per class.
EVALUATED = ("dev", "test")


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class in one split. Fractions from 0 to 1; NaN where nothing can be divided.

    Attributes:
        precision: Share of the utterances with this prediction that have the label.
        recall: Share of the utterances with the label that have this prediction.
        f1: Harmonic mean of both.
        support: Number of utterances that have the label.
    """

    precision: float
    recall: float
    f1: float
    support: int


def classes(info: Mapping[str, Any]) -> dict[str, dict[str, ClassScores]]:
    """Return the scores of each class by split, empty if the run recorded none.

    They are `per_class` of run.json. A run of an earlier version has its confusion matrices, from which they follow.

    Args:
        info: Content of run.json.
    """
    recorded = info.get("per_class")
    if isinstance(recorded, Mapping):
        found = {split: _scores(recorded.get(split)) for split in EVALUATED}
    else:
        found = {split: _scores(_of_confusion(labels, matrix)) for split, (labels, matrix) in confusions(info).items()}
    return {split: scores for split, scores in found.items() if scores}


def confusions(info: Mapping[str, Any]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return the class names and the confusion matrix by split, empty if the run recorded none.

    Args:
        info: Content of run.json.
    """
    recorded = info.get("confusion")
    labels = recorded.get("labels") if isinstance(recorded, Mapping) else None
    if not isinstance(recorded, Mapping) or not isinstance(labels, list):
        return {}
    found = {}
    for split in EVALUATED:
        try:
            matrix = np.array(recorded[split], dtype=float)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if matrix.shape == (len(labels), len(labels)) and len(labels):
            found[split] = list(class_names(labels)), matrix
    return found


def _of_confusion(labels: Sequence[str], matrix: np.ndarray) -> dict[str, dict[str, Any]]:
    valid = np.isfinite(matrix).all() and (matrix >= 0).all()
    return per_class(counts_of_confusion(matrix), labels) if valid else {}


def _scores(recorded: Any) -> dict[str, ClassScores]:
    if not isinstance(recorded, Mapping):
        return {}
    try:
        return {name: _class_scores(scores) for name, scores in recorded.items()}
    except (KeyError, TypeError, ValueError, OverflowError):
        return {}


def _class_scores(scores: Mapping[str, Any]) -> ClassScores:
    precision, recall, f1 = (_fraction(scores[key]) for key in ("precision", "recall", "f1"))
    return ClassScores(precision, recall, f1, _count(scores["support"]))


def _fraction(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError
    return value
