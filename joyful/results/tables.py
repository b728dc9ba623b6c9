"""Rows <-> Parquet bytes. The bytes are a pure function of the rows: fixed columns, types and writer options."""

from __future__ import annotations

import functools
import io
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joyful.records import InputError
from joyful.results.schema import (
    HISTORY_COLUMNS,
    RESERVED_COLUMNS,
    SPLITS,
    TIMING_COLUMNS,
    column_order,
    is_column_name,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from joyful.results.schema import ResultsError as ResultsError

#: Bounds on a Parquet file of unknown origin, held against its footer before anything is decoded.
MAXIMUM_ROWS = 10_000_000
MAXIMUM_COLUMNS = 10_000
MAXIMUM_BYTES = 2**30

KEY_COLUMNS = ("step", "epoch", "split")


def history_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """history.parquet of these rows, in their order.

    A missing key or None becomes null (not measured); NaN and infinities stay what they are (measured, and not finite).
    Raises InputError for a row without step, epoch or split, an unknown split, a value that is not a number, a column name
    that load could not show, or two rows of one step and split.
    """
    import pyarrow as pa

    rows = list(rows)
    extra: set[str] = set()
    for row in rows:
        for name, value in row.items():
            if name not in HISTORY_COLUMNS and value is not None:
                extra.add(_extra_name(name))
    columns: dict[str, list[Any]] = {name: [] for name in column_order(extra)}
    seen: set[tuple[int, str]] = set()
    for row in rows:
        key = _check_key(row)
        if key in seen:
            raise InputError(
                f"history: two rows of step {key[0]}, split {key[1]}; an evaluation gives one row for each split"
            )
        seen.add(key)
        for name, values in columns.items():
            value = row.get(name)
            values.append(key[0] if name == "step" else value if name == "split" else _number(value, name, key))
    fields = [pa.field(name, _type_of(name), nullable=name not in KEY_COLUMNS) for name in columns]
    return _parquet(pa.table(list(columns.values()), schema=pa.schema(fields)), dictionary=["split"])


def history_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a history.parquet: what was measured, in column order; history_bytes of them gives the same bytes.

    Raises InputError where the bytes are not such a file.
    """
    rows = decode(data, trusted=True).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def timing_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """timing.parquet of rows {epoch: passes, phase: text, seconds: wall seconds}. Raises InputError for other rows."""
    import pyarrow as pa

    rows = list(rows)
    for row in rows:
        if set(row) != set(TIMING_COLUMNS) or not isinstance(row["phase"], str):
            raise InputError(f"timing: expected rows of epoch, phase (text) and seconds, got {dict(row)!r}")
    schema = pa.schema([("epoch", pa.float64()), ("phase", pa.string()), ("seconds", pa.float64())])
    columns = [
        [row["phase"] if name == "phase" else _number(row[name], name, ("timing", row["phase"])) for row in rows]
        for name in TIMING_COLUMNS
    ]
    return _parquet(pa.table(columns, schema=schema), dictionary=["phase"])


def timing_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a timing.parquet. Raises InputError where the bytes are not such a file."""
    table = _open(data, text="phase", verify=True).read(use_threads=False)
    if table.column_names != list(TIMING_COLUMNS):
        raise InputError(f"expected the columns {', '.join(TIMING_COLUMNS)}, got {', '.join(table.column_names[:10])}")
    return table.to_pylist()


def decode(data: bytes, columns: Sequence[str] | None = None, *, trusted: bool = False) -> pa.Table:
    """The table of a history.parquet: step int64, split dictionary-coded text, every other column float64.

    columns: those to read (absent ones are skipped); step, epoch and split always are. trusted: a digest vouches for the
    bytes, so that the pages' own checksums need not be verified.
    Raises InputError for anything else: not Parquet, beyond the bounds, key columns missing or empty in places, a column
    that is not a number, an unknown split.
    """
    import pyarrow as pa

    try:
        file = _open(data, text="split", verify=not trusted)
        schema = file.schema_arrow
        _check_schema(schema)
        wanted = None if columns is None else [name for name in schema.names if name in columns or name in KEY_COLUMNS]
        return _normalise(file.read(columns=wanted, use_threads=False))
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"it is not a whole Parquet file ({first[:200]})") from None


def _open(data: bytes, text: str, verify: bool) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # text is decoded through its dictionary: a long text repeated ten million times stays one text in memory
        file = pq.ParquetFile(
            pa.BufferReader(data), read_dictionary=[text], page_checksum_verification=verify, pre_buffer=False
        )
        footer = file.metadata
        rows, width = footer.num_rows, footer.num_columns
        size = sum(footer.row_group(index).total_byte_size for index in range(footer.num_row_groups))
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"it is not a whole Parquet file ({first[:200]})") from None
    if (
        rows > MAXIMUM_ROWS
        or width > MAXIMUM_COLUMNS
        or max(size, 8 * rows * width) > MAXIMUM_BYTES
        or min(rows, size) < 0
    ):
        raise InputError(
            f"its footer announces {rows} rows, {width} columns and {size} bytes; at most {MAXIMUM_ROWS} rows, "
            f"{MAXIMUM_COLUMNS} columns and {MAXIMUM_BYTES} bytes are read"
        )
    return file


