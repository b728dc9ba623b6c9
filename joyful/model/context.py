"""Sequence context over the dialogue, before the graph: a transformer encoder, or a bidirectional LSTM or GRU.

A linear projection follows. Linear layers process the N utterances without padding; only attention and recurrence
gather dialogues into rows.

Shape letters: N utterances, D input width, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from joyful.model.dialogue_graph import AttentionBlocks
from joyful.model.graph_layers import block_attention
from joyful.model.kernels.dialogue_attention import dialogue_attention
from joyful.model.kernels.dropout import dropout, relu_dropout_
from joyful.model.kernels.layer_norm import lean_layer_norm
from joyful.model.kernels.recurrence import bidirectional_gru
from joyful.randomness import Draws


class TransformerLayer(nn.Module):
    """Post-norm encoder layer (Vaswani et al. 2017) on utterances without padding, (N, D) -> (N, D).

    Args:
        width: D.
        heads: Number of attention heads; divides D.
        feedforward: Hidden units of the feed-forward part.
        drop: Dropout probability.
    """

    def __init__(self, width: int, heads: int, feedforward: int, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        """Initialise the joint projection with Glorot's uniform distribution and the attention biases with 0."""
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None, place: str
    ) -> Tensor:
        qkv_N3D = self.qkv(x_ND)
        if qkv_N3D.is_cuda:  # one launch for all dialogues; on the CPU, padding costs more than a loop
            q, k, v = qkv_N3D.chunk(3, dim=1)
            mixed_ND = block_attention(q, k, v, blocks, self.heads)
        else:
            mixed_ND = dialogue_attention(qkv_N3D, lengths, self.heads)
        attended = self.out(mixed_ND)
        x_ND = lean_layer_norm(_add(dropout(attended, self.drop, draws, f"{place}.attention"), x_ND), self.norm1)
        hidden = relu_dropout_(self.linear1(x_ND), self.drop, draws, f"{place}.hidden")
        fed = dropout(self.linear2(hidden), self.drop, draws, f"{place}.feedforward")
        return lean_layer_norm(_add(fed, x_ND), self.norm2)


def _add(branch: Tensor, x: Tensor) -> Tensor:
    """Return branch + x, in place if the branch has the dtype of the sum. No backward pass reads the branch."""
    return branch.add_(x) if torch.promote_types(branch.dtype, x.dtype) == branch.dtype else branch + x


class TransformerContext(nn.Module):
    """Transformer encoder over whole dialogues, then a linear projection, (N, D) -> (N, H).

    Args:
        width: D.
        hidden: H.
        layers: Number of encoder layers.
        heads: Number of attention heads; must divide D.
        feedforward: Hidden units of each feed-forward part.
        drop: Dropout probability.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, hidden: int, layers: int, heads: int, feedforward: int, drop: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"model.context_heads: expected a divisor of the context's width {width}, got {heads}; "
                f"set model.context_heads to one of {[h for h in range(1, 17) if width % h == 0]}"
            )
        self.layers = nn.ModuleList(TransformerLayer(width, heads, feedforward, drop) for _ in range(layers))
        self.project = nn.Linear(width, hidden)

    def forward(self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            x_ND = layer(x_ND, lengths, blocks, draws, f"context.{number}")
        return self.project(x_ND)


class RecurrentContext(nn.Module):
    """Bidirectional LSTM or GRU over each dialogue, then a linear projection, (N, D) -> (N, H).

    Args:
        kind: "lstm" or "gru".
        width: D.
        hidden: H; each direction has H units.
        layers: Number of recurrent layers.
        drop: Dropout probability before each layer.
    """

    def __init__(self, kind: str, width: int, hidden: int, layers: int, drop: float) -> None:
        super().__init__()
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        sizes = [width] + [2 * hidden] * (layers - 1)
        # One module per layer, because the dropout between layers must draw from `joyful.randomness`.
        self.layers = nn.ModuleList(cell(size, hidden, batch_first=True, bidirectional=True) for size in sizes)
        self.drop = drop
        self.project = nn.Linear(2 * hidden, hidden)

    def forward(self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            x_ND = dropout(x_ND, self.drop, draws, f"context.{number}")
            if isinstance(layer, nn.GRU) and not x_ND.is_cuda:
                x_ND = bidirectional_gru(layer, x_ND, lengths)
            else:
                x_ND = _packed(layer, x_ND, lengths, blocks)
        return self.project(x_ND)


def _packed(layer: nn.Module, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks) -> Tensor:
    """Apply a recurrent layer of PyTorch to each dialogue."""
    # The blocks are sorted by decreasing length. Sorted lengths on the host save a sort that would wait for the device.
    sizes = torch.tensor(sorted(lengths, reverse=True))
    padded_BTD = blocks.gather(x_ND, blocks.queries)
    packed = pack_padded_sequence(padded_BTD, sizes, batch_first=True, enforce_sorted=True)
    output, _ = layer(packed)
    unpacked, _ = pad_packed_sequence(output, batch_first=True, total_length=padded_BTD.shape[1])
    return blocks.scatter(unpacked)
