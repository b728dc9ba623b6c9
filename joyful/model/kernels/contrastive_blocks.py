"""InfoNCE between an anchor and several views of it, added: the sum of `info_nce(anchor, view)`, in a fraction of its time.

With e(a, b)_ij = exp((s(a_i, b_j) - 1) / tau), which is at most 1, each view v of the anchor u has the denominators

    r_i = sum_j e(u, v)_ij + sum_{j != i} e(u, u)_ij        c_i = sum_j e(u, v)_ji + sum_{j != i} e(v, v)_ij

and L = mean over i of (ln r_i + ln c_i) / 2 + (1 - s(u_i, v_i)) / tau. No maximum need be looked for, e(u, u) serves all views, and
the gradient with respect to s(u_i, v_j), e_ij (1 / r_i + 1 / c_j) / (2 N tau), is made of what is there: it is taken together with
the value, so that no N x N matrix outlives the forward pass. The matrices are worked through in blocks of rows that stay in the
processor's cache.

Shape letters: N utterances, H hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from joyful.losses.contrastive import check_views, info_nce

#: Below this temperature e(a, b) of opposite nodes would leave the range of float32: exp(-2 / 0.05) is 4e-18.
LEAST_TEMPERATURE = 0.05

#: Elements of a block, by device: on the processor what its cache holds (1 MiB of float32), else as few kernels as may be.
_BLOCK = {"cpu": 1 << 18}
_BLOCK_ELSEWHERE = 1 << 26


def info_nce_of_views(anchor_NH: Tensor, views_NH: Sequence[Tensor], temperature: float = 0.2) -> Tensor:
    """Sum over the views of the symmetric InfoNCE with the anchor, (N, H) each -> scalar in nats.

    The same number as that of `info_nce`, but for rounding; it takes its place below LEAST_TEMPERATURE. Gradients of first order
    only. Raises ValueError as `info_nce` does.
    """
    for view_NH in views_NH:
        check_views(anchor_NH, view_NH, temperature)
    if temperature < LEAST_TEMPERATURE:
        return torch.stack([info_nce(anchor_NH, view_NH, temperature) for view_NH in views_NH]).sum()
    unit = [functional.normalize(x_NH, dim=-1) for x_NH in (anchor_NH, *views_NH)]
    with torch.autocast(anchor_NH.device.type, enabled=False):
        loss: Tensor = _InfoNCE.apply(temperature, *unit)
    return loss


class _InfoNCE(torch.autograd.Function):
    """Of unit vectors: the anchor, then its views."""

    @staticmethod
    def forward(ctx: Any, temperature: float, anchor: Tensor, *views: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        scale = 1 / (anchor.shape[0] * temperature)
        loss = anchor.new_zeros(())
        within_anchor, anchor_sums, _ = _similarities(anchor, anchor, temperature, wanted, itself=True)
        grad_anchor, weight_anchor = torch.zeros_like(anchor), torch.zeros_like(anchor_sums)
        gradients = [grad_anchor]
        for view in views:
            across, rows, columns = _similarities(anchor, view, temperature, wanted)
            within_view, view_sums, _ = _similarities(view, view, temperature, wanted, itself=True)
            rows, columns = rows + anchor_sums, columns + view_sums
            positive = (anchor * view).sum(dim=1)
            loss += (0.5 * (rows.log() + columns.log()) + (1 - positive) / temperature).mean()
            if not wanted:
                continue
            row_weight, column_weight = 0.5 * scale / rows, 0.5 * scale / columns
            weight_anchor += row_weight
            grad_view = torch.zeros_like(view)
            _add_products(across, row_weight, column_weight, view, grad_anchor, anchor, grad_view)
            del across  # before the next view's takes its place
            _add_products(within_view, column_weight, column_weight, view, grad_view)
            del within_view
            grad_anchor.sub_(view, alpha=scale)
            gradients.append(grad_view.sub_(anchor, alpha=scale))
        if wanted:
            _add_products(within_anchor, weight_anchor, weight_anchor, anchor, grad_anchor)
            ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(gradient * part for part in ctx.saved_tensors)


def _similarities(
    a_NH: Tensor, b_NH: Tensor, temperature: float, keep: bool, itself: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """e(a, b) (N, N) where it is kept (else one block of it), its sums over columns (N,) and over rows (N,).

    itself: b is a, whose nodes are no negatives of themselves: the diagonal is 0.
    """
    n = a_NH.shape[0]
    blocks = list(_blocks(n, a_NH.device.type))
    matrix = a_NH.new_empty(n if keep else blocks[0].stop, n)
    row_sums, column_sums = a_NH.new_empty(n), a_NH.new_zeros(n)
    scaled_NH, transposed_HN = a_NH / temperature, b_NH.T
    for block in blocks:
        part = matrix[block] if keep else matrix[: block.stop - block.start]
        torch.mm(scaled_NH[block], transposed_HN, out=part)
        part.sub_(1 / temperature).exp_()
        if itself:
            part.diagonal(block.start).fill_(0.0)
        row_sums[block] = part.sum(dim=1)
        if not itself:  # symmetric otherwise, and not asked for
            column_sums += part.sum(dim=0)
    return matrix, row_sums, column_sums


def _add_products(
    matrix_NN: Tensor,
    row_weight_N: Tensor,
    column_weight_N: Tensor,
    right_NH: Tensor,
    grad_left_NH: Tensor,
    left_NH: Tensor | None = None,
    grad_right_NH: Tensor | None = None,
) -> None:
    """With G_ij = e_ij (row_weight_i + column_weight_j): add G right to grad_left, and G' left to grad_right where it is given."""
    for block in _blocks(matrix_NN.shape[0], matrix_NN.device.type):
        g = (row_weight_N[block].unsqueeze(1) + column_weight_N).mul_(matrix_NN[block])
        grad_left_NH[block].addmm_(g, right_NH)
        if left_NH is not None and grad_right_NH is not None:
            grad_right_NH.addmm_(g.T, left_NH[block])


def _blocks(n: int, device_type: str) -> Iterator[slice]:
    """Slices of the rows of an (n, n) matrix."""
    size = max(1, _BLOCK.get(device_type, _BLOCK_ELSEWHERE) // max(n, 1))
    edges = [*range(0, n, size), n]
    return (slice(start, stop) for start, stop in itertools.pairwise(edges))
