"""Numbers as a reader wants them: signs, units, intervals, p-values. NaN and None say that there is no number."""

from __future__ import annotations

import math
import re

NONE = "–"

_COLUMNS = {
    "f1_weighted": "weighted F1", "f1_macro": "macro F1", "nll": "NLL", "recon_mse": "reconstruction MSE",
    "recon_mae": "reconstruction MAE", "loss_total": "total loss", "loss_encoder": "reconstruction loss",
    "loss_classification": "classification loss", "loss_contrastive": "contrastive loss", "loss_gate_reg": "gate loss",
}  # fmt: skip

#: Unit of a claim or measure -> what follows a number.
SUFFIX = {"percent": " %", "per cent": " %"}


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """The number with `digits` decimals and a true minus sign; − where it is missing. Infinite: ∞."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = round(value, digits) + 0.0  # no minus before zero
    if abs(value) >= 1e6:
        text = f"{value:+.2e}" if signed else f"{value:.2e}"
    else:
        text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if value == 0:
        text = text.lstrip("+")
    return text.replace("-", "−").replace(",", " ")


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction from 0 to 1 as per cent."""
    return NONE if fraction is None or math.isnan(fraction) else f"{number(100 * fraction, digits)} %"


def quantity(value: float | None, unit: str, digits: int | None = None, *, signed: bool = False) -> str:
    """The number with its unit ("percent", "points", ...; another unit is written as it is)."""
    text = number(value, decimals(unit) if digits is None else digits, signed=signed)
    return text if text == NONE else text + SUFFIX.get(unit, f" {unit}" if unit else "")


def interval(low: float | None, high: float | None, unit: str = "", digits: int | None = None) -> str:
    """`3.0 to 21.6 %`; – where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NONE
    places = decimals(unit) if digits is None else digits
    return f"{number(low, places)} to {quantity(high, unit, places)}"


def p_value(p: float | None) -> str:
    """Three decimals; below that "< 0.001"."""
    if p is None or math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def decimals(unit: str) -> int:
    """Decimals that a unit deserves: scores in points have two, per cent one."""
    return 2 if unit.startswith("points") or unit == "ratio" else 1


def small(value: float | None) -> str:
    """Three significant digits, for ratios and losses of any size."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")


def count(n: int, one: str, many: str | None = None) -> str:
    """`1 run`, `3 runs`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", " ")


def listing(names: list[str], most: int = 5) -> str:
    """`a, b and c`; beyond `most` the rest is counted."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def metric(text: str) -> str:
    """Names of history columns inside the text as a reader knows them: "final train nll" -> "final train NLL"."""
    return re.sub(r"[a-z][a-z0-9_]*", lambda match: _COLUMNS.get(match[0], match[0]), text)


def tied(text: str) -> str:
    """The text with no-break spaces inside numbers and before their units, for whoever sets it in lines."""
    text = re.sub(r"(?<=\d) (?=%|points?\b|pairs?\b|epochs?\b|seeds?\b|runs?\b|\d{3}\b)", "\u00a0", text)
    return re.sub(r"(?<=\d) to (?=[−\d])", "\u00a0to\u00a0", text)


def heading(name: str) -> str:
    """convergence_speed -> Convergence speed; f1 -> F1."""
    text = name.replace("_", " ")
    return text.upper() if len(text) <= 2 else text[:1].upper() + text[1:]
