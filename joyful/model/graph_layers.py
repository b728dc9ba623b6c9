"""The two graph layers. Relations are derived from the speakers and the direction in time.

    relational convolution  out_i = W_0 x_i + sum_r 1/|N_r(i)| sum_{j in N_r(i)} W_r x_j     (Schlichtkrull et al. 2018)
    graph transformer       out_i = W_s x_i + sum_j softmax_j(q_i k_j / sqrt(H)) v_j          (Shi et al. 2021)

Shape letters: N utterances, E edges, S speakers, R = 2 S^2 relations, H hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from joyful.model.dialogue_graph import AttentionBlocks, Edges

#: Number of elements of the messages that are computed at a time on the CPU.
PART_SIZE = 1 << 18


@dataclass(frozen=True)
class Speakers:
    """The speakers of a batch.

    Attributes:
        ids: (N,) int64, speaker of each utterance.
        order: (N,) positions of the utterances sorted by speaker.
        rank: (N,) the inverse permutation.
        sizes: Number of utterances of each of the S speakers. They are on the host, so that splitting by speaker does
            not wait for the device.
    """

    ids: Tensor
    order: Tensor
    rank: Tensor
    sizes: tuple[int, ...]


def relation(speaker_of: Tensor, edges: Edges, n_speakers: int) -> Tensor:
    """Return the relation of each edge, (E,), from 0 to 2 S^2 - 1.

    The relation is (source speaker * S + target speaker) * 2 + (1 if the source is later than the target, else 0).

    Args:
        speaker_of: (N,) speaker of each utterance.
        edges: Edges of the batch.
        n_speakers: S.
    """
    pair = speaker_of[edges.source] * n_speakers + speaker_of[edges.target]
    return pair * 2 + (edges.source > edges.target)


class RelationalGraphConv(nn.Module):
    """Relational graph convolution with the mean over the neighbours of each relation, (N, H_in) -> (N, H_out).

    Duplicate edges count twice. The output of an utterance without neighbours is W_0 x + bias. The layout of the weight
    is (R, H_in, H_out).

    Args:
        size_in: H_in.
        size_out: H_out.
        n_speakers: S.
    """

    def __init__(self, size_in: int, size_out: int, n_speakers: int) -> None:
        super().__init__()
        self.n_speakers = n_speakers
        self.weight = nn.Parameter(torch.empty(2 * n_speakers**2, size_in, size_out))
        self.root = nn.Parameter(torch.empty(size_in, size_out))
        self.bias = nn.Parameter(torch.empty(size_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the matrices with Glorot's uniform distribution (Glorot & Bengio 2010) and the bias with 0."""
        bound = math.sqrt(6.0 / (self.root.shape[0] + self.root.shape[1]))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.root, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x_NH: Tensor, speakers: Speakers, edges: Edges) -> Tensor:
        s, out = self.n_speakers, self.root.shape[1]
        n = x_NH.shape[0]
        # Each utterance is transformed once for every pair (speaker of the target, direction). Its own speaker is
        # known, so it needs only 2 S of the 2 S^2 matrices, and the utterances of one speaker share one multiplication.
        table = self.weight.view(s, s * 2, -1, out).transpose(1, 2).reshape(s, -1, s * 2 * out)
        sorted_x = x_NH.index_select(0, speakers.order)
        # unbind instead of table[k]: the gradient of each index would allocate a full table of zeros
        pairs = zip(sorted_x.split(speakers.sizes), table.unbind(), strict=True)
        parts = [part @ matrix for part, matrix in pairs if len(part)]
        transformed = torch.cat(parts).view(n * s * 2, out)

        future = (edges.source > edges.target).long()
        message = speakers.rank[edges.source] * (2 * s) + speakers.ids[edges.target] * 2 + future
        slot = edges.target * (2 * s) + speakers.ids[edges.source] * 2 + future
        exact = torch.promote_types(x_NH.dtype, torch.float32)  # bfloat16 cannot count beyond 256
        ones = torch.ones_like(slot, dtype=exact) if edges.kept is None else edges.kept.to(exact)
        count = torch.zeros(n * 2 * s, dtype=exact, device=x_NH.device).index_add_(0, slot, ones)
        share = ones / count.index_select(0, slot).clamp(min=1.0)
        own = torch.addmm(self.bias, x_NH, self.root)
        result: Tensor = _Propagate.apply(own, transformed, message, edges.target, share)
        return result


class _Propagate(torch.autograd.Function):
    """own (N, H) plus share_e * table[source_e] at the target of each edge e; table (M, H), share (E,).

    The messages of the edges are not stored for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, table: Tensor, source: Tensor, target: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(source, target, share)
        ctx.rows = table.shape[0]
        out = own.clone()
        _add_messages(table, source, target, share, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, target, share = ctx.saved_tensors
        table = gradient.new_zeros(ctx.rows, gradient.shape[1])
        _add_messages(gradient, target, source, share, table)
        return gradient, table, None, None, None


def _add_messages(table_MH: Tensor, source_E: Tensor, target_E: Tensor, share_E: Tensor, out_NH: Tensor) -> None:
    """Add share_e * table[source_e] to out[target_e]. On the CPU, edges are processed in parts that fit the cache."""
    part = PART_SIZE // table_MH.shape[1] if table_MH.device.type == "cpu" else len(source_E)
    edges = zip(*(x.split(max(1, part)) for x in (source_E, target_E, share_E)), strict=True)
    for source, target, share in edges:
        messages = table_MH.index_select(0, source).mul_(share.unsqueeze(1))
        out_NH.index_add_(0, target, messages.to(out_NH.dtype))


class GraphTransformer(nn.Module):
    """Multi-head attention over the edges of the graph, heads concatenated, (N, H_in) -> (N, heads * H_out).

    Args:
        size_in: H_in.
        size_out: H_out, units of each head.
        heads: Number of heads.
    """

    def __init__(self, size_in: int, size_out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.lin_query = nn.Linear(size_in, heads * size_out)
        self.lin_key = nn.Linear(size_in, heads * size_out)
        self.lin_value = nn.Linear(size_in, heads * size_out)
        self.lin_skip = nn.Linear(size_in, heads * size_out)

    def forward(self, x_NH: Tensor, blocks: AttentionBlocks) -> Tensor:
        attended = block_attention(self.lin_query(x_NH), self.lin_key(x_NH), self.lin_value(x_NH), blocks, self.heads)
        return attended + self.lin_skip(x_NH)


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
    if not q_NH.is_cuda:  # at heads of 100 units, the CPU kernel is ten times slower in bfloat16
        q_NH, k_NH, v_NH = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q_NH, k_NH, v_NH))
    q, k, v = split(q_NH, blocks.queries), split(k_NH, blocks.keys), split(v_NH, blocks.keys)
    # The backward passes of CUDA's fused kernels are not bitwise reproducible. The math kernel is, and this is a small
    # part of the step.
    with sdpa_kernel(SDPBackend.MATH) if q.is_cuda else torch.autocast("cpu", enabled=False):
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=blocks.bias.to(q.dtype))
    return blocks.scatter(attended.transpose(1, 2).flatten(2)).to(dtype)
