"""Layer normalisation (Ba et al. 2016) whose backward pass uses the output instead of the input.

    y = w x' + b,   x' = (x - mean) / deviation    so    x' = (y - b) / w

The next layer stores y for its own backward pass anyway. In addition to it, only the deviation of each row is stored,
and not x. The error of the recovered x' is about eps (|x'| + |b / w| + |mean| / deviation); the last term is the error
of y in PyTorch's kernel. PyTorch's own form is used if b is large compared with w, or if y has few digits. The idea is
that of in-place batch normalisation (Rota Bulo et al. 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from joyful import compat

#: Largest |b / w| for which x' is recovered from y. At most two bits are lost up to there.
MAX_RATIO = 4.0


def lean_layer_norm(x_ND: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return norm(x), (N, D), with a backward pass that stores no copy of x.

    On other devices than the CPU, or if digits would be lost, `norm` itself is applied. Only first-order gradients are
    supported.

    Args:
        x_ND: Input.
        norm: Layer normalisation over D, with weight and bias.
    """
    exact = x_ND.device.type == "cpu" and x_ND.dtype == norm.weight.dtype and torch.finfo(x_ND.dtype).bits >= 32
    lean = exact and _is_recoverable(norm)
    result: Tensor = _LeanLayerNorm.apply(x_ND, norm.weight, norm.bias, norm.eps) if lean else norm(x_ND)
    return result


def plain_layer_norm(x_ND: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return the same as `lean_layer_norm`, by PyTorch's layer, which stores x."""
    result: Tensor = norm(x_ND)
    return result


def _is_recoverable(norm: nn.LayerNorm) -> bool:
    """Return whether x' can be recovered from y; False if a weight is 0 or NaN. Reads the parameters on the host."""
    weight, bias = (np.abs(parameter.detach().numpy()) for parameter in (norm.weight, norm.bias))
    return bool(((bias <= MAX_RATIO * weight) & (weight > 0)).all())


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
        # The kernel gets x' as its input, with mean 0 and deviation 1, and returns the gradient with respect to x'.
        zeros, ones = torch.zeros_like(inverse_deviation), torch.ones_like(inverse_deviation)
        grad_x, grad_weight, grad_bias = compat.layer_norm_backward(gradient, normal, zeros, ones, weight, bias)
        return grad_x.mul_(inverse_deviation), grad_weight, grad_bias, None
