"""Formatting of numbers, units, intervals and p-values for reports. None and NaN mean that there is no number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from joyful.analysis.columns import NAMES

#: Text for a missing number.
NONE = "–"

#: Unit of a claim or measure -> text after a number.
SUFFIX = {"percent": " %", "per cent": " %", "absolute": ""}


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Format a number with a minus sign (U+2212) and spaces between thousands.

    Args:
        value: The number. None and NaN give NONE, infinity gives ∞.
        digits: Number of decimals. From one million on, two decimals and an exponent are used.
        signed: Whether positive numbers have a plus sign.

    Returns:
        The text.

    Example:
        >>> number(12345.6), number(-0.04, signed=True)
        ('12 345.6', '0.0')
    """
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = round(value, digits) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
    if abs(value) >= 1e6:
        text = f"{value:+.2e}" if signed else f"{value:.2e}"
    else:
        text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if value == 0:
        text = text.lstrip("+")
    return text.replace("-", "−").replace(",", " ")


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction from 0 to 1 as a percentage."""
    return NONE if fraction is None or math.isnan(fraction) else f"{number(100 * fraction, digits)} %"


def quantity(value: float | None, unit: str, digits: int | None = None, *, signed: bool = False) -> str:
    """Format a number with its unit.

    Args:
        value: The number.
        unit: "percent", "per cent", "points", "absolute" or any other text, which is appended unchanged.
        digits: Number of decimals, by default `decimals(unit)`.
        signed: Whether positive numbers have a plus sign.

    Returns:
        The text, or NONE if there is no number.
    """
    text = number(value, decimals(unit) if digits is None else digits, signed=signed)
    return text if text == NONE else text + SUFFIX.get(unit, f" {unit}" if unit else "")


def interval(low: float | None, high: float | None, unit: str = "", digits: int | None = None) -> str:
    """Format an interval such as `3.0 to 21.6 %`, or NONE if a limit is missing. An infinite limit is no limit.

    Example:
        >>> interval(3, 21.6, "percent"), interval(3, math.inf, "percent")
        ('3.0 to 21.6 %', '3.0 % or more')
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NONE
    digits = decimals(unit) if digits is None else digits
    if math.isinf(low) or math.isinf(high):
        if math.isinf(low) and math.isinf(high):
            return "not bounded"
        return f"up to {quantity(high, unit, digits)}" if math.isinf(low) else f"{quantity(low, unit, digits)} or more"
    return f"{number(low, digits)} to {quantity(high, unit, digits)}"


def p_value(p: float | None) -> str:
    """Format a p-value with three decimals, or as "< 0.001"."""
    if p is None or math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def decimals(unit: str) -> int:
    """Return the number of decimals for a unit: two for points, differences and ratios, one for other units."""
    return 2 if unit.startswith("points") or unit in ("absolute", "ratio") else 1


def three_digits(value: float | None) -> str:
    """Format a number of any magnitude, such as a ratio or a loss, with three significant digits."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")


def count(n: int, one: str, many: str | None = None) -> str:
    """Format a count such as `1 run` or `3 runs`. The plural is `many`, by default `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", " ")


def listing(names: list[str], most: int = 5) -> str:
    """Join names as in `a, b and c`. Names after the first `most` are counted, as in `a, b and 4 more`."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def ranges(numbers: Sequence[int], most: int = 3) -> str:
    """Join sorted numbers and their ranges, as in `0 to 11, 20`. Of more than twice `most`, the first `most` are shown.

    Example:
        >>> ranges([0, 1, 2, 20]), ranges([1, 2])
        ('0 to 2, 20', '1 to 2')
    """
    parts: list[list[int]] = []
    for value in numbers:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in parts]
    return ", ".join(texts if len(texts) <= 2 * most else [*texts[:most], f"and {len(texts) - most} more"])


def metric(text: str) -> str:
    """Replace columns of the histories in a text by their names: "final train nll" becomes "final train NLL"."""
    return re.sub(r"[a-z][a-z0-9_]*", lambda match: NAMES.get(match[0], match[0]), text)


def with_unit_of_time(label: str, unit: str) -> str:
    """Replace epochs in the label of a time to a target by the unit of the x axis.

    Example:
        >>> with_unit_of_time("epochs to the target of dev nll", "steps")
        'steps to the target of dev nll'
    """
    return label.replace("epochs to the target", f"{unit} to the target")


def no_break(text: str) -> str:
    """Use no-break spaces inside numbers, between numbers and units, and inside intervals."""
    text = re.sub(r"(?<=\d) (?=%|points?\b|pairs?\b|epochs?\b|seeds?\b|runs?\b|\d{3}\b)", "\u00a0", text)
    return re.sub(r"(?<=\d) to (?=[−\d])", "\u00a0to\u00a0", text)


def heading(name: str) -> str:
    """Return the heading of a claim: "convergence_speed" becomes "Convergence speed", and "f1" becomes "F1"."""
    text = name.replace("_", " ")
    return text.upper() if len(text) <= 2 else text[:1].upper() + text[1:]
