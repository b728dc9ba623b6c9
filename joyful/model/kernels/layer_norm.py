"""Layer normalisation (Ba et al. 2016) whose backward pass needs its output in place of its input.

    y = w x' + b,   x' = (x - mean) / deviation    so    x' = (y - b) / w

The next layer keeps y for its own backward pass anyway, so of x nothing need be kept but each row's deviation. x' comes back with
an error of about eps (|x'| + |b / w| + |mean| / deviation), the last of which y has from torch's kernel. Where b is large beside w,
or y has few digits, torch's own form takes its place. The idea is that of in-place batch normalisation (Rota Bulo et al. 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Largest |b / w| for which x' is taken from y: then no more than two bits are lost.
LARGEST_RATIO = 4.0


def lean_layer_norm(x_ND: Tensor, norm: nn.LayerNorm) -> Tensor:
    """norm(x), (N, D) -> (N, D). Gradients of first order only; elsewhere than on the processor, or where digits would be lost,
    norm itself."""
    exact = x_ND.device.type == "cpu" and x_ND.dtype == norm.weight.dtype and torch.finfo(x_ND.dtype).bits >= 32
    lean = exact and _comes_back(norm)
    result: Tensor = _LeanLayerNorm.apply(x_ND, norm.weight, norm.bias, norm.eps) if lean else norm(x_ND)
    return result


def _comes_back(norm: nn.LayerNorm) -> bool:
    """Whether x' does from y; not where a weight is no number. For the processor: it reads the parameters on the host."""
    weight, bias = (np.abs(parameter.detach().numpy()) for parameter in (norm.weight, norm.bias))
    return bool(((bias <= LARGEST_RATIO * weight) & (weight > 0)).all())


class _LeanLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, _, inverse_deviation = torch.native_layer_norm(x, x.shape[1:], weight, bias, eps)
        ctx.save_for_backward(y, inverse_deviation, weight, bias)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        y, inverse_deviation, weight, bias = ctx.saved_tensors
        normal = (y - bias).div_(weight)
        # the gradient with respect to x', as of rows that have mean 0 and deviation 1 already
        zeros, ones = torch.zeros_like(inverse_deviation), torch.ones_like(inverse_deviation)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            gradient, normal, normal.shape[1:], zeros, ones, weight, bias, [True, True, True]
        )
        return grad_x.mul_(inverse_deviation), grad_weight, grad_bias, None
