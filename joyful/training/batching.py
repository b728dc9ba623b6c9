"""Batches of dialogues without padding. Features stay on the device; the structure stays on the host.

Shape letters: B dialogues, N utterances, D features, S speakers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from joyful.devices import to_device
from joyful.randomness import host_generator
from joyful.records import Batch, Dialogues, Slots

#: training.batch_size=auto: the most dialogues in a batch, and the fewest steps of an epoch.
LARGEST_AUTO_BATCH, LEAST_AUTO_STEPS = 32, 16


class DeviceSplit:
    """One split whose features are copied to a device once. Batches are gathered there.

    Args:
        dialogues: The split.
        modalities: Modalities to keep, in the order of concatenation.
        n_speakers: S, the number of speaker slots of the dataset.
        device: Device of the features.

    Attributes:
        features: Modality -> (N, D) float32, on the device.
        labels: (N,) int64, or (N, C) float32 for multi-label data, on the device.
        host_labels: The labels on the host.
    """

    def __init__(
        self, dialogues: Dialogues, modalities: tuple[str, ...], n_speakers: int, device: torch.device
    ) -> None:
        self.lengths = np.asarray(dialogues.lengths, dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._speakers = np.asarray(dialogues.speakers, dtype=np.int64)
        self._n_speakers, self.device = n_speakers, device
        self.features = {name: x.to(device) for name, x in _features(dialogues, modalities).items()}
        multilabel = dialogues.labels.ndim == 2
        self.host_labels = _tensor(dialogues.labels, np.float32 if multilabel else np.int64)
        self.labels = self.host_labels.to(device)
        self._labelled = None if dialogues.labelled.all() else dialogues.labelled
        self._missing = {
            m: _tensor(dialogues.missing[m], np.bool_).to(device) for m in modalities if m in dialogues.missing
        }

    def __len__(self) -> int:
        return len(self.lengths)

    def fill_missing(self, values: Mapping[str, Tensor]) -> None:
        """Set the features of utterances that lack a modality.

        Args:
            values: Modality -> (D,). The features of modalities without an entry stay 0.
        """
        for name, missing in self._missing.items():
            if name in values:
                self.features[name] = torch.where(missing.unsqueeze(1), values[name], self.features[name])

    def batch(self, dialogues: np.ndarray) -> Batch:
        """Return a batch.

        Args:
            dialogues: (B,) indices of dialogues, in the order of the batch.
        """
        lengths = self.lengths[dialogues]
        offsets = np.cumsum(lengths) - lengths
        rows = np.repeat(self._starts[dialogues] - offsets, lengths) + np.arange(lengths.sum())
        speakers = self._speakers[rows]
        contiguous = bool((np.diff(rows) == 1).all())

        def take(values: Tensor) -> Tensor:
            if contiguous:  # batches in the order of the file, as in evaluation, are slices and need no copy
                return values[rows[0] : rows[-1] + 1]
            return values.index_select(0, index)

        index = to_device(rows, self.device)
        labelled = None if self._labelled is None else to_device(np.flatnonzero(self._labelled[rows]), self.device)
        return Batch(
            features={name: take(values) for name, values in self.features.items()},
            labels=take(self.labels),
            speakers=to_device(speakers, self.device),
            lengths=tuple(int(length) for length in lengths),
            n_speakers=self._n_speakers,
            slots=slots(speakers, lengths, self._n_speakers, self.device),
            labelled=labelled,
        )

    def batches_in_order(self, size: int) -> list[Batch]:
        """Return batches of all dialogues in the order of the file.

        Args:
            size: Dialogues per batch. The last batch can be smaller.
        """
        return [self.batch(part) for part in np.split(np.arange(len(self)), range(size, len(self), size))]


def slots(speakers: np.ndarray, lengths: np.ndarray, n_speakers: int, device: torch.device) -> Slots:
    """Return the pairs of each utterance and each speaker of its dialogue.

    Args:
        speakers: (N,) speaker of each utterance.
        lengths: (B,) lengths of the dialogues, sum N.
        n_speakers: S.
        device: Device of the result.

    Example:
        >>> pairs = slots(np.array([0, 1, 0]), np.array([2, 1]), 2, torch.device("cpu"))
        >>> pairs.target.tolist(), pairs.sizes  # the last utterance has no slot for speaker 1, who is not in its dialogue
        ([0, 2, 1, 0, 1], (2, 1, 1, 1))
    """
    dialogue = np.repeat(np.arange(len(lengths)), lengths)
    speaks = np.zeros((len(lengths), n_speakers), dtype=bool)
    speaks[dialogue, speakers] = True
    target, source_speaker = np.nonzero(speaks[dialogue])
    pair = source_speaker * n_speakers + speakers[target]
    order = np.argsort(pair, kind="stable")
    place = np.zeros((len(speakers), n_speakers), dtype=np.int64)
    place[target[order], source_speaker[order]] = np.arange(len(order))
    sizes = np.bincount(pair, minlength=n_speakers**2)
    return Slots(to_device(target[order], device), to_device(place.reshape(-1), device), tuple(int(n) for n in sizes))


def present_features(dialogues: Dialogues, modalities: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the features of a split on the host, without the rows of utterances that lack the modality.

    Args:
        dialogues: The split.
        modalities: Modalities to keep.

    Returns:
        Modality -> (N, D) float32, N the number of utterances that have it.
    """
    missing = dialogues.missing
    return {
        name: x[torch.from_numpy(~missing[name])] if name in missing else x
        for name, x in _features(dialogues, modalities).items()
    }


def batch_size(setting: int | Literal["auto"], n_dialogues: int) -> int:
    """Return the number of dialogues in a batch for the setting training.batch_size.

    Args:
        setting: The setting. "auto" is at most 32, and less where an epoch would have under 16 steps.
        n_dialogues: Number of training dialogues.

    Example:
        >>> batch_size("auto", 1038), batch_size("auto", 108), batch_size("auto", 19), batch_size(8, 19)
        (32, 6, 1, 8)
    """
    return max(1, min(LARGEST_AUTO_BATCH, n_dialogues // LEAST_AUTO_STEPS)) if setting == "auto" else setting


def epoch_order(n_dialogues: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the dialogues of each batch of an epoch: a random permutation that is split into batches.

    The permutation depends only on the seed and the epoch.

    Args:
        n_dialogues: Number of dialogues in the split.
        size: Dialogues per batch. The last batch can be smaller.
        seed: Seed of the run.
        epoch: Number of the epoch.

    Returns:
        Arrays of indices of dialogues, one per batch.

    Example:
        >>> [len(batch) for batch in epoch_order(5, 2, seed=24, epoch=1)]
        [2, 2, 1]
    """
    order = host_generator(seed, "batches", epoch).permutation(n_dialogues)
    return np.split(order, range(size, n_dialogues, size))


def _features(dialogues: Dialogues, modalities: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: _tensor(dialogues.features[name], np.float32) for name in modalities}


def _tensor(array: np.ndarray, dtype: type) -> Tensor:
    """Return a tensor that shares the memory of the array if dtype and layout allow it (memory-mapped features)."""
    with warnings.catch_warnings():
        # torch warns about read-only arrays, but batches are never written to
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))
