"""Dropout that stores little for its backward pass: a mask of one byte per element, or only the output after a ReLU.

The results are bitwise equal to multiplying by a mask of the activations' dtype, which would store four bytes per
element and a copy of the ReLU. On the CPU, the product is computed in parts that fit the cache.

The plain form takes the same time with model=small; at full size 1.01 times the processor time of a step and 0.10 GiB
more, a fifteenth of the limit of 1.5 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from joyful import compat
from joyful.devices import takes_cpu_branch
from joyful.randomness import Draws, keep_scale

#: Number of elements that are computed at a time on the CPU.
PART_SIZE = 1 << 18


def dropout(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Apply inverted dropout (Srivastava et al. 2014).

    Args:
        x: Tensor of any shape.
        drop: Dropout probability, in [0, 1).
        draws: Random numbers of the step; None (evaluation) returns x.
        place: Place in the model, for the random numbers.
    """
    if draws is None or drop == 0.0:
        return x
    return masked(x, draws.keep(tuple(x.shape), drop, place, x.device), keep_scale(drop))


def relu_dropout_(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Apply ReLU and then dropout, in place.

    Args:
        x: Tensor of any shape; overwritten.
        drop: Dropout probability, in [0, 1).
        draws: Random numbers of the step; None (evaluation) applies only the ReLU.
        place: Place in the model, for the random numbers.
    """
    if draws is None or drop == 0.0:
        return x.relu_()
    return masked_relu_(x, draws.keep(tuple(x.shape), drop, place, x.device), keep_scale(drop))


def plain_dropout(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Return the same as `dropout`, by a mask of the dtype of x."""
    if draws is None or drop == 0.0:
        return x
    return x * draws.keep(tuple(x.shape), drop, place, x.device).to(x.dtype).mul_(keep_scale(drop))


def plain_relu_dropout(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Return the same as `relu_dropout_`, without changing x."""
    return plain_dropout(x.relu(), drop, draws, place)


def masked(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Return x * (keep * scale). Only first-order gradients are supported.

    Args:
        x: Tensor of any shape.
        keep: Boolean mask of the same shape.
        scale: Scale of the elements that are kept.
    """
    result: Tensor = _Masked.apply(x, keep, scale)
    return result


def masked_relu_(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Compute relu(x) * (keep * scale) in place. Only first-order gradients are supported.

    Args:
        x: Tensor of any shape; overwritten.
        keep: Boolean mask of the same shape.
        scale: Scale of the elements that are kept, > 0.
    """
    result: Tensor = _MaskedReLU.apply(x, keep, scale)
    return result


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return _product(x, keep, scale, torch.empty_like(x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return _product(gradient, keep, ctx.scale, torch.empty_like(gradient)), None, None


class _MaskedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.mark_dirty(x)
        result = _product(x.relu_(), keep, scale, x)
        # The output is positive exactly where the input was positive and kept. The next layer stores it anyway.
        ctx.save_for_backward(result)
        ctx.scale = scale
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        scale = gradient.new_full((), ctx.scale)  # rounded to the gradient's dtype, like a mask of that dtype
        return compat.relu_backward(gradient, result).mul_(scale), None, None


def _product(x: Tensor, keep: Tensor, scale: float, out: Tensor) -> Tensor:
    """Write x * (keep * scale) to out, which may be x."""
    for x_part, keep_part, out_part in zip(_parts(x), _parts(keep), _parts(out), strict=True):
        torch.mul(x_part, keep_part.to(x.dtype).mul_(scale), out=out_part)
    return out


def _parts(x: Tensor) -> Iterator[Tensor]:
    """Return views of consecutive rows. On other devices than the CPU there is one view, to launch one kernel."""
    rows = max(1, PART_SIZE * len(x) // max(1, x.numel())) if x.ndim and takes_cpu_branch(x.device) else 0
    return iter(x.split(rows) if rows else (x,))
