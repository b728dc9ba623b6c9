"""Find the settings and group choices that differ between runs, and those that define arms.

A setting belongs to the configuration group that contains its section: weights.cl_loss_weight belongs to weights. If
the setting has one value within each choice of its group, the choice explains it and the setting gets no column. If an
override changed it within a choice, the setting gets its own column.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyful.records import InputError

#: Settings that never define an arm: paths, names, and the speed of the machine.
NEVER_COLUMNS = frozenset(
    {"seed", "role", "resume", "fork", "sweep_name", "data.root", "data.cache", "training.threads", "device"}
)

#: The fold is a column if it differs, but never defines an arm: folds repeat a run on other parts of the same data.
FOLD = "data.fold"

#: Groups that only set the settings of other groups. A differing choice is a column; those settings define the arms.
NOT_ARMS = frozenset({"experiment", "sweeps"})

MAXIMUM_DEPTH = 100
MAXIMUM_SETTINGS = 10_000


@dataclass(frozen=True)
class Differences:
    """The columns in which runs differ.

    Attributes:
        columns: Column name -> one value for each run, in the order of the runs.
        arms: The names among `columns` that define arms, sorted.
    """

    columns: dict[str, list[Any]]
    arms: tuple[str, ...]


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Return a nested configuration as a flat mapping from dotted names to values.

    Args:
        config: Nested dictionaries with text keys. A list is a leaf; its value is its JSON text.

    Returns:
        Dotted name -> value of every leaf. Names and texts are `printable`.

    Raises:
        InputError: If there are more than 100 levels or 10,000 settings.

    Example:
        >>> flatten({"seed": 1, "loss": {"name": "mse", "grid": [1, 2]}})
        {'seed': 1, 'loss.name': 'mse', 'loss.grid': '[1, 2]'}
    """
    leaves: dict[str, Any] = {}
    stack: list[tuple[str, int, dict[str, Any]]] = [("", 0, config)]
    while stack:
        prefix, depth, section = stack.pop()
        if depth > MAXIMUM_DEPTH:
            raise InputError(f"the configuration is nested deeper than {MAXIMUM_DEPTH} sections")
        for key, value in section.items():
            if isinstance(value, dict):  # JSON and YAML give dict; testing for Mapping is many times slower
                stack.append((f"{prefix}{key}.", depth + 1, value))
            else:
                leaves[printable(prefix + key)] = _scalar(value)
        if len(leaves) > MAXIMUM_SETTINGS:
            raise InputError(f"the configuration has more than {MAXIMUM_SETTINGS} settings")
    return leaves


def data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that determine the data of a run. Runs in which they are equal should have the same data.

    Args:
        settings: Settings of a run, flattened by `flatten`.

    Returns:
        The settings of the section `data` except folders, and `modalities`, sorted by name.

    Example:
        >>> data_settings({"modalities": "atv", "data.name": "meld", "data.root": "/meld", "seed": 1})
        {'data.name': 'meld', 'modalities': 'atv'}
    """
    names = [name for name in settings if name == "modalities" or name.startswith("data.")]
    return {name: settings[name] for name in sorted(names) if name not in NEVER_COLUMNS}


def differences(choices: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]) -> Differences:
    """Return the columns in which runs differ.

    A setting that a run lacks counts as null. The values 1 and 1.0 are equal, 1 and true are not, and NaN equals NaN.

    Args:
        choices: Group choices of each run, flattened by `flatten`. Hydra's own groups (hydra/...) are ignored.
        settings: Settings of each run, likewise flattened, in the same order.

    Returns:
        The differing columns, and those among them that define arms.

    Example:
        >>> differences([{}, {}], [{"loss.beta": 1.0, "seed": 1}, {"loss.beta": 0.5, "seed": 2}])
        Differences(columns={'loss.beta': [1.0, 0.5]}, arms=('loss.beta',))
    """
    groups = sorted({name for run in choices for name in run if not name.startswith("hydra/")})
    names = _varying(settings)
    chosen = {group: [_identity(run.get(group)) for run in choices] for group in groups}
    columns: dict[str, list[Any]] = {}
    arms: set[str] = set()
    for group in groups:
        if len(set(chosen[group])) > 1:
            columns[group] = [run.get(group) for run in choices]
            if group not in NOT_ARMS:
                arms.add(group)
    for name in sorted(names):
        if name in NEVER_COLUMNS:
            continue
        owner = _group_of(name, groups)
        values = [run.get(name) for run in settings]
        if name != FOLD and owner is not None and _explains(chosen[owner], [_identity(value) for value in values]):
            continue
        columns[name] = values  # if a group and a setting share a name (modalities), the setting wins
        if name != FOLD:
            arms.add(name)
    ordered = {name: columns[name] for name in sorted(columns)}
    return Differences(ordered, tuple(name for name in ordered if name in arms))


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, list):
        return value
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        raise InputError("a list in the configuration is nested too deeply") from None


def printable(text: str) -> str:
    """Return the text with characters that UTF-8 cannot encode written as backslash escapes.

    Such characters are lone surrogates, for example from undecodable bytes in file names.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _varying(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    first = settings[0] if settings else {}
    varying: set[str] = set()
    for run in settings:
        for name, value in run.items():
            other = first.get(name)
            if value is other or (value == other and type(value) is type(other)):
                continue  # fast path: almost all of the comparisons (up to a million) end here
            if name not in varying and _identity(value) != _identity(other):
                varying.add(name)
        if len(run) != len(first) or run.keys() != first.keys():
            varying.update(name for name in first.keys() - run.keys() if first[name] is not None)
    return varying


def _identity(value: Any) -> Any:
    """Return a hashable key that is equal for equal settings: 1 equals 1.0, 1 does not equal true, NaN equals NaN."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    return ("number", "nan" if isinstance(value, float) and math.isnan(value) else value)


def _group_of(name: str, groups: Sequence[str]) -> str | None:
    """Return the group whose section contains a setting; the innermost one if groups are nested."""
    best, length = None, -1
    for group in groups:
        section = group.partition("@")[2] or group.replace("/", ".")
        if (name == section or name.startswith(f"{section}.")) and len(section) > length:
            best, length = group, len(section)
    return best


def _explains(choices: Sequence[Any], values: Sequence[Any]) -> bool:
    seen: dict[Any, Any] = {}
    return all(seen.setdefault(choice, value) == value for choice, value in zip(choices, values, strict=True))
