"""Counts for classification scores, on the device. `joyful.results.class_scores` turns them into scores.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def counts(logits_NC: Tensor, labels: Tensor) -> Tensor:
    """Count correct and predicted labels of one batch, without waiting for the device.

    Args:
        logits_NC: (N, C) logits.
        labels: (N,) class indices, predicted by the largest logit; or (N, C) zeros and ones, each predicted as 1 for a
            positive logit.

    Returns:
        A (4, C) float64 tensor. Row 0 has the true positives, row 1 the predicted labels and row 2 the support of each
        class. Element [3, 0] is the number of utterances whose labels are all correct. Counts of batches can be added.
    """
    c = logits_NC.shape[1]
    if labels.ndim == 2:
        predicted, true = logits_NC > 0, labels > 0.5
    else:
        classes = torch.arange(c, device=logits_NC.device)
        predicted, true = logits_NC.argmax(dim=1, keepdim=True) == classes, labels.unsqueeze(1) == classes
    result = torch.zeros(4, c, dtype=torch.float64, device=logits_NC.device)
    result[0] = (predicted & true).sum(dim=0)
    result[1] = predicted.sum(dim=0)
    result[2] = true.sum(dim=0)
    result[3, 0] = (predicted == true).all(dim=1).sum()
    return result
