"""Read untrusted CSV files: numbered rows, limits on the size, and checked values.

This module uses `csv`, not pandas, because error messages need the line of a record, also after quoted fields that span
several lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from joyful.results import InputError

#: Texts (in lower case) of values that were not measured.
NOT_MEASURED = frozenset({"", "na", "n/a", "null", "none"})

#: Maximum size of a file in bytes, and of a record in characters.
MAXIMUM_BYTES = 2**28
MAXIMUM_RECORD = 2**20

#: Maximum length of a text that a message quotes.
_SHOWN = 60


def records(source: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Read the records of a CSV file and skip blank ones.

    Args:
        source: The file, in UTF-8.
        delimiter: Character between the fields.

    Yields:
        The line at which the record starts, as editors number lines, and its fields.

    Raises:
        InputError: If the file cannot be read, is larger than MAXIMUM_BYTES, has a record longer than MAXIMUM_RECORD, or
            is not CSV in UTF-8. The message names the file and the row.
    """
    try:
        size = source.stat().st_size
        if size > MAXIMUM_BYTES:
            raise InputError(f"{source}: expected at most {MAXIMUM_BYTES} bytes, got {size}; import the table in parts")
        with source.open(encoding="utf-8-sig", errors="strict", newline="") as stream:
            lines = _Lines(stream)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                first = lines.begin()
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except UnicodeDecodeError:
                    message = f"row {first} or shortly after: expected UTF-8 text; save the file in UTF-8"
                    raise InputError(f"{source}, {message}") from None
                except (csv.Error, InputError) as error:
                    message = f"row {first}: not a CSV record ({error}); check the quotation marks"
                    raise InputError(f"{source}, {message}") from None
                if any(fields):
                    yield first, fields
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); expected a CSV file") from None


class _Lines:
    """Iterate over the lines of a stream and count them. A record that is too long fails before it is in memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line, self._characters = stream, 0, 0

    def begin(self) -> int:
        self._characters = 0
        return self._line + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAXIMUM_RECORD + 1)
        if not line:
            raise StopIteration
        self._line += 1
        self._characters += len(line)
        if self._characters > MAXIMUM_RECORD:
            raise InputError(f"more than {MAXIMUM_RECORD} characters")
        if "\0" in line:
            raise InputError("it contains a null character")
        return line


def number(text: str, name: str) -> float | None:
    """Parse a number.

    Args:
        text: The text. One of NOT_MEASURED stands for a missing value. "nan" is a measured value that is not a number.
        name: Name of the column, for the message.

    Returns:
        The number, or None if it was not measured.

    Raises:
        InputError: If the text is not a number.

    Example:
        >>> number("0.5", "nll"), number("", "nll"), number("nan", "nll")
        (0.5, None, nan)
    """
    try:
        if "_" in text:  # float() accepts 1_000
            raise ValueError
        return float(text)
    except ValueError:
        if text.strip().lower() in NOT_MEASURED:
            return None
        comma = "; use a decimal point" if "," in text else ""
        expected = f"expected a number (empty where not measured), got {short(text)}{comma}"
        hint = "correct the value or select other metrics with --metrics"
        raise InputError(f"{name}: {expected}; {hint}") from None


def integer(text: str, name: str) -> int:
    """Parse an integer below 2**53 in magnitude. "3.0" is an integer.

    Raises:
        InputError: If the text is not such an integer.
    """
    value = number(text, name)
    if value is None or not value.is_integer() or abs(value) >= 2**53:
        raise InputError(f"{name}: expected an integer, got {short(text)}")
    return int(value)


def some(names: Sequence[str]) -> str:
    """Return up to twelve names as text, for messages."""
    return ", ".join(short(name) for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def short(text: str) -> str:
    """Return the quoted text, shortened if it is long, for messages."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
