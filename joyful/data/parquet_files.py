"""Read a table of dialogues from a Parquet file.

The decoded size is computed from the headers of all pages before anything is decoded (see
`joyful.results.parquet_pages`).

Shape letters: N utterances, D features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from joyful.data.raw_table import (
    MAX_ROWS,
    RawFile,
    limit_rows,
    limit_values,
    null_modalities,
    other_columns,
    select_columns,
)
from joyful.data_settings import TableSettings
from joyful.records import InputError, first_line_of, one_line
from joyful.results.parquet_pages import decoded_bytes

#: Limit on a file, encoded and decoded.
MAX_PARQUET_BYTES = 2**31


def read_parquet(path: Path, settings: TableSettings, optional: Collection[str] = ()) -> RawFile:
    """Read a Parquet file.

    Args:
        path: The file.
        settings: The settings data.table.
        optional: Roles whose columns may be absent.

    Raises:
        InputError: If the file cannot be read, is not Parquet, exceeds a limit, or a column has another type than expected.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_PARQUET_BYTES else b""
        if max(size, decoded_bytes(data) if data else 0) > MAX_PARQUET_BYTES:
            raise InputError(
                f"{path}: expected at most {MAX_PARQUET_BYTES} bytes, decoded, got more; use several files"
            )
        with parquet.ParquetFile(pa.BufferReader(data)) as file:
            schema = file.schema_arrow
            raw = RawFile(path, "row", list(range(1, min(file.metadata.num_rows, MAX_ROWS + 1) + 1)), schema.names)
        lists = {entry.name for entry in schema if _is_list(entry.type)}
        columns = select_columns(path, schema.names, settings, lists, optional)
        raw.nulls = null_modalities(columns, [entry.name for entry in schema if pa.types.is_null(entry.type)], settings)
        if raw.lines:
            limit_rows(raw)
        for modality, names in columns.numbers.items():
            limit_values(path, modality, len(raw.lines), len(names))
        # a text that is repeated a million times is in memory once
        texts = [name for name in (*columns.roles.values(), *columns.classes) if _is_text(schema.field(name).type)]
        with parquet.ParquetFile(pa.BufferReader(data), read_dictionary=texts) as file:
            table = file.read(columns=columns.names(), use_threads=False)
        table.validate(full=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}); expected a Parquet file") from None
    except (ValueError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a valid Parquet file ({first_line_of(error)}); write it again") from None
    if table.num_rows != len(raw.lines):
        raise InputError(f"{path} is damaged: it has {table.num_rows} rows, not {len(raw.lines)}; write it again")
    raw.cells = {role: column_values(table.column(name)) for role, name in columns.roles.items()}
    raw.classes = {name: column_values(table.column(name)) for name in columns.classes}
    for modality, names in columns.numbers.items():
        if names[0] in lists:
            raw.numbers[modality] = _vectors(raw, names[0], table.column(names[0]))
        else:
            raw.numbers[modality] = _scalars(raw, names, [table.column(name) for name in names])
    return raw


def column_values(column: Any) -> list[Any]:
    """Return the values of a column, None for null. Equal values of a dictionary are one object."""
    from pyarrow import types

    if not types.is_dictionary(column.type):
        return list(column.to_pylist())
    cells: list[Any] = []
    for chunk in column.chunks:
        values = chunk.dictionary.to_pylist()
        cells += [None if index is None else values[index] for index in chunk.indices.to_pylist()]
    return cells


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _scalars(raw: RawFile, names: Sequence[str], columns: Sequence[Any]) -> np.ndarray:
    """Return columns of numbers as (N, D) float32, NaN for null."""
    values = np.empty((len(raw.lines), len(names)), np.float32)
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        values[:, index] = _floats(raw, name, column, names)
    return values


def _floats(raw: RawFile, name: str, column: Any, names: Sequence[str]) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"{raw.path}: {name} must be a column of numbers, got {kind}; {other_columns(names)}")
    with np.errstate(over="ignore"):
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
        return np.asarray(numbers, dtype=np.float64).astype(np.float32)


def _vectors(raw: RawFile, name: str, column: Any) -> np.ndarray:
    """Return a column of lists as (N, D) float32, with NaN for rows that are null or empty. D is 0 if all are."""
    import pyarrow.compute as pc

    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    present = np.flatnonzero(lengths)
    if not present.size:
        return np.empty((len(raw.lines), 0), np.float32)
    width = int(lengths[present[0]])
    if (wrong := present[lengths[present] != width]).size:
        row, first = int(wrong[0]), raw.lines[int(present[0])]
        raise raw.error(row, f"expected {width} numbers in {name}, as in row {first}, got {lengths[row]}")
    limit_values(raw.path, name, len(raw.lines), width)
    flat = _floats(raw, name, pc.list_flatten(column), [name])
    values = np.full((len(raw.lines), width), np.nan, np.float32)
    values[present] = flat.reshape(-1, width)
    return values
