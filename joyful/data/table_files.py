"""Read one file of a table of dialogues: CSV, JSON Lines or Parquet, and arrays of features beside it.

The files are not trusted. Sizes are limited before anything is decoded, and every fault is an InputError with the file
and the line. Cells keep the types that the format has; `joyful.data.dialogues` gives them their meaning.

Shape letters: N utterances, D features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from joyful.data.parquet_files import read_parquet
from joyful.data.raw_table import (
    ROLES,
    RawFile,
    as_vector,
    check_numbers,
    limit_rows,
    limit_values,
    null_modalities,
    other_columns,
    scalar_row,
    select_columns,
    stack_vectors,
)
from joyful.data.text_files import find_separator, text_lines
from joyful.data_settings import TableSettings
from joyful.records import MODALITIES, InputError, one_line
from joyful.results.csv_text import MAXIMUM_RECORD, line_error, quoted, records_of

#: Limit on blank lines before the header of a CSV file.
_MAX_BLANK_LINES = 100


def read_file(path: Path, settings: TableSettings, optional: Collection[str] = ()) -> RawFile:
    """Read one file, in the format that the ending of its name tells.

    Args:
        path: A file .csv, .tsv, .jsonl, .ndjson, .json or .parquet. Files NAME.MODALITY.npy beside it have features.
        settings: The settings data.table.
        optional: Roles whose columns may be absent.

    Raises:
        InputError: If the file cannot be read, exceeds a limit, is not of its format, or has no rows.
    """
    raw = FORMATS[path.suffix.lower()](path, settings, optional)
    if not raw.lines:
        raise InputError(f"{path} has no rows; expected at least one utterance")
    for modality, file in arrays_beside(path).items():
        if modality in raw.numbers:
            raise InputError(
                f"{path} has columns of {modality}, and {file} is beside it; remove the file, or set"
                f" data.table.features.{modality}=null"
            )
        raw.numbers[modality] = _read_array(file, len(raw.lines), path)
    for modality, values in raw.numbers.items():
        check_numbers(raw, modality, values)
    return raw


def arrays_beside(path: Path) -> dict[str, Path]:
    """Return modality -> the file NAME.MODALITY.npy beside a table NAME.csv, for those that exist."""
    files = {modality: path.with_name(f"{path.stem}.{modality}.npy") for modality in MODALITIES.values()}
    return {modality: file for modality, file in files.items() if file.is_file()}


def _read_csv(path: Path, settings: TableSettings, optional: Collection[str]) -> RawFile:
    lines = text_lines(path, settings.encoding)
    before: list[str] = []  # blank lines and the header
    for text in lines:
        before.append(text)
        if text.strip() or len(before) > _MAX_BLANK_LINES:
            break
    header = before[-1] if before else ""
    known = [getattr(settings.columns, role) or role for role in ROLES]
    known += [prefix for prefix in (*settings.features.values(), settings.label_prefix) if prefix]
    separator = find_separator(path, header, {name.casefold() for name in known}, settings.separator)

    def again() -> Iterator[str]:
        yield from before
        yield from lines

    records = records_of(path, again(), separator)
    _, names = next(records, (1, []))
    names = [name.strip() for name in names]
    if not any(names):
        raise InputError(f"{path} is empty; expected a header with the names of the columns")
    columns = select_columns(path, names, settings, optional=optional)
    index = {name: n for n, name in enumerate(names)}
    raw = RawFile(path, "line", [], names, {role: [] for role in columns.roles}, {name: [] for name in columns.classes})
    rows: dict[str, list[np.ndarray]] = {modality: [] for modality in columns.numbers}
    for line, fields in records:
        if len(fields) != len(names):
            mark = {",": "comma", ";": "semicolon", "\t": "tab"}[separator]
            message = f"expected {len(names)} columns, got {len(fields)}; put text with a {mark} in quotes"
            raise line_error(path, line, message)
        raw.lines.append(line)
        limit_rows(raw)
        for role, name in columns.roles.items():
            raw.cells[role].append(fields[index[name]])
        for name in columns.classes:
            raw.classes[name].append(fields[index[name]])
        for modality, chosen in columns.numbers.items():
            rows[modality].append(_parse(raw, chosen, [fields[index[name]] for name in chosen]))
            limit_values(path, modality, len(raw.lines), len(chosen))
    raw.numbers = {modality: np.stack(values) for modality, values in rows.items() if values}
    return raw


def _parse(raw: RawFile, names: Sequence[str], fields: Sequence[str]) -> np.ndarray:
    """Return the numbers of a row as float32, NaN for empty cells."""
    try:
        if "_" in "".join(fields):  # float() accepts 1_000, which is not a number in CSV
            raise ValueError
        values = [float(text) if text else math.nan for text in fields]
    except ValueError:
        values = []
        for name, text in zip(names, fields, strict=True):
            try:
                values.append(float("x" if "_" in text else text) if text.strip() else math.nan)
            except ValueError:
                message = f"{name} must be a number or empty, got {quoted(text)}"
                raise raw.error(len(raw.lines) - 1, f"{message}; {other_columns(names)}") from None
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32)


def _read_json_lines(path: Path, settings: TableSettings, optional: Collection[str]) -> RawFile:
    raw = RawFile(path, "line", [])
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    lists: set[str] = set()
    filled: set[str] = set()
    prefixes = tuple(prefix.casefold().rstrip("_") for prefix in settings.features.values() if prefix)
    for number, line in enumerate(text_lines(path, settings.encoding), start=1):
        if len(line) > MAXIMUM_RECORD:
            raise line_error(path, number, f"expected at most {MAXIMUM_RECORD} characters; use Parquet, or .npy files")
        if not line.strip():
            continue
        row = _json_object(path, number, line)
        for name, value in row.items():
            names[name] = None
            if value is not None:
                filled.add(name)
            if isinstance(value, list):
                lists.add(name)
                if name.casefold().startswith(prefixes):
                    row[name] = as_vector(value)
        raw.lines.append(number)
        limit_rows(raw)
        rows.append(row)
    if not rows:
        return raw
    raw.names = list(names)
    columns = select_columns(path, raw.names, settings, lists, optional)
    raw.nulls = null_modalities(columns, [name for name in names if name not in filled], settings)
    raw.cells = {role: [row.get(name) for row in rows] for role, name in columns.roles.items()}
    raw.classes = {name: [row.get(name) for row in rows] for name in columns.classes}
    for modality, chosen in columns.numbers.items():
        if chosen[0] in lists:
            raw.numbers[modality] = stack_vectors(raw, chosen[0], [row.get(chosen[0]) for row in rows])
        else:
            limit_values(path, modality, len(rows), len(chosen))
            cells = ([row.get(name) for name in chosen] for row in rows)
            raw.numbers[modality] = np.stack([scalar_row(raw, n, chosen, values) for n, values in enumerate(cells)])
    return raw


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "too deep, or a number is too long"
        message = f'expected one JSON object, such as {{"dialogue": "a", "text": "hi"}} ({reason})'
        raise line_error(path, number, f"{message}; save one object in each line (JSON Lines)") from None
    if not isinstance(row, dict):
        message = f"expected one JSON object, got {quoted(line.strip())}; save one object in each line (JSON Lines)"
        raise line_error(path, number, message)
    return row


def _read_array(file: Path, n: int, table: Path) -> np.ndarray:
    """Return an array of features as float32. Its header is checked before the numbers are read."""
    try:
        array = np.lib.format.open_memmap(file, mode="r")  # refuses pickled objects
        shape, kind = array.shape, array.dtype.kind
    except Exception as error:  # a damaged header can cause any exception in the parsers that NumPy calls
        raise InputError(
            f"{file} is not an array of numbers ({one_line(error, 120)}); save it with numpy.save"
        ) from None
    if kind not in "fiu" or array.ndim != 2 or shape[0] != n or shape[1] < 1:
        raise InputError(
            f"{file}: expected numbers of shape ({n}, WIDTH), a row for each row of {table.name}, got {array.dtype} of"
            f" shape {shape}; save one row per utterance, NaN where it is missing"
        )
    limit_values(file, "an array", *shape)
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32)


#: Ending of a file's name -> its reader.
FORMATS = {
    ".csv": _read_csv, ".tsv": _read_csv,
    ".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".json": _read_json_lines,
    ".parquet": read_parquet,
}  # fmt: skip
