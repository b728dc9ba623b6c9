"""Convert between rows and Parquet bytes.

The bytes are a pure function of the rows: columns, types and writer options are fixed.
"""

from __future__ import annotations

import contextlib
import io
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joyful.records import SPLITS, InputError, first_line_of
from joyful.results.parquet_pages import decoded_bytes
from joyful.results.schema import (
    HISTORY_COLUMNS,
    PREDICTION_COLUMNS,
    PROBABILITY,
    RESERVED_COLUMNS,
    TIMING_COLUMNS,
    column_order,
    is_column_name,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: Limits on a Parquet file of unknown origin, checked against its footer and page headers before anything is decoded.
MAXIMUM_ROWS = 1_000_000
MAXIMUM_COLUMNS = 10_000
MAXIMUM_BYTES = 2**26
#: Maximum number of values of a table that is converted to rows of Python objects (the history of a resumed run,
#: timings).
MAXIMUM_VALUES = 4_000_000

#: Columns that every history has. Only the epoch may be null.
KEY_COLUMNS = ("step", "epoch", "split")


def history_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return history.parquet for the given rows, in their order.

    A missing key or None becomes null, which means not measured. NaN and infinities are kept: they were measured.

    Args:
        rows: Mappings from column names to values, one per evaluation and split (see `HISTORY_COLUMNS`).

    Returns:
        The content of the file. It does not depend on the order of the keys.

    Raises:
        InputError: If a row has no step or split, a split is unknown, a value is not a number, a column name is
            invalid or reserved, or two rows have the same step and split.
    """
    rows = list(rows)
    keys = [_check_key(row) for row in rows]
    for (step, split), times in Counter(keys).items():
        if times > 1:
            raise InputError(
                f"history: {times} rows of step {step}, split {split}; expected one row per evaluation and split"
            )
    unknown = set().union(*rows) - HISTORY_COLUMNS.keys()
    extra = {_extra_name(name) for name in unknown if any(row.get(name) is not None for row in rows)}
    columns: dict[str, list[Any]] = {}
    for name in column_order(extra):
        if name in ("step", "split"):
            columns[name] = [key[0] if name == "step" else key[1] for key in keys]
        else:
            columns[name] = [_number(row.get(name), name, key) for row, key in zip(rows, keys, strict=True)]
    return columns_bytes(columns)


def columns_bytes(columns: Mapping[str, Any]) -> bytes:
    """Return history.parquet for valid columns, all of one length, in the order of `column_order`.

    Args:
        columns: Column name -> list, NumPy array or Arrow array of its values.
    """
    import pyarrow as pa

    kinds = {"step": pa.int64(), "split": pa.string()}
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, kinds.get(name, pa.float64()))
        for name, values in columns.items()
    ]
    # the columns of the key are not nullable, except an epoch that was not logged in every row
    fields = [
        pa.field(name, array.type, nullable=name not in KEY_COLUMNS or array.null_count > 0)
        for name, array in zip(columns, arrays, strict=True)
    ]
    return parquet_bytes(pa.table(arrays, schema=pa.schema(fields)), dictionary=["split"])


def history_rows(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a history.parquet. `history_bytes` of these rows gives the same bytes.

    Args:
        data: The content of the file.

    Returns:
        One mapping per row, in column order, without null values.

    Raises:
        InputError: If this is not a history.parquet, or it has more than 4 million values.

    Example:
        >>> history_rows(history_bytes([{"step": 1, "epoch": 1.0, "split": "dev", "nll": 0.5, "lr": None}]))
        [{'step': 1, 'epoch': 1.0, 'split': 'dev', 'nll': 0.5}]
    """
    table = decode(data, trusted=True)
    _check_values(table.num_rows * table.num_columns)
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def timing_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return timing.parquet for the given rows.

    Args:
        rows: Mappings with the keys epoch (passes over the training split), phase (text) and seconds (wall time).

    Raises:
        InputError: If a row has other keys, or a value has another type.
    """
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
    return parquet_bytes(pa.table(columns, schema=schema), dictionary=["phase"])


def timing_rows(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a timing.parquet.

    Args:
        data: The content of the file.

    Raises:
        InputError: If this is not a timing.parquet, or it has more than 4 million values.
    """
    with _damage_as_input_error():
        file = _open(data, texts=["phase"], verify=True)
        names = file.schema_arrow.names
        if names != list(TIMING_COLUMNS):
            raise InputError(f"expected the columns {', '.join(TIMING_COLUMNS)}, got {', '.join(names[:10])[:200]}")
        _check_values(file.metadata.num_rows * len(names))
        rows: list[dict[str, Any]] = file.read(use_threads=False).to_pylist()
        return rows


def decode(data: bytes, columns: Sequence[str] | None = None, *, trusted: bool = False) -> pa.Table:
    """Return the table of a history.parquet.

    Args:
        data: The content of the file.
        columns: Columns to read; missing ones are skipped, and step, epoch and split are always read. None reads all.
        trusted: Whether a digest has verified the bytes. Page checksums and values are then not checked.

    Returns:
        A table in which step is int64, split is dictionary-encoded text, and every other column is float64.

    Raises:
        InputError: If this is not a Parquet file, it exceeds the limits, step, epoch or split is missing, step or split
            has nulls, another column is not numeric, or a split is unknown.
    """
    with _damage_as_input_error():
        file = _open(data, texts=["split"], verify=not trusted)
        _check_schema(file.schema_arrow)
        names = file.schema_arrow.names
        wanted = None if columns is None else [name for name in names if name in columns or name in KEY_COLUMNS]
        table = file.read(columns=wanted, use_threads=False)
        _check_keys(table, trusted)
        return _with_types(table)


def decode_predictions(data: bytes) -> pa.Table:
    """Return the table of a predictions.parquet (see `joyful.results.predictions`). All its text is dictionary-encoded.

    Args:
        data: The content of the file.

    Raises:
        InputError: If this is not a predictions.parquet, or it exceeds the limits of `decode`.
    """
    with _damage_as_input_error():
        for element in ("", ".list.element"):  # of one label, or of lists of labels
            texts = ["split", "dialogue", f"label{element}", f"predicted{element}"]
            file = _open(data, texts, verify=True)
            if _has_predictions(file.schema_arrow):
                table = file.read(use_threads=False)
                table.validate(full=True)
                return table.unify_dictionaries().combine_chunks()
        names = ", ".join(PREDICTION_COLUMNS)
        raise InputError(
            f"expected the columns {names} and probabilities, got {', '.join(file.schema_arrow.names)[:200]}"
        )


def _has_predictions(schema: pa.Schema) -> bool:
    import pyarrow as pa

    text, n = pa.dictionary(pa.int32(), pa.string()), len(PREDICTION_COLUMNS)
    if tuple(schema.names[:n]) != tuple(PREDICTION_COLUMNS) or len(set(schema.names)) != len(schema.names):
        return False
    kinds = [field.type.value_type if pa.types.is_list(field.type) else field.type for field in schema]
    labels, probabilities = schema.types[n - 2 : n], zip(schema.names[n:], kinds[n:], strict=True)
    return (
        kinds[:n] == [text, text, pa.int32(), text, text]
        and labels[0] == labels[1]
        and all(name.startswith(PROBABILITY) and kind == pa.float32() for name, kind in probabilities)
    )


@contextlib.contextmanager
def _damage_as_input_error() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError) as error:
        raise InputError(f"it cannot be read as a Parquet file of this format ({first_line_of(error)})") from None


