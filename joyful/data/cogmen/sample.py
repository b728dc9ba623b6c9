"""Check and convert one `Sample` of a COGMEN or JOYFUL pickle: a dialogue (see joyful.data.cogmen.reader).

The file is not trusted. A value that is not text, or does not have the expected count of numbers, is an InputError with
the file, the dialogue and the row, counted from 0.

Shape letters: N utterances of the dialogue, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from joyful.data.cogmen.restricted_pickle import SampleRecord
from joyful.records import InputError

_REMEDY = "create the file again"
# Modality -> attribute of a sample that contains its features.
_ATTRIBUTES = {"audio": "audio", "text": "sbert_sentence_embeddings", "visual": "visual"}


@dataclass(frozen=True)
class CogmenDialogue:
    """A checked dialogue.

    Attributes:
        name: Name of the dialogue.
        place: File, split and name of the dialogue, for messages.
        labels: (N, columns), integers or floats as in the file.
        speakers: (N,) int64, counted by first appearance.
        features: Modality name -> (N, D) float32. "text" is missing if the file has no sentence vectors.
        sentences: N transcripts, or None.
    """

    name: str
    place: str
    labels: np.ndarray
    speakers: np.ndarray
    features: dict[str, np.ndarray]
    sentences: tuple[str, ...] | None


def read_sample(
    sample: Any, index: int, where: str, dimensions: Mapping[str, int], label_columns: int, n_speakers: int
) -> CogmenDialogue:
    """Check one sample and convert it.

    Args:
        sample: The entry of the pickle.
        index: Its index in the split, for messages.
        where: File and split, for messages.
        dimensions: Modality name -> D.
        label_columns: Numbers per label.
        n_speakers: Largest number of speakers in a dialogue.

    Raises:
        InputError: If the sample is not as expected.
    """
    if type(sample) is not SampleRecord:
        raise InputError(f"{where}: expected Sample objects, got something else as entry {index}; {_REMEDY}")
    values = sample.attributes
    name = _name(values.get("vid"), f"number {index}")
    place = f"{where} dialogue {name}"
    if missing := [key for key in ("label", "audio", "visual") if values.get(key) is None]:
        raise InputError(f"{place}: expected label, audio and visual, got no {', '.join(missing)}; {_REMEDY}")
    rows = _length(values["label"])
    if not rows:
        raise InputError(f"{place}: expected a label for each utterance, got none; leave the dialogue out of the file")
    features = {
        modality: _features(values[key], rows, dimensions[modality], f"{place}: {key}")
        for modality, key in _ATTRIBUTES.items()
        if values.get(key) is not None
    }
    return CogmenDialogue(
        name=name,
        place=place,
        labels=_matrix(
            values["label"],
            rows,
            label_columns,
            f"{place}: label",
            "set data.emotion to the kind of labels in the file",
        ),
        speakers=_speakers(values.get("speaker"), rows, n_speakers, place),
        features=features,
        sentences=_sentences(values.get("sentence"), rows, place),
    )


def finite(matrix: np.ndarray, place: str) -> np.ndarray:
    """Return `matrix` if all its values are finite.

    Args:
        matrix: (rows, columns).
        place: Text that precedes the row number in the message.

    Raises:
        InputError: If a value is NaN or infinite. The message has the first such row.
    """
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise InputError(f"{place} row {bad[0]}: expected finite numbers, got NaN or infinity; {_REMEDY}")
    return matrix


def _length(value: Any) -> int | None:
    """Return the number of rows of a list, tuple or array, or None for other values."""
    return len(value) if type(value) in (list, tuple) or (type(value) is np.ndarray and value.ndim) else None


def _vector(value: Any) -> np.ndarray | None:
    """Convert one row to a vector of its number type. Return None if it is not numeric.

    A list is checked before the conversion, because NumPy would convert all its numbers to text as wide as its longest
    text.
    """
    if type(value) in (list, tuple):
        value = np.array(value) if all(isinstance(x, int | float | np.number | np.bool) for x in value) else None
    elif isinstance(value, int | float | np.generic):
        value = np.asarray(value)
    return value.reshape(-1) if type(value) is np.ndarray and value.dtype.kind in "biuf" else None


def _matrix(value: Any, rows: int, columns: int, place: str, remedy: str) -> np.ndarray:
    """Convert an array, or a list of vectors or numbers, to a matrix (rows, columns) of the common number type."""
    _check_length(value, rows, place)
    vectors = []
    for i, row in enumerate(value):
        vector = _vector(row)
        if vector is None or len(vector) != columns:
            count = "1 number" if columns == 1 else f"{columns} numbers"
            got = "something that is not numeric" if vector is None else f"{len(vector)}"
            raise InputError(f"{place} row {i}: expected {count}, got {got}; {remedy}")
        vectors.append(vector)
    return np.stack(vectors)


def _check_length(value: Any, rows: int, place: str) -> None:
    if _length(value) != rows:
        got = "none" if value is None else "a single value" if _length(value) is None else f"{_length(value)}"
        raise InputError(f"{place}: expected {rows} rows, one for each label, got {got}; {_REMEDY}")


def _features(value: Any, rows: int, columns: int, place: str) -> np.ndarray:
    """Convert to a finite matrix (rows, columns) float32."""
    matrix = _matrix(value, rows, columns, place, "check that data=NAME is the dataset of this file")
    with np.errstate(over="ignore"):  # a number that overflows float32 becomes infinite, which `finite` rejects
        return finite(matrix.astype(np.float32), place)


def _speakers(value: Any, rows: int, n_speakers: int, place: str) -> np.ndarray:
    """Convert names, numbers or one-hot rows to speaker slots, (rows,) int64, counted by first appearance."""
    if n_speakers == 1:  # the datasets with one speaker per dialogue have various values here
        return np.zeros(rows, dtype=np.int64)
    _check_length(value, rows, f"{place}: speaker")
    slot_of_speaker: dict[Any, int] = {}
    slots = np.empty(rows, dtype=np.int64)
    for i, entry in enumerate(value):
        key: Any = _text(entry)
        if key is None and (vector := _vector(entry)) is not None:
            key = tuple(vector.tolist())
        if key is None:
            raise InputError(f"{place}: speaker row {i}: expected a name or numbers, got something else; {_REMEDY}")
        slots[i] = slot_of_speaker.setdefault(key, len(slot_of_speaker))
        if len(slot_of_speaker) > n_speakers:
            raise InputError(
                f"{place}: speaker row {i}: expected at most {n_speakers} speakers in a dialogue, got one more; "
                "check that data=NAME is the dataset of this file"
            )
    return slots


def _sentences(value: Any, rows: int, place: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    _check_length(value, rows, f"{place}: sentence")
    texts: list[str] = []
    for i, entry in enumerate(value):
        text = _text(entry)
        if text is None:
            raise InputError(f"{place}: sentence row {i}: expected text, got something else; {_REMEDY}")
        texts.append(text)
    return tuple(texts)


def _text(value: Any) -> str | None:
    """Return text, with lone surrogates replaced because tokenizers and terminals reject them. Bytes are UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else None


def _name(vid: Any, default: str) -> str:
    """Return the name of the dialogue: printable, at most 80 characters."""
    text = str(vid) if isinstance(vid, int | float | np.number) else _text(vid)
    return "".join(c if c.isprintable() else "?" for c in text[:80]) if text else default
