"""The dialogue graph of the per-utterance trainer: edges from loops over utterances, layers over edges, and two views.

Written in plain torch without code of joyful. joyful corrects some errors of the reference. The same corrections are
made here, so that both compute the same function. None of them changes the cost of a step:

- Augmented edges have relations, stay inside their dialogue, and do not change the graph of the anchor.
- A node is not its own negative in the contrastive loss.

Shape letters: N utterances, E edges, R = 2 S^2 relations of S speakers, H hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Graph:
    """Edges and dialogues of a batch.

    Attributes:
        source: (E,), index of the source utterance in the batch.
        target: (E,), index of the target utterance in the batch.
        first: (N,), index of the first utterance of each utterance's dialogue.
        length: (N,), number of utterances of that dialogue.
        speakers: (N,).
        n_speakers: Number of speakers.
    """

    source: Tensor
    target: Tensor
    first: Tensor
    length: Tensor
    speakers: Tensor
    n_speakers: int

    def relation(self, source: Tensor, target: Tensor) -> Tensor:
        """Return (E,): the relation of each edge, from the speakers at its ends and whether the source is later."""
        pair = self.speakers[source] * self.n_speakers + self.speakers[target]
        return 2 * pair + (source > target).long()


def build_graph(speakers: list[Tensor], n_speakers: int, past: int, future: int) -> Graph:
    """Build the graph of a batch.

    Args:
        speakers: Speakers of each dialogue, (T,) each.
        n_speakers: Number of speakers.
        past: Utterances before each utterance that are connected to it; -1: all.
        future: Utterances after it; -1: all.
    """
    source, target, first, length = [], [], [], []
    start = 0
    for who in speakers:
        size = len(who)
        for i in range(size):
            low = 0 if past < 0 else max(0, i - past)
            high = size if future < 0 else min(size, i + future + 1)
            for j in range(low, high):
                source.append(start + j)
                target.append(start + i)
            first.append(start)
            length.append(size)
        start += size
    return Graph(
        torch.tensor(source), torch.tensor(target), torch.tensor(first), torch.tensor(length),
        torch.cat(speakers), n_speakers,
    )  # fmt: skip


class PlainRelationalConv(nn.Module):
    """RGCN with the mean over the neighbours of each relation, computed relation by relation."""

    def __init__(self, size_in: int, size_out: int, relations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(relations, size_in, size_out))
        self.root = nn.Parameter(torch.empty(size_in, size_out))
        self.bias = nn.Parameter(torch.zeros(size_out))
        for matrix in (*self.weight, self.root):
            nn.init.xavier_uniform_(matrix)

    def forward(self, x: Tensor, source: Tensor, target: Tensor, relation: Tensor) -> Tensor:
        out = x @ self.root + self.bias
        for number, matrix in enumerate(self.weight):
            ours = relation == number
            s, t = source[ours], target[ours]
            neighbours = torch.zeros(len(x), dtype=x.dtype).index_add(0, t, torch.ones(len(t), dtype=x.dtype))
            summed = torch.zeros_like(x).index_add(0, t, x[s])
            out = out + (summed / neighbours.clamp(min=1).unsqueeze(1)) @ matrix
        return out


class PlainGraphTransformer(nn.Module):
    """Multi-head attention over the edges with concatenated heads and a linear skip connection."""

    def __init__(self, size_in: int, size_out: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size_out
        self.lin_query = nn.Linear(size_in, heads * size_out)
        self.lin_key = nn.Linear(size_in, heads * size_out)
        self.lin_value = nn.Linear(size_in, heads * size_out)
        self.lin_skip = nn.Linear(size_in, heads * size_out)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        q, k, v = (layer(x).view(-1, self.heads, self.size) for layer in (self.lin_query, self.lin_key, self.lin_value))
        score = (q[target] * k[source]).sum(dim=2) / math.sqrt(self.size)  # (E, heads)
        places = target.unsqueeze(1).expand_as(score)
        # Subtracting the largest score of each target prevents overflow. It cancels in the quotient.
        top = torch.full((len(x), self.heads), -math.inf, dtype=x.dtype)
        top = top.scatter_reduce(0, places, score.detach(), "amax")
        weight = torch.exp(score - top[target])
        total = torch.zeros_like(top).index_add(0, target, weight)
        message = (weight / total[target]).unsqueeze(2) * v[source]
        out = torch.zeros_like(v).index_add(0, target, message)
        return out.flatten(1) + self.lin_skip(x)


class RandomSource:
    """Random numbers of the views, from torch's global generator."""

    def keep(self, count: int, drop: float, place: str) -> Tensor:
        """Return (count,), True with probability 1 - drop."""
        return torch.rand(count) >= drop

    def uniform(self, count: int, place: str) -> Tensor:
        """Return (count,), uniform in [0, 1)."""
        return torch.rand(count)


def mask_columns(x: Tensor, drop: float, random_source: RandomSource, place: str) -> Tensor:
    """Set random feature columns to 0 for all utterances."""
    return x * random_source.keep(x.shape[1], drop, place).to(x.dtype)


def perturb_edges(graph: Graph, share: float, random_source: RandomSource, place: str) -> tuple[Tensor, Tensor]:
    """Replace the source of a share of the edges by an utterance drawn uniformly from the dialogue of the target."""
    count = len(graph.source)
    stays = random_source.keep(count, share, f"{place}.which")
    where = random_source.uniform(count, f"{place}.where")
    drawn = graph.first[graph.target] + (where * graph.length[graph.target]).long()
    return torch.where(stays, graph.source, drawn), graph.target


def add_nearest(graph: Graph, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Add edges to each utterance from the k other utterances of its dialogue with the highest cosine similarity."""
    sources, targets = [graph.source], [graph.target]
    start = 0
    while start < len(x):
        size = int(graph.length[start])
        unit = functional.normalize(x[start : start + size].detach(), dim=1)
        alike = (unit @ unit.T).fill_diagonal_(-math.inf)
        nearest = alike.topk(min(k, size - 1), dim=1).indices
        for i in range(size):
            sources.append(start + nearest[i])
            targets.append(torch.full((nearest.shape[1],), start + i))
        start += size
    return torch.cat(sources), torch.cat(targets)


def contrast(u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss of two views of N nodes: negatives from both views, mean over both directions."""
    u, v = functional.normalize(u, dim=1), functional.normalize(v, dim=1)
    across, within_u, within_v = (torch.exp(a @ b.T / temperature) for a, b in ((u, v), (u, u), (v, v)))
    positive = across.diagonal()

    def loss(across: Tensor, within: Tensor) -> Tensor:
        return -torch.log(positive / (across.sum(dim=1) + within.sum(dim=1) - within.diagonal()))

    return (0.5 * (loss(across, within_u) + loss(across.T, within_v))).mean()
