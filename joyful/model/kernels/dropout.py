"""Dropout that keeps little for its backward pass: a mask of one byte an element, or, behind a ReLU, nothing of its own.

The same bits as multiplying by a mask of the activations' type, which would take four bytes an element and a copy of the ReLU.
Such a mask is made in parts that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from joyful.randomness import Draws, keep_scale

#: Elements of a part on the processor.
PART = 1 << 18


def dropout(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Inverted dropout (Srivastava et al. 2014) of a tensor of any shape; drop in [0, 1). With draws None (evaluation) x itself."""
    if draws is None or drop == 0.0:
        return x
    return masked(x, draws.keep(tuple(x.shape), drop, place, x.device), keep_scale(drop))


def relu_dropout_(x: Tensor, drop: float, draws: Draws | None, place: str) -> Tensor:
    """Dropout of relu(x) in the place of x, by the same numbers; with draws None (evaluation) relu(x), there too."""
    if draws is None or drop == 0.0:
        return x.relu_()
    return masked_relu_(x, draws.keep(tuple(x.shape), drop, place, x.device), keep_scale(drop))


def masked(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """x * (keep * scale): x of any shape, keep boolean of that shape. Gradients of first order only."""
    result: Tensor = _Masked.apply(x, keep, scale)
    return result


def masked_relu_(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """relu(x) * (keep * scale), scale > 0, in the place of x. Gradients of first order only."""
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


def _product(x: Tensor, keep: Tensor, scale: float, out: Tensor) -> Tensor:
    """x * (keep * scale), written to out, which may be x."""
    for x_part, keep_part, out_part in zip(_parts(x), _parts(keep), _parts(out), strict=True):
        torch.mul(x_part, keep_part.to(x.dtype).mul_(scale), out=out_part)
    return out


def _parts(x: Tensor) -> Iterator[Tensor]:
    """Views of some rows each; elsewhere than on the processor of all, since each is a kernel."""
    rows = max(1, PART * len(x) // max(1, x.numel())) if x.ndim and x.device.type == "cpu" else 0
    return iter(x.split(rows) if rows else (x,))
