"""The table of utterances that every reader of dialogues fills, and its conversion to a dataset.

A reader makes a `DialogueTable`: one row per utterance, in the order of its file. `to_dialogues` turns it into the arrays
of `joyful.records.Dialogues`, `to_dataset` into the three splits. The table needs neither labels nor splits, so new
dialogues are read in the same way as those of a corpus.

Shape letters: B dialogues, N utterances, D features, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from joyful.messages import expected_one_of
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError
from joyful.results.csv_text import quoted

#: A sentence encoder: N sentences -> (N, D) float32.
Encode = Callable[[Sequence[str]], np.ndarray]

#: Class index, or row of class indices, of an utterance without a label.
UNLABELLED = -1

#: Limit on the text of all utterances of a dataset and the names of their dialogues.
MAX_TEXT_BYTES = 2**28

#: Longer integers are sorted as text, because Python refuses to convert those of more than 4,300 digits.
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a table.

    Attributes:
        line: Line of the utterance in its file, counted from 1.
        dialogue: Name of the dialogue.
        place: Number that orders the dialogue. It can have gaps.
        speaker: Name of the speaker.
        text: The text.
        label: Name of its class.
    """

    line: int
    dialogue: str
    place: float
    speaker: str
    text: str
    label: str


@dataclass(frozen=True)
class DialogueTable:
    """Utterances in the order of their file.

    Attributes:
        sources: For each file, its path and what counts its rows, such as "chat.csv, line". Where a file counts the rows of
            each dialogue, every dialogue is a source.
        source: (N,) int64, the index of each utterance's source in `sources`.
        line: (N,) int64, the line or the row of each utterance in its source, for messages.
        dialogue: N names of dialogues. Rows with the same name and the same split are one dialogue.
        place: N numbers that order the utterances of a dialogue. They can have gaps.
        speaker: N names of speakers.
        text: N texts; None where an utterance has no text.
        labels: N tuples of class names; None where an utterance has no label. Without `multilabel` each has one name.
        split: N names of splits; None where no split is known.
        features: Modality -> (N, D) float32, 0 where it is missing.
        missing: Modality -> (N,) bool, for every modality of `features`.
        multilabel: Whether an utterance can have several labels.
        classes: Class names that the file names even if no utterance has them, such as those of its columns.
        separate_sources: Whether rows of two sources are two dialogues even if they have the same name and split.
    """

    sources: tuple[str, ...]
    source: np.ndarray
    line: np.ndarray
    dialogue: tuple[str, ...]
    place: tuple[float, ...]
    speaker: tuple[str, ...]
    text: tuple[str | None, ...]
    labels: tuple[tuple[str, ...] | None, ...]
    split: tuple[str | None, ...]
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)
    multilabel: bool = False
    classes: tuple[str, ...] = ()
    separate_sources: bool = False

    def __len__(self) -> int:
        """Return N, the number of utterances."""
        return len(self.dialogue)

    def error(self, row: int, message: object) -> InputError:
        """Return an error that names the file and the line of a row."""
        return InputError(f"{self.sources[self.source[row]]} {self.line[row]}: {message}")

    def where(self, row: int, other: int) -> str:
        """Return "line 3", or with the file where `other` is in another one, for a message about `row`."""
        full = f"{self.sources[self.source[other]]} {self.line[other]}"
        return full if self.source[row] != self.source[other] else full.rpartition(", ")[2]

    def order(self) -> list[np.ndarray]:
        """Return the rows of each dialogue in the order of their places; the dialogues in the order of their first rows.

        Raises:
            InputError: If two utterances of a dialogue have the same place.
        """
        groups: dict[tuple[int, str | None, str], dict[float, int]] = {}
        sources = self.source.tolist() if self.separate_sources else [0] * len(self)
        keys = zip(sources, self.split, self.dialogue, strict=True)
        for row, (key, place) in enumerate(zip(keys, self.place, strict=True)):
            first = groups.setdefault(key, {}).setdefault(place, row)
            if first != row:
                message = f"utterance {place:.17g} of {quoted(key[-1])} is already in {self.where(row, first)}"
                raise self.error(row, f"{message}; remove one of the two")
        return [np.array([rows[place] for place in sorted(rows)], dtype=np.int64) for rows in groups.values()]

    def take(self, rows: np.ndarray) -> DialogueTable:
        """Return the table with only these rows, in this order. Its arrays are views if the rows follow each other."""
        chosen = rows.tolist()
        index = slice(chosen[0], chosen[-1] + 1) if chosen and (np.diff(rows) == 1).all() else rows
        columns: dict[str, Any] = {
            name: tuple(getattr(self, name)[row] for row in chosen)
            for name in ("dialogue", "place", "speaker", "text", "labels", "split")
        }
        arrays = {name: getattr(self, name)[index] for name in ("source", "line")}
        features = {name: values[index] for name, values in self.features.items()}
        missing = {name: values[index] for name, values in self.missing.items()}
        return replace(self, **columns, **arrays, features=features, missing=missing)

    def without_labels(self) -> DialogueTable:
        """Return the table with all utterances unlabelled."""
        return replace(self, labels=(None,) * len(self), classes=())

    def class_names(self) -> tuple[str, ...]:
        """Return the sorted names of all labels. Integers are sorted by their values."""
        names = {name for labels in self.labels if labels is not None for name in labels} | set(self.classes)
        if all(name.removeprefix("-").isdecimal() and len(name) < _MAX_DIGITS for name in names):
            return tuple(sorted(names, key=lambda name: (int(name), name)))
        return tuple(sorted(names))


