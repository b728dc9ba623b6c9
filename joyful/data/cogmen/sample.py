"""Check and convert one dialogue of a COGMEN or JOYFUL pickle: a `Sample`, or a dict with the same keys.

The file is not trusted. A value that is not text, or does not have the expected count of numbers, is an InputError with
the file, the dialogue and the row, counted from 0.

Shape letters: N utterances of the dialogue, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joyful.data.cogmen.restricted_pickle import SampleRecord
from joyful.data.text_repair import without_surrogates
from joyful.records import InputError

_REMEDY = "create the file again"
#: Modality -> attribute of a sample that contains its features.
ATTRIBUTES = {"audio": "audio", "text": "sbert_sentence_embeddings", "visual": "visual"}


@dataclass(frozen=True)
class CogmenDialogue:
    """A checked dialogue.

    Attributes:
        name: Name of the dialogue.
        place: File, split and name of the dialogue, for messages.
        labels: (N, columns), integers or floats as in the file.
        speakers: N names of speakers, which are numbers in the order of first appearance.
        features: Modality name -> (N, D) float32, without the modalities that the dialogue lacks. D is that of the file.
        sentences: N transcripts, or None.
    """

    name: str
    place: str
    labels: np.ndarray
    speakers: tuple[str, ...]
    features: dict[str, np.ndarray]
    sentences: tuple[str, ...] | None


def read_sample(sample: Any, index: int, where: str, label_columns: Sequence[int], n_speakers: int) -> CogmenDialogue:
    """Check one dialogue and convert it.

    Args:
        sample: The entry of the pickle.
        index: Its index in the split, for messages.
        where: File and split, for messages.
        label_columns: Numbers that a label may have.
        n_speakers: Largest number of speakers in a dialogue.

    Raises:
        InputError: If the dialogue is not as expected.
    """
    if type(sample) not in (SampleRecord, dict):
        raise InputError(f"{where}: expected Sample objects or dicts, got something else as entry {index}; {_REMEDY}")
    values = sample if type(sample) is dict else sample.attributes
    name = _name(values.get("vid"), f"number {index}")
    place = f"{where} dialogue {name}"
    if values.get("label") is None:
        raise InputError(f"{place}: expected label, got no label; {_REMEDY}")
    rows = _length(values["label"])
    if not rows:
        raise InputError(f"{place}: expected a label for each utterance, got none; leave the dialogue out of the file")
    return CogmenDialogue(
        name=name,
        place=place,
        labels=_labels(values["label"], rows, label_columns, place),
        speakers=_speakers(values.get("speaker"), rows, n_speakers, place),
        features={
            modality: _features(values[key], rows, f"{place}: {key}")
            for modality, key in ATTRIBUTES.items()
            if _length(values.get(key)) != 0 and values.get(key) is not None
        },
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
        kinds = set(map(type, value))
        value = np.array(value) if all(issubclass(kind, int | float | np.number | np.bool) for kind in kinds) else None
    elif isinstance(value, int | float | np.generic):
        value = np.asarray(value)
    return value.reshape(-1) if type(value) is np.ndarray and value.dtype.kind in "biuf" else None


def _labels(value: Any, rows: int, columns: Sequence[int], place: str) -> np.ndarray:
    """Convert labels to a matrix (rows, columns) of their number type."""
    counts = " or ".join(map(str, columns))
    expected = f"expected {counts} number{'' if counts == '1' else 's'}"
    _check_length(value, rows, f"{place}: label")
    vectors: list[np.ndarray] = []
    for i, row in enumerate(value):
        vector = _vector(row)
        if vector is None or len(vector) not in columns or len(vector) != len((vectors or [vector])[0]):
            got = "something that is not numeric" if vector is None else f"{len(vector)}"
            raise InputError(
                f"{place}: label row {i}: {expected}, got {got}; set data.emotion to the kind of labels in the file"
            )
        vectors.append(vector)
    return np.stack(vectors)


def _check_length(value: Any, rows: int, place: str) -> None:
    if _length(value) != rows:
        got = "none" if value is None else "a single value" if _length(value) is None else f"{_length(value)}"
        raise InputError(f"{place}: expected {rows} rows, one for each label, got {got}; {_REMEDY}")


def _features(value: Any, rows: int, place: str) -> np.ndarray:
    """Convert an array, or a list of vectors or numbers, to a finite matrix (rows, D) float32. Row 0 determines D."""
    _check_length(value, rows, place)
    vectors: list[np.ndarray] = []
    for i, row in enumerate(value):
        vector = _vector(row)
        if vector is None or not len(vector):
            got = "something that is not numeric" if vector is None else "none"
            raise InputError(f"{place} row {i}: expected numbers, got {got}; {_REMEDY}")
        if vectors and len(vector) != len(vectors[0]):
            expected = f"expected {len(vectors[0])} numbers as in row 0"
            raise InputError(f"{place} row {i}: {expected}, got {len(vector)}; {_REMEDY}")
        vectors.append(vector)
    matrix = np.empty((rows, len(vectors[0])), dtype=np.float32)
    with np.errstate(over="ignore"):  # a number that overflows float32 becomes infinite, which `finite` rejects
        for i, vector in enumerate(vectors):
            matrix[i] = vector
    return finite(matrix, place)


def _speakers(value: Any, rows: int, n_speakers: int, place: str) -> tuple[str, ...]:
    """Convert names, numbers or one-hot rows to one kind of names: numbers in the order of first appearance."""
    if n_speakers == 1:  # the datasets with one speaker per dialogue have various values here
        return ("0",) * rows
    _check_length(value, rows, f"{place}: speaker")
    names: list[str] = []
    name_of_speaker: dict[Any, str] = {}
    for i, entry in enumerate(value):
        key: Any = _text(entry)
        if key is None and (vector := _vector(entry)) is not None:
            key = tuple(vector.tolist())
        if key is None:
            raise InputError(f"{place}: speaker row {i}: expected a name or numbers, got something else; {_REMEDY}")
        names.append(name_of_speaker.setdefault(key, str(len(name_of_speaker))))
        if len(name_of_speaker) > n_speakers:
            raise InputError(
                f"{place}: speaker row {i}: expected at most {n_speakers} speakers in a dialogue, got one more; "
                "check that data=NAME is the dataset of this file"
            )
    return tuple(names)


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
    """Return text without surrogates. Bytes are UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return without_surrogates(value) if isinstance(value, str) else None


def _name(vid: Any, default: str) -> str:
    """Return the name of the dialogue: printable, at most 80 characters."""
    text = str(vid) if isinstance(vid, int | float | np.number) else _text(vid)
    return "".join(c if c.isprintable() else "?" for c in text[:80]) if text else default
