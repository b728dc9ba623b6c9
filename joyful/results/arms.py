"""Which settings and group choices tell the runs apart, and which of them make arms.

A setting belongs to the configuration group whose section it lies in (weights.cl_loss_weight to weights). Where it has
one value within each choice of its group, the choice says it all and the setting is no column; where an override
changed it within a choice, it is a column of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyful.records import InputError

#: Settings that cannot change what an arm is: places, names, and how fast the machine is.
NEVER_COLUMNS = frozenset(
    {"seed", "role", "resume", "fork", "sweep_name", "data.root", "data.cache", "training.threads", "device"}
)

#: A column where it differs, but no arm: repetition over parts of the same data.
FOLD = "data.fold"

#: Groups that only set other groups' settings: a column where the choice differs, but what they set is seen there.
NOT_ARMS = frozenset({"experiment", "sweeps"})

MAXIMUM_DEPTH = 100
MAXIMUM_SETTINGS = 10_000


@dataclass(frozen=True)
class Differences:
    """columns: name -> one value for each run, in the order of the frame. arms: the names among them that make arms."""

    columns: dict[str, list[Any]]
    arms: tuple[str, ...]


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted name -> value of every leaf; a list is a leaf, as its JSON text.

    Raises InputError beyond 100 levels or 10,000 settings.
    """
    leaves: dict[str, Any] = {}
    stack: list[tuple[str, int, dict[str, Any]]] = [("", 0, config)]
    while stack:
        prefix, depth, section = stack.pop()
        if depth > MAXIMUM_DEPTH:
            raise InputError(f"the configuration is nested deeper than {MAXIMUM_DEPTH} sections")
        for key, value in section.items():
            if isinstance(value, dict):  # what JSON and YAML give; the test of any Mapping is many times slower
                stack.append((f"{prefix}{key}.", depth + 1, value))
            else:
                leaves[prefix + key] = scalar(value) if isinstance(value, list) else value
        if len(leaves) > MAXIMUM_SETTINGS:
            raise InputError(f"the configuration has more than {MAXIMUM_SETTINGS} settings")
    return leaves


def differences(choices: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]) -> Differences:
    """What tells runs apart, from each run's group choices and flattened settings.

    A setting that a run does not have counts as null, 1 as 1.0. Hydra's own groups (hydra/...) are passed over.
    """
    choices = [{name: scalar(value) for name, value in run.items() if not name.startswith("hydra/")} for run in choices]
    groups = sorted({name for run in choices for name in run})
    names = _varying(settings)
    chosen = {group: [_identity(run.get(group)) for run in choices] for group in groups}
    columns: dict[str, list[Any]] = {}
    arms: set[str] = set()
    for group in groups:
        if len(set(chosen[group])) > 1:
            columns[printable(group)] = [run.get(group) for run in choices]
            if group not in NOT_ARMS:
                arms.add(printable(group))
    for name in sorted(names):
        if name in NEVER_COLUMNS:
            continue
        owner = _group_of(name, groups)
        values = [run.get(name) for run in settings]
        if name != FOLD and owner is not None and _explains(chosen[owner], [_identity(value) for value in values]):
            continue
        columns[printable(name)] = values  # of a group and a setting of one name (modalities) the setting says more
        if name != FOLD:
            arms.add(printable(name))
    ordered = {name: columns[name] for name in sorted(columns)}
    return Differences(ordered, tuple(name for name in ordered if name in arms))


def scalar(value: Any) -> Any:
    """Text, numbers, booleans and null as they are, anything else as its JSON text.

    Raises InputError where that is nested too deep for JSON.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        raise InputError("a list of the configuration is nested too deep") from None


def printable(text: str) -> str:
    """The text with what UTF-8 cannot hold (undecodable bytes of file names, lone surrogates) written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _varying(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    first = settings[0] if settings else {}
    varying: set[str] = set()
    for run in settings:
        for name, value in run.items():
            other = first.get(name)
            if value is other or (value == other and type(value) is type(other)):
                continue  # the quick way out for almost all of a million comparisons
            if name not in varying and _identity(value) != _identity(other):
                varying.add(name)
        if len(run) != len(first) or run.keys() != first.keys():
            varying.update(name for name in first.keys() - run.keys() if first[name] is not None)
    return varying


def _identity(value: Any) -> Any:
    """A hashable that is equal for equal settings: 1 and 1.0 are, 1 and true are not, NaN is equal to itself."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    return ("number", "nan" if isinstance(value, float) and math.isnan(value) else value)


def _group_of(name: str, groups: Sequence[str]) -> str | None:
    """The group in whose section a setting lies; of nested groups the inner one."""
    best, length = None, -1
    for group in groups:
        section = group.partition("@")[2] or group.replace("/", ".")
        if (name == section or name.startswith(f"{section}.")) and len(section) > length:
            best, length = group, len(section)
    return best


def _explains(choices: Sequence[Any], values: Sequence[Any]) -> bool:
    seen: dict[Any, Any] = {}
    return all(seen.setdefault(choice, value) == value for choice, value in zip(choices, values, strict=True))
