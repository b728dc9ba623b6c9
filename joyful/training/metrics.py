"""Classification scores from counts that stay on the device until the split is done.

    F1_c = 2 tp_c / (predicted_c + support_c)      0 where both are 0
    f1_weighted = sum_c support_c F1_c / sum_c support_c
    f1_macro = mean of F1_c over the classes that occur in the labels or the predictions

For several labels at once each label is a class of its own and accuracy is the share of utterances with all labels
right.
Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def counts(logits_NC: Tensor, labels: Tensor) -> Tensor:
    """(4, C) float64 of one batch: true positives, predicted, support, and utterances with every label right in [3, 0].

    labels: (N,) classes, decided by the largest logit, or (N, C) zeros and ones, decided at logit 0. No wait for the
    device.
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


def scores(total: np.ndarray, utterances: int) -> dict[str, float]:
    """{"accuracy", "f1_weighted", "f1_macro"}, fractions, from the sum of `counts` over a split of `utterances`."""
    hit, predicted, support = total[0], total[1], total[2]
    f1 = np.divide(2 * hit, predicted + support, out=np.zeros_like(hit), where=predicted + support > 0)
    occurs = predicted + support > 0
    weight = support.sum()
    return {
        "accuracy": float(total[3, 0] / utterances),
        "f1_weighted": float((support * f1).sum() / weight) if weight else 0.0,
        "f1_macro": float(f1[occurs].mean()) if occurs.any() else 0.0,
    }
