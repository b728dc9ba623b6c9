"""The content of one file of a table of dialogues, and the choice of its columns.

Shape letters: N utterances, D features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from joyful.data_settings import TableSettings
from joyful.messages import did_you_mean, nearest
from joyful.records import MODALITIES, InputError
from joyful.results.csv_text import quoted

#: Columns with a meaning, in the order of messages. The settings data.table.columns map them to names in the file.
ROLES = ("dialogue", "place", "speaker", "text", "label", "split")

MAX_ROWS = 1_000_000
MAX_DIGITS = 19  # longer numbers in names are text; Python refuses to convert those of more than 4,300 digits
MAX_FEATURE_VALUES = 2**29  # of one modality in one file: 2 GiB


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read.

    Attributes:
        roles: Role -> column.
        classes: Columns of zeros and ones, one for each class.
        numbers: Modality -> its columns in order, or one column of lists.
    """

    roles: Mapping[str, str]
    classes: tuple[str, ...]
    numbers: Mapping[str, tuple[str, ...]]

    def names(self) -> list[str]:
        """Return all columns."""
        return [*self.roles.values(), *self.classes, *(name for names in self.numbers.values() for name in names)]


@dataclass
class RawFile:
    """The content of one file, with N rows.

    Attributes:
        path: The file.
        unit: What `lines` counts: "line" or "row".
        lines: The line or row of each utterance, counted from 1.
        names: The names of all columns.
        cells: Role -> N cells: None, text, a number, a list and so on.
        classes: Column of zeros and ones -> N cells.
        numbers: Modality -> (N, D) float32; a row of NaN where the features are missing. D is 0 if all lists are null or empty.
        nulls: Modalities of a column that has null only, such as "audio": null in each line.
    """

    path: Path
    unit: str
    lines: list[int]
    names: Sequence[str] = ()
    cells: dict[str, list[Any]] = field(default_factory=dict)
    classes: dict[str, list[Any]] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    nulls: set[str] = field(default_factory=set)

    def error(self, row: int, message: object) -> InputError:
        """Return an error that names the file and the line of a row."""
        return InputError(f"{self.path}, {self.unit} {self.lines[row]}: {message}")


def select_columns(
    path: Path,
    names: Sequence[str],
    settings: TableSettings,
    lists: Collection[str] = (),
    optional: Collection[str] = (),
) -> Columns:
    """Find the columns in a header. Names are compared exactly first, then without regard to case.

    Args:
        path: The file, for messages.
        names: The names of its columns.
        settings: The settings data.table.
        lists: Those columns that hold lists.
        optional: Roles whose columns may be absent under any name.

    Raises:
        InputError: If a column that the settings name is not there, there is no column dialogue, or a name is repeated.
    """
    roles = {}
    for role in ROLES:
        wanted = getattr(settings.columns, role)
        if wanted is None:
            continue
        found = [name for name in names if name == wanted] or [n for n in names if n.casefold() == wanted.casefold()]
        if len(found) > 1:
            raise InputError(f"{path}: the header names {', '.join(found)} more than once; keep one")
        if found:
            roles[role] = found[0]
        elif role not in optional and (wanted != role or role == "dialogue"):
            raise _no_column(path, role, wanted, names)
    rest = [name for name in names if name not in roles.values()]
    prefixes: dict[str, str | None] = {str(name): prefix for name, prefix in settings.features.items()}
    numbers = {}
    for modality in MODALITIES.values():
        if (prefix := prefixes.get(modality)) and (chosen := _numbered(path, rest, modality, prefix, lists)):
            numbers[modality] = tuple(chosen)
    classes = () if "label" in roles or not settings.label_prefix else tuple(_beginning(rest, settings.label_prefix))
    columns = Columns(roles, classes, numbers)
    counts = Counter(names)
    if repeated := sorted({name for name in columns.names() if counts[name] > 1}):
        raise InputError(f"{path}: the header names {', '.join(repeated[:5])} more than once; keep one")
    return columns


def _no_column(path: Path, role: str, wanted: str, names: Sequence[str]) -> InputError:
    shown = ", ".join(quoted(name) for name in names[:12]) + (" and more" if len(names) > 12 else "")
    near = did_you_mean([f"data.table.columns.{role}={name}" for name in nearest(wanted, names)])
    remedy = f"set data.table.columns.{role}=NAME" + (
        " (null: each file is one dialogue)" if role == "dialogue" else ""
    )
    return InputError(f"{path}: expected a column {quoted(wanted)} for the {role}, got {shown}; {remedy}{near}")


def _beginning(names: Sequence[str], prefix: str) -> list[str]:
    return [name for name in names if name.casefold().startswith(prefix.casefold()) and len(name) > len(prefix)]


