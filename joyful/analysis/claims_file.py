"""Claims files: YAML files such as those in analysis/claims/, parsed and checked.

The measures, and the units and splits that each accepts, come from `joyful.analysis.measures.MEASURES`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from joyful.analysis.columns import BETTER, higher_is_better, known_direction
from joyful.analysis.formatting import decimals, interval, quantity
from joyful.analysis.measures import MEASURES, Metric
from joyful.messages import expected_one_of
from joyful.results import InputError
from joyful.results.yaml_text import Place, parse_yaml

#: Claims file of the basic optimisation, whose claims are judged by default.
BASIC_OPTIMIZATION = Path(str(files("joyful.claim_files") / "basic_optimization.yaml"))

DIRECTIONS, SPLITS = ("increase", "decrease"), ("train", "dev", "test")

#: Kinds of claims -> what their value is in a claims file. Each claim has one of these keys.
KINDS = {
    "between": "[L, U]: the effect lies between L and U",
    "at_least": "L: the effect is L or more",
    "within": "M: the effect is smaller than M in both directions (equivalence)",
    "no_worse_than": "M: a change for the worse is smaller than M (non-inferiority)",
}

#: Kinds whose direction is the better one where the file gives none.
_MARGINS = ("within", "no_worse_than")

_MAXIMUM_BYTES = 2**20


@dataclass(frozen=True)
class Claim:
    """A claim that a speed, a stability or a value changes by a certain amount, or does not change.

    Attributes:
        name: Name of the claim, such as "convergence_speed".
        says: The claim as a sentence, for the report.
        metrics: The metrics. Each gets its own verdict.
        lower: Lower edge of the claimed range, in `unit` and positive in the claimed direction. Minus the margin for
            "within" and "no_worse_than".
        upper: Upper edge of the claimed range. Infinite for "at_least" and "no_worse_than".
        unit: "percent", "points" (hundredths of a fraction) or "absolute" (the unit of the column).
        direction: "increase" or "decrease" of the speed, stability or value (see `joyful.analysis.measures.Kind`). ""
            stands for the better direction of each metric.
        factors: Groups and settings in which the arms may differ. If it is empty, the arms may differ in anything.
        kind: One of KINDS.
    """

    name: str
    says: str
    metrics: tuple[Metric, ...]
    lower: float
    upper: float
    unit: str
    direction: str
    factors: tuple[str, ...] = ()
    kind: str = "between"

    def direction_of(self, metric: Metric) -> str:
        """Return the claimed direction for a metric."""
        return self.direction or metric.better_direction

    @property
    def content(self) -> tuple[Any, ...]:
        """What the claim states, without its name and its sentence. Claims with equal contents have equal verdicts."""
        directions = tuple(self.direction_of(metric) for metric in self.metrics)
        return self.metrics, self.kind, self.lower, self.upper, self.unit, directions, self.factors

    @property
    def digits(self) -> int:
        """Number of decimals for effects: those of the unit, or more so that the smallest edge has two digits."""
        edges = [abs(edge) for edge in (self.lower, self.upper) if edge and math.isfinite(edge)]
        return max(decimals(self.unit), 1 - math.floor(math.log10(min(edges))) if edges else 0)


class _ClaimError(InputError):
    """An error at a place of a claims file."""

    def __init__(self, place: Place, message: str, key: str | None = None) -> None:
        super().__init__(f"{_name(place)}: {message}" if place else message)
        self.place = place if key is None else (*place, key)


def find_claims(text: str, *folders: Path) -> Path:
    """Return the path of a claims file.

    Args:
        text: Path of the file, or the name of a file in joyful's claim_files without .yaml, such as "basic_optimization".
        folders: Folders to which a relative path refers if there is no such file below the current one.

    Example:
        >>> find_claims("basic_optimization") == BASIC_OPTIMIZATION
        True
    """
    known = [BASIC_OPTIMIZATION.parent / f"{text}.yaml"] if text.isidentifier() else []
    places = [Path(text), *(folder / text for folder in folders), *known]
    return next((path for path in places if path.exists()), Path(text))


def read_claims(
    path: str | os.PathLike[str] = BASIC_OPTIMIZATION, better: Mapping[str, str] | None = None
) -> list[Claim]:
    """Read and check a claims file.

    The file may hold at most 1 MiB. YAML tags are ignored. YAML aliases are refused, because
    a few lines of them can expand to gigabytes.

    Args:
        path: The YAML file.
        better: Column -> "higher" or "lower", in addition to the keys `better` of the file.

    Returns:
        The claims in the order of the file.

    Raises:
        InputError: If the file cannot be read, or a key is missing, unknown or out of range. The message names the file,
            the line and the location.

    Example:
        >>> [claim.name for claim in read_claims()]
        ['convergence_speed', 'convergence_stability', 'training_stability', 'training_loss', 'f1']
    """
    return read_content(path, better)[1]


def read_content(
    path: str | os.PathLike[str] = BASIC_OPTIMIZATION, better: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[Claim]]:
    """Read and check a claims file, and return its content as plain data with the claims. See `read_claims`."""
    path, lines = Path(path), dict[Place, int]()
    try:
        if not path.is_file() and path.exists():
            raise InputError("expected a claims file, got a folder or device")
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise InputError(f"expected a claims file of at most {_MAXIMUM_BYTES} bytes, got {path.stat().st_size}")
        content = parse_yaml(path.read_bytes(), lines)
        return content, parse_claims(content, better)
    except _ClaimError as error:
        known = (error.place[:end] for end in range(len(error.place), -1, -1))
        line = next((lines[place] for place in known if place in lines), 1)
        raise InputError(f"{path}, line {line}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: the claims file cannot be read ({error.strerror}); check --claims") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_claims(content: Any, better: Mapping[str, str] | None = None) -> list[Claim]:
    """Return the claims in the parsed content of a claims file.

    Args:
        content: The content as plain dictionaries, lists, strings and numbers.
        better: Column -> "higher" or "lower", in addition to the keys `better` of the content.

    Returns:
        The claims in the order of the content.

    Raises:
        InputError: If a key is missing, unknown or out of range. The message names the location.

    Example:
        >>> claim = {"claim": "f1", "between": [1, 2], "unit": "points", "direction": "increase"}
        >>> claim["metrics"] = [{"measure": "best", "split": "dev", "of": "f1_weighted"}]
        >>> parse_claims({"claims": [claim]})[0].says
        'f1: increase by 1 to 2 points'
    """
    top = _mapping(content, (), {"claims"}, {"factors"})
    factors = _texts(top.get("factors", []), ("factors",))
    if not isinstance(top["claims"], list) or not top["claims"]:
        raise _ClaimError(("claims",), f"expected a list of claims, got {_short(top['claims'])}")
    claims: list[Claim] = []
    for number, item in enumerate(top["claims"]):
        claim = _claim(item, ("claims", number), factors, better or {})
        if claim.name in {other.name for other in claims}:
            place = ("claims", number, "claim")
            raise _ClaimError(place, f"expected unique names, got {claim.name} twice; rename one of the claims")
        claims.append(claim)
    return claims


def _claim(item: Any, at: Place, factors: tuple[str, ...], better: Mapping[str, str]) -> Claim:
    # `range` is the earlier name of `between`
    entry = _mapping(item, at, {"claim", "metrics", "unit"}, {"says", "factors", "direction", "range", *KINDS})
    name = entry["claim"]
    if not isinstance(name, str) or not name.isidentifier():
        raise _ClaimError((*at, "claim"), f"expected a name of letters, digits and _, got {_short(name)}")
    given = [key for key in ("range", *KINDS) if key in entry]
    if len(given) != 1:
        raise _ClaimError(at, f"expected one of {', '.join(KINDS)}, got {' and '.join(given) or 'none of them'}")
    kind = "between" if given[0] == "range" else given[0]
    units = tuple(dict.fromkeys(unit for measure in MEASURES.values() for unit in measure.kind.units))
    unit = _one_of(entry, "unit", units, at)
    if "direction" not in entry and kind not in _MARGINS:
        raise _ClaimError(at, f"expected direction: increase or decrease for {given[0]}, got none")
    direction = _one_of(entry, "direction", DIRECTIONS, at) if "direction" in entry else ""
    lower, upper = _edges(kind, entry[given[0]], (*at, given[0]))
    if not isinstance(entry["metrics"], list) or not entry["metrics"]:
        raise _ClaimError((*at, "metrics"), f"expected a list, got {_short(entry['metrics'])}")
    metrics = tuple(_metric(m, (*at, "metrics", i), unit, better) for i, m in enumerate(entry["metrics"]))
    for metric in metrics:
        limit = metric.scale(unit, direction or metric.better_direction).limit
        if unit == "percent" and not (lower > -100 and (math.isinf(upper) or upper < limit)):
            expected = f"more than -100 % and less than {limit:g} % for {metric.label}"
            raise _ClaimError((*at, given[0]), f"expected {expected}, got {lower:g} to {upper:g}")
    says = entry.get("says") or _sentence(name, kind, direction, lower, upper, unit)
    if not isinstance(says, str):
        raise _ClaimError((*at, "says"), f"expected text, got {_short(says)}")
    claim_factors = _texts(entry.get("factors", list(factors)), (*at, "factors"))
    return Claim(name, says, metrics, lower, upper, unit, direction, claim_factors, kind)


def claimed(claim: Claim) -> str:
    """Return the claimed range as text, such as "15 to 25 % increase" or "worse by less than 1.00 points"."""
    integral = all(not math.isfinite(bound) or float(bound).is_integer() for bound in (claim.lower, claim.upper))
    digits = 0 if integral else claim.digits
    if claim.kind in ("within", "no_worse_than"):
        margin = quantity(-claim.lower, claim.unit, digits)
        return f"{'a change of' if claim.kind == 'within' else 'worse by'} less than {margin}"
    if not math.isfinite(claim.upper):
        return f"{quantity(claim.lower, claim.unit, digits)} {claim.direction} or more"
    return f"{interval(claim.lower, claim.upper, claim.unit, digits)} {claim.direction}"


def _sentence(name: str, kind: str, direction: str, lower: float, upper: float, unit: str) -> str:
    """Return the claim as a sentence, for files that have none."""
    if kind in _MARGINS:
        change = "a change of less than" if kind == "within" else "worse by less than"
        return f"{name}: {change} {-lower:g} {unit}"
    amount = f"{lower:g} to {upper:g} {unit}" if math.isfinite(upper) else f"{lower:g} {unit} or more"
    return f"{name}: {direction} by {amount}"


def _metric(item: Any, at: Place, unit: str, better: Mapping[str, str]) -> Metric:
    entry = _mapping(item, at, {"measure", "split", "of"}, {"better"})
    measure, split = _one_of(entry, "measure", tuple(MEASURES), at), _one_of(entry, "split", SPLITS, at)
    of = entry["of"]
    if not isinstance(of, str) or not of.isidentifier():
        raise _ClaimError((*at, "of"), f"expected a column of histories such as f1_weighted, got {_short(of)}")
    direction = better.get(of) or (_one_of(entry, "better", BETTER, at) if "better" in entry else "")
    known = known_direction(of)
    if known and direction and direction != known:
        raise _ClaimError(
            (*at, "better"), f"{known} values of {of} are better, got better: {direction}; remove the key"
        )
    try:
        higher_is_better(of, direction)
    except InputError as error:
        raise _ClaimError((*at, "of"), str(error)) from None
    metric = Metric(measure, split, of, "" if known else direction)
    units, splits = metric.definition.kind.units, metric.definition.splits
    if metric.split == "test" and unit in units and "test" not in splits:
        allowed = " or ".join(name for name, measure in MEASURES.items() if "test" in measure.splits)
        hint = f"set measure: {allowed} or split: dev"
        raise _ClaimError(at, f"expected measure {allowed} on the test split, got {metric.measure}; {hint}")
    if unit not in units or metric.split not in splits:
        expected = (
            f"unit {' or '.join(units)} and split {' or '.join(splits)}, got unit {unit} and split {metric.split}"
        )
        raise _ClaimError(at, f"{metric.measure} measures a {metric.kind}: expected {expected}")
    return metric


def _edges(kind: str, value: Any, at: Place) -> tuple[float, float]:
    """Return the lower and the upper edge of the effects that a claim allows."""
    if kind != "between":
        smallest = 0.0 if kind == "at_least" else math.ulp(0.0)
        if type(value) not in (int, float) or not (math.isfinite(value) and value >= smallest):
            expected = "a finite number of 0 or more" if kind == "at_least" else "a margin, a finite number above 0"
            raise _ClaimError(at, f"expected {expected}, got {_short(value)}")
        return (float(value), math.inf) if kind == "at_least" else (-value, value if kind == "within" else math.inf)
    if isinstance(value, list) and len(value) == 2 and value[1] is None:  # how JSON writes an infinite limit
        value = [value[0], math.inf]
    if isinstance(value, list) and [type(v) in (int, float) for v in value] == [True, True]:
        lower, upper = float(value[0]), float(value[1])
        if math.isfinite(lower) and lower <= upper:
            return lower, upper
    expected = "[lower, upper] with a finite lower <= upper (.inf for no upper limit)"
    raise _ClaimError(at, f"expected {expected}, got {_short(value)}")


def _mapping(value: Any, at: Place, needed: set[str], allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        expected = f"expected a mapping with {', '.join(sorted(needed))}, got {_short(value)}"
        raise _ClaimError(at, expected if at else f"the file: {expected}")
    for key in value:
        if key not in needed | allowed:
            unknown = f"unknown key: {expected_one_of(str(key)[:100], sorted(needed | allowed))}"
            raise _ClaimError(at, unknown, key=str(key))
    if missing := sorted(needed - value.keys()):
        expected = ", ".join(sorted(needed)) + (f" (optional: {', '.join(sorted(allowed))})" if allowed else "")
        raise _ClaimError(at, f"expected {expected}; missing: {', '.join(missing)}")
    return value


def _one_of(entry: Mapping[str, Any], key: str, choices: tuple[str, ...], at: Place) -> str:
    value = entry[key]
    if value not in choices:
        text = isinstance(value, str) and len(value) <= 100
        expected = (
            expected_one_of(value, choices) if text else f"expected one of {', '.join(choices)}, got {_short(value)}"
        )
        raise _ClaimError((*at, key), expected)
    return str(value)


def _texts(value: Any, at: Place) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _ClaimError(at, f"expected a list of groups and settings such as [loss], got {_short(value)}")
    return tuple(value)


def _name(place: Place) -> str:
    """Return the name of a place, such as "claims[0].metrics[1].of"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _short(value: Any) -> str:
    return repr(value)[:100]
