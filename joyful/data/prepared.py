"""The prepared format: a dataset as one memory-mapped file of arrays, a table to look at, and a description.

A folder (written by joyful.data.prepare, and kept by joyful.data.loading so that the second start is quick):

    features.safetensors   SPLIT/MODALITY (N, D) float32, SPLIT/labels, SPLIT/speakers (N,), SPLIT/lengths (B,)
    utterances.parquet     split, dialogue, position, speaker, label, sentence: a row per utterance
    meta.json              format version, the dataset's own values, what it was made from, sizes and digests

The folder appears whole or not at all. It is trusted no more than any other input: every size, name, type and shape
is checked when it is opened (the digests only where asked: reading all bytes would cost the quick start).

Also a source of its own: data=prepared data.root=FOLDER.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from joyful.config import DataSettings
from joyful.data.tables import Encode, find_files
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError, one_line
from joyful.results.parquet_pages import decoded_bytes

FORMAT_VERSION = 1
ARRAYS, UTTERANCES, META = "features.safetensors", "utterances.parquet", "meta.json"
FILES = (ARRAYS, UTTERANCES, META)
#: This source is the cache's own format already.
CACHED = False

_DTYPES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_MAX_HEADER_BYTES = 2**20
_MAX_META_BYTES = 2**24
_MAX_TEXT_BYTES = 2**28  # of the table of utterances, in the file and decoded; the largest corpus has 10 MB
_AGAIN = "make it again with `python -m joyful.data.prepare`"


def source_files(settings: DataSettings) -> list[Path]:
    """The three files. Raises InputError if one is not there."""
    return find_files(settings, FILES)


def read(settings: DataSettings, encode: Encode | None = None) -> DialogueDataset:
    """Open data.root.

    Raises InputError if it is damaged, or was made with another fold or label set than the settings name.
    """
    folder = source_files(settings)[0].parent
    dataset, origin = open_folder(folder)
    for name, wanted in (("fold", settings.fold), ("emotion", settings.emotion)):
        if wanted is not None and origin.get(name) != wanted:
            raise InputError(
                f"{folder} was prepared with data.{name}={origin.get(name)}, but data.{name}={wanted} is set;"
                f" prepare it again with `python -m joyful.data.prepare ... data.{name}={wanted} out=FOLDER`"
            )
    return dataset


def write_folder(dataset: DialogueDataset, folder: Path, origin: Mapping[str, Any]) -> bool:
    """Write a dataset as a new folder, whole or not at all; returns False if another process was quicker.

    origin: plain values that say what it was made from (kept in meta.json, given back by open_folder).
    Raises OSError where the disk refuses.
    """
    from safetensors.numpy import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        arrays: dict[str, np.ndarray] = {}
        for split, part in dataset.splits.items():
            named = {**part.features, "labels": part.labels, "speakers": part.speakers, "lengths": part.lengths}
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
            "sentences": {split: part.sentences is not None for split, part in dataset.splits.items()},
            "origin": dict(origin),
            "files": {
                name: {"bytes": (temporary / name).stat().st_size, "sha256": sha256(temporary / name)}
                for name in (ARRAYS, UTTERANCES)
            },
        }
        (temporary / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        for name in FILES:
            (temporary / name).chmod(0o644)  # the libraries make some of these private; a cache may be shared
            with (temporary / name).open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
            return False
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_folder(folder: Path, *, verify: bool = False) -> tuple[DialogueDataset, dict[str, Any]]:
    """Return (dataset, origin), the arrays memory-mapped (copy on write: changing them never changes the file).

    verify: also read every byte and compare the digests.
    Raises InputError if anything is not as meta.json says.
    """
    meta = read_meta(folder)
    with _whole(folder):
        for name in (ARRAYS, UTTERANCES):
            entry, path = meta["files"][name], folder / name
            if path.stat().st_size != entry["bytes"] or (verify and sha256(path) != entry["sha256"]):
                raise ValueError(f"{name} is not the file that was written")
        return _dataset(folder, meta, _map_arrays(folder / ARRAYS)), meta["origin"]


def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of meta.json. Raises InputError if it is damaged or of another format version."""
    with _whole(folder):
        path = folder / META
        if path.stat().st_size > _MAX_META_BYTES:
            raise ValueError(f"{META} is too large")
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["format"]
        if not isinstance(meta["origin"], dict):
            raise ValueError(f"{META} has no origin")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder} has format {version!r}, this program reads {FORMAT_VERSION}; {_AGAIN}")
    return meta


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Whatever a damaged folder makes us raise leaves as one InputError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{folder} is not a whole prepared dataset ({reason}); {_AGAIN}") from None


