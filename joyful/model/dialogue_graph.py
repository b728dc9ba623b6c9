"""The structure of a batch of dialogues: who attends to whom. Built on the host from lengths alone, so no step waits
for it.

An edge runs from every utterance j to utterance i of the same dialogue where i - wp <= j <= i + wf (-1: no bound),
itself included. Its relation is (speaker of source, speaker of target, source in the past or the future of the target):
2 S^2.

Shape letters: B dialogues, N utterances, E edges, G attention blocks, Q queries and K keys of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from joyful.records import Batch

#: Longest block of queries. With bounded windows a long dialogue is cut into blocks, so memory grows with N, not N^2.
BLOCK = 64


@dataclass(frozen=True)
class Edges:
    """source, target: (E,) int64 places in the batch. kept: (E,) zeros and ones, or None for all."""

    source: Tensor
    target: Tensor
    kept: Tensor | None = None


@dataclass(frozen=True)
class AttentionBlocks:
    """Queries and the keys that they may see, gathered into dense blocks.

    queries: (G, Q) and keys: (G, K) places in the batch, N where there is none (a row of zeros appended).
    bias: (G, 1, Q, K) float32, 0 where query may see key, -inf elsewhere (an empty query sees its first key, for finite
    numbers).
    place: (N,) where each utterance stands among the G Q queries.
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor
    place: Tensor

    def gather(self, x: Tensor, places: Tensor) -> Tensor:
        """Rows of x (N, H) at places (G, Q or K) -> (G, Q or K, H), zeros where there is none."""
        padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
        return padded.index_select(0, places.reshape(-1)).view(*places.shape, x.shape[1])

    def scatter(self, blocks: Tensor) -> Tensor:
        """Back from (G, Q, H) to (N, H)."""
        return blocks.reshape(-1, blocks.shape[-1]).index_select(0, self.place)


@dataclass(frozen=True)
class Structure:
    """All that a model asks of a batch's lengths: whole dialogues and windows as attention blocks, the window's edges, and
    first place and length of each utterance's dialogue, (N,) each."""

    dialogues: AttentionBlocks
    window: AttentionBlocks
    edges: Edges
    first: Tensor
    length: Tensor


def structure(batch: Batch, wp: int, wf: int) -> Structure:
    """The structure of a batch under a window, made once in the batch's life."""
    if (wp, wf) not in batch.structures:
        lengths, device = batch.lengths, batch.speakers.device
        batch.structures[wp, wf] = Structure(
            attention_blocks(lengths, -1, -1, device),
            attention_blocks(lengths, wp, wf, device),
            window_edges(lengths, wp, wf, device),
            *dialogue_of(lengths, device),
        )
    found: Structure = batch.structures[wp, wf]
    return found


def window_edges(lengths: tuple[int, ...], wp: int, wf: int, device: torch.device) -> Edges:
    """The edges of dialogues of these lengths, sorted by target, then source. wp, wf: utterances of past and future
    linked to each, -1 for all."""
    source, target = _window_edges(lengths, wp, wf)
    return Edges(_to(source, device), _to(target, device))


def dialogue_of(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(N,) first place and (N,) length of each utterance's dialogue."""
    counts = np.asarray(lengths)
    starts = np.cumsum(counts) - counts
    return _to(np.repeat(starts, counts), device), _to(np.repeat(counts, counts), device)


def attention_blocks(lengths: tuple[int, ...], wp: int, wf: int, device: torch.device) -> AttentionBlocks:
    """Blocks for attention inside the window.

    wp = wf = -1: each block is a whole dialogue. Longer dialogues come first, as packing for recurrent layers wants them.
    """
    n, block = sum(lengths), max(lengths)
    if wp >= 0 and wf >= 0:
        block = min(block, BLOCK)
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
    # cached structures are shared between evaluation and training: never inference tensors, which autograd refuses
    with torch.inference_mode(False):
        tensor = torch.from_numpy(array)
        if device.type == "cuda":  # pinned memory lets the copy run beside the computation, without a wait
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)