def to_table(path: Path, utterances: Iterable[Utterance], split: str | None = None) -> DialogueTable:
    """Return utterances as a table.

    Args:
        path: The file, for messages.
        utterances: At least one utterance, in the order of the file.
        split: The split of all utterances.
    """
    rows = list(utterances)
    return DialogueTable(
        sources=(f"{path}, line",),
        source=np.zeros(len(rows), np.int64),
        line=np.array([row.line for row in rows], np.int64),
        dialogue=tuple(row.dialogue for row in rows),
        place=tuple(row.place for row in rows),
        speaker=tuple(row.speaker for row in rows),
        text=tuple(row.text for row in rows),
        labels=tuple((row.label,) for row in rows),
        split=(split,) * len(rows),
    )


def concatenate(tables: Sequence[DialogueTable]) -> DialogueTable:
    """Return the rows of tables as one table.

    Args:
        tables: Tables with the same modalities and widths, each of one source.
    """
    names = ("sources", "dialogue", "place", "speaker", "text", "labels", "split")
    joined: dict[str, Any] = {
        name: tuple(itertools.chain.from_iterable(getattr(table, name) for table in tables)) for name in names
    }
    return replace(
        tables[0],
        **joined,
        source=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        line=np.concatenate([table.line for table in tables]),
        features={name: np.concatenate([table.features[name] for table in tables]) for name in tables[0].features},
        missing={name: np.concatenate([table.missing[name] for table in tables]) for name in tables[0].missing},
    )


def encode_text(table: DialogueTable, encode: Encode) -> DialogueTable:
    """Return the table with vectors of its texts, all encoded in one call. Utterances without text are missing.

    Args:
        table: The table. It is returned as it is if it has vectors already, or no text at all.
        encode: The sentence encoder.
    """
    rows = [row for row, text in enumerate(table.text) if text is not None]
    if "text" in table.features or not rows:
        return table
    encoded = np.asarray(encode([text for text in table.text if text is not None]), dtype=np.float32)
    vectors, missing = np.zeros((len(table), encoded.shape[1]), np.float32), np.ones(len(table), bool)
    vectors[rows], missing[rows] = encoded, False
    return replace(table, features={**table.features, "text": vectors}, missing={**table.missing, "text": missing})


