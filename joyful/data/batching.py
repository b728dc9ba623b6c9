"""Batches of dialogues, packed without padding: features stay on the device, structure on the host.

Shape letters: B dialogues, N utterances, D features, S speakers.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from joyful.randomness import host_generator
from joyful.records import Batch, Dialogues


class DeviceSplit:
    """One split with its features on a device once and for all, from which batches are gathered.

    n_speakers: S, the relation count depends on it. modalities: those to keep, in the order of concatenation.
    """

    def __init__(
        self, dialogues: Dialogues, modalities: tuple[str, ...], n_speakers: int, device: torch.device
    ) -> None:
        self.lengths = np.asarray(dialogues.lengths, dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._speakers = np.asarray(dialogues.speakers, dtype=np.int64)
        self._n_speakers, self.device = n_speakers, device
        self.features = {m: _tensor(dialogues.features[m], np.float32).to(device) for m in modalities}
        multilabel = dialogues.labels.ndim == 2
        self.labels = _tensor(dialogues.labels, np.float32 if multilabel else np.int64).to(device)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, dialogues: np.ndarray) -> Batch:
        """The batch of these dialogues (B,), in this order."""
        lengths = self.lengths[dialogues]
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(self._starts[dialogues] - offsets, lengths) + np.arange(lengths.sum())
        speakers = self._speakers[places]
        order = np.argsort(speakers, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        contiguous = bool((np.diff(places) == 1).all())

        def take(values: Tensor) -> Tensor:
            if contiguous:  # evaluation batches are slices: no copy
                return values[places[0] : places[-1] + 1]
            return values.index_select(0, index)

        index = self._to_device(places)
        return Batch(
            features={name: take(values) for name, values in self.features.items()},
            labels=take(self.labels),
            speakers=self._to_device(speakers),
            lengths=tuple(int(length) for length in lengths),
            speaker_order=self._to_device(order),
            speaker_rank=self._to_device(rank),
            speaker_sizes=tuple(int(n) for n in np.bincount(speakers, minlength=self._n_speakers)),
        )

    def batches_in_order(self, size: int) -> list[Batch]:
        """All dialogues in the order of the file, `size` to a batch."""
        return [self.batch(part) for part in np.split(np.arange(len(self)), range(size, len(self), size))]

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor


def epoch_order(n_dialogues: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The dialogues of each batch of an epoch: a permutation that depends on (seed, epoch) alone, cut into parts of `size`."""
    order = host_generator(seed, "batches", epoch).permutation(n_dialogues)
    return np.split(order, range(size, n_dialogues, size))


def _tensor(array: np.ndarray, dtype: type) -> Tensor:
    """A tensor of the array's values; memory-mapped features are shared, not copied."""
    with warnings.catch_warnings():
        # torch warns of arrays that cannot be written to; batches are only ever read
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))
