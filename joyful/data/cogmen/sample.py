"""One `Sample` of a COGMEN or JOYFUL pickle, checked: a dialogue of N utterances (see joyful.data.cogmen.reader).

The values come from a file that nobody vouches for. Whatever is not a number of the expected count, or not text,
leaves as an InputError with the file, the dialogue and the row, counted from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from joyful.data.cogmen.restricted_pickle import SampleRecord
from joyful.records import InputError

_AGAIN = "prepare the file anew"
# The attribute of a sample that holds each modality's features.
_ATTRIBUTES = {"audio": "audio", "text": "sbert_sentence_embeddings", "visual": "visual"}


@dataclass(frozen=True)
class CogmenDialogue:
    """A checked dialogue.

    name, place: for messages; place names the file and split too.
    labels:    (N, columns), integers or reals as the file has them.
    speakers:  (N,) int64, counted by first appearance.
    features:  modality -> (N, D) float32, without "text" where the file has no sentence vectors.
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
    """Check entry `index` of the split that `where` names.

    dimensions: modality -> D.    label_columns: numbers of an utterance's label.    n_speakers: the most of a dialogue.
    """
    if type(sample) is not SampleRecord:
        raise InputError(f"{where}: expected Sample objects, got something else as entry {index}; {_AGAIN}")
    values = sample.attributes
    name = _name(values.get("vid"), f"number {index}")
    place = f"{where} dialogue {name}"
    if missing := [key for key in ("label", "audio", "visual") if values.get(key) is None]:
        raise InputError(f"{place}: expected label, audio and visual, got no {', '.join(missing)}; {_AGAIN}")
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
            values["label"], rows, label_columns, f"{place}: label", "set data.emotion to what the file has"
        ),
        speakers=_speakers(values.get("speaker"), rows, n_speakers, place),
        features=features,
        sentences=_sentences(values.get("sentence"), rows, place),
    )


def finite(matrix: np.ndarray, place: str) -> np.ndarray:
    """`matrix` itself; InputError with the first row that has NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise InputError(f"{place} row {bad[0]}: expected finite numbers, got NaN or infinity; {_AGAIN}")
    return matrix


def _length(value: Any) -> int | None:
    """Rows of a list or array; None for what has no rows."""
    return len(value) if type(value) in (list, tuple) or (type(value) is np.ndarray and value.ndim) else None


def _vector(value: Any) -> np.ndarray | None:
    """One row as a vector of its own number type; None if it is something else.

    A list is checked before NumPy sees it: one long text among numbers would make NumPy allocate its length for each.
    """
    if type(value) in (list, tuple):
        value = np.array(value) if all(isinstance(x, int | float | np.number | np.bool) for x in value) else None
    elif isinstance(value, int | float | np.generic):
        value = np.asarray(value)
    return value.reshape(-1) if type(value) is np.ndarray and value.dtype.kind in "biuf" else None


def _matrix(value: Any, rows: int, columns: int, place: str, remedy: str) -> np.ndarray:
    """(rows, columns) of the number type that holds all; `value` is an array, or a list of vectors or numbers."""
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
        raise InputError(f"{place}: expected {rows} rows, one for each label, got {got}; {_AGAIN}")


def _features(value: Any, rows: int, columns: int, place: str) -> np.ndarray:
    """(rows, columns) float32, all finite."""
    matrix = _matrix(value, rows, columns, place, "check that data=NAME names this file's dataset")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite and is refused as such
        return finite(matrix.astype(np.float32), place)


def _speakers(value: Any, rows: int, n_speakers: int, place: str) -> np.ndarray:
    """(rows,) int64, counted by first appearance; `value` holds names, numbers or one-hot rows."""
    if n_speakers == 1:  # one person speaks in a video, however the file says it
        return np.zeros(rows, dtype=np.int64)
    _check_length(value, rows, f"{place}: speaker")
    known: dict[Any, int] = {}
    slots = np.empty(rows, dtype=np.int64)
    for i, entry in enumerate(value):
        key: Any = _text(entry)
        if key is None and (vector := _vector(entry)) is not None:
            key = tuple(vector.tolist())
        if key is None:
            raise InputError(f"{place}: speaker row {i}: expected a name or numbers, got something else; {_AGAIN}")
        slots[i] = known.setdefault(key, len(known))
        if len(known) > n_speakers:
            raise InputError(
                f"{place}: speaker row {i}: expected at most {n_speakers} speakers in a dialogue, got one more; "
                "check that data=NAME names this file's dataset"
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
            raise InputError(f"{place}: sentence row {i}: expected text, got something else; {_AGAIN}")
        texts.append(text)
    return tuple(texts)


def _text(value: Any) -> str | None:
    """Text without lone surrogates, which no tokenizer and no terminal takes; bytes are read as UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else None


def _name(vid: Any, otherwise: str) -> str:
    """The dialogue's name, fit for one line of a message."""
    text = str(vid) if isinstance(vid, int | float | np.number) else _text(vid)
    return "".join(c if c.isprintable() else "?" for c in text[:80]) if text else otherwise
