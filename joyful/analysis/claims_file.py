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

from joyful.analysis.measures import MEASURES, Metric
from joyful.registry import expected_one_of
from joyful.results import InputError
from joyful.results.yaml_text import parse_yaml

#: Claims file of the basic optimisation, whose claims are judged by default.
BASIC_OPTIMIZATION = Path(str(files("joyful.claim_files") / "basic_optimization.yaml"))

DIRECTIONS, SPLITS = ("increase", "decrease"), ("train", "dev", "test")

_MAXIMUM_BYTES = 2**20


@dataclass(frozen=True)
class Claim:
    """A claim that a speed, a stability or a value changes by `lower` to `upper` in one direction.

    Attributes:
        name: Name of the claim, such as "convergence_speed".
        says: The claim as a sentence, for the report.
        metrics: The metrics. Each gets its own verdict.
        lower: Lower edge of the claimed range, in `unit` and positive in `direction`.
        upper: Upper edge of the claimed range. It may be infinite.
        unit: "percent", "points" (hundredths of a score) or another unit of the measure.
        direction: "increase" or "decrease" of the speed, stability or value (see `joyful.analysis.measures.Kind`).
        factors: Groups and settings in which the arms may differ. If it is empty, the arms may differ in anything.
    """

    name: str
    says: str
    metrics: tuple[Metric, ...]
    lower: float
    upper: float
    unit: str
    direction: str
    factors: tuple[str, ...] = ()


