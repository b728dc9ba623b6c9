"""The inter-modal softmax: exact without its I x J matrix, and interpolated.

    output_i = sum_j softmax_j(b_i x_j) x_j

depends on i through the number b_i alone: it is f_x(b) = E[x] under the weights exp(b x_j), read at I places, and
f_x'(b) = Var[x] under the same weights. With c and h the middle and half range of x, u = (x - c) / h lies in [-1, 1],

    f_x(b) = c + h m(b),   f_x'(b) = h^2 v(b),   m, v: mean and variance of u under exp(b h u)

so everything is computed on u, free of scale, and exp(b h u - |b| h) cannot overflow. m and v are analytic in b: at K
Chebyshev nodes over the range of b they are known everywhere (Trefethen, Approximation Theory and Practice, 2013, ch.
8). K is chosen for each row by r = (half range of b) * h and confirmed by the size of the last Chebyshev coefficients,
which fall as fast as the error; a row that no K satisfies is computed exactly. The backward pass uses the derivatives
of f itself,

    df/dx_j = w_j (1 + b (x_j - f)),   df/db = Var[x]

interpolated the same way, not the derivative of the interpolant. Weights are recomputed there, in blocks: neither form
ever holds the I x J matrix. J and I here: units of a projection (460 in the reference); N rows: utterances times
modalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMS = ("auto", "exact", "interpolated")
#: Node counts tried in turn. From about 160 on, the exact form costs the same.
NODES = (16, 20, 28, 40, 64, 128)
#: Rows with r up to (NODES - 6) / 2 try that many nodes first: of the features of a training, nine in ten need no more.
NODES_AT_LEAST, NODES_PER_RANGE = 6, 2.0
#: Elements of a block of weights: small enough to stay in a processor's cache, large enough to fill a GPU.
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 26}
#: The last coefficients of m and of v must be below these, so that the summed rest stays below 2e-6 (1e-10 in float64).
_TOLERANCE = {torch.float32: (2e-7, 1e-6), torch.float64: (1e-12, 1e-11)}


def intermodal_softmax(x_NJ: Tensor, b_I: Tensor, form: str = "auto") -> Tensor:
    """sum_j softmax_j(b_i x_j) x_j for each row of x and each b: (N, J) and (I,) -> (N, I).

    form: "exact"; "interpolated" (within 2e-6 of the largest |x| of the row in float32, 1e-9 in float64; processor
    only, since the choice of nodes reads the ranges on the host); "auto" is interpolated on the processor, exact
    elsewhere. Differentiable once in x and b; autocast leaves it alone, as exponents do not bear eight bits of
    mantissa.
    NaN or infinite inputs give NaN: in x in its row, in b in its column. Raises ValueError for other forms, shapes or
    dtypes.
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
            f"intermodal_softmax: expected float32 or float64, got {x_NJ.dtype} and {b_I.dtype}; cast x and b before"
        )
    on_processor = x_NJ.device.type == "cpu"
    if form == "interpolated" and not on_processor:
        raise ValueError(
            f"intermodal form interpolated: it chooses its nodes on the host and would stall {x_NJ.device}; "
            "set fusion.intermodal=auto"
        )
    with torch.autocast(x_NJ.device.type, enabled=False):
        output: Tensor = _Intermodal.apply(x_NJ, b_I, on_processor and form != "exact")
    return output


