"""Classification scores from counts that stay on the device until the end of a split.

    F1_c = 2 tp_c / (predicted_c + support_c)      0 if the denominator is 0
    f1_weighted = sum_c support_c F1_c / sum_c support_c
    f1_macro = mean of F1_c over the classes that occur in the labels or the predictions

For multi-label data each label is one class, and the accuracy is the fraction of utterances whose labels are all
predicted correctly.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import numpy as np
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


def confusion(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Count the labels by the predicted classes of one batch, without waiting for the device.

    Args:
        logits_NC: (N, C) logits.
        labels_N: (N,) class indices.

    Returns:
        A (C, C) float64 tensor: row i and column j hold the utterances of class i that are predicted as class j. Counts of
        batches can be added.

    Example:
        >>> confusion(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    classes = torch.arange(logits_NC.shape[1], device=logits_NC.device)
    true, predicted = (of.unsqueeze(1) == classes for of in (labels_N, logits_NC.argmax(dim=1)))
    return true.double().T @ predicted.double()


def scores(total: np.ndarray, utterances: int) -> dict[str, float]:
    """Return accuracy, weighted F1 and macro F1.

    Args:
        total: (4, C) sum of `counts` over the batches of a split.
        utterances: Number of utterances of the split.

    Returns:
        "accuracy", "f1_weighted" and "f1_macro" -> fraction from 0 to 1.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 1, 1, 1])
        >>> {name: round(value, 3) for name, value in scores(counts(logits, labels).numpy(), 4).items()}
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
