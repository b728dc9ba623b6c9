"""The prepared format: a dataset as a memory-mapped file of arrays, a readable table, and metadata.

`joyful prepare` writes this format. `joyful.data.loading` also uses it as a cache, so that later starts are fast. A
folder contains

    features.safetensors   SPLIT/MODALITY (N, D) float32, SPLIT/labels, SPLIT/speakers (N,), SPLIT/lengths (B,), and
                           SPLIT/missing.MODALITY (N,) bool where some utterances lack a modality
    utterances.parquet     split, dialogue, position, speaker, label, sentence: one row per utterance
    meta.json              format version, values of the dataset, its origin, sizes and SHA-256 digests of the files

The folder is written atomically: it appears complete or not at all. Like all input, it is not trusted. Every size,
name, type and shape is checked when the folder is opened. The digests are checked only on request, because reading all
bytes takes too long for a fast start.

This module is also a data source: `python run.py data=prepared data.root=FOLDER`.

Shape letters: B dialogues, N utterances, D features.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from joyful.config import DataSettings
from joyful.data.dialogue_table import MAX_TEXT_BYTES, Encode
from joyful.data.parquet_files import column_values
from joyful.data.sources import SOURCES, Source
from joyful.data.tables import find_files
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError, one_line
from joyful.results.files import new_folder
from joyful.results.parquet_pages import decoded_bytes

FORMAT_VERSION = 1
ARRAYS, UTTERANCES, META = "features.safetensors", "utterances.parquet", "meta.json"
FILES = (ARRAYS, UTTERANCES, META)

_DTYPES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8"), "BOOL": np.dtype("?")}
_MAX_HEADER_BYTES = 2**20
_MAX_META_BYTES = 2**24
_MAX_UTTERANCES_BYTES = 2 * MAX_TEXT_BYTES  # of utterances.parquet, encoded and decoded; a part of it is not text
_REMEDY = "create it again with `joyful prepare`"


def read(settings: DataSettings, encode: Encode | None = None) -> DialogueDataset:
    """Open the prepared dataset in data.root.

    Args:
        settings: The data settings. A fold or an emotion that is set must match the prepared dataset.
        encode: Not used. All sources have the same signature.

    Returns:
        The dataset, with memory-mapped arrays.

    Raises:
        InputError: If the folder is missing or damaged, or was prepared with another fold or emotion.
    """
    folder = find_files(settings, FILES)[0].parent
    dataset, origin = open_folder(folder)
    for name, expected in (("fold", settings.fold), ("emotion", settings.emotion)):
        if expected is not None and origin.get(name) != expected:
            raise InputError(
                f"{folder} was prepared with data.{name}={origin.get(name)}, but data.{name}={expected} is set;"
                f" prepare it again with `joyful prepare ... data.{name}={expected} out=FOLDER`"
            )
    return dataset


def write_folder(dataset: DialogueDataset, folder: Path, origin: Mapping[str, Any]) -> bool:
    """Write a dataset to a new folder, atomically.

    Args:
        dataset: The dataset.
        folder: The new folder. Its parents are created.
        origin: JSON values that describe the source of the dataset. `open_folder` returns them.

    Returns:
        True, or False if the folder already exists (for example because another process was faster).

    Raises:
        OSError: If the folder cannot be written.
    """
    from safetensors.numpy import save_file

    try:
        with new_folder(folder) as temporary:
            arrays: dict[str, np.ndarray] = {}
            for split, part in dataset.splits.items():
                named = {**part.features, "labels": part.labels, "speakers": part.speakers, "lengths": part.lengths}
                named |= {f"missing.{name}": mask for name, mask in part.missing.items()}
                arrays |= {f"{split}/{name}": np.ascontiguousarray(array) for name, array in named.items()}
            save_file(arrays, temporary / ARRAYS)
            _write_utterances(dataset, temporary / UTTERANCES)
            meta = {
                "format": FORMAT_VERSION,
                "name": dataset.name,
                "labels": list(dataset.labels),
                "n_speakers": dataset.n_speakers,
                "multilabel": dataset.multilabel,
                "dimensions": dataset.dimensions,
                "text_encoder": dataset.text_encoder,
                "sentences": {split: part.sentences is not None for split, part in dataset.splits.items()},
                "origin": dict(origin),
                "files": {
                    name: {"bytes": (temporary / name).stat().st_size, "sha256": sha256(temporary / name)}
                    for name in (ARRAYS, UTTERANCES)
                },
            }
            (temporary / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def open_folder(folder: Path, *, verify: bool = False) -> tuple[DialogueDataset, dict[str, Any]]:
    """Open a prepared dataset.

    Args:
        folder: The folder.
        verify: Whether to read all bytes and compare the digests.

    Returns:
        A tuple (dataset, origin). The arrays are memory-mapped, copy on write: changing them does not change the file.
        origin is the argument of `write_folder`.

    Raises:
        InputError: If the folder is missing or damaged, or does not match its meta.json.
    """
    meta = read_meta(folder)
    with _damage_as_input_error(folder):
        for name in (ARRAYS, UTTERANCES):
            entry, path = meta["files"][name], folder / name
            if path.stat().st_size != entry["bytes"] or (verify and sha256(path) != entry["sha256"]):
                raise ValueError(f"{name} does not have the size or digest in {META}")
        return _dataset(folder, meta, _map_arrays(folder / ARRAYS)), meta["origin"]


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the content of meta.json.

    Raises:
        InputError: If the file is missing, damaged or of another format version.
    """
    with _damage_as_input_error(folder):
        path = folder / META
        if path.stat().st_size > _MAX_META_BYTES:
            raise ValueError(f"{META} has more than {_MAX_META_BYTES} bytes")
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["format"]
        if not isinstance(meta["origin"], dict):
            raise ValueError(f"{META} has no origin")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder}: expected format {FORMAT_VERSION}, got format {version!r}; {_REMEDY}")
    return meta


