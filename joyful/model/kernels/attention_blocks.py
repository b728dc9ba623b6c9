"""Attention within a window of each dialogue, computed in dense blocks of consecutive utterances.

    out_i = sum_j softmax_j(q_i k_j / sqrt(d)) v_j     over the utterances j of i's dialogue with i - wp <= j <= i + wf

The plain implementation, `plain_attention`, computes the scores of all pairs of utterances of the batch and masks those
that are not neighbours: N^2 scores. The blocks need about N (BLOCK_SIZE + wp + wf).

The plain form takes 1.24 times the processor time of a step and 0.06 GiB more with model=small; at full size 1.03
times and 0.11 GiB more.

Shape letters: N utterances, H hidden, G blocks, Q queries and K keys of a block, d units of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from joyful.devices import takes_cpu_branch, to_device

#: Largest number of queries in a block. A bounded window splits long dialogues into blocks: memory grows with N, not
#: N^2.
BLOCK_SIZE = 64


@dataclass(frozen=True)
class AttentionBlocks:
    """Queries and the keys that they attend to, gathered into dense blocks.

    Attributes:
        queries: (G, Q) position of each query in the batch; N for padding.
        keys: (G, K) position of each key in the batch; N for padding.
        bias: (G, 1, Q, K) float32, 0 where the query attends to the key, else -inf. A padded query attends to its first
            key, which keeps its result finite.
        place: (N,) index of each utterance among the G Q queries.
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor
    place: Tensor

    def gather(self, x: Tensor, places: Tensor) -> Tensor:
        """Return the rows of x (N, H) at the positions (G, Q or K), shape (G, Q or K, H); zeros for padding."""
        padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
        return padded.index_select(0, places.reshape(-1)).view(*places.shape, x.shape[1])

    def scatter(self, blocks: Tensor) -> Tensor:
        """Return the row of each utterance from blocks (G, Q, H), shape (N, H)."""
        return blocks.reshape(-1, blocks.shape[-1]).index_select(0, self.place)


def attention_blocks(lengths: tuple[int, ...], wp: int, wf: int, device: torch.device) -> AttentionBlocks:
    """Return the blocks for attention within a window.

    The blocks are sorted by decreasing length of the dialogue, as packing for recurrent layers requires.

    Args:
        lengths: Number of utterances of each dialogue.
        wp: Number of past utterances visible to each utterance; -1 for all.
        wf: Number of future utterances visible to each utterance; -1 for all. If wp or wf is -1, each block is a whole
            dialogue.
        device: Device of the blocks.
    """
    n, block = sum(lengths), max(lengths)
    if wp >= 0 and wf >= 0:
        block = min(block, BLOCK_SIZE)
    queries: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    starts = np.cumsum(lengths) - lengths
    for dialogue in np.argsort(-np.asarray(lengths), kind="stable"):
        start, length = int(starts[dialogue]), lengths[dialogue]
        for first in range(0, length, block):
            last = min(first + block, length)
            low = 0 if wp < 0 else max(0, first - wp)
            high = length if wf < 0 else min(length, last + wf)
            queries.append(np.arange(start + first, start + last))
            keys.append(np.arange(start + low, start + high))
    q_size, k_size = max(map(len, queries)), max(map(len, keys))
    queries_GQ = np.full((len(queries), q_size), n)
    keys_GK = np.full((len(keys), k_size), n)
    place_N = np.empty(n, dtype=np.int64)
    for row, (q, k) in enumerate(zip(queries, keys, strict=True)):
        queries_GQ[row, : len(q)], keys_GK[row, : len(k)] = q, k
        place_N[q] = row * q_size + np.arange(len(q))
    distance = keys_GK[:, None, :] - queries_GQ[:, :, None]
    allowed = (keys_GK[:, None, :] < n) & (queries_GQ[:, :, None] < n)
    if wp >= 0:
        allowed &= distance >= -wp
    if wf >= 0:
        allowed &= distance <= wf
    allowed[:, :, 0] |= ~allowed.any(axis=2)
    bias = np.where(allowed, np.float32(0), np.float32("-inf"))[:, None]
    return AttentionBlocks(
        to_device(queries_GQ, device), to_device(keys_GK, device), to_device(bias, device), to_device(place_N, device)
    )


def block_attention(q_NH: Tensor, k_NH: Tensor, v_NH: Tensor, blocks: AttentionBlocks, heads: int) -> Tensor:
    """Return scaled dot-product attention within blocks, (N, heads * d).

    Args:
        q_NH: Queries, (N, heads * d).
        k_NH: Keys, (N, heads * d).
        v_NH: Values, (N, heads * d).
        blocks: Blocks of queries and of the keys that they attend to.
        heads: Number of heads.
    """

    def split(x: Tensor, places: Tensor) -> Tensor:
        return blocks.gather(x, places).unflatten(2, (heads, -1)).transpose(1, 2)

    dtype = q_NH.dtype
    on_cpu = takes_cpu_branch(q_NH.device)
    if on_cpu:  # at heads of 100 units, the CPU kernel is ten times slower in bfloat16
        q_NH, k_NH, v_NH = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q_NH, k_NH, v_NH))
    q, k, v = split(q_NH, blocks.queries), split(k_NH, blocks.keys), split(v_NH, blocks.keys)
    # The backward passes of CUDA's fused kernels are not bitwise reproducible. The math kernel is, and this is a small
    # part of the step.
    with torch.autocast("cpu", enabled=False) if on_cpu else sdpa_kernel(SDPBackend.MATH):
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=blocks.bias.to(q.dtype))
    return blocks.scatter(attended.transpose(1, 2).flatten(2)).to(dtype)


def plain_attention(q_NH: Tensor, k_NH: Tensor, v_NH: Tensor, blocks: AttentionBlocks, heads: int) -> Tensor:
    """Return the same as `block_attention`, from the scores of all pairs of utterances."""
    n = len(q_NH)
    seen = torch.zeros(n + 1, n + 1, dtype=torch.bool, device=q_NH.device)  # the last row and column are padding
    pairs = torch.isfinite(blocks.bias.squeeze(1))
    queries, keys = torch.broadcast_tensors(blocks.queries.unsqueeze(2), blocks.keys.unsqueeze(1))
    seen[queries[pairs], keys[pairs]] = True
    q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in (q_NH, k_NH, v_NH))
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:n, :n])
    return mixed.transpose(0, 1).flatten(1)
