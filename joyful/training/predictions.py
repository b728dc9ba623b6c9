"""The predictions of a run at its best evaluation, from the logits that its checkpoints keep.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from joyful.records import DialogueDataset, Dialogues
from joyful.results import class_names
from joyful.results.class_scores import confusion, counts, per_class
from joyful.results.predictions import SplitPredictions


def predict(data: DialogueDataset, logits: Mapping[str, Tensor]) -> dict[str, SplitPredictions]:
    """Return the predictions of some splits.

    Args:
        data: The dataset.
        logits: Split -> (N, C) logits, on any device.

    Returns:
        Split -> predictions. A label of multi-label data is predicted for a positive logit, otherwise the class with the
        largest logit is.
    """
    return {split: _predict(data, data.splits[split], values) for split, values in logits.items()}


def scores(data: DialogueDataset, predicted: Mapping[str, SplitPredictions]) -> dict[str, Any]:
    """Return the scores of predictions for run.json.

    Args:
        data: The dataset.
        predicted: The result of `predict`.

    Returns:
        "per_class" and, unless the data are multi-label, "confusion" (see `joyful.results.OUTCOME_KEYS`). Utterances without
        a label are left out.
    """
    labelled = {split: (part.true[part.labelled], part.predicted[part.labelled]) for split, part in predicted.items()}
    names = class_names(data.labels)
    found: dict[str, Any] = {"per_class": {split: per_class(counts(*pair), names) for split, pair in labelled.items()}}
    if not data.multilabel:
        matrices = {split: confusion(*pair).tolist() for split, pair in labelled.items()}
        found["confusion"] = {"labels": list(data.labels), **matrices}
    return found


def _predict(data: DialogueDataset, part: Dialogues, logits: Tensor) -> SplitPredictions:
    values, labels = logits.detach().cpu().double(), part.labels
    if data.multilabel:
        true, predicted, probabilities = labels > 0.5, values.numpy() > 0, values.sigmoid()
    else:
        classes = np.arange(len(data.labels))
        true, predicted = labels[:, None] == classes, values.argmax(dim=1, keepdim=True).numpy() == classes
        probabilities = values.softmax(dim=1)
    return SplitPredictions(
        dialogues=part.ids,
        lengths=part.lengths,
        true=true,
        labelled=part.labelled,
        predicted=predicted,
        probabilities=probabilities.float().numpy(),
    )
