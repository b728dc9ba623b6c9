"""Self-attention inside each dialogue, on the processor: dialogues stand one after another, so no row is gathered or padded.

    out_i = sum_j softmax_j(q_i k_j / sqrt(d)) v_j     over the utterances j of i's dialogue (Vaswani et al. 2017)

Queries, keys and values are read where the joint projection left them, as strided views. Its twin is
`graph_layers.block_attention` over blocks of whole dialogues, which serves CUDA.

Shape letters: N utterances, D width, T utterances of one dialogue, d = D / heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

#: Longest dialogue whose weights (heads, T, T) are kept for the backward pass; of longer ones they are computed again.
KEPT = 128


def dialogue_attention(qkv_N3D: Tensor, lengths: tuple[int, ...], heads: int) -> Tensor:
    """Queries, keys and values side by side (N, 3 D) -> (N, D), heads concatenated.

    lengths: utterances of each dialogue, N together. heads divides D. Gradients of first order only.
    """
    with torch.autocast(qkv_N3D.device.type, enabled=False):  # (see _exact)
        result: Tensor = _DialogueAttention.apply(qkv_N3D, lengths, heads)
    return result


class _DialogueAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, lengths: tuple[int, ...], heads: int) -> Tensor:
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        (out_hNd,) = _by_head(out, 1, heads)
        kept = []
        for part in _parts(lengths):
            q, k, v = _by_head(_exact(qkv[part]), 3, heads)
            weights = _weights(q, k)
            out_hNd[:, part] = torch.bmm(weights, v)
            if part.stop - part.start <= KEPT:
                kept.append(weights)
        ctx.save_for_backward(qkv, *kept)
        ctx.lengths, ctx.heads = lengths, heads
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        qkv, *kept = ctx.saved_tensors
        result = torch.empty_like(qkv)
        grad_q, grad_k, grad_v = _by_head(result, 3, ctx.heads)
        weights_of = iter(kept)
        for part in _parts(ctx.lengths):
            q, k, v = _by_head(_exact(qkv[part]), 3, ctx.heads)
            (g,) = _by_head(_exact(gradient[part]), 1, ctx.heads)
            weights = next(weights_of) if part.stop - part.start <= KEPT else _weights(q, k)
            grad_v[:, part] = torch.bmm(weights.transpose(1, 2), g)
            grad_weights = torch.bmm(g, v.transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_scores *= 1 / math.sqrt(q.shape[2])
            grad_q[:, part] = torch.bmm(grad_scores, k)
            grad_k[:, part] = torch.bmm(grad_scores.transpose(1, 2), q)
        return result, None, None


def _exact(x: Tensor) -> Tensor:
    """At least float32: exponents do not bear eight bits of mantissa, and products as small as these are no quicker with them."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _weights(q_hTd: Tensor, k_hTd: Tensor) -> Tensor:
    """(heads, T, T) softmax over the keys of a dialogue."""
    scores = torch.bmm(q_hTd, k_hTd.transpose(1, 2)).mul_(1 / math.sqrt(q_hTd.shape[2]))
    return torch.softmax(scores, dim=2)


def _by_head(x: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """`count` views (heads, N, d) of a tensor (N, count * D)."""
    return x.view(x.shape[0], count, heads, -1).permute(1, 2, 0, 3).unbind()


def _parts(lengths: tuple[int, ...]) -> Iterator[slice]:
    """Where each dialogue stands."""
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length
