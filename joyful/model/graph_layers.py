"""The two graph layers, for graphs whose relations come from speakers and direction.

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

#: Elements of a part of the edges' messages on the processor.
PART = 1 << 18


@dataclass(frozen=True)
class Speakers:
    """Who speaks. of: (N,) int64 on the device. order: (N,) places sorted by speaker; rank: (N,) its inverse; sizes:
    utterances of each of the S speakers, on the host, so that one multiplication per speaker needs no look at the
    device."""

    of: Tensor
    order: Tensor
    rank: Tensor
    sizes: tuple[int, ...]


def relation(speaker_of: Tensor, edges: Edges, n_speakers: int) -> Tensor:
    """(E,) relation of each edge, 0 to 2 S^2 - 1: (source speaker * S + target speaker) * 2 + (1 if the source is in
    the future)."""
    pair = speaker_of[edges.source] * n_speakers + speaker_of[edges.target]
    return pair * 2 + (edges.source > edges.target)


class RelationalGraphConv(nn.Module):
    """Relational graph convolution with the mean over each relation's neighbours. forward: (N, H_in) -> (N, H_out).

    Edges that stand twice count twice. An utterance without neighbours gets W_0 x + bias. Weight layout (R, H_in,
    H_out).
    """

    def __init__(self, size_in: int, size_out: int, n_speakers: int) -> None:
        super().__init__()
        self.n_speakers = n_speakers
        self.weight = nn.Parameter(torch.empty(2 * n_speakers**2, size_in, size_out))
        self.root = nn.Parameter(torch.empty(size_in, size_out))
        self.bias = nn.Parameter(torch.empty(size_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot's uniform (Glorot & Bengio 2010) for each relation's matrix, zero bias."""
        bound = math.sqrt(6.0 / (self.root.shape[0] + self.root.shape[1]))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.root, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x_NH: Tensor, speakers: Speakers, edges: Edges) -> Tensor:
        s, out = self.n_speakers, self.root.shape[1]
        n = x_NH.shape[0]
        # Each utterance is transformed once for every (speaker of target, direction): its own speaker is known, so only
        # 2 S of the 2 S^2 matrices concern it, and the utterances of one speaker share one multiplication.
        table = self.weight.view(s, s * 2, -1, out).transpose(1, 2).reshape(s, -1, s * 2 * out)
        sorted_x = x_NH.index_select(0, speakers.order)
        # unbind, not table[k]: the gradient of each index would be a table of zeros of its own
        pairs = zip(sorted_x.split(speakers.sizes), table.unbind(), strict=True)
        parts = [part @ matrix for part, matrix in pairs if len(part)]
        transformed = torch.cat(parts).view(n * s * 2, out)

        future = (edges.source > edges.target).long()
        message = speakers.rank[edges.source] * (2 * s) + speakers.of[edges.target] * 2 + future
        slot = edges.target * (2 * s) + speakers.of[edges.source] * 2 + future
        exact = torch.promote_types(x_NH.dtype, torch.float32)  # bfloat16 cannot count beyond 256
        ones = torch.ones_like(slot, dtype=exact) if edges.kept is None else edges.kept.to(exact)
        count = torch.zeros(n * 2 * s, dtype=exact, device=x_NH.device).index_add_(0, slot, ones)
        share = ones / count.index_select(0, slot).clamp(min=1.0)
        own = torch.addmm(self.bias, x_NH, self.root)
        result: Tensor = _Propagate.apply(own, transformed, message, edges.target, share)
        return result


class _Propagate(torch.autograd.Function):
    """own (N, H) with share_e * table[source_e] added at each edge's target; table (M, H), share (E,).

    No edge's message is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, table: Tensor, source: Tensor, target: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(source, target, share)
        ctx.rows = table.shape[0]
        out = own.clone()
        _pass_on(table, source, target, share, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, target, share = ctx.saved_tensors
        table = gradient.new_zeros(ctx.rows, gradient.shape[1])
        _pass_on(gradient, target, source, share, table)
        return gradient, table, None, None, None


def _pass_on(table_MH: Tensor, source_E: Tensor, target_E: Tensor, share_E: Tensor, out_NH: Tensor) -> None:
    """Add share_e * table[source_e] to out[target_e]; on the processor in parts of the edges that stay in its cache."""
    part = PART // table_MH.shape[1] if table_MH.device.type == "cpu" else len(source_E)
    edges = zip(*(x.split(max(1, part)) for x in (source_E, target_E, share_E)), strict=True)
    for source, target, share in edges:
        messages = table_MH.index_select(0, source).mul_(share.unsqueeze(1))
        out_NH.index_add_(0, target, messages.to(out_NH.dtype))


class GraphTransformer(nn.Module):
    """Multi-head attention over the graph's edges, heads concatenated. forward: (N, H_in) -> (N, heads * H_out)."""

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
    """Scaled dot-product attention inside blocks. q, k, v: (N, heads * d) each -> (N, heads * d)."""

    def split(x: Tensor, places: Tensor) -> Tensor:
        return blocks.gather(x, places).unflatten(2, (heads, -1)).transpose(1, 2)

    dtype = q_NH.dtype
    if not q_NH.is_cuda:  # bfloat16 is ten times slower in the processor's kernel, at heads of 100 units
        q_NH, k_NH, v_NH = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q_NH, k_NH, v_NH))
    q, k, v = split(q_NH, blocks.queries), split(k_NH, blocks.keys), split(v_NH, blocks.keys)
    # CUDA's fused kernels do not repeat their bits in the backward pass; the plain one does, and this is a small part
    with sdpa_kernel(SDPBackend.MATH) if q.is_cuda else torch.autocast("cpu", enabled=False):
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=blocks.bias.to(q.dtype))
    return blocks.scatter(attended.transpose(1, 2).flatten(2)).to(dtype)