def _check_values(count: int) -> None:
    if count > MAXIMUM_VALUES:
        raise InputError(f"it holds {count} values; at most {MAXIMUM_VALUES} are read as rows")


def _open(data: bytes, texts: Sequence[str], verify: bool) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = decoded_bytes(data)
    options = {"page_checksum_verification": verify, "pre_buffer": False}
    try:
        # decoding text as a dictionary keeps one copy in memory of a long text that is repeated ten million times
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(texts), **options)
    except KeyError:  # a column is missing; the caller reports it
        file = pq.ParquetFile(pa.BufferReader(data), **options)
    footer = file.metadata
    rows, width = footer.num_rows, footer.num_columns
    size = max(size, 8 * rows * width)  # a footer can declare little for columns that repeat one value
    if not (0 <= rows <= MAXIMUM_ROWS and 0 <= width <= MAXIMUM_COLUMNS and 0 <= size <= MAXIMUM_BYTES):
        raise InputError(
            f"it announces {rows} rows, {width} columns and {size} bytes; at most {MAXIMUM_ROWS} rows, "
            f"{MAXIMUM_COLUMNS} columns and {MAXIMUM_BYTES} bytes are read"
        )
    return file


def _check_schema(schema: pa.Schema) -> None:
    from pyarrow import types

    names = schema.names
    if len(set(names)) != len(names):
        raise InputError("it has two columns with the same name")
    missing = [name for name in KEY_COLUMNS if name not in names]
    if missing:
        raise InputError(f"it has no column {', '.join(missing)}; expected step, epoch and split")
    for name, kind in zip(names, schema.types, strict=True):
        if name == "split":
            text = kind.value_type if types.is_dictionary(kind) else kind
            expected, fits = "text", types.is_string(text) or types.is_large_string(text)
        elif name == "step":
            expected, fits = "integers", types.is_integer(kind)
        else:
            fits = types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind)
            expected = "numbers"
        if not fits:
            raise InputError(f"column {name[:100]}: expected {expected}, got {str(kind)[:100]}")


