"""Finding the arms of a sweep, naming them, choosing the baseline, and refusing what cannot be compared."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyful.results import InputError, RunHeader
from joyful.results.arms import FOLD, NEVER_COLUMNS, NOT_ARMS, Differences, differences
from joyful.results.yaml_text import parse_yaml

#: The arm before the note's optimisation: the baseline where neither the reader nor calibration runs say another.
OLD_SETTINGS = {"loss": "mse", "weights.encoder_loss_weight": 0.05}

#: What no comparison may differ in, with the reason.
CONDITIONS = {
    "training.epochs": "arms need the same budget",
    "training.evaluations_per_epoch": "the best and the first of more evaluations come earlier and higher",
    "training.train_metrics": "train rows would be measured in two ways",
    "data": "scores on other data are other scores",
}
#: Conditions that stay so even where the reader names them as factors.
ALWAYS = ("training.epochs", "training.evaluations_per_epoch")

#: What short names leave out of a setting's last part.
_SUFFIXES = ("_loss_weight", "_reg_weight", "_weight")


@dataclass(frozen=True)
class Arm:
    """A configuration that is compared with others.

    name: short, unique in its sweep, readable ("mse 0.05"). settings: factor -> value, for the factors of the sweep.
    choices: Hydra's group choices. config: dotted name -> value of every setting, as the arm's first run has it.
    """

    name: str
    settings: dict[str, Any]
    is_baseline: bool
    choices: dict[str, Any]
    config: dict[str, Any]


def find_arms(
    headers: Sequence[RunHeader], told: Differences | None = None
) -> tuple[list[Arm], list[int], tuple[str, ...]]:
    """(arms in the order of their first runs, the index of each run's arm, the factors), no baseline marked yet.

    Runs whose settings are all equal (but seed, role, fold, places) are one arm, whatever their choices are called.
    told: joyful.results.arms.differences of these runs, where it is known already.
    """
    if told is None:
        told = differences([h.choices for h in headers], [h.settings for h in headers])
    columns = [told.columns[name] for name in told.arms]
    keys: dict[Any, int] = {}
    firsts: list[int] = []
    of_run: list[int] = []
    for index in range(len(headers)):
        key = tuple(_hashable(values[index]) for values in columns)
        if key not in keys:
            keys[key] = len(firsts)
            firsts.append(index)
        of_run.append(keys[key])
    place = _merge([headers[index] for index in firsts])
    of_run = [place[number] for number in of_run]
    kept = [headers[firsts[place.index(number)]] for number in range(max(place, default=-1) + 1)]
    factors = find_factors([h.choices for h in kept], [h.settings for h in kept])
    values = [{factor: _value(factor, h.choices, h.settings) for factor in factors} for h in kept]
    names = arm_names(values)
    arms = [
        Arm(name, value, False, dict(h.choices), dict(h.settings))
        for name, value, h in zip(names, values, kept, strict=True)
    ]
    return arms, of_run, factors


def find_factors(choices: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings that differ between configurations, by dotted name.

    A group of which one setting repeats the choice (loss.name = mse) is one factor, the group; a group whose choices set
    only numbers (weights) stands as those numbers; of any other group the choice, and what overrides changed within it.
    """
    differing = differing_settings(settings)
    groups = [
        g for g in sorted({g for run in choices for g in run}) if not g.startswith("hydra/") and g not in NOT_ARMS
    ]
    factors: list[str] = []
    owned: set[str] = set()
    for group in groups:
        chosen = [run.get(group) for run in choices]
        section = group.partition("@")[2] or group.replace("/", ".")
        inside = [name for name in differing if name == section or name.startswith(f"{section}.")]
        if len({_hashable(value) for value in chosen}) < 2:
            continue
        owned.update(inside)
        if not inside and any(covers(group, name) for run in settings for name in run):
            continue  # other names of the same settings
        columns = {name: [run.get(name) for run in settings] for name in inside}
        if inside and all(_is_number(value) or value is None for values in columns.values() for value in values):
            factors += inside
            continue
        factors.append(group)
        for name, values in columns.items():
            told: dict[Any, Any] = {}
            pairs = [(_hashable(c), _hashable(v)) for c, v in zip(chosen, values, strict=True)]
            if name != group and not all(told.setdefault(c, v) == v for c, v in pairs):
                factors.append(name)
    factors += [name for name in differing if name not in owned]
    return tuple(factors)


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted names of the settings that are not equal in all configurations, sorted; an absent one counts as null."""
    names = sorted({name for run in settings for name in run} - NEVER_COLUMNS - {FOLD})
    return [name for name in names if len({_hashable(run.get(name)) for run in settings}) > 1]


def arm_names(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each arm from its factors: texts as they are, one number beside a text bare ("mse 0.05"), other
    numbers with short labels ("encoder 0.05")."""
    if len(values) == 1:
        return ["all runs"]
    factors = list(values[0]) if values else []
    numbers = [f for f in factors if all(_is_number(v[f]) or v[f] is None for v in values)]
    one = len(numbers) == 1 and any(isinstance(v[f], str) for f in factors for v in values)
    names = []
    for value in values:
        parts = []
        for factor, item in value.items():
            label = factor.rpartition(".")[2]
            for suffix in _SUFFIXES:
                label = label.removesuffix(suffix)
            bare = isinstance(item, str) or (one and factor in numbers and item is not None)
            parts.append(shown(item) if bare else f"{label} {shown(item)}")
        names.append(" ".join(parts))
    if len(set(names)) < len(names):  # two settings of one last part
        names = [" ".join(f"{factor}={shown(item)}" for factor, item in value.items()) for value in values]
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]


