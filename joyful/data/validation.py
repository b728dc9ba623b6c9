"""Validation of datasets. Every dataset is validated before it is used, whatever its source.

Shape letters: B dialogues, N utterances, D features, C classes, S speakers.
"""

from __future__ import annotations

import numpy as np

from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError


def validate(dataset: DialogueDataset) -> None:
    """Check that a dataset is as `joyful.records.DialogueDataset` describes it.

    This checks splits, names, shapes, dtypes, lengths, the ranges of labels and speakers, that all features are finite,
    that every split has a label, and that the training split has every modality.

    Raises:
        InputError: If a check fails.
    """
    where = f"dataset {dataset.name}"
    _expect(set(dataset.splits) == set(SPLITS), f"{where}: splits {', '.join(SPLITS)}", sorted(dataset.splits))
    order = [name for name in MODALITIES.values() if name in dataset.dimensions]
    _expect(order == list(dataset.dimensions), f"{where}: modalities in the order {order}", list(dataset.dimensions))
    _expect(bool(dataset.dimensions), f"{where}: at least one modality", "none")
    _expect(len(set(dataset.labels)) == len(dataset.labels) >= 2, f"{where}: two or more class names", dataset.labels)
    _expect(dataset.n_speakers >= 1, f"{where}: n_speakers >= 1", dataset.n_speakers)
    for split in SPLITS:
        _validate_split(dataset, split, f"{where}, {split}")


def _validate_split(dataset: DialogueDataset, split: str, where: str) -> None:
    part = dataset.splits[split]
    n, b = len(part.speakers), len(part.lengths)
    _expect(b >= 1, f"{where}: at least one dialogue", "none")
    _expect_array(part.speakers, np.int64, (n,), f"{where}: speakers")
    _expect_array(part.lengths, np.int64, (b,), f"{where}: lengths")
    _expect(bool((part.lengths >= 1).all()), f"{where}: dialogues of at least one utterance", int(part.lengths.min()))
    _expect(int(part.lengths.sum()) == n, f"{where}: lengths that add up to {n} utterances", int(part.lengths.sum()))
    _expect(len(part.ids) == b, f"{where}: {b} dialogue names", len(part.ids))
    if part.sentences is not None:
        _expect(len(part.sentences) == n, f"{where}: {n} sentences", len(part.sentences))
    names = list(dataset.dimensions)
    _expect(list(part.features) == names, f"{where}: {names}", list(part.features))
    for name, d in dataset.dimensions.items():
        _expect_array(part.features[name], np.float32, (n, d), f"{where}: {name}")
        _expect_finite(part, name, where)
    for name, mask in part.missing.items():
        _expect(name in names, f"{where}: missing: one of {names}", name)
        _expect_array(mask, np.bool_, (n,), f"{where}: missing: {name}")
        _expect(not part.features[name][mask].any(), f"{where}: {name}: 0 where it is missing", "other values")
        if split == "train":
            _expect(not mask.all(), f"{where}: {name} in at least one utterance", "none")
    _validate_labels(dataset, part, n, where)
    _expect_range(part.speakers, dataset.n_speakers, f"{where}: speakers")


def _validate_labels(dataset: DialogueDataset, part: Dialogues, n: int, where: str) -> None:
    c, labels = len(dataset.labels), part.labels
    if dataset.multilabel:
        _expect_array(labels, np.float32, (n, c), f"{where}: labels")
        zeros_and_ones = np.isin(labels, (0.0, 1.0)).all(axis=1)
        valid = bool((zeros_and_ones | (labels == -1.0).all(axis=1)).all())
        _expect(valid, f"{where}: labels 0 and 1, or a row of -1", f"{labels.min()} to {labels.max()}")
    else:
        _expect_array(labels, np.int64, (n,), f"{where}: labels")
        _expect_range(labels, c, f"{where}: labels", start=-1)
    _expect(bool(part.labelled.any()), f"{where}: a label for at least one utterance", "none")


def _expect_finite(part: Dialogues, name: str, where: str) -> None:
    x = part.features[name]
    with np.errstate(invalid="ignore"):
        # faster than isfinite and equivalent, because a sum of float32 values does not overflow float64
        total = x.sum(dtype=np.float64)
    if not np.isfinite(total):
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        ends = np.cumsum(part.lengths)
        dialogue = int(np.searchsorted(ends, row, side="right"))
        position = row - int(ends[dialogue] - part.lengths[dialogue]) + 1
        message = f"utterance {position} of dialogue {part.ids[dialogue]} has a value that is not finite"
        raise InputError(f"{where}: {name}: {message}; correct or remove it in the source")


def _expect_array(array: np.ndarray, dtype: type, shape: tuple[int, ...], what: str) -> None:
    expected = f"{what} {np.dtype(dtype)} of shape {shape}"
    _expect(array.dtype == dtype and array.shape == shape, expected, f"{array.dtype} of shape {array.shape}")


def _expect_range(array: np.ndarray, end: int, what: str, start: int = 0) -> None:
    low, high = int(array.min()), int(array.max())
    _expect(low >= start and high < end, f"{what} from {start} to {end - 1}", f"{low} to {high}")


def _expect(condition: bool, expected: str, got: object) -> None:
    if not condition:
        raise InputError(f"{expected} expected, got {got}; correct the dataset")
