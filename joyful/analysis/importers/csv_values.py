"""Parse the values of an imported CSV file, and read a CSV file of one run that has a column per metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from joyful.results import InputError
from joyful.results.csv_text import line_error, quoted, read_records

if TYPE_CHECKING:
    from joyful.analysis.importers.options import Options
    from joyful.analysis.importers.runs import ImportedRun

#: Texts (in lower case) of values that were not measured.
NOT_MEASURED = frozenset({"", "na", "n/a", "null", "none"})

#: Maximum size of a CSV file in bytes, and default of the maximum number of its columns.
MAXIMUM_BYTES, MAXIMUM_COLUMNS = 2**28, 1_000


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
        expected = f"expected a number (empty where not measured), got {quoted(text)}{comma}"
        hint = "correct the value or select other metrics with --metrics"
        raise InputError(f"{name}: {expected}; {hint}") from None


def integer(text: str, name: str) -> int:
    """Parse an integer below 2**53 in magnitude. "3.0" is an integer.

    Raises:
        InputError: If the text is not such an integer.
    """
    value = number(text, name)
    if value is None or not value.is_integer() or abs(value) >= 2**53:
        raise InputError(f"{name}: expected an integer, got {quoted(text)}")
    return int(value)


def typed(text: str) -> str | float | int:
    """Return the text of a setting as a number if it is one.

    Example:
        >>> typed("3"), typed("0.5"), typed("mse")
        (3, 0.5, 'mse')
    """
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value) or "_" in text:
        return text
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def some(names: Sequence[str]) -> str:
    """Return up to twelve names as text, for messages."""
    return ", ".join(quoted(name) for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def table(
    path: Path,
    expected: str,
    delimiter: str = ",",
    skip: Callable[[str], bool] | None = None,
    maximum_columns: int = MAXIMUM_COLUMNS,
) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    """Read the header of a CSV file.

    Args:
        path: The file, in UTF-8.
        expected: Example of a header, for messages.
        delimiter: Character between columns.
        skip: Whether a record is skipped, given its first field. None skips none.
        maximum_columns: Maximum number of columns.

    Returns:
        The line of the header, the names of the columns, and an iterator over (line, fields) of the other records that
        are not empty. Its errors name the file and the line.

    Raises:
        InputError: If the file cannot be read, has no header, or has too many columns or one of them twice.
    """
    records = read_records(path, MAXIMUM_BYTES, delimiter)
    rows = ((line, fields) for line, fields in records if any(fields) and not (skip and skip(fields[0])))
    line, names = next(rows, (1, []))
    if not names:
        raise InputError(f"{path}: expected a header such as {expected}, got an empty file")
    if len(names) > maximum_columns:
        got = f"at most {maximum_columns} columns, got {len(names)}"
        raise line_error(path, line, f"expected {got}; check the delimiter and the file")
    names = [name.strip() for name in names]
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise line_error(path, line, f"the header has {some(twice)} more than once; remove or rename a column")

    def checked() -> Iterator[tuple[int, list[str]]]:
        for line, fields in rows:
            if len(fields) != len(names):
                got = f"{len(names)} columns as in the header, got {len(fields)}"
                raise line_error(path, line, f"expected {got}; quote text that contains the delimiter")
            yield line, fields

    return line, names, checked()


def add_table(
    run: ImportedRun,
    options: Options,
    keys: Mapping[str, str],
    ignored: Sequence[str] = (),
    skip: Callable[[str], bool] | None = None,
) -> None:
    """Add the rows of a CSV file with a row per step and a column per metric to its run.

    Args:
        run: The run. Its last file is read.
        options: The options, which select and name the metrics.
        keys: "step", "epoch", "seconds" or "tokens" -> name of its column. The first two are required; of the others
            those that the file has are read.
        ignored: Names of columns that are not metrics.
        skip: See `table`.

    Raises:
        InputError: If the file is not such a table. The message names the file and the line.
    """
    path, file = run.files[-1], len(run.files) - 1
    line, names, rows = table(path, ",".join([*keys.values(), "val_loss"]), skip=skip)
    places = {name: index for index, name in enumerate(names)}
    if missing := [name for key, name in keys.items() if key in ("step", "epoch") and name not in places]:
        raise line_error(path, line, f"the header lacks {some(missing)}; it has {some(names)}")
    of_keys = {key: places[name] for key, name in keys.items() if name in places}
    left = {*keys.values(), *ignored}
    columns = [
        (index, name, column)
        for name, index in places.items()
        if name not in left and (column := options.column(name, place=f"{path}, line {line}")) is not None
    ]
    for line, fields in rows:
        try:
            options.count(len(names))
            step = integer(fields[of_keys["step"]], keys["step"]) if "step" in of_keys else None
            epoch, seconds, tokens = (
                number(fields[of_keys[key]], keys[key]) if key in of_keys else None
                for key in ("epoch", "seconds", "tokens")
            )
            row = run.row(line, step, epoch, seconds, tokens, file)
            for index, name, column in columns:
                value = number(fields[index], name)
                if value is not None:
                    run.put(row, column, value)
        except InputError as error:
            raise line_error(path, line, error) from None