def _check_schema(schema: pa.Schema) -> None:
    dictionary, texts, integers, numbers = _type_ids()
    names = schema.names
    if len(set(names)) != len(names):
        raise InputError("it has two columns of one name")
    missing = [name for name in KEY_COLUMNS if name not in names]
    if missing:
        raise InputError(f"it has no column {', '.join(missing)}; a history has step, epoch and split")
    reserved = [name for name in names if name in RESERVED_COLUMNS]
    if reserved:
        raise InputError(f"column {reserved[0]}: this name belongs to what load adds; give the column another")
    for name, kind in zip(names, schema.types, strict=True):
        identity = kind.value_type.id if name == "split" and kind.id == dictionary else kind.id
        if identity not in (texts if name == "split" else integers if name == "step" else numbers):
            expected = {"split": "text", "step": "integers"}.get(name, "numbers")
            raise InputError(f"column {name[:100]}: expected {expected}, got {str(kind)[:100]}")


@functools.cache
def _type_ids() -> tuple[int, frozenset[int], frozenset[int], frozenset[int]]:
    """Arrow's numbers of the dictionary type, of texts, of integers, and of all numbers with null."""
    from pyarrow import lib

    integers = {getattr(lib, f"Type_{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)}
    numbers = integers | {lib.Type_HALF_FLOAT, lib.Type_FLOAT, lib.Type_DOUBLE, lib.Type_NA}
    texts = {lib.Type_STRING, lib.Type_LARGE_STRING}
    return lib.Type_DICTIONARY, frozenset(texts), frozenset(integers), frozenset(numbers)


def _normalise(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in KEY_COLUMNS and column.null_count:
            raise InputError(f"column {name}: {column.null_count} rows have no value")
        if name == "split":
            unknown = {text for chunk in column.chunks for text in chunk.dictionary.to_pylist()} - set(SPLITS)
            # an entry of the dictionary that no row uses is harmless
            unknown &= set(column.unique().to_pylist()) if unknown else set()
            if unknown:
                raise InputError(f"column split: expected {', '.join(SPLITS)}, got {sorted(unknown)[0][:100]!r}")
            arrays.append(column)
        else:
            kind = pa.int64() if name == "step" else pa.float64()
            arrays.append(column if column.type == kind else column.cast(kind))
    return pa.table(arrays, names=table.column_names)


def _parquet(table: pa.Table, dictionary: list[str]) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    # Everything that could differ between two writers of the same rows is fixed here. No compression, dictionaries or
    # statistics of numbers: they are random to a compressor, and the files are read by the ten thousand.
    pq.write_table(
        table, sink, row_group_size=1_000_000, version="2.6", use_dictionary=dictionary, compression="none",
        write_statistics=False, data_page_version="1.0", store_schema=False, write_page_checksum=True,
    )  # fmt: skip
    return sink.getvalue()


def _type_of(name: str) -> pa.DataType:
    import pyarrow as pa

    return pa.int64() if name == "step" else pa.string() if name == "split" else pa.float64()


def _extra_name(name: object) -> str:
    if not is_column_name(name):
        raise InputError(
            f"history: column {name!r}: expected a name of lower-case letters, digits and _ "
            f"that is none of {', '.join(RESERVED_COLUMNS)}"
        )
    return str(name)


def _check_key(row: Mapping[str, Any]) -> tuple[int, str]:
    missing = [name for name in KEY_COLUMNS if row.get(name) is None]
    if missing:
        raise InputError(f"history: a row has no {', '.join(missing)}: {dict(row)!r}")
    split = row["split"]
    if split not in SPLITS:
        raise InputError(f"history: split: expected {', '.join(SPLITS)}, got {split!r}")
    try:
        step = operator.index(row["step"])
    except TypeError:
        step = -1
    if isinstance(row["step"], bool) or not 0 <= step < 2**63:
        raise InputError(f"history: step: expected an integer from 0 on, got {row['step']!r}")
    epoch = _number(row["epoch"], "epoch", (step, split))
    if epoch is None or not (math.isfinite(epoch) and epoch >= 0):
        raise InputError(f"history: epoch: expected a number from 0 on, got {row['epoch']!r}")
    return step, str(split)


def _number(value: Any, name: str, key: tuple[Any, str]) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} at {key[0]}, {key[1]}: expected a number, got {value!r}") from None
    return math.nan if math.isnan(number) else number  # one NaN: its sign and payload would be bytes of their own
