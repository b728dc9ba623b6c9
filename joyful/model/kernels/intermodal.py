"""The inter-modal softmax: an exact form that never stores its I x J matrix, and an interpolated form.

    output_i = sum_j softmax_j(b_i x_j) x_j

The output depends on i only through b_i. It is f_x(b) = E[x] under the weights exp(b x_j), evaluated at the I values of
b, and f_x'(b) = Var[x] under the same weights. Let c and h be the middle and the half range of x. Then u = (x - c) / h
lies in [-1, 1], and

    f_x(b) = c + h m(b),   f_x'(b) = h^2 v(b),   m, v: mean and variance of u under exp(b h u)

All computations use u, which has no scale, and exp(b h u - |b| h) cannot overflow.

The interpolated form uses that m and v are analytic in b, so their values at K Chebyshev nodes determine them over the
whole range of b (Trefethen, Approximation Theory and Practice, 2013, ch. 8). K is chosen for each row from r = (half
range of b) * h. The size of the last Chebyshev coefficients, which decrease as fast as the error, confirms the choice.
A row for which no K suffices is computed exactly. The backward pass interpolates the derivatives of f itself,

    df/dx_j = w_j (1 + b (x_j - f)),   df/db = Var[x]

rather than differentiating the interpolant. It recomputes the weights in blocks, so neither form ever stores the I x J
matrix.

The plain form takes 1.18 times the processor time of a step and 0.33 GiB more with model=small; at full size, with 4
dialogues, 3.5 times and 2.5 GiB more.

Shape letters: N rows (utterances times modalities), J and I units of a projection (460 in the reference), K nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from joyful.devices import takes_cpu_branch

FORMS = ("auto", "exact", "interpolated")
#: Numbers of nodes, tried in this order. The exact form costs as much as about 160 nodes.
NODES = (16, 20, 28, 40, 64, 128)
#: A row first tries the smallest K with r <= (K - MIN_NODES) / NODES_PER_RANGE. It suffices for nine in ten rows of the
#: features seen in training.
MIN_NODES, NODES_PER_RANGE = 6, 2.0
#: Number of elements of a block of weights: small enough for a CPU's cache, large enough to fill a GPU.
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 26}
#: Bounds on the last coefficients of m and of v. They keep the sum of the omitted terms below 2e-6 (1e-10 in float64).
_TOLERANCE = {torch.float32: (2e-7, 1e-6), torch.float64: (1e-12, 1e-11)}


def intermodal_softmax(x_NJ: Tensor, b_I: Tensor, form: str = "auto") -> Tensor:
    """Return sum_j softmax_j(b_i x_j) x_j for each row of x and each b, shape (N, I).

    The result is differentiable once in x and b. Autocast does not apply, because eight bits of mantissa are too few
    for exponents.

    Args:
        x_NJ: Rows, float32 or float64. A NaN or infinite entry makes its row of the result NaN.
        b_I: Factors of the exponent, same dtype. A NaN or infinite entry makes its column of the result NaN.
        form: "exact"; "interpolated", with an error of at most 2e-6 of the row's largest |x| in float32 (1e-9 in
            float64), only on the CPU because the choice of nodes reads values on the host; or "auto", which is
            interpolated on the CPU and exact elsewhere.

    Raises:
        ValueError: The form, a shape or a dtype is not one of these, or "interpolated" is requested on another device.

    Example:
        >>> x = torch.tensor([[0.0, 1.0]])
        >>> intermodal_softmax(x, torch.tensor([0.0]))  # b = 0: the mean of the row
        tensor([[0.5000]])
    """
    if form not in FORMS:
        raise ValueError(
            f"intermodal form: expected one of {', '.join(FORMS)}, got {form!r}; set fusion.intermodal=auto"
        )
    if x_NJ.ndim != 2 or b_I.ndim != 1 or not x_NJ.shape[1] or not b_I.shape[0]:
        raise ValueError(
            f"intermodal_softmax: expected x (N, J) and b (I,), got {tuple(x_NJ.shape)} and {tuple(b_I.shape)}"
        )
    if x_NJ.dtype not in _TOLERANCE or b_I.dtype != x_NJ.dtype:
        raise ValueError(
            f"intermodal_softmax: expected float32 or float64, got {x_NJ.dtype} and {b_I.dtype}; cast x and b first"
        )
    on_cpu = takes_cpu_branch(x_NJ.device)
    if form == "interpolated" and not on_cpu:
        raise ValueError(
            f"intermodal form interpolated: expected tensors on the CPU, got {x_NJ.device}; set fusion.intermodal=auto"
        )
    with torch.autocast(x_NJ.device.type, enabled=False):
        output: Tensor = _Intermodal.apply(x_NJ, b_I, on_cpu and form != "exact")
    return output


def plain_intermodal_softmax(x_NJ: Tensor, b_I: Tensor, form: str = "auto") -> Tensor:
    """Return the same as `intermodal_softmax`, from the whole matrix of weights of each row. `form` is not used."""
    weights_NIJ = torch.softmax(b_I[:, None] * x_NJ[:, None, :], dim=2)
    return (weights_NIJ * x_NJ[:, None, :]).sum(dim=2)


@dataclass(frozen=True)
class _Group:
    """Rows that use the same nodes.

    Attributes:
        rows: (n,) indices of the rows, or None for all.
        nodes: (K,) values of b.
        matrix: (K, I) maps values at the nodes to values at each b; None if the nodes are the values of b themselves.
        mean: (n, K) mean of u at each node.
        variance: (n, K) variance of u at each node, or None if it is recomputed.
    """

    rows: Tensor | None
    nodes: Tensor
    matrix: Tensor | None
    mean: Tensor
    variance: Tensor | None


class _Intermodal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, interpolate: bool) -> Tensor:
        low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
        middle, half = (low + high) / 2, (high - low) / 2
        u = (x - middle) / torch.where(half > 0, half, torch.ones_like(half))
        groups = list(_interpolated_groups(u, half, b)) if interpolate else [_exact_group(u, half, b, None)]
        output = x.new_empty(x.shape[0], b.shape[0])
        for group in groups:
            values = group.mean if group.matrix is None else group.mean @ group.matrix
            if group.rows is None:
                output = torch.addcmul(middle, half, values)
            else:
                output[group.rows] = torch.addcmul(middle[group.rows], half[group.rows], values)
        ctx.groups = groups
        ctx.save_for_backward(u, half, b)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        u, half, b = ctx.saved_tensors
        grad_x = torch.empty_like(u)
        grad_b = torch.zeros_like(b)
        for group in ctx.groups:
            g, u_n, h_n = (t if group.rows is None else t[group.rows] for t in (gradient, u, half))
            grad_b += _gradient_b(group, g, u_n, h_n)
            weight_nK = g if group.matrix is None else g @ group.matrix.T
            part = _gradient_x(u_n, h_n, group.nodes, group.mean, weight_nK)
            if group.rows is None:
                grad_x = part
            else:
                grad_x[group.rows] = part
        return grad_x, grad_b, None


def _interpolated_groups(u: Tensor, half: Tensor, b: Tensor) -> Any:
    """Yield the groups of rows by the number of nodes that they need. Decides on the host, so only for the CPU."""
    low, high = float(b.min()), float(b.max())
    b_middle, b_half = (low + high) / 2, (high - low) / 2
    reach = half.squeeze(1).double() * b_half  # r of each row; NaN and infinity satisfy no bound
    pending = torch.ones(u.shape[0], dtype=torch.bool)
    tolerance_mean, tolerance_variance = _TOLERANCE[u.dtype]
    for count in NODES:
        candidates = pending & (reach <= (count - MIN_NODES) / NODES_PER_RANGE)
        rows = candidates.nonzero().squeeze(1)
        if not len(rows):
            continue
        all_rows = len(rows) == u.shape[0]
        cosines, last = _chebyshev(count, u.dtype)
        # Rounding only once keeps all digits of a node near b = 0, where f is steepest.
        nodes = (b_middle + b_half * cosines).to(u.dtype)
        u_n, h_n = (u, half) if all_rows else (u[rows], half[rows])
        mean, variance = _moments(u_n, h_n, nodes)
        good = (mean @ last).abs().amax(dim=1) <= tolerance_mean
        good &= (variance @ last).abs().amax(dim=1) <= tolerance_variance
        matrix = _matrix(b, b_middle, b_half, count)
        if bool(good.all()):
            pending[rows] = False
            yield _Group(None if all_rows else rows, nodes, matrix, mean, variance)
        else:
            pending[rows[good]] = False
            yield _Group(rows[good], nodes, matrix, mean[good], variance[good])
    rows = pending.nonzero().squeeze(1)
    if len(rows):
        yield _exact_group(u, half, b, None if len(rows) == u.shape[0] else rows)


def _exact_group(u: Tensor, half: Tensor, b: Tensor, rows: Tensor | None) -> _Group:
    mean, _ = _moments(u if rows is None else u[rows], half if rows is None else half[rows], b, variance=False)
    return _Group(rows, b.detach(), None, mean, None)


def _blocks(n: int, k: int, j: int, device: torch.device) -> Any:
    """Yield slices of rows and of nodes whose weights fit a block."""
    budget = _BLOCK["cpu" if takes_cpu_branch(device) else "cuda"]
    k_block = max(1, min(k, budget // j))
    n_block = max(1, budget // (j * k_block))
    for start in range(0, n, n_block):
        for k_start in range(0, k, k_block):
            yield slice(start, min(n, start + n_block)), slice(k_start, min(k, k_start + k_block))


def _exponentials(u: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(b h u - |b| h) (n, k, J) for u (n, J) and b h = scaled (n, k), and the sum over J (n, k).

    The weights are their quotient; callers divide their results instead, which is faster. The largest exponent is 0,
    because u reaches -1 and 1.
    """
    exponentials = torch.baddbmm(-scaled.abs().unsqueeze(2), scaled.unsqueeze(2), u.unsqueeze(1)).exp_()
    return exponentials, exponentials.sum(dim=2)