def choose_baseline(
    arms: Sequence[Arm], comparisons: Sequence[int], calibrations: Sequence[int], overrides: Sequence[str] | None
) -> tuple[int, str]:
    """The index of the baseline and how it was found, in words.

    comparisons, calibrations: how many such runs each arm has; where nothing is given, an arm without a comparison run
    is not chosen if another has one. Raises InputError where the overrides fit no arm or several.
    """
    if overrides:
        return _matching(arms, overrides), f"given: {' '.join(overrides)}"
    candidates = [i for i in range(len(arms)) if comparisons[i]] or list(range(len(arms)))
    calibrated = max(candidates, key=lambda i: (calibrations[i], -i))
    if calibrations[calibrated]:
        return calibrated, "the arm of the calibration runs"
    for i in candidates if len(arms) > 1 else ():
        arm = arms[i]
        if all(_equal(_value(name, arm.choices, arm.config), v) for name, v in OLD_SETTINGS.items()):
            return i, "the settings before the optimisation: MSE, encoder weight 0.05"
    return candidates[0], "the first arm"


def parse_override(text: str) -> tuple[str, Any]:
    """(dotted name or group, value) of an override as on the command line. Raises InputError for other text."""
    name, equals, value = text.lstrip("+").partition("=")
    try:
        if not (equals and name.strip()):
            raise ValueError
        return name.strip(), parse_yaml(value.encode())
    except ValueError:
        raise InputError(f"baseline: expected overrides such as loss=mse weights=baseline, got {text!r}") from None


def check_comparable(arms: Sequence[Arm], baseline: Arm, named: Sequence[str]) -> None:
    """Raises InputError, with every difference shown, where an arm differs from the baseline in more than is named.

    named: groups and settings that are the question; empty: anything but CONDITIONS.
    """
    problems = []
    for arm in arms:
        for name in unlike(arm, baseline):
            condition = next((c for c in CONDITIONS if covers(c, name)), None)
            allowed = any(covers(n, name) for n in named) if named or condition else True
            if allowed and condition not in ALWAYS:
                continue
            why = f": {CONDITIONS[condition]}" if condition else ""
            problems.append(
                f"{name} of '{arm.name}' is {format_setting(name, arm)}, of the baseline {format_setting(name, baseline)}{why}"
            )
    if problems:
        asked = f" (named: {', '.join(named)})" if named else ""
        more = f"; and {len(problems) - 5} more differences" if len(problems) > 5 else ""
        raise InputError(
            f"the arms cannot be compared with '{baseline.name}', they differ in more than the factors named{asked}: "
            f"{'; '.join(problems[:5])}{more}. Analyse the folder of one question at a time, or name these factors in "
            f"--baseline"
        )


