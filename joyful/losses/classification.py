"""Classification losses: cross-entropy (NLL), focal loss, and binary cross-entropy for several labels at once.

    cross-entropy   -w_y log p_y                       mean over sum of w_y
    focal           -alpha (1 - p_y)^gamma w_y log p_y mean over sum of w_y   (Lin et al. 2017)

At gamma = 0 and alpha = 1 the focal loss is the cross-entropy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyful.losses.reconstruction import check_reduction


class FocalLoss(nn.Module):
    """Focal loss. forward(logits (N, C), labels (N,) int64 or (N, C) zeros and ones) -> scalar, or (N,) with reduction
    "none".

    alpha >= 0 scales, gamma >= 0 lowers the weight of utterances already right; class_weights: C numbers >= 0 or None.
    For several labels at once the binary form is used and the mean taken over all N C decisions.
    Raises ValueError for a negative or non-finite alpha or gamma, an unknown reduction, or shapes that do not fit.
    """

    class_weights: Tensor | None

    def __init__(
        self, alpha: float = 1.0, gamma: float = 2.0, class_weights: Tensor | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("gamma", gamma)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}; set {name}=1.0")
        self.alpha, self.gamma, self.reduction = float(alpha), float(gamma), check_reduction(reduction)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        _check_shapes(logits, labels)
        if labels.ndim == 2:
            labels = labels.to(logits.dtype)
            entropy = functional.binary_cross_entropy_with_logits(
                logits, labels, weight=self.class_weights, reduction="none"
            )
            probability = torch.sigmoid(logits)
            right = torch.where(labels > 0.5, probability, 1 - probability)
            values, weights = self.alpha * _focus(right, self.gamma) * entropy, torch.ones_like(logits)
        else:
            log_probability = functional.log_softmax(logits, dim=-1)
            log_right = log_probability.gather(-1, labels[:, None]).squeeze(-1)
            weights = torch.ones_like(log_right) if self.class_weights is None else self.class_weights[labels]
            values = -self.alpha * _focus(log_right.exp(), self.gamma) * weights * log_right
        if self.reduction == "none":
            return values
        return (
            values.sum()
            if self.reduction == "sum"
            else values.sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)
        )


class NLLLoss(nn.Module):
    """Cross-entropy of logits. forward(logits (N, C), labels (N,) int64 or (N, C) zeros and ones) -> scalar.

    Several labels at once use binary cross-entropy, mean over all N C decisions. ValueError where shapes do not fit.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        _check_shapes(logits, labels)
        if labels.ndim == 2:
            return functional.binary_cross_entropy_with_logits(
                logits, labels.to(logits.dtype), weight=self.class_weights
            )
        if self.class_weights is None:
            return functional.cross_entropy(logits, labels)
        # a batch whose classes all have weight 0 (none of them occurs in training) has loss 0, not 0 / 0
        total = functional.cross_entropy(logits, labels, weight=self.class_weights, reduction="sum")
        return total / self.class_weights[labels].sum().clamp(min=torch.finfo(logits.dtype).tiny)


def class_weights(frequencies: Tensor, scheme: str) -> Tensor | None:
    """Weights of C classes from their counts in the training split, with mean 1 over the classes that occur.

    "none" -> None; "inverse" -> 1 / count; "sqrt" -> 1 / sqrt(count). A class that never occurs gets weight 0.
    Raises ValueError for another scheme.
    """
    if scheme == "none":
        return None
    if scheme not in ("inverse", "sqrt"):
        raise ValueError(f"class_weight: expected one of none, inverse, sqrt, got {scheme!r}; set class_weight=none")
    counts = frequencies.to(torch.float64)
    occurs = counts > 0
    power = 1.0 if scheme == "inverse" else 0.5
    weights = torch.where(occurs, counts.clamp(min=1.0) ** -power, torch.zeros_like(counts))
    return (weights / weights.sum() * occurs.sum()).to(torch.float32)


def _focus(right: Tensor, gamma: float) -> Tensor:
    # x ** 0 has the gradient 0 * x ** -1, which is NaN at x = 0: gamma 0 must be the cross-entropy in its gradient too
    return (1 - right).clamp(min=torch.finfo(right.dtype).tiny) ** gamma if gamma else torch.ones_like(right)


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    fits = logits.ndim == 2 and (labels.shape == logits.shape if labels.ndim == 2 else labels.shape == logits.shape[:1])
    if not fits:
        raise ValueError(
            f"classification: expected logits (N, C) with labels (N,) or (N, C), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; pass one row of logits for each label"
        )
