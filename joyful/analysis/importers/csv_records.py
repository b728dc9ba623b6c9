"""Reading CSV without trust: rows with the number that an editor shows, bounds on what is read, values checked one by one.

The csv module rather than pandas: it knows the row of a record even after quoted fields that span several lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from joyful.results import InputError

NOT_MEASURED = frozenset({"", "na", "n/a", "null", "none"})

MAXIMUM_BYTES = 2**28
MAXIMUM_RECORD = 2**20  # characters
_SHOWN = 60


def records(source: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(row as an editor numbers lines, fields) of every record that is not blank, with bounds on what is read."""
    try:
        size = source.stat().st_size
        if size > MAXIMUM_BYTES:
            raise InputError(f"{source} has {size} bytes; at most {MAXIMUM_BYTES} are read: import it in parts")
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
                    raise InputError(
                        f"{source}, row {first} or soon after it: not UTF-8 text; save the file with the encoding UTF-8"
                    ) from None
                except (csv.Error, InputError) as error:
                    raise InputError(
                        f"{source}, row {first}: not a CSV record ({error}); is a quotation mark open?"
                    ) from None
                if any(fields):
                    yield first, fields
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); expected a CSV file") from None


class _Lines:
    """The lines of a stream; counts them, and refuses a record that is too long before it is in memory."""

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
            raise InputError(f"it has more than {MAXIMUM_RECORD} characters")
        if "\0" in line:
            raise InputError("it holds a null character")
        return line


def number(text: str, name: str) -> float | None:
    """The number, None where not measured ("nan" is measured, and not a number)."""
    try:
        if "_" in text:  # float() takes 1_000, which is no number in a table
            raise ValueError
        return float(text)
    except ValueError:
        if text.strip().lower() in NOT_MEASURED:
            return None
        comma = "; write a point, not a comma, before decimals" if "," in text else ""
        raise InputError(
            f"{name}: expected a number (empty where not measured), got {short(text)}{comma}; mend it, or read only "
            "other metrics (--metrics)"
        ) from None


def integer(text: str, name: str) -> int:
    value = number(text, name)
    if value is None or not value.is_integer() or abs(value) >= 2**53:
        raise InputError(f"{name}: expected an integer, got {short(text)}")
    return int(value)


def some(names: Sequence[str]) -> str:
    return ", ".join(short(name) for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