def _moments(u: Tensor, half: Tensor, nodes: Tensor, variance: bool = True) -> tuple[Tensor, Tensor]:
    """Return mean and variance of u under the weights at each node, (n, K) each.

    Without `variance`, the second result is the mean again.
    """
    mean = u.new_empty(u.shape[0], nodes.shape[0])
    spread = torch.empty_like(mean) if variance else mean
    for rows, ks in _blocks(u.shape[0], nodes.shape[0], u.shape[1], u.device):
        exponentials, total = _exponentials(u[rows], half[rows] * nodes[ks])
        # A sum instead of a matrix product: products that add the J terms one by one lose two digits if most are equal.
        mean[rows, ks] = (exponentials * u[rows].unsqueeze(1)).sum(dim=2) / total
        if variance:
            spread[rows, ks] = _variance(exponentials, total, u[rows], mean[rows, ks])
    return mean, spread


def _variance(exponentials: Tensor, total: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """Return the variance (n, k) of u (n, J) under the exponentials, which are overwritten.

    It is computed around the mean. E[u^2] - mean^2 has no correct digit if a large b h concentrates the weights at one
    end.
    """
    return exponentials.mul_((u.unsqueeze(1) - mean.unsqueeze(2)).square_()).sum(dim=2) / total


def _gradient_b(group: _Group, g: Tensor, u: Tensor, half: Tensor) -> Tensor:
    """Return sum_n g_ni h_n^2 v_n(b_i), shape (I,)."""
    scaled = g * half * half
    if group.matrix is not None and group.variance is not None:
        return ((scaled.T @ group.variance) * group.matrix.T).sum(dim=1)
    gradient = torch.zeros_like(group.nodes)
    for rows, ks in _blocks(u.shape[0], group.nodes.shape[0], u.shape[1], u.device):
        exponentials, total = _exponentials(u[rows], half[rows] * group.nodes[ks])
        variance = _variance(exponentials, total, u[rows], group.mean[rows, ks])
        gradient[ks] += (scaled[rows, ks] * variance).sum(dim=0)
    return gradient


def _gradient_x(u: Tensor, half: Tensor, nodes: Tensor, mean: Tensor, g: Tensor) -> Tensor:
    """Return sum_k g_nk w_nkj (1 + b_k h_n (u_nj - mean_nk)), shape (n, J), for gradients g (n, K) at the nodes."""
    gradient = torch.zeros_like(u)
    for rows, ks in _blocks(u.shape[0], nodes.shape[0], u.shape[1], u.device):
        scaled = half[rows] * nodes[ks]
        exponentials, total = _exponentials(u[rows], scaled)
        share = g[rows, ks] / total
        slope = share * scaled
        level = share - slope * mean[rows, ks]
        sums = torch.bmm(torch.stack([level, slope], dim=1), exponentials)
        gradient[rows] += sums[:, 0] + u[rows] * sums[:, 1]
    return gradient


@lru_cache(maxsize=64)
def _chebyshev(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the Chebyshev points of the first kind in [-1, 1], and a matrix for the last three coefficients.

    The matrix (K, 3) maps the values at the points (K,) to these coefficients.
    """
    angles = np.pi * (2 * np.arange(count) + 1) / (2 * count)
    last = 2 / count * np.cos(np.outer(angles, np.arange(count - 3, count)))
    return torch.from_numpy(np.cos(angles)), torch.from_numpy(last).to(dtype)


def _matrix(b: Tensor, middle: float, half: float, count: int) -> Tensor:
    """Return the matrix (K, I) from values at the Chebyshev points to the interpolant at each b.

    It is computed in float64, which costs next to nothing.
    """
    angles = torch.from_numpy(np.pi * (2 * np.arange(count) + 1) / (2 * count))
    orders = torch.arange(count, dtype=torch.float64)
    to_coefficients = torch.cos(angles[:, None] * orders) * (2 / count)
    to_coefficients[:, 0] /= 2
    place = torch.acos(
        ((b.detach().double() - middle) / half if half else torch.zeros_like(b.double())).clamp(-1.0, 1.0)
    )
    return (to_coefficients @ torch.cos(orders[:, None] * place)).to(b.dtype)