def sha256(path: Path) -> str:
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
            label = pa.array(part.labels.astype(np.int8).tolist(), pa.list_(pa.int8()))
        else:
            label = pa.array(part.labels, pa.int64())
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
    """The arrays of a safetensors file without copying them: 8 bytes of length, a JSON header, then the data."""
    with path.open("rb") as stream:
        buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(buffer[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, len(buffer) - 8):
        raise ValueError(f"{path.name} has no header")
    begin = 8 + length
    arrays = {}
    for name, entry in json.loads(buffer[8:begin]).items():
        if name == "__metadata__":
            continue
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        low, high = entry["data_offsets"]
        sizes = all(type(n) is int and n >= 0 for n in (*shape, low, high))
        if not sizes or high - low != math.prod(shape) * dtype.itemsize or begin + high > len(buffer):
            raise ValueError(f"{path.name}: {name} lies outside the file")
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
            raise ValueError(f"{split}/lengths do not add up")
        firsts = (np.cumsum(lengths) - lengths).tolist()
        names, texts = dialogue[part], sentence[part]
        if meta["sentences"][split] and None in texts:
            raise ValueError(f"{UTTERANCES} lacks sentences of {split}")
        splits[split] = Dialogues(
            features={name: arrays[f"{split}/{name}"] for name in MODALITIES.values() if name in meta["dimensions"]},
            labels=arrays[f"{split}/labels"],
            speakers=arrays[f"{split}/speakers"],
            lengths=lengths,
            ids=tuple(names[first] for first in firsts),
            sentences=tuple(texts) if meta["sentences"][split] else None,
        )
    return DialogueDataset(
        name=str(meta["name"]),
        dimensions={name: int(meta["dimensions"][name]) for name in MODALITIES.values() if name in meta["dimensions"]},
        labels=tuple(str(label) for label in meta["labels"]),
        n_speakers=int(meta["n_speakers"]),
        multilabel=bool(meta["multilabel"]),
        splits=splits,
    )


def _read_texts(path: Path, n: int) -> tuple[list[str], list[str]]:
    """The columns dialogue and sentence, n rows."""
    import pyarrow as pa
    from pyarrow import parquet

    names = ["dialogue", "sentence"]
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_TEXT_BYTES else b""
        size = decoded_bytes(data)
        if size > _MAX_TEXT_BYTES:
            raise ValueError(f"{path.name} announces {size} bytes; at most {_MAX_TEXT_BYTES} are read")
        # through its dictionary: a text that is repeated a million times stays one text in memory
        with parquet.ParquetFile(pa.BufferReader(data), read_dictionary=names) as file:
            if file.metadata.num_rows != n:
                raise ValueError(f"{path.name} has {file.metadata.num_rows} rows, not {n}")
            table = file.read(columns=names, use_threads=False)
        # Parquet's reader takes places beyond the end of a dictionary as they come
        table.validate(full=True)
        kinds = {table.column(name).type for name in names}
        if kinds != {pa.dictionary(pa.int32(), pa.string())} or table.column("dialogue").null_count:
            raise ValueError(f"{path.name}: dialogue and sentence must be text")
        return _texts(table.column("dialogue")), _texts(table.column("sentence"))
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(f"{path.name}: {str(error)[:200]}") from None


def _texts(column: Any) -> list[Any]:
    """The texts (None for null) of a dictionary-coded column, equal ones shared."""
    texts: list[Any] = []
    for chunk in column.chunks:
        values = chunk.dictionary.to_pylist()
        texts += [None if place is None else values[place] for place in chunk.indices.to_pylist()]
    return texts
