"""Read CSV files of unknown origin within bounds, with the line of each record.

This module uses `csv` instead of pandas, because `csv` gives the line of a record even after quoted fields that span
several lines.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from joyful.records import InputError

#: Maximum number of characters of a record.
MAXIMUM_RECORD = 2**20

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def line_error(path: Path, line: int, message: object) -> InputError:
    """Return an error that names a file and a line, counted from 1."""
    return InputError(f"{path}, line {line}: {message}")


def quoted(value: str) -> str:
    """Return the value in quotes for a message, cut to 60 characters."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def read_records(path: Path, limit: int, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file, without blank lines.

    Args:
        path: The file, in UTF-8. A record has at most 1 MiB characters.
        limit: Maximum size of the file in bytes.
        delimiter: Character between the fields.

    Yields:
        Tuples (line, fields). line is the line at which the record starts as an editor shows it, counted from 1.

    Raises:
        InputError: If the file cannot be read, exceeds a limit, or is not CSV in UTF-8.
    """

    def lines() -> Iterator[str]:
        for number, line in enumerate(iter(functools.partial(stream.readline, MAXIMUM_RECORD + 1), ""), start=1):
            if _NOT_TEXT.search(line):
                raise line_error(path, number, "not UTF-8 text; save the file with the encoding UTF-8")
            yield line

    try:
        if (size := path.stat().st_size) > limit:
            raise InputError(f"{path}: expected at most {limit} bytes, got {size}; check the file, or use a part of it")
        # surrogateescape keeps invalid bytes, so that `lines` can report their line
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            yield from records_of(path, lines(), delimiter)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a CSV file") from None


def records_of(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of lines of CSV, without blank lines.

    Args:
        path: The file, for messages.
        lines: Its lines, each with its line end and cut after MAXIMUM_RECORD + 1 characters.
        delimiter: Character between the fields.

    Yields:
        Tuples (line, fields), as `read_records`.

    Raises:
        InputError: If a record is longer than MAXIMUM_RECORD characters, or the text is not CSV.
    """
    first = characters = 0  # of the current record

    def limited() -> Iterator[str]:
        nonlocal characters
        for line in lines:
            characters += len(line)
            if characters > MAXIMUM_RECORD:
                expected = f"the record has more than {MAXIMUM_RECORD} characters"
                raise line_error(path, first, f"{expected}; check for an unclosed quotation mark")
            yield line

    reader = csv.reader(limited(), delimiter=delimiter, strict=True)
    while True:
        first, characters = reader.line_num + 1, 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            message = f"not a CSV record ({error}); check for an unclosed quotation mark"
            raise line_error(path, first, message) from None
        if fields is None:
            return
        if fields:
            yield first, fields
