"""The graph structure of a batch of dialogues: which utterances are connected.

The structure depends only on the lengths of the dialogues and is built on the host, so no training step waits for it.

An edge connects utterance j to utterance i of the same dialogue if i - wp <= j <= i + wf (-1: no bound). Every
utterance has an edge to itself. The relation of an edge is the triple (speaker of the source, speaker of the target,
whether the source is later than the target), which gives 2 S^2 relations.

Shape letters: B dialogues, N utterances, E edges, G attention blocks, Q queries and K keys of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyful.records import Batch

#: Largest number of queries in a block. A bounded window splits long dialogues into blocks: memory grows with N, not
#: N^2.
BLOCK_SIZE = 64


@dataclass(frozen=True)
class Edges:
    """Directed edges between utterances of a batch.

    Attributes:
        source: (E,) int64, position of each source in the batch.
        target: (E,) int64, position of each target in the batch.
        kept: (E,) 1 for an edge that exists, 0 for one that is ignored; None if all edges exist.
    """

    source: Tensor
    target: Tensor
    kept: Tensor | None = None


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


@dataclass(frozen=True)
class Structure:
    """Everything that the model derives from the lengths of a batch.

    Attributes:
        dialogues: Attention blocks of whole dialogues.
        window: Attention blocks of the window.
        edges: Edges of the window.
        first: (N,) position of the first utterance of each utterance's dialogue.
        length: (N,) length of each utterance's dialogue.
    """

    dialogues: AttentionBlocks
    window: AttentionBlocks
    edges: Edges
    first: Tensor
    length: Tensor


def structure(batch: Batch, wp: int, wf: int) -> Structure:
    """Return the structure of a batch for a window. The result is cached in the batch.

    Args:
        batch: Batch of dialogues.
        wp: Number of past utterances connected to each utterance; -1 for all.
        wf: Number of future utterances connected to each utterance; -1 for all.
    """
    if (wp, wf) not in batch.structures:
        lengths, device = batch.lengths, batch.speakers.device
        batch.structures[wp, wf] = Structure(
            attention_blocks(lengths, -1, -1, device),
            attention_blocks(lengths, wp, wf, device),
            window_edges(lengths, wp, wf, device),
            *dialogue_spans(lengths, device),
        )
    cached: Structure = batch.structures[wp, wf]
    return cached


def window_edges(lengths: tuple[int, ...], wp: int, wf: int, device: torch.device) -> Edges:
    """Return the edges of dialogues of the given lengths, sorted by target, then by source.

    Args:
        lengths: Number of utterances of each dialogue.
        wp: Number of past utterances connected to each utterance; -1 for all.
        wf: Number of future utterances connected to each utterance; -1 for all.
        device: Device of the edges.

    Example:
        >>> edges = window_edges((3,), wp=1, wf=0, device=torch.device("cpu"))
        >>> list(zip(edges.source.tolist(), edges.target.tolist(), strict=True))
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    """
    source, target = _window_edges(lengths, wp, wf)
    return Edges(_to(source, device), _to(target, device))


def dialogue_spans(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the position of the first utterance (N,) and the length (N,) of each utterance's dialogue."""
    counts = np.asarray(lengths)
    starts = np.cumsum(counts) - counts
    return _to(np.repeat(starts, counts), device), _to(np.repeat(counts, counts), device)


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
    return AttentionBlocks(_to(queries_GQ, device), _to(keys_GK, device), _to(bias, device), _to(place_N, device))


def _window_edges(lengths: tuple[int, ...], wp: int, wf: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.asarray(lengths)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    last = first + np.repeat(counts, counts) - 1
    place = np.arange(len(first))
    low = first if wp < 0 else np.maximum(first, place - wp)
    high = last if wf < 0 else np.minimum(last, place + wf)
    degree = high - low + 1
    target = np.repeat(place, degree)
    within = np.arange(len(target)) - np.repeat(np.cumsum(degree) - degree, degree)
    return np.repeat(low, degree) + within, target


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    # Evaluation and training share cached structures, and autograd refuses inference tensors.
    with torch.inference_mode(False):
        tensor = torch.from_numpy(array)
        if device.type == "cuda":  # pinned memory allows an asynchronous copy
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)
