"""Dropout that keeps little for its backward pass: a mask of one byte an element, or, behind a ReLU, nothing of its own.

The same bits as multiplying by a mask of the activations' type, which would take four bytes an element and a copy of the ReLU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def masked(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """x * (keep * scale): x of any shape, keep boolean of that shape. Gradients of first order only."""
    result: Tensor = _Masked.apply(x, keep, scale)
    return result


def masked_relu(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """relu(x) * (keep * scale), scale > 0. Gradients of first order only."""
    result: Tensor = _MaskedReLU.apply(x, keep, scale)
    return result


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return x * keep.to(x.dtype).mul_(scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return gradient * keep.to(gradient.dtype).mul_(ctx.scale), None, None


class _MaskedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        result = x.relu().mul_(keep.to(x.dtype).mul_(scale))
        # what comes out is positive exactly where its element was positive and kept; the next layer keeps it anyway
        ctx.save_for_backward(result)
        ctx.scale = scale
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        scale = gradient.new_full((), ctx.scale)  # rounded to the gradient's type, as a mask would hold it
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(scale), None, None
