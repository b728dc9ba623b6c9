"""Classification losses: cross-entropy (negative log-likelihood) and focal loss.

    cross-entropy   -w_y log p_y                         divided by the sum of w_y
    focal loss      -alpha (1 - p_y)^gamma w_y log p_y   divided by the sum of w_y

Here p_y is the probability of the label y, and w_y is its class weight. If an utterance can have several labels, both
losses use binary cross-entropy for each class. With gamma = 0 and alpha = 1 the focal loss is the cross-entropy.

Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", 2017.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import math
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from joyful.losses.reconstruction import check_reduction
from joyful.registry import Registry


class ClassificationLoss(Protocol):
    """The interface of a classification loss."""

    def to(self, device: torch.device) -> Self:
        """Move the class weights to a device, and return the loss."""
        ...

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar.

        Args:
            logits: (N, C).
            labels: (N,) int64, the class of each utterance, or (N, C) with zeros and ones if there can be several.
        """
        ...


#: Setting `classification.name` -> class, which takes `class_weights` (C,) or None, and those settings of the group
#: `classification` that are among its parameters.
CLASSIFICATION_LOSSES = Registry[type[ClassificationLoss]]("classification.name")


@CLASSIFICATION_LOSSES.register("focal", "focal loss, with classification.gamma and .alpha")
class FocalLoss(nn.Module):
    """Focal loss, which reduces the weight of utterances that are classified well.

        -alpha (1 - p_y)^gamma w_y log p_y

    p_y is the probability of the label y and w_y is its class weight. The mean divides the sum of these values by the
    sum of w_y. If an utterance can have several labels, the formula is applied to each of the N C binary decisions, w
    is the weight of the class, and the mean divides by N C.

    Source: Lin et al. 2017.

    Args:
        alpha: Factor of the loss, finite and >= 0.
        gamma: Focusing parameter, finite and >= 0. Larger values reduce the weight of well-classified utterances more.
        class_weights: (C,), numbers >= 0, or None for equal weights (see the function `class_weights`).
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: If alpha or gamma is negative or not finite, or the reduction is unknown.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0986, 0.0]])  # probabilities 3/4 and 1/4
        >>> FocalLoss(gamma=2.0)(logits, torch.tensor([0]))  # -(1/4)^2 ln(3/4)
        tensor(0.0180)
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
        """Return the reduced loss.

        Args:
            logits: (N, C).
            labels: (N,) int64, the class of each utterance, or (N, C) with zeros and ones if there can be several.

        Returns:
            A scalar. For reduction "none", the values before the division: (N,), or (N, C) for labels (N, C).

        Raises:
            ValueError: If the shapes do not match.
        """
        _check_shapes(logits, labels)
        if labels.ndim == 2:
            labels = labels.to(logits.dtype)
            entropy = functional.binary_cross_entropy_with_logits(
                logits, labels, weight=self.class_weights, reduction="none"
            )
            probability = torch.sigmoid(logits)
            p_correct = torch.where(labels > 0.5, probability, 1 - probability)
            values, weights = self.alpha * _focus(p_correct, self.gamma) * entropy, torch.ones_like(logits)
        else:
            log_probability = functional.log_softmax(logits, dim=-1)
            log_p_correct = log_probability.gather(-1, labels[:, None]).squeeze(-1)
            weights = torch.ones_like(log_p_correct) if self.class_weights is None else self.class_weights[labels]
            values = -self.alpha * _focus(log_p_correct.exp(), self.gamma) * weights * log_p_correct
        if self.reduction == "none":
            return values
        return (
            values.sum()
            if self.reduction == "sum"
            else values.sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)
        )


@CLASSIFICATION_LOSSES.register("nll", "cross-entropy")
class NLLLoss(nn.Module):
    """Cross-entropy of logits: the negative log-likelihood of the labels.

        -w_y log p_y

    The mean divides the sum of these values by the sum of w_y. It is 0 if all class weights in the batch are 0. If an
    utterance can have several labels, the loss is the binary cross-entropy, averaged over all N C decisions.

    Args:
        class_weights: (C,), numbers >= 0, or None for equal weights (see the function `class_weights`).

    Example:
        >>> import torch
        >>> NLLLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))  # ln 4
        tensor(1.3863)
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss.

        Args:
            logits: (N, C).
            labels: (N,) int64, the class of each utterance, or (N, C) with zeros and ones if there can be several.

        Returns:
            A scalar.

        Raises:
            ValueError: If the shapes do not match.
        """
        _check_shapes(logits, labels)
        if labels.ndim == 2:
            return functional.binary_cross_entropy_with_logits(
                logits, labels.to(logits.dtype), weight=self.class_weights
            )
        if self.class_weights is None:
            return functional.cross_entropy(logits, labels)
        # PyTorch's mean would be 0 / 0 for a batch with only classes of weight 0 (classes absent from training)
        total = functional.cross_entropy(logits, labels, weight=self.class_weights, reduction="sum")
        return total / self.class_weights[labels].sum().clamp(min=torch.finfo(logits.dtype).tiny)


def class_weights(frequencies: Tensor, scheme: str) -> Tensor | None:
    """Return class weights from the class counts of the training split.

        "inverse"   w_c proportional to 1 / count_c
        "sqrt"      w_c proportional to 1 / sqrt(count_c)

    The weights are scaled to mean 1 over the classes that occur. A class that does not occur has weight 0.

    Args:
        frequencies: (C,), counts >= 0.
        scheme: "none", "inverse" or "sqrt".

    Returns:
        (C,) float32, or None for "none".

    Raises:
        ValueError: If the scheme is unknown.

    Example:
        >>> import torch
        >>> class_weights(torch.tensor([1, 4, 0]), "inverse")
        tensor([1.6000, 0.4000, 0.0000])
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


def _focus(p_correct: Tensor, gamma: float) -> Tensor:
    # The gradient of x ** 0 is 0 * x ** -1, which is NaN at x = 0. With gamma 0 the gradient must be that of the
    # cross-entropy, so the factor is a constant.
    return (
        (1 - p_correct).clamp(min=torch.finfo(p_correct.dtype).tiny) ** gamma if gamma else torch.ones_like(p_correct)
    )


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    fits = logits.ndim == 2 and (labels.shape == logits.shape if labels.ndim == 2 else labels.shape == logits.shape[:1])
    if not fits:
        raise ValueError(
            f"classification: expected logits (N, C) with labels (N,) or (N, C), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; pass one row of logits for each label"
        )