def read_claims(path: str | os.PathLike[str] = BASIC_OPTIMIZATION) -> list[Claim]:
    """Read and check a claims file.

    The file may hold at most 1 MiB. YAML tags are ignored. YAML aliases are refused, because
    a few lines of them can expand to gigabytes.

    Args:
        path: The YAML file.

    Returns:
        The claims in the order of the file.

    Raises:
        InputError: If the file cannot be read, or a key is missing, unknown or out of range. The message names the file
            and the location.

    Example:
        >>> [claim.name for claim in read_claims()]
        ['convergence_speed', 'convergence_stability', 'training_stability', 'training_loss', 'f1']
    """
    path = Path(path)
    try:
        if not path.is_file() and path.exists():
            raise InputError("expected a claims file, got a folder or device")
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise InputError(f"expected a claims file of at most {_MAXIMUM_BYTES} bytes, got {path.stat().st_size}")
        return parse_claims(parse_yaml(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: the claims file cannot be read ({error.strerror}); check --claims") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_claims(content: Any) -> list[Claim]:
    """Return the claims in the parsed content of a claims file.

    Args:
        content: The content as plain dictionaries, lists, strings and numbers.

    Returns:
        The claims in the order of the content.

    Raises:
        InputError: If a key is missing, unknown or out of range. The message names the location.

    Example:
        >>> claim = {"claim": "f1", "range": [1, 2], "unit": "points", "direction": "increase"}
        >>> claim["metrics"] = [{"measure": "best", "split": "dev", "of": "f1_weighted"}]
        >>> parse_claims({"claims": [claim]})[0].says
        'f1: increase by 1 to 2 points'
    """
    top = _mapping(content, "the file", {"claims"}, {"factors"})
    factors = _texts(top.get("factors", []), "factors")
    if not isinstance(top["claims"], list) or not top["claims"]:
        raise InputError(f"claims: expected a list of claims, got {_short(top['claims'])}")
    claims = [_claim(item, f"claims[{number}]", factors) for number, item in enumerate(top["claims"])]
    names = [claim.name for claim in claims]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"claims: expected unique names, got {repeated[0]} twice; rename one of the claims")
    return claims


def _claim(item: Any, location: str, factors: tuple[str, ...]) -> Claim:
    keys = {"claim", "metrics", "range", "unit", "direction"}
    entry = _mapping(item, location, keys, {"says", "factors"})
    name = entry["claim"]
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{location}.claim: expected a name of letters, digits and _, got {_short(name)}")
    location = f"{location} ({name})"
    units = tuple(dict.fromkeys(unit for measure in MEASURES.values() for unit in measure.kind.units))
    unit, direction = _one_of(entry, "unit", units, location), _one_of(entry, "direction", DIRECTIONS, location)
    lower, upper = _range(entry["range"], f"{location}.range")
    if not isinstance(entry["metrics"], list) or not entry["metrics"]:
        raise InputError(f"{location}.metrics: expected a list, got {_short(entry['metrics'])}")
    metrics = tuple(_metric(metric, f"{location}.metrics[{i}]", unit) for i, metric in enumerate(entry["metrics"]))
    for metric in metrics:
        limit = metric.scale(unit, direction).limit
        if unit == "percent" and not (lower > -100 and (math.isinf(upper) or upper < limit)):
            expected = f"more than -100 % and less than {limit:g} % for {metric.label}"
            raise InputError(f"{location}.range: expected {expected}, got {lower:g} to {upper:g}")
    says = entry.get("says") or f"{name}: {direction} by {lower:g} to {upper:g} {unit}"
    if not isinstance(says, str):
        raise InputError(f"{location}.says: expected text, got {_short(says)}")
    claim_factors = _texts(entry.get("factors", list(factors)), f"{location}.factors")
    return Claim(name, says, metrics, lower, upper, unit, direction, claim_factors)


def _metric(item: Any, location: str, unit: str) -> Metric:
    entry = _mapping(item, location, {"measure", "split", "of"}, set())
    measure, split = _one_of(entry, "measure", tuple(MEASURES), location), _one_of(entry, "split", SPLITS, location)
    metric = Metric(measure, split, entry["of"])
    if not isinstance(metric.of, str) or not metric.of.isidentifier():
        raise InputError(f"{location}.of: expected a column of histories such as f1_weighted, got {_short(metric.of)}")
    units, splits = metric.definition.kind.units, metric.definition.splits
    if metric.split == "test" and unit in units and "test" not in splits:
        allowed = " or ".join(name for name, measure in MEASURES.items() if "test" in measure.splits)
        hint = f"set measure: {allowed} or split: dev"
        raise InputError(f"{location}: expected measure {allowed} on the test split, got {metric.measure}; {hint}")
    if unit not in units or metric.split not in splits:
        expected = (
            f"unit {' or '.join(units)} and split {' or '.join(splits)}, got unit {unit} and split {metric.split}"
        )
        raise InputError(f"{location}: {metric.measure} measures a {metric.kind}: expected {expected}")
    return metric


def _range(value: Any, location: str) -> tuple[float, float]:
    if isinstance(value, list) and [type(v) in (int, float) for v in value] == [True, True]:
        lower, upper = float(value[0]), float(value[1])
        if math.isfinite(lower) and lower <= upper:
            return lower, upper
    expected = "[lower, upper] with a finite lower <= upper (.inf for no upper limit)"
    raise InputError(f"{location}: expected {expected}, got {_short(value)}")


def _mapping(value: Any, location: str, needed: set[str], allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{location}: expected a mapping with {', '.join(sorted(needed))}, got {_short(value)}")
    missing = sorted(needed - value.keys())
    unknown = sorted(str(key) for key in value.keys() - needed - allowed)
    if missing or unknown:
        expected = ", ".join(sorted(needed)) + (f" (optional: {', '.join(sorted(allowed))})" if allowed else "")
        found = f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown)[:300] or 'none'}"
        raise InputError(f"{location}: expected {expected}; {found}")
    return value


def _one_of(entry: Mapping[str, Any], key: str, choices: tuple[str, ...], location: str) -> str:
    value = entry[key]
    if value not in choices:
        text = isinstance(value, str) and len(value) <= 100
        expected = (
            expected_one_of(value, choices) if text else f"expected one of {', '.join(choices)}, got {_short(value)}"
        )
        raise InputError(f"{location}.{key}: {expected}")
    return str(value)


def _texts(value: Any, location: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(f"{location}: expected a list of groups and settings such as [loss], got {_short(value)}")
    return tuple(value)


def _short(value: Any) -> str:
    return repr(value)[:100]