def _check_keys(table: pa.Table, trusted: bool) -> None:
    import pyarrow.compute as pc

    for name in ("step", "split"):
        if table.column(name).null_count:
            raise InputError(f"column {name}: {table.column(name).null_count} rows have no value")
    splits = table.column("split")
    if any(text not in SPLITS for chunk in splits.chunks for text in chunk.dictionary.to_pylist()):
        # unused entries of the dictionary are allowed
        unknown = sorted(set(splits.unique().to_pylist()) - set(SPLITS))
        if unknown:
            raise InputError(f"column split: expected {', '.join(SPLITS)}, got {unknown[0][:100]!r}")
    if trusted:
        return
    table.validate(full=True)
    for name in ("step", "epoch"):
        column = table.column(name)  # nulls are skipped
        if not pc.all(pc.and_(pc.is_finite(column), pc.greater_equal(column, 0)), min_count=0).as_py():
            raise InputError(f"column {name}: expected finite numbers from 0 on")


def _with_types(table: pa.Table) -> pa.Table:
    """Convert split to dictionary-encoded text, step to int64 without loss, and all other columns to float64."""
    import pyarrow as pa

    kinds = {"split": pa.dictionary(pa.int32(), pa.string()), "step": pa.int64()}
    for index, field in enumerate(table.schema):
        wanted, column = kinds.get(field.name, pa.float64()), table.column(index)
        if field.type != wanted:
            column = column.cast(pa.string() if field.name == "split" else wanted, safe=field.name == "step")
            column = column.dictionary_encode() if field.name == "split" else column
            table = table.set_column(index, field.name, column)
    return table


def parquet_bytes(table: pa.Table, dictionary: Sequence[str]) -> bytes:
    """Return a table as Parquet bytes, which depend on its content only.

    Args:
        table: The table.
        dictionary: Paths of the columns of text that repeat.
    """
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    # All options that affect the bytes are fixed here. Numbers have no compression, dictionaries or statistics: they do
    # not compress, and tens of thousands of files must be read fast.
    pq.write_table(
        table, sink, row_group_size=1_000_000, version="2.6", use_dictionary=list(dictionary), compression="none",
        write_statistics=False, data_page_version="1.0", store_schema=False, write_page_checksum=True,
    )  # fmt: skip
    return sink.getvalue()


def _extra_name(name: object) -> str:
    if not is_column_name(name):
        raise InputError(
            f"history: column {name!r}: expected a name of lower-case letters, digits and _ "
            f"other than {', '.join(RESERVED_COLUMNS)}"
        )
    return str(name)


def _check_key(row: Mapping[str, Any]) -> tuple[int, str]:
    missing = [name for name in ("step", "split") if row.get(name) is None]
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
    epoch = _number(row.get("epoch"), "epoch", (step, split))
    if epoch is not None and not (math.isfinite(epoch) and epoch >= 0):
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
    return math.nan if math.isnan(number) else number  # one NaN, because its sign and payload would change the bytes