@dataclass(frozen=True)
class _Group:
    """Rows read at the same nodes. rows: (n,) indices or None for all; nodes: (K,) values of b; matrix: (K, I) from
    values at nodes to values at each b, or None where the nodes are the b themselves; mean, variance: (n, K) of u, for
    the backward pass."""

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
    """Groups of rows by the nodes that they need (host decisions: for the processor only)."""
    low, high = float(b.min()), float(b.max())
    b_middle, b_half = (low + high) / 2, (high - low) / 2
    reach = half.squeeze(1).double() * b_half  # r of each row; with NaN or infinity in it or in b below no bound
    pending = torch.ones(u.shape[0], dtype=torch.bool)
    tolerance_mean, tolerance_variance = _TOLERANCE[u.dtype]
    for count in NODES:
        candidates = pending & (reach <= (count - NODES_AT_LEAST) / NODES_PER_RANGE)
        rows = candidates.nonzero().squeeze(1)
        if not len(rows):
            continue
        everything = len(rows) == u.shape[0]
        cosines, last = _chebyshev(count, u.dtype)
        # rounded once: near b = 0, where f is steepest, a node keeps all its digits
        nodes = (b_middle + b_half * cosines).to(u.dtype)
        u_n, h_n = (u, half) if everything else (u[rows], half[rows])
        mean, variance = _moments(u_n, h_n, nodes)
        good = (mean @ last).abs().amax(dim=1) <= tolerance_mean
        good &= (variance @ last).abs().amax(dim=1) <= tolerance_variance
        matrix = _matrix(b, b_middle, b_half, count)
        if bool(good.all()):
            pending[rows] = False
            yield _Group(None if everything else rows, nodes, matrix, mean, variance)
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
    """Slices of rows and nodes whose weights fit a block."""
    budget = _BLOCK.get(device.type, _BLOCK["cuda"])
    k_block = max(1, min(k, budget // j))
    n_block = max(1, budget // (j * k_block))
    for start in range(0, n, n_block):
        for k_start in range(0, k, k_block):
            yield slice(start, min(n, start + n_block)), slice(k_start, min(k, k_start + k_block))


def _exponentials(u: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
    """exp(b h u - |b| h) (n, k, J) of u (n, J) at b h = scaled (n, k), and their sum (n, k): weights are the quotient,
    but it is quicker to divide what comes of them. The largest exponent is 0, as u reaches -1 and 1."""
    exponentials = torch.baddbmm(-scaled.abs().unsqueeze(2), scaled.unsqueeze(2), u.unsqueeze(1)).exp_()
    return exponentials, exponentials.sum(dim=2)


def _moments(u: Tensor, half: Tensor, nodes: Tensor, variance: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and variance of u under the weights at each node: (n, K) each; the variance only where asked for."""
    mean = u.new_empty(u.shape[0], nodes.shape[0])
    spread = torch.empty_like(mean) if variance else mean
    for rows, ks in _blocks(u.shape[0], nodes.shape[0], u.shape[1], u.device):
        exponentials, total = _exponentials(u[rows], half[rows] * nodes[ks])
        # a sum, not a matrix product: one that adds the J terms in turn loses two digits where most of them are equal
        mean[rows, ks] = (exponentials * u[rows].unsqueeze(1)).sum(dim=2) / total
        if variance:
            spread[rows, ks] = _variance(exponentials, total, u[rows], mean[rows, ks])
    return mean, spread


def _variance(exponentials: Tensor, total: Tensor, u: Tensor, mean: Tensor) -> Tensor:
    """(n, k) variance of u (n, J) under the exponentials, which are overwritten. Taken about the mean: the difference
    of E[u^2] and mean^2 has no correct digit left where a large b h gathers the weights at one end."""
    return exponentials.mul_((u.unsqueeze(1) - mean.unsqueeze(2)).square_()).sum(dim=2) / total


def _gradient_b(group: _Group, g: Tensor, u: Tensor, half: Tensor) -> Tensor:
    """sum_n g_ni h_n^2 v_n(b_i), shape (I,)."""
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
    """sum_k g_nk w_nkj (1 + b_k h_n (u_nj - mean_nk)), shape (n, J); g: (n, K) gradients at the nodes."""
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
    """Chebyshev points of the first kind in [-1, 1] (K,), and (K, 3): from values there to the last three
    coefficients."""
    angles = np.pi * (2 * np.arange(count) + 1) / (2 * count)
    last = 2 / count * np.cos(np.outer(angles, np.arange(count - 3, count)))
    return torch.from_numpy(np.cos(angles)), torch.from_numpy(last).to(dtype)


def _matrix(b: Tensor, middle: float, half: float, count: int) -> Tensor:
    """(K, I): from values at the Chebyshev points to the interpolant at each b. Made in float64, where it costs
    nothing."""
    angles = torch.from_numpy(np.pi * (2 * np.arange(count) + 1) / (2 * count))
    orders = torch.arange(count, dtype=torch.float64)
    to_coefficients = torch.cos(angles[:, None] * orders) * (2 / count)
    to_coefficients[:, 0] /= 2
    place = torch.acos(
        ((b.detach().double() - middle) / half if half else torch.zeros_like(b.double())).clamp(-1.0, 1.0)
    )
    return (to_coefficients @ torch.cos(orders[:, None] * place)).to(b.dtype)
