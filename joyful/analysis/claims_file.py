"""Claims as data: the YAML files under analysis/claims/, read and checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from joyful.results import InputError
from joyful.results.yaml_text import parse_yaml

#: The claims of the note.
BASIC_OPTIMIZATION = Path(str(files("joyful.claim_files") / "basic_optimization.yaml"))

#: Measure -> its words; {} is the split and column. What a claim speaks of beside it, for `direction`.
MEASURES: dict[str, tuple[str, str]] = {
    "time_to_target": ("epochs to the target of {}", "speed"),
    "seconds_to_target": ("wall seconds to the target of {}", "speed"),
    "spread": ("epoch-to-epoch spread of {}", "stability"),
    "drawdown": ("largest drawdown of {}", "stability"),
    "final": ("final {}", "value"),
    "best": ("best {}", "value"),
    "at_best_dev": ("{} at the best dev epoch", "value"),
    "area": ("area under {}", "value"),
}

UNITS, DIRECTIONS, SPLITS = ("percent", "points"), ("increase", "decrease"), ("train", "dev", "test")

_MAXIMUM_BYTES = 2**20


@dataclass(frozen=True)
class Metric:
    """What is measured of each run: one of MEASURES, of a column of histories, on a split."""

    measure: str
    split: str
    of: str

    @property
    def label(self) -> str:
        """Its words: "epochs to the target of dev f1_weighted"."""
        return MEASURES[self.measure][0].format(f"{self.split} {self.of}")

    @property
    def speaks_of(self) -> str:
        """speed (the inverse of a time), stability (small spread), or the value itself."""
        return MEASURES[self.measure][1]


@dataclass(frozen=True)
class Claim:
    """One line of a claims file: "speed, stability or a value changes by `lower` to `upper`, in this direction".

    name: convergence_speed, ... . says: the sentence that is judged, for the page. metrics: each gets a verdict of its
    own. unit: "percent" or "points" (hundredths of a score). lower, upper: in the unit, positive in the direction.
    direction: "increase" or "decrease" of what the metrics speak of (speed, stability, the value). factors: groups and
    settings that the arms may differ in for the claim to be about them; empty: anything.
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
    """The claims of a YAML file: data alone, no tags and no aliases (nine lines of them unfold to gigabytes).

    Raises InputError naming the file and the place of what is missing, unknown or out of range.
    """
    path = Path(path)
    try:
        if not path.is_file() and path.exists():
            raise InputError("expected a claims file, found a folder or device")
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise InputError(f"expected a claims file of at most {_MAXIMUM_BYTES} bytes")
        return parse_claims(parse_yaml(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: the claims file cannot be read ({error.strerror})") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_claims(content: Any) -> list[Claim]:
    """The claims of a file's content. Raises InputError as `read_claims`, without the file's name."""
    top = _mapping(content, "the file", {"claims"}, {"factors"})
    factors = _texts(top.get("factors", []), "factors")
    if not isinstance(top["claims"], list) or not top["claims"]:
        raise InputError("claims: expected a list of claims, got " + _short(top["claims"]))
    claims = [_claim(item, f"claims[{number}]", factors) for number, item in enumerate(top["claims"])]
    names = [claim.name for claim in claims]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"claims: two claims are called {twice[0]}; give each a name of its own")
    return claims


def _claim(item: Any, place: str, factors: tuple[str, ...]) -> Claim:
    keys = {"claim", "metrics", "range", "unit", "direction"}
    entry = _mapping(item, place, keys, {"says", "factors"})
    name = entry["claim"]
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{place}.claim: expected a name of letters, digits and _, got {_short(name)}")
    place = f"{place} ({name})"
    unit, direction = _one_of(entry, "unit", UNITS, place), _one_of(entry, "direction", DIRECTIONS, place)
    lower, upper = _range(entry["range"], f"{place}.range")
    if not isinstance(entry["metrics"], list) or not entry["metrics"]:
        raise InputError(f"{place}.metrics: expected a list, got {_short(entry['metrics'])}")
    metrics = tuple(_metric(metric, f"{place}.metrics[{i}]", unit) for i, metric in enumerate(entry["metrics"]))
    for metric in metrics:
        limit = percent_limit(metric, direction)
        if unit == "percent" and not (lower > -100 and (math.isinf(upper) or upper < limit)):
            raise InputError(
                f"{place}.range: expected more than -100 % and less than {limit:g} % for {metric.label}, got "
                f"{lower:g} to {upper:g}"
            )
    says = entry.get("says") or f"{name}: {direction} by {lower:g} to {upper:g} {unit}"
    if not isinstance(says, str):
        raise InputError(f"{place}.says: expected text, got {_short(says)}")
    own = _texts(entry.get("factors", list(factors)), f"{place}.factors")
    return Claim(name, says, metrics, lower, upper, unit, direction, own)


def percent_limit(metric: Metric, direction: str) -> float:
    """What a change in per cent cannot reach: 100 for a reduction, infinity for a gain."""
    reduced = (direction == "decrease") != (metric.speaks_of == "stability")
    return 100.0 if reduced else math.inf


def _metric(item: Any, place: str, unit: str) -> Metric:
    entry = _mapping(item, place, {"measure", "split", "of"}, set())
    metric = Metric(
        _one_of(entry, "measure", tuple(MEASURES), place), _one_of(entry, "split", SPLITS, place), entry["of"]
    )
    if not isinstance(metric.of, str) or not metric.of.isidentifier():
        raise InputError(f"{place}.of: expected a column of histories such as f1_weighted, got {_short(metric.of)}")
    if metric.speaks_of == "speed" and (unit != "percent" or metric.split != "dev"):
        raise InputError(f"{place}: {metric.measure} is a speed: expected unit percent and split dev")
    if metric.split == "test" and metric.measure != "at_best_dev":
        raise InputError(f"{place}: nothing is chosen on the test split; set measure: at_best_dev, or split: dev")
    return metric


def _range(value: Any, place: str) -> tuple[float, float]:
    numbers = isinstance(value, list) and len(value) == 2
    if numbers and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
        lower, upper = float(value[0]), float(value[1])
        if math.isfinite(lower) and not math.isnan(upper) and lower <= upper:
            return lower, upper
    raise InputError(
        f"{place}: expected [lower, upper], lower finite and at most upper (.inf: no limit), got {_short(value)}"
    )


def _mapping(value: Any, place: str, needed: set[str], allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: expected a mapping with {', '.join(sorted(needed))}, got {_short(value)}")
    missing = sorted(needed - value.keys())
    unknown = sorted(str(key) for key in value.keys() - needed - allowed)
    if missing or unknown:
        expected = ", ".join(sorted(needed)) + (f" and, optional, {', '.join(sorted(allowed))}" if allowed else "")
        raise InputError(
            f"{place}: expected {expected}; missing: {', '.join(missing) or 'none'}, unknown: "
            f"{', '.join(unknown)[:300] or 'none'}"
        )
    return value


def _one_of(entry: Mapping[str, Any], key: str, choices: tuple[str, ...], place: str) -> str:
    if entry[key] not in choices:
        raise InputError(f"{place}.{key}: expected one of {', '.join(choices)}, got {_short(entry[key])}")
    return str(entry[key])


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(f"{place}: expected a list of groups and settings such as [loss], got {_short(value)}")
    return tuple(value)


def _short(value: Any) -> str:
    return repr(value)[:100]