def _numbered(path: Path, names: Sequence[str], modality: str, prefix: str, lists: Collection[str]) -> list[str]:
    """Return the columns of a modality: one of lists, those that end in a number, or all that begin with the prefix."""
    matching = _beginning(names, prefix)
    own = {*matching, prefix.rstrip("_")}
    held = [name for name in names if name in lists and name in own]
    if len(held) > 1:
        raise InputError(
            f"{path}: expected one column of lists for {modality}, got {', '.join(held)}; set"
            f" data.table.features.{modality}=NAME"
        )
    ends = ((name, name[len(prefix) :]) for name in matching if name not in lists)
    numbered = [name for name, end in ends if end.isdecimal() and len(end) < MAX_DIGITS]
    if held or numbered:
        return held or sorted(numbered, key=lambda name: int(name[len(prefix) :]))
    # a table often has more columns about its text, such as text_language
    return [] if modality == "text" else matching


def null_modalities(columns: Columns, nulls: Collection[str], settings: TableSettings) -> set[str]:
    """Return the modalities whose column of lists has null only, so that its type is unknown.

    Args:
        columns: The columns that are read.
        nulls: All columns of the file with null only.
        settings: The settings data.table.
    """
    free = set(nulls) - set(columns.names())
    prefixes = {str(name): prefix for name, prefix in settings.features.items() if prefix}
    return {name for name, prefix in prefixes.items() if name not in columns.numbers and prefix.rstrip("_") in free}


def other_columns(names: Sequence[str]) -> str:
    modality = next((m for m in MODALITIES.values() if names[0].casefold().startswith(m)), "audio")
    return f"correct it, or set data.table.features.{modality}=PREFIX to the beginning of the columns of numbers"


def limit_rows(raw: RawFile) -> None:
    if len(raw.lines) > MAX_ROWS:
        raise raw.error(len(raw.lines) - 1, f"more than {MAX_ROWS} rows; check that it is the right file")


def limit_values(path: Path, modality: str, n: int, d: int) -> None:
    if n * d > MAX_FEATURE_VALUES:
        raise InputError(
            f"{path}: expected at most {MAX_FEATURE_VALUES} numbers of {modality}, got more; use fewer columns"
        )


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_floats(values: Sequence[Any]) -> np.ndarray:
    """Return numbers as float32, NaN for None. Numbers that are too large become infinite."""
    floats = [math.nan if value is None else value for value in values]
    try:
        with np.errstate(over="ignore"):
            return np.array(floats, dtype=np.float64).astype(np.float32)
    except OverflowError:
        return np.full(len(floats), np.inf, np.float32)


def as_vector(values: list[Any]) -> Any:
    """Return a list as an array if it holds numbers and null only, else the list."""
    return as_floats(values) if all(value is None or is_number(value) for value in values) else values


def scalar_row(raw: RawFile, row: int, names: Sequence[str], values: Sequence[Any]) -> np.ndarray:
    for name, value in zip(names, values, strict=True):
        if value is not None and not is_number(value):
            message = f"{name} must be a number or null, got {quoted(str(value))}"
            raise raw.error(row, f"{message}; {other_columns(names)}")
    return as_floats(values)


def stack_vectors(raw: RawFile, name: str, vectors: Sequence[Any]) -> np.ndarray:
    """Return lists of numbers as (N, D) float32, with NaN for missing and empty lists. D is 0 if all are."""
    first: tuple[int, int] | None = None  # row and width
    for row, vector in enumerate(vectors):
        if vector is None or (isinstance(vector, np.ndarray) and not vector.size):
            continue
        if not isinstance(vector, np.ndarray):
            raise raw.error(row, f"{name} must be a list of numbers or null, got {quoted(str(vector))}")
        first = first or (row, len(vector))
        if len(vector) != first[1]:
            message = (
                f"expected {first[1]} numbers in {name}, as in {raw.unit} {raw.lines[first[0]]}, got {len(vector)}"
            )
            raise raw.error(row, message)
    if first is None:
        return np.empty((len(vectors), 0), np.float32)
    limit_values(raw.path, name, len(vectors), first[1])
    empty = np.full(first[1], np.nan, np.float32)
    return np.stack([vector if isinstance(vector, np.ndarray) and vector.size else empty for vector in vectors])


def check_numbers(raw: RawFile, modality: str, values: np.ndarray) -> None:
    """Raise InputError for infinite numbers, and for rows with some of their numbers missing."""
    with np.errstate(invalid="ignore"):
        total = values.sum(dtype=np.float64)
    if np.isfinite(total):
        return
    infinite = np.isinf(values)
    if infinite.any():
        row, column = (int(index) for index in np.argwhere(infinite)[0])
        message = f"number {column + 1} of {modality} must be finite, and at most 3.4e38 in size"
        raise raw.error(row, f"{message}; correct it, or leave all empty where {modality} is missing")
    empty = np.isnan(values)
    partial = np.flatnonzero(empty.any(axis=1) & ~empty.all(axis=1))
    if partial.size:
        row = int(partial[0])
        count, column = int(empty[row].sum()), int(np.flatnonzero(empty[row])[0]) + 1
        message = f"{modality}: {count} of {values.shape[1]} numbers are missing, the first is number {column}"
        raise raw.error(
            row, f"{message}; fill them in, or leave all {values.shape[1]} empty where {modality} is missing"
        )
