"""Intervals for the scores of one run: the bootstrap over the dialogues of a split.

Utterances of one dialogue are not independent, so whole dialogues are drawn (the cluster bootstrap).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joyful.analysis.statistics import UNKNOWN, Estimate
from joyful.results.class_scores import SCORES, counts, per_class, scores
from joyful.results.schema import PROBABILITY

#: Number of resamples, which determine the interval to about a tenth of its width.
RESAMPLES = 2000


@dataclass(frozen=True)
class SplitScores:
    """Scores of a split with intervals. Fractions from 0 to 1.

    Attributes:
        scores: Name of a score (`joyful.results.class_scores.SCORES`) -> estimate.
        f1: Name of a class -> estimate of its F1.
        support: Name of a class -> number of utterances with this label.
    """

    scores: dict[str, Estimate]
    f1: dict[str, Estimate]
    support: dict[str, int]


def split_scores(
    predictions: pd.DataFrame, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> SplitScores:
    """Return the scores of a split with percentile intervals over its dialogues.

    Args:
        predictions: The rows of one split (see `joyful.results.read_predictions`).
        rng: Generator for the resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The scores. Limits are NaN with fewer than two dialogues. A resample without a label counts for no interval.

    Source:
        Field and Welsh (2007), Bootstrapping clustered data, JRSS B 69(3): the randomised cluster bootstrap.
    """
    names = [name.removeprefix(PROBABILITY) for name in predictions.columns if name.startswith(PROBABILITY)]
    true, predicted = (_matrix(predictions[column], names) for column in ("label", "predicted"))
    labelled = predictions["label"].notna().to_numpy()
    dialogue = np.cumsum(predictions["place"].to_numpy() == 0) - 1
    n = int(dialogue.max()) + 1 if len(dialogue) else 0
    of_dialogue = [counts(true[chosen], predicted[chosen]) for chosen in ((dialogue == i) & labelled for i in range(n))]
    sizes = np.bincount(dialogue[labelled], minlength=n)
    tables = np.array(of_dialogue).reshape(n, -1)

    def row(weights: np.ndarray) -> list[float]:
        table = (weights @ tables).reshape(4, -1)
        whole = scores(table, float(weights @ sizes))
        return [*(whole[name] for name in SCORES), *(found["f1"] for found in per_class(table, names).values())]

    if not labelled.any():
        return SplitScores(dict.fromkeys(SCORES, UNKNOWN), dict.fromkeys(names, UNKNOWN), dict.fromkeys(names, 0))
    draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples) if n > 1 else np.empty((0, n))
    sample = np.array([row(weights) for weights in draws if weights @ sizes > 0]).reshape(-1, len(SCORES) + len(names))
    estimates = [_estimate(value, sample[:, i], confidence) for i, value in enumerate(row(np.ones(n)))]
    support = tables.sum(axis=0).reshape(4, -1)[2].astype(int).tolist()
    return SplitScores(
        dict(zip(SCORES, estimates, strict=False)),
        dict(zip(names, estimates[len(SCORES) :], strict=True)),
        dict(zip(names, support, strict=True)),
    )


def _estimate(value: float, sample: np.ndarray, confidence: float) -> Estimate:
    known = sample[np.isfinite(sample)]
    if not len(known) or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _matrix(column: pd.Series, names: list[str]) -> np.ndarray:
    """Return labels as (N, C) bool. A row without a label is False everywhere."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.to_numpy(dtype=object)[:, None] == np.array(names, dtype=object)).astype(bool)
    return np.array([[row is not None and name in row for name in names] for row in column], dtype=bool).reshape(
        -1, len(names)
    )
