"""Reconstruction losses of the fusion autoencoders: elementwise values first, one place that reduces them.

    squared error      e = (p - t)^2
    SmoothL1 (Huber)   e = (p - t)^2 / (2 beta)  where |p - t| < beta,  |p - t| - beta / 2 elsewhere
    weighted squared   e = w_m (p - t)^2  for the features of modality m

With beta = 1, SmoothL1 is half the squared error near zero: totals trained with the two are in different units.
Sources: Huber 1964; Girshick 2015 (SmoothL1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from joyful.records import REFERENCE_DIMENSIONS

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str) -> str:
    """Return `reduction`, or raise ValueError naming the three that there are."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}; set reduction='mean'")
    return reduction


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless the shapes agree: broadcasting would average over pairs that do not belong together."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"reconstruction: expected prediction and target of one shape, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}; set the decoder's output size to the target's last dimension"
        )


def reduce(values: Tensor, reduction: str) -> Tensor:
    """Reduce elementwise values to their mean or sum, or return them as they are ("none")."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


class MSELoss(nn.MSELoss):
    """Mean squared error over all elements. Shapes (..., D) and (..., D) -> scalar; ValueError where they differ."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=check_reduction(reduction))

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """(p - t)^2, of the shape of its arguments; `modal_dims` is not needed and not read."""
        check_same_shape(prediction, target)
        return nn.functional.mse_loss(prediction, target, reduction="none")

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_same_shape(prediction, target)
        return super().forward(prediction, target)


class SmoothL1Loss(nn.SmoothL1Loss):
    """SmoothL1 over all elements. Shapes (..., D) and (..., D) -> scalar; ValueError where they differ."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        if not 0.0 < beta < float("inf"):
            raise ValueError(
                f"beta: expected a finite number > 0 (in units of the residual), got {beta!r}; set beta=1.0"
            )
        super().__init__(reduction=check_reduction(reduction), beta=beta)

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """SmoothL1 of each element, of the shape of its arguments; `modal_dims` is not needed and not read."""
        check_same_shape(prediction, target)
        return nn.functional.smooth_l1_loss(prediction, target, reduction="none", beta=self.beta)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_same_shape(prediction, target)
        return super().forward(prediction, target)


class WeightedMSELoss(nn.Module):
    """Squared error with one weight for each modality of a concatenated vector; with weights of 1 it is MSELoss.

    modal_weights: numbers >= 0 in the order of concatenation, or a mapping by modality name in that order; None: all 1.
    forward(pred, target, modal_dims): (..., D) twice and the widths of the modalities, which must add up to D. Without
    widths, D = 1380 means audio 100, text 768, visual 512.
    Raises ValueError for negative or non-finite weights, an unknown reduction, shapes that differ, widths that do not
    add up to D, or as many widths as there are not weights.
    """

    def __init__(
        self, modal_weights: Sequence[float] | Mapping[str, float] | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)
        values = list(modal_weights.values() if isinstance(modal_weights, Mapping) else modal_weights or ())
        for value in values:
            if not 0.0 <= float(value) < float("inf"):
                raise ValueError(
                    f"modal_weights: expected finite numbers >= 0, got {value!r}; set e.g. (1.0, 1.0, 1.0)"
                )
        self.modal_weights: tuple[float, ...] | None = tuple(float(value) for value in values) or None

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """w_m (p - t)^2, of the shape of the arguments."""
        check_same_shape(prediction, target)
        squared = nn.functional.mse_loss(prediction, target, reduction="none")
        if modal_dims is None and prediction.shape[-1] == sum(REFERENCE_DIMENSIONS.values()):
            modal_dims = tuple(REFERENCE_DIMENSIONS.values())
        if modal_dims is not None and sum(modal_dims) != prediction.shape[-1]:
            raise ValueError(
                f"modal_dims: expected widths that add up to {prediction.shape[-1]}, got {tuple(modal_dims)} "
                f"(sum {sum(modal_dims)}); set modal_dims to the width of each modality"
            )
        if self.modal_weights is None:
            return squared
        if modal_dims is None or len(modal_dims) != len(self.modal_weights):
            raise ValueError(
                f"modal_dims: expected {len(self.modal_weights)} widths, one for each modal weight, got "
                f"{None if modal_dims is None else tuple(modal_dims)}; set modal_dims=(audio, text, visual) widths"
            )
        # One multiplication on each modality's slice: no weight vector has to be kept on the device.
        parts = zip(self.modal_weights, squared.split(list(modal_dims), dim=-1), strict=True)
        return torch.cat([weight * part for weight, part in parts], dim=-1)

    def forward(self, pred: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        return reduce(self.elementwise(pred, target, modal_dims), self.reduction)


def create_reconstruction_loss(use_smooth_l1: bool = False, reduction: str = "mean") -> MSELoss | SmoothL1Loss:
    """The note's choice: SmoothL1 (beta 1) where `use_smooth_l1`, else MSE.

    Returns a module of (prediction, target), both (..., D). Raises ValueError for an unknown reduction.
    """
    return SmoothL1Loss(reduction=reduction) if use_smooth_l1 else MSELoss(reduction=reduction)