def to_dialogues(
    table: DialogueTable, labels: Sequence[str], n_speakers: int, *, multilabel: bool | None = None
) -> Dialogues:
    """Return the dialogues of a table as arrays.

    The dialogues have the order of `DialogueTable.order`. Speakers become slots, counted by first appearance in their
    dialogue. The sentence of an utterance without text is empty; if none has text, there are no sentences.

    Args:
        table: The table, with at least one row. Text has vectors only after `encode_text`.
        labels: Class names, in the order of the class indices.
        n_speakers: Largest number of speakers in a dialogue.
        multilabel: Whether labels are rows of zeros and ones; None: as in the table.

    Raises:
        InputError: If two utterances of a dialogue have the same place, a dialogue has too many speakers, or a label is
            not among the class names.
    """
    dialogues = table.order()
    slots = [_slots(table, rows, n_speakers) for rows in dialogues]
    flat = table.take(np.concatenate(dialogues))
    missing = {name: flags for name, flags in flat.missing.items() if flags.any()}
    return Dialogues(
        features={name: flat.features[name] for name in MODALITIES.values() if name in flat.features},
        labels=_indices(flat, labels, flat.multilabel if multilabel is None else multilabel),
        speakers=np.concatenate(slots),
        lengths=np.array([len(rows) for rows in dialogues], dtype=np.int64),
        ids=tuple(table.dialogue[rows[0]] for rows in dialogues),
        sentences=None if set(flat.text) == {None} else tuple(text or "" for text in flat.text),
        missing=missing,
    )


def to_dataset(
    table: DialogueTable,
    name: str,
    labels: Sequence[str],
    n_speakers: int,
    encode: Encode | None = None,
    text_encoder: str | None = None,
) -> DialogueDataset:
    """Return the dataset of a table whose rows all have a split.

    Args:
        table: The table.
        name: Name of the dataset.
        labels: Class names, in the order of the class indices.
        n_speakers: Largest number of speakers in a dialogue.
        encode: The sentence encoder; None: texts get no vectors.
        text_encoder: Name of the encoder.

    Raises:
        InputError: As `to_dialogues`.
    """
    given = "text" in table.features
    table = table if encode is None else encode_text(table, encode)
    rows = {split: np.flatnonzero([own == split for own in table.split]) for split in SPLITS}
    return DialogueDataset(
        name=name,
        dimensions={name: table.features[name].shape[1] for name in MODALITIES.values() if name in table.features},
        labels=tuple(labels),
        n_speakers=n_speakers,
        multilabel=table.multilabel,
        splits={split: to_dialogues(table.take(rows[split]), labels, n_speakers) for split in SPLITS},
        text_encoder="file" if given or "text" not in table.features else str(text_encoder),
    )


def _slots(table: DialogueTable, rows: np.ndarray, n_speakers: int) -> np.ndarray:
    slots: dict[str, int] = {}
    numbers = [slots.setdefault(table.speaker[row], len(slots)) for row in rows]
    if len(slots) > n_speakers:
        first = int(rows.min())
        message = f"expected at most {n_speakers} speakers in a dialogue, got {len(slots)} in"
        raise table.error(first, f"{message} {quoted(table.dialogue[first])}; check that it is the right file")
    return np.array(numbers, dtype=np.int64)


def _indices(table: DialogueTable, names: Sequence[str], multilabel: bool) -> np.ndarray:
    index = {name: number for number, name in enumerate(names)}
    shape, dtype = ((len(table), len(names)), np.float32) if multilabel else ((len(table),), np.int64)
    indices = np.full(shape, UNLABELLED, dtype)
    for row, labels in enumerate(table.labels):
        if labels is None:
            continue
        if unknown := [label for label in labels if label not in index]:
            shown = list(names) if len(names) <= 30 else [*names[:30], "..."]
            raise table.error(row, f"label: {expected_one_of(unknown[0][:60], shown)}")
        numbers = [index[label] for label in labels]
        if multilabel:
            indices[row] = 0
            indices[row, numbers] = 1
        elif len(numbers) == 1:
            indices[row] = numbers[0]
        else:
            raise table.error(row, f"expected one label, got {len(numbers)}")
    return indices