def unlike(arm: Arm, other: Arm) -> list[str]:
    """What two arms differ in: settings, and groups whose choice differs without a setting to show for it."""
    names = differing_settings([arm.config, other.config])
    for group in sorted({*arm.choices, *other.choices} - NOT_ARMS):
        if group.startswith("hydra/") or arm.choices.get(group) == other.choices.get(group):
            continue
        if not any(covers(group, name) for name in {*arm.config, *other.config}):
            names.append(group)
    return names


def covers(named: str, name: str) -> bool:
    """Whether the setting `name` is, or lies in the section of, the group or setting `named`."""
    section = named.partition("@")[2] or named.replace("/", ".")
    return name in (named, section) or name.startswith(f"{section}.")


def shown(value: Any) -> str:
    """A setting's value for people: 0.05, true, off (null), text."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def format_setting(name: str, arm: Arm) -> str:
    """The value of a setting or group in an arm, for people."""
    return shown(_value(name, arm.choices, arm.config))


def _merge(headers: Sequence[RunHeader]) -> list[int]:
    """For each configuration the number of its arm: those of one and the same settings are one."""
    numbers: dict[Any, int] = {}
    place = []
    for index, header in enumerate(headers):
        items = {(n, _hashable(v)) for n, v in header.settings.items() if n not in NEVER_COLUMNS and n != FOLD}
        # a choice whose section is not in the configuration has effects that cannot be seen
        unseen = [
            (g, str(c))
            for g, c in header.choices.items()
            if not g.startswith("hydra/") and g not in NOT_ARMS and not any(covers(g, n) for n in header.settings)
        ]
        key = (frozenset(items), frozenset(unseen)) if items else index
        place.append(numbers.setdefault(key, len(numbers)))
    return place


def _matching(arms: Sequence[Arm], overrides: Sequence[str]) -> int:
    wanted = dict(parse_override(text) for text in overrides)
    known = sorted({name for arm in arms for name in (*arm.choices, *arm.config)})
    for name in wanted:
        if arms and name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"baseline: no run has a group or setting {name!r}{hint}")
    fitting = [i for i, arm in enumerate(arms) if all(_fits(name, value, arm) for name, value in wanted.items())]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(_described(arms[i]) for i in (fitting or range(len(arms)))[:10])
    if fitting:
        raise InputError(f"baseline: {' '.join(overrides)} fits {len(fitting)} arms, one is needed: {listed}")
    raise InputError(f"baseline: no arm has {' '.join(overrides)}; the arms are: {listed or 'none'}")


def _described(arm: Arm) -> str:
    return f"'{arm.name}' ({' '.join(f'{n}={shown(v)}' for n, v in arm.settings.items()) or 'no factor'})"


def _fits(name: str, value: Any, arm: Arm) -> bool:
    choice = arm.choices.get(name)
    return (choice is not None and str(choice) == str(value)) or (
        name in arm.config and _equal(arm.config[name], value)
    )


def _value(name: str, choices: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Of a factor's name: the setting, else the group's choice, else the setting `name` of that section."""
    return settings[name] if name in settings else choices.get(name, settings.get(f"{name}.name"))


def _equal(left: Any, right: Any) -> bool:
    if _is_number(left) and _is_number(right):
        return math.isclose(left, right, rel_tol=1e-12)
    return _hashable(left) == _hashable(right)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    """Equal for equal settings: 1 and 1.0 are, 1 and true are not, NaN equals itself."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and math.isnan(value):
        return ("number", "nan")
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
