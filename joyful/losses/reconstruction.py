"""Reconstruction losses of the fusion autoencoders.

With the residual r = p - t of a prediction p and its target t, the losses of one element are

    squared error      e = r^2
    SmoothL1 (Huber)   e = r^2 / (2 beta)  where |r| < beta,  |r| - beta / 2  elsewhere
    weighted squared   e = w_m r^2         for the features of modality m

Each loss has a method `elementwise`, which returns these values; `reduce` reduces them to a scalar.

With beta = 1, SmoothL1 is half the squared error near zero, so losses of the two kinds cannot be compared.

Sources: P. J. Huber, "Robust Estimation of a Location Parameter", 1964; R. Girshick, "Fast R-CNN", 2015 (SmoothL1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from joyful.records import REFERENCE_DIMENSIONS
from joyful.registry import Registry

REDUCTIONS = ("mean", "sum", "none")


class ReconstructionLoss(Protocol):
    """The interface of a reconstruction loss, as the fusion uses it."""

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """Return the loss of each element.

        Args:
            prediction: (..., D).
            target: (..., D).
            modal_dims: Width of each modality in the order of concatenation; the sum is D.

        Returns:
            (..., D).

        Raises:
            ValueError: If the shapes differ.
        """
        ...


#: Setting `loss.name` -> class. The settings of the group `loss` that are parameters of the class are passed to it.
RECONSTRUCTION_LOSSES = Registry[type[ReconstructionLoss]]("loss.name")


def check_reduction(reduction: str) -> str:
    """Return `reduction` if it is valid.

    Raises:
        ValueError: If it is not "mean", "sum" or "none".
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}; set reduction='mean'")
    return reduction


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Check that prediction and target have the same shape.

    Broadcasting would compare elements that do not belong together.

    Raises:
        ValueError: If the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"reconstruction: expected prediction and target of one shape, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}; set the decoder's output size to the target's last dimension"
        )


def reduce(values: Tensor, reduction: str) -> Tensor:
    """Reduce elementwise values.

    Args:
        values: Any shape.
        reduction: "mean", "sum" or "none". The caller checks it with `check_reduction`.

    Returns:
        The mean or the sum as a scalar, or `values` unchanged for "none".
    """
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


@RECONSTRUCTION_LOSSES.register("mse", "mean squared error")
class MSELoss(nn.MSELoss):
    """Squared error, (p - t)^2.

    This is `torch.nn.MSELoss`, except that it refuses to broadcast and has the method `elementwise`.

    Args:
        reduction: "mean" or "sum" over all elements, or "none".

    Raises:
        ValueError: If the reduction is unknown.

    Example:
        >>> import torch
        >>> MSELoss()(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2))
        tensor(5.)
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=check_reduction(reduction))

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """Return the loss of each element.

        Args:
            prediction: (..., D).
            target: (..., D).
            modal_dims: Not used. All reconstruction losses have the same signature.

        Returns:
            (..., D), (p - t)^2.

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(prediction, target)
        return nn.functional.mse_loss(prediction, target, reduction="none")

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the reduced loss.

        Args:
            prediction: (..., D).
            target: (..., D).

        Returns:
            A scalar, or (..., D) for reduction "none".

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(prediction, target)
        return super().forward(prediction, target)


@RECONSTRUCTION_LOSSES.register("smoothl1", "SmoothL1: quadratic below loss.beta, linear above")
class SmoothL1Loss(nn.SmoothL1Loss):
    """SmoothL1, which is the Huber loss divided by beta.

        r^2 / (2 beta)  where |r| < beta,  |r| - beta / 2  elsewhere,  r = p - t

    This is `torch.nn.SmoothL1Loss`, except that it refuses to broadcast and has the method `elementwise`.

    Sources: Huber 1964; Girshick 2015.

    Args:
        reduction: "mean" or "sum" over all elements, or "none".
        beta: Residual at which the loss changes from quadratic to linear. Finite and greater than 0, in units of the
            residual.

    Raises:
        ValueError: If the reduction is unknown or beta is out of range.

    Example:
        >>> import torch
        >>> SmoothL1Loss(reduction="none")(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor([0.1250, 2.5000])
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        if not 0.0 < beta < float("inf"):
            raise ValueError(
                f"beta: expected a finite number > 0 (in units of the residual), got {beta!r}; set beta=1.0"
            )
        super().__init__(reduction=check_reduction(reduction), beta=beta)

    def elementwise(self, prediction: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """Return the loss of each element.

        Args:
            prediction: (..., D).
            target: (..., D).
            modal_dims: Not used. All reconstruction losses have the same signature.

        Returns:
            (..., D).

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(prediction, target)
        return nn.functional.smooth_l1_loss(prediction, target, reduction="none", beta=self.beta)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the reduced loss.

        Args:
            prediction: (..., D).
            target: (..., D).

        Returns:
            A scalar, or (..., D) for reduction "none".

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(prediction, target)
        return super().forward(prediction, target)