@contextlib.contextmanager
def _damage_as_input_error(folder: Path) -> Iterator[None]:
    """Raise InputError for every error that a damaged folder can cause in the block."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{folder} is not a valid prepared dataset ({reason}); {_REMEDY}") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_utterances(dataset: DialogueDataset, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for split, part in dataset.splits.items():
        rows = np.repeat(np.arange(len(part.lengths)), part.lengths)
        starts = np.cumsum(part.lengths) - part.lengths
        if dataset.multilabel:
            rows_of_labels = zip(part.labels.astype(np.int8).tolist(), part.labelled, strict=True)
            label = pa.array([own if labelled else None for own, labelled in rows_of_labels], pa.list_(pa.int8()))
        else:
            label = pa.array(part.labels, pa.int64(), mask=~part.labelled)
        columns = {
            "split": pa.array([split] * len(rows), pa.string()),
            "dialogue": pa.array([part.ids[row] for row in rows], pa.string()),
            "position": pa.array(np.arange(len(rows)) - starts[rows], pa.int64()),
            "speaker": pa.array(part.speakers, pa.int64()),
            "label": label,
            "sentence": pa.array(part.sentences or [None] * len(rows), pa.string()),
        }
        tables.append(pa.table(columns))
    parquet.write_table(pa.concat_tables(tables), path, compression="zstd")


def _map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, memory-mapped.

    The file has the length of the header (8 bytes, little-endian), the header (JSON), and the data.
    """
    with path.open("rb") as stream:
        buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(buffer[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, len(buffer) - 8):
        raise ValueError(f"{path.name} has no valid header")
    begin = 8 + length
    arrays = {}
    for name, entry in json.loads(buffer[8:begin]).items():
        if name == "__metadata__":
            continue
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        low, high = entry["data_offsets"]
        valid = all(type(n) is int and n >= 0 for n in (*shape, low, high))
        if not valid or high - low != math.prod(shape) * dtype.itemsize or begin + high > len(buffer):
            raise ValueError(f"{path.name}: the shape and the offsets of {name} do not fit the file")
        arrays[name] = np.frombuffer(buffer, dtype, math.prod(shape), begin + low).reshape(shape)
    return arrays


def _dataset(folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> DialogueDataset:
    n = {split: len(arrays[f"{split}/speakers"]) for split in SPLITS}
    dialogue, sentence = _read_texts(folder / UTTERANCES, sum(n.values()))
    splits, start = {}, 0
    for split in SPLITS:
        part = slice(start, start + n[split])
        start += n[split]
        lengths = arrays[f"{split}/lengths"]
        if lengths.ndim != 1 or (lengths < 1).any() or int(lengths.sum()) != n[split]:
            raise ValueError(f"{split}/lengths do not add up to {n[split]} utterances")
        firsts = (np.cumsum(lengths) - lengths).tolist()
        names, texts = dialogue[part], sentence[part]
        if meta["sentences"][split] and None in texts:
            raise ValueError(f"{UTTERANCES} has no sentence for some utterances of {split}")
        splits[split] = Dialogues(
            features={name: arrays[f"{split}/{name}"] for name in MODALITIES.values() if name in meta["dimensions"]},
            labels=arrays[f"{split}/labels"],
            speakers=arrays[f"{split}/speakers"],
            lengths=lengths,
            ids=tuple(names[first] for first in firsts),
            sentences=tuple(texts) if meta["sentences"][split] else None,
            missing=_masks(arrays, split),
        )
    return DialogueDataset(
        name=str(meta["name"]),
        dimensions={name: int(meta["dimensions"][name]) for name in MODALITIES.values() if name in meta["dimensions"]},
        labels=tuple(str(label) for label in meta["labels"]),
        n_speakers=int(meta["n_speakers"]),
        multilabel=bool(meta["multilabel"]),
        splits=splits,
        text_encoder=str(meta.get("text_encoder", "file")),  # folders of version 0.1 do not have it
    )


def _masks(arrays: Mapping[str, np.ndarray], split: str) -> dict[str, np.ndarray]:
    masks = {name: arrays.get(f"{split}/missing.{name}") for name in MODALITIES.values()}
    found = {name: mask for name, mask in masks.items() if mask is not None}
    for name, mask in found.items():
        if mask.dtype != np.bool_ or (mask.view(np.uint8) > 1).any():
            raise ValueError(f"{split}/missing.{name} has values that are neither true nor false")
    return found


def _read_texts(path: Path, n: int) -> tuple[list[str], list[str]]:
    """Return the columns dialogue and sentence, which must have n rows."""
    import pyarrow as pa
    from pyarrow import parquet

    names = ["dialogue", "sentence"]
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_UTTERANCES_BYTES else b""
        size = decoded_bytes(data)
        if size > _MAX_UTTERANCES_BYTES:
            raise ValueError(f"{path.name} decodes to {size} bytes; the limit is {_MAX_UTTERANCES_BYTES}")
        # read_dictionary: a text that is repeated a million times is in memory once
        with parquet.ParquetFile(pa.BufferReader(data), read_dictionary=names) as file:
            if file.metadata.num_rows != n:
                raise ValueError(f"{path.name}: expected {n} rows, got {file.metadata.num_rows}")
            table = file.read(columns=names, use_threads=False)
        # the reader does not check that indices are within the dictionary
        table.validate(full=True)
        types = {table.column(name).type for name in names}
        if types != {pa.dictionary(pa.int32(), pa.string())} or table.column("dialogue").null_count:
            raise ValueError(f"{path.name}: dialogue and sentence must be text, without null in dialogue")
        return column_values(table.column("dialogue")), column_values(table.column("sentence"))
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(f"{path.name}: {str(error)[:200]}") from None


SOURCES.register("prepared", "a folder written by joyful prepare")(
    Source(read, functools.partial(find_files, names=FILES), cached=False)
)
