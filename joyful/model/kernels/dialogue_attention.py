"""Self-attention within each dialogue on the CPU, without gathering or padding rows.

    out_i = sum_j softmax_j(q_i k_j / sqrt(d)) v_j     over the utterances j of i's dialogue (Vaswani et al. 2017)

The dialogues of a batch are consecutive rows. Queries, keys and values are strided views of the joint projection. On
CUDA, `block_attention` over blocks of whole dialogues computes the same result.

The plain form takes 1.03 times the processor time of a step with model=small and a transformer; at full size 1.01
times and 0.05 GiB more. In bfloat16 a layer takes three times as long (docs/PERFORMANCE.md).

Shape letters: N utterances, D width, T utterances of one dialogue, d = D / heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from joyful import compat
from joyful.devices import takes_cpu_branch
from joyful.model.kernels.attention_blocks import AttentionBlocks, block_attention

#: Longest dialogue whose weights (heads, T, T) are stored for the backward pass; those of longer ones are recomputed.
MAX_STORED_LENGTH = 128


def dialogue_attention(qkv_N3D: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, heads: int) -> Tensor:
    """Return the self-attention of each dialogue, (N, D), heads concatenated. Only first-order gradients are supported.

    Args:
        qkv_N3D: Queries, keys and values, concatenated.
        lengths: Number of utterances of each dialogue, sum N.
        blocks: Attention blocks of whole dialogues, used on CUDA.
        heads: Number of heads; divides D.
    """
    if not takes_cpu_branch(qkv_N3D.device):  # one launch for all dialogues; on the CPU, padding costs more than a loop
        q, k, v = qkv_N3D.chunk(3, dim=1)
        return block_attention(q, k, v, blocks, heads)
    with torch.autocast(qkv_N3D.device.type, enabled=False):  # see _exact
        result: Tensor = _DialogueAttention.apply(qkv_N3D, lengths, heads)
    return result


def plain_dialogue_attention(qkv_N3D: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, heads: int) -> Tensor:
    """Return the same as `dialogue_attention`, by PyTorch's attention on each dialogue."""
    outputs = []
    for part in qkv_N3D.split(lengths):
        q, k, v = part.unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
        outputs.append(functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    return torch.cat(outputs)


class _DialogueAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, lengths: tuple[int, ...], heads: int) -> Tensor:
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        (out_hNd,) = _by_head(out, 1, heads)
        stored = []
        for part in _parts(lengths):
            q, k, v = _by_head(_exact(qkv[part]), 3, heads)
            weights = _weights(q, k)
            out_hNd[:, part] = torch.bmm(weights, v)
            if part.stop - part.start <= MAX_STORED_LENGTH:
                stored.append(weights)
        ctx.save_for_backward(qkv, *stored)
        ctx.lengths, ctx.heads = lengths, heads
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        qkv, *stored = ctx.saved_tensors
        result = torch.empty_like(qkv)
        grad_q, grad_k, grad_v = _by_head(result, 3, ctx.heads)
        stored_weights = iter(stored)
        for part in _parts(ctx.lengths):
            q, k, v = _by_head(_exact(qkv[part]), 3, ctx.heads)
            (g,) = _by_head(_exact(gradient[part]), 1, ctx.heads)
            weights = next(stored_weights) if part.stop - part.start <= MAX_STORED_LENGTH else _weights(q, k)
            grad_v[:, part] = torch.bmm(weights.transpose(1, 2), g)
            grad_weights = torch.bmm(g, v.transpose(1, 2))
            grad_scores = compat.softmax_backward(grad_weights, weights)
            grad_scores *= 1 / math.sqrt(q.shape[2])
            grad_q[:, part] = torch.bmm(grad_scores, k)
            grad_k[:, part] = torch.bmm(grad_scores.transpose(1, 2), q)
        return result, None, None


def _exact(x: Tensor) -> Tensor:
    """Return x in at least float32.

    Eight bits of mantissa are too few for exponents, and do not speed up products of this size.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _weights(q_hTd: Tensor, k_hTd: Tensor) -> Tensor:
    """Return the attention weights of a dialogue, (heads, T, T), normalised over its keys."""
    scores = torch.bmm(q_hTd, k_hTd.transpose(1, 2)).mul_(1 / math.sqrt(q_hTd.shape[2]))
    return torch.softmax(scores, dim=2)


def _by_head(x: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """Return `count` views (heads, N, d) of a tensor (N, count * D)."""
    return x.view(x.shape[0], count, heads, -1).permute(1, 2, 0, 3).unbind()


def _parts(lengths: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of each dialogue."""
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length