@RECONSTRUCTION_LOSSES.register("weighted_mse", "mean squared error with a weight per modality")
class WeightedMSELoss(nn.Module):
    """Squared error with one weight per modality of a concatenated vector.

        w_m (p - t)^2  for the features of modality m

    The mean is taken over the number of elements, not over the sum of the weights. With all weights 1 the loss is
    `MSELoss`.

    Args:
        modal_weights: Finite numbers >= 0 in the order of concatenation, or a mapping from modality names to such
            numbers in that order. None means that all weights are 1.
        reduction: "mean" or "sum" over all elements, or "none".

    Raises:
        ValueError: If a weight is negative or not finite, or the reduction is unknown.

    Example:
        >>> import torch
        >>> criterion = WeightedMSELoss((0.5, 2.0), reduction="none")
        >>> criterion(torch.ones(1, 3), torch.zeros(1, 3), modal_dims=(1, 2))
        tensor([[0.5000, 2.0000, 2.0000]])
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
        """Return the loss of each element.

        Args:
            prediction: (..., D).
            target: (..., D).
            modal_dims: Width of each modality in the order of concatenation; the sum is D. If it is None and D = 1380,
                the widths of the reference are used: audio 100, text 768, visual 512.

        Returns:
            (..., D), w_m (p - t)^2.

        Raises:
            ValueError: If the shapes differ, the widths do not add up to D, or there is not one width per weight.
        """
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
        # Scaling each modality's slice avoids keeping a weight vector on the device.
        parts = zip(self.modal_weights, squared.split(list(modal_dims), dim=-1), strict=True)
        return torch.cat([weight * part for weight, part in parts], dim=-1)

    def forward(self, pred: Tensor, target: Tensor, modal_dims: Sequence[int] | None = None) -> Tensor:
        """Return the reduced loss.

        Args:
            pred: (..., D).
            target: (..., D).
            modal_dims: Width of each modality, as for `elementwise`.

        Returns:
            A scalar, or (..., D) for reduction "none".

        Raises:
            ValueError: If the shapes differ, the widths do not add up to D, or there is not one width per weight.
        """
        return reduce(self.elementwise(pred, target, modal_dims), self.reduction)


def create_reconstruction_loss(use_smooth_l1: bool = False, reduction: str = "mean") -> MSELoss | SmoothL1Loss:
    """Create the reconstruction loss: SmoothL1 or mean squared error.

        MSE                   r^2
        SmoothL1 (beta = 1)   r^2 / 2  where |r| < 1,  |r| - 1/2  elsewhere,  r = prediction - target

    Near zero SmoothL1 is half of MSE. Losses of the two kinds cannot be compared.

    Sources: Huber 1964; Girshick 2015 (SmoothL1).

    Args:
        use_smooth_l1: Whether to use SmoothL1 instead of MSE.
        reduction: "mean" or "sum" over all elements, or "none".

    Returns:
        A module that takes a prediction and a target of shape (..., D). It returns a scalar, or the loss of each
        element, (..., D), for reduction "none".

    Raises:
        ValueError: If the reduction is unknown.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2)
        >>> create_reconstruction_loss()(prediction, target)
        tensor(4.6250)
        >>> create_reconstruction_loss(use_smooth_l1=True)(prediction, target)
        tensor(1.3125)
    """
    return SmoothL1Loss(reduction=reduction) if use_smooth_l1 else MSELoss(reduction=reduction)
