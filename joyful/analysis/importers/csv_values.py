"""Parse the values of an imported CSV file."""

from __future__ import annotations

from collections.abc import Sequence

from joyful.results import InputError
from joyful.results.csv_text import quoted

#: Texts (in lower case) of values that were not measured.
NOT_MEASURED = frozenset({"", "na", "n/a", "null", "none"})


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


def some(names: Sequence[str]) -> str:
    """Return up to twelve names as text, for messages."""
    return ", ".join(quoted(name) for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
