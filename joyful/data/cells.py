"""The meaning of the cells of a table of dialogues: names, places and labels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from joyful.data.raw_table import RawFile
from joyful.data.text_repair import without_surrogates
from joyful.data_settings import TableSettings
from joyful.results.csv_text import quoted

Labels = tuple[tuple[str, ...] | None, ...]

_WHOLE = re.compile(r"-?\d+\.0+")
_ZERO_ONE = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def text(raw: RawFile, row: int, what: str, cell: Any) -> str | None:
    """Return a cell as text without white space at its ends and without surrogates; None if it is empty.

    Whole numbers are written without a fraction, because a column of integers with empty cells is often stored as
    floating-point numbers.

    Args:
        raw: The file, for messages.
        row: Row of the cell.
        what: Name of the column in messages.
        cell: The cell.

    Raises:
        InputError: If the cell is neither text nor a number nor empty.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, str):
        return without_surrogates(cell).strip() or None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    raise raw.error(row, f"{what} must be text, a number or empty, got {quoted(str(cell))}; write it as text")


def texts(raw: RawFile, role: str) -> list[str | None]:
    """Return the cells of a column as `text` does. Equal cells become one object, which is in memory once.

    Raises:
        InputError: If a cell is neither text nor a number nor empty.
    """
    found: dict[str, str | None] = {}
    result = []
    for row, cell in enumerate(raw.cells[role]):
        if not isinstance(cell, str):
            result.append(text(raw, row, role, cell))
            continue
        if cell not in found:
            found[cell] = text(raw, row, role, cell)
        result.append(found[cell])
    return result


def names(raw: RawFile, role: str) -> tuple[str, ...]:
    """Return the cells of a column as names.

    Raises:
        InputError: If a cell is empty.
    """
    found: dict[str, str] = {}  # equal names are one object
    result = []
    for row, name in enumerate(texts(raw, role)):
        if name is None:
            raise raw.error(row, f"{role} is empty; fill it in, or set data.table.columns.{role}=null")
        result.append(found.setdefault(name, name))
    return tuple(result)


def places(raw: RawFile) -> tuple[float, ...]:
    """Return the cells of the column place as numbers.

    Raises:
        InputError: If a cell is not a finite number.
    """
    result: list[float] = []
    for row, cell in enumerate(raw.cells["place"]):
        name = text(raw, row, "place", cell) or ""
        try:
            if "_" in name:  # int() accepts 1_000
                raise ValueError
            number = int(name) if name.removeprefix("-").isdecimal() else float(name)
            if not math.isfinite(number):
                raise ValueError
        except (ValueError, OverflowError):
            message = f"place must be a number, got {quoted(name)}"
            raise raw.error(row, f"{message}; data.table.columns.place=null takes the order of rows") from None
        result.append(number)
    return tuple(result)


def class_names(raw: RawFile, settings: TableSettings) -> list[str]:
    """Return the class of each column of zeros and ones: its name after the prefix."""
    start = len(settings.label_prefix or "")
    return [class_name(without_surrogates(name[start:]).strip()) for name in raw.classes]


def labels(raw: RawFile, settings: TableSettings) -> tuple[Labels, bool]:
    """Return the class names of each row, None without a label, and whether a row can have several.

    Raises:
        InputError: If a cell is not a label, or not written as the others.
    """
    if raw.classes:
        return _of_columns(raw, class_names(raw, settings)), True
    column = raw.cells.get("label")
    if column is None:
        return (None,) * len(raw.lines), bool(settings.label_separator)
    column = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in column]
    first = next((row for row, cell in enumerate(column) if isinstance(cell, list)), None)
    if first is not None:
        return tuple(_of_list(raw, row, cell, first) for row, cell in enumerate(column)), True
    found: dict[str | None, tuple[str, ...] | None] = {}  # equal labels are one object
    single = texts(raw, "label")
    for row, name in enumerate(single):
        if name not in found:
            found[name] = _of_text(raw, row, name, settings.label_separator)
    return tuple(found[name] for name in single), settings.label_separator is not None


def class_name(name: str) -> str:
    """Return the name of a class. Whole numbers have no fraction, as in `text`."""
    return name.partition(".")[0] if _WHOLE.fullmatch(name) else name


def _of_list(raw: RawFile, row: int, cell: Any, first: int) -> tuple[str, ...] | None:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if not isinstance(cell, list):
        message = f"label must be a list or null, as in {raw.unit} {raw.lines[first]}, got {quoted(str(cell))}"
        raise raw.error(row, f"{message}; write all labels as lists, or none")
    found = [text(raw, row, "label", item) for item in cell]
    if None in found:
        raise raw.error(row, "label has an empty name in its list; remove it")
    return tuple(dict.fromkeys(class_name(name) for name in found if name is not None))


def _of_text(raw: RawFile, row: int, cell: str | None, separator: str | None) -> tuple[str, ...] | None:
    if cell is None:
        return None
    if separator is None:
        return (class_name(cell),)
    parts = [part.strip() for part in cell.split(separator)]
    if not all(parts):
        message = f"label {quoted(cell)} has an empty name between {quoted(separator)}"
        raise raw.error(row, f"{message}; correct it, or set data.table.label_separator to another text")
    return tuple(dict.fromkeys(class_name(part) for part in parts))


def _of_columns(raw: RawFile, classes: Sequence[str]) -> Labels:
    result: list[tuple[str, ...] | None] = []
    columns = list(raw.classes)
    for row, values in enumerate(zip(*raw.classes.values(), strict=True)):
        flags = [_flag(raw, row, name, value) for name, value in zip(columns, values, strict=True)]
        if None in flags and any(flag is not None for flag in flags):
            empty = columns[flags.index(None)]
            message = f"{empty} is empty, but other columns of labels are not"
            raise raw.error(row, f"{message}; write 0 or 1, or leave all {len(flags)} empty without a label")
        found = tuple(name for name, flag in zip(classes, flags, strict=True) if flag)
        result.append(None if None in flags else found)
    return tuple(result)


def _flag(raw: RawFile, row: int, name: str, cell: Any) -> int | None:
    written = text(raw, row, name, cell)
    if written is None:
        return None
    flag = _ZERO_ONE.get(written.lower())
    if flag is None:
        message = f"{name} must be 0, 1 or empty, got {quoted(written)}"
        raise raw.error(row, f"{message}; correct it, or set data.table.label_prefix=PREFIX or null")
    return flag
