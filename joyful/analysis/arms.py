"""The arms of a sweep: which runs form an arm, names, factors, the baseline, and checks that arms can be compared."""

from __future__ import annotations

import difflib
import functools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyful.messages import expected_one_of
from joyful.results import InputError, RunHeader
from joyful.results.arms import FOLD, NEVER_COLUMNS, NOT_ARMS, Differences, differences
from joyful.results.yaml_text import parse_yaml

#: Settings before the basic optimisation. An arm with them is the default baseline if there are no calibration runs.
BASELINE_SETTINGS = {"loss": "mse", "weights.encoder_loss_weight": 0.05}

#: Settings in which compared arms must agree -> the reason.
CONDITIONS = {
    "training.epochs": "arms need the same budget",
    "training.evaluations_per_epoch": "with more evaluations the best value is higher and a target is reached earlier",
    "training.train_metrics": "train metrics would be measured in two ways",
    "data": "scores on different data cannot be compared",
}
#: Conditions that hold even if `--baseline` names the setting as a factor.
FIXED_CONDITIONS = ("training.epochs", "training.evaluations_per_epoch")

#: Suffixes of settings that are left out of the names of arms.
_SUFFIXES = ("_loss_weight", "_reg_weight", "_weight")


@dataclass(frozen=True)
class Arm:
    """A configuration that is compared with others.

    Attributes:
        name: Short name, unique in the sweep, such as "mse 0.05".
        settings: Factor -> value, for the factors of the sweep.
        is_baseline: Whether the other arms are compared with this one.
        choices: Hydra's group choices in the first run of the arm.
        config: Dotted name -> value of every setting in the first run of the arm.
    """

    name: str
    settings: dict[str, Any]
    is_baseline: bool
    choices: dict[str, Any]
    config: dict[str, Any]


def find_arms(
    headers: Sequence[RunHeader], known: Differences | None = None
) -> tuple[list[Arm], list[int], tuple[str, ...]]:
    """Group runs into arms.

    Runs form one arm if all their settings are equal, apart from seed, role, fold and paths. The names of their group
    choices do not matter.

    Args:
        headers: The runs.
        known: Result of `joyful.results.arms.differences` for these runs, if it was computed before.

    Returns:
        The arms in the order of their first runs, the index of the arm of each run, and the factors. No arm is marked
        as the baseline.
    """
    if known is None:
        known = differences([h.choices for h in headers], [h.settings for h in headers])
    columns = [known.columns[name] for name in known.arms]
    rows = [tuple(_hashable(values[index]) for values in columns) for index in range(len(headers))]
    group_of_row: dict[Any, int] = {}
    firsts: list[RunHeader] = []  # Runs with equal rows have equal settings, so only the first of them is merged.
    for header, row in zip(headers, rows, strict=True):
        if row not in group_of_row:
            group_of_row[row] = len(firsts)
            firsts.append(header)
    merged = _merge(firsts)
    kept = [firsts[merged.index(number)] for number in range(max(merged, default=-1) + 1)]
    factors = find_factors([h.choices for h in kept], [h.settings for h in kept])
    values = [{factor: _value(factor, h.choices, h.settings) for factor in factors} for h in kept]
    arms = [
        Arm(name, value, False, dict(h.choices), dict(h.settings))
        for name, value, h in zip(arm_names(values), values, kept, strict=True)
    ]
    return arms, [merged[group_of_row[row]] for row in rows], factors


def find_factors(choices: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the factors: the groups and settings that differ between configurations.

    If only numbers differ within a group whose choice differs (such as weights), the factors are these numbers. For any
    other such group the factor is the group, plus each setting of the group that its choice does not determine. A group
    is no factor if its settings are recorded and equal. A differing setting outside these groups is a factor.

    Args:
        choices: Hydra's group choices of each configuration.
        settings: Dotted name -> value, for each configuration.

    Returns:
        Names of groups and dotted names of settings.
    """
    differing = differing_settings(settings)
    factors: list[str] = []
    covered: set[str] = set()
    for group in _groups(*choices):
        chosen = [_hashable(run.get(group)) for run in choices]
        if len(set(chosen)) < 2:
            continue
        columns = {name: [run.get(name) for run in settings] for name in differing if _in_section(group, name)}
        covered.update(columns)
        if not columns and any(covers(group, name) for run in settings for name in run):
            continue  # The choices have different names but equal settings.
        if columns and all(is_number(value) or value is None for values in columns.values() for value in values):
            factors += columns
            continue
        factors.append(group)
        for name, values in columns.items():
            value_of_choice: dict[Any, Any] = {}
            pairs = zip(chosen, map(_hashable, values), strict=True)
            if name != group and not all(value_of_choice.setdefault(c, v) == v for c, v in pairs):
                factors.append(name)
    factors += [name for name in differing if name not in covered]
    return tuple(factors)


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sorted names of the settings that differ between configurations. An absent setting counts as null."""
    names = sorted({name for run in settings for name in run} - NEVER_COLUMNS - {FOLD})
    return [name for name in names if len({_hashable(run.get(name)) for run in settings}) > 1]


def arm_names(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short, unique name for each arm.

    A name lists the values of the factors. Text has no label, nor does a single number next to text ("mse 0.05"). Other
    numbers have a short label ("encoder 0.05").

    Args:
        values: Factor -> value, for each arm.

    Returns:
        The names, in the order of `values`.

    Example:
        >>> arm_names([{"loss": "mse", "weights.encoder_loss_weight": weight} for weight in (0.05, 0.03)])
        ['mse 0.05', 'mse 0.03']
        >>> arm_names([{"weights.encoder_loss_weight": weight} for weight in (0.05, 0.03)])
        ['encoder 0.05', 'encoder 0.03']
    """
    if len(values) == 1:
        return ["all runs"]
    factors = list(values[0]) if values else []
    numbers = [f for f in factors if all(is_number(v[f]) or v[f] is None for v in values)]
    single_number = len(numbers) == 1 and any(isinstance(v[f], str) for f in factors for v in values)

    def part(factor: str, item: Any) -> str:
        if single_number and factor in numbers and item is not None:
            return format_value(item)
        return name_part(factor, item)

    names = [" ".join(part(factor, item) for factor, item in value.items()) for value in values]
    if len(set(names)) < len(names):  # Two settings may have the same last part.
        names = [" ".join(f"{factor}={format_value(item)}" for factor, item in value.items()) for value in values]
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]


def name_part(factor: str, item: Any) -> str:
    """Return the value of a factor as it appears in the name of an arm: text alone, other values with a short label.

    Example:
        >>> name_part("weights.encoder_loss_weight", 0.05), name_part("loss", "mse")
        ('encoder 0.05', 'mse')
    """
    if isinstance(item, str):
        return format_value(item)
    label = functools.reduce(str.removesuffix, _SUFFIXES, factor.rpartition(".")[2])
    return f"{label} {format_value(item)}"


def choose_baseline(
    arms: Sequence[Arm], comparisons: Sequence[int], calibrations: Sequence[int], overrides: Sequence[str] | None
) -> tuple[int, str]:
    """Choose the baseline.

    Without overrides, the baseline is the arm with the most calibration runs, else the first arm with
    BASELINE_SETTINGS, else the first arm. Arms without comparison runs are considered only if no arm has comparison
    runs.

    Args:
        arms: The arms.
        comparisons: Number of comparison runs of each arm.
        calibrations: Number of calibration runs of each arm.
        overrides: Overrides that the baseline must match, such as ["loss=mse", "weights=baseline"].

    Returns:
        The index of the baseline, and the reason for the choice as a phrase.

    Raises:
        InputError: If the overrides match no arm or several arms, or cannot be parsed.
    """
    if overrides:
        return _find_matching(arms, overrides), f"given: {' '.join(overrides)}"
    candidates = [i for i in range(len(arms)) if comparisons[i]] or list(range(len(arms)))
    calibrated = max(candidates, key=lambda i: (calibrations[i], -i))
    if calibrations[calibrated]:
        return calibrated, "the arm of the calibration runs"
    for i in candidates if len(arms) > 1 else ():
        arm = arms[i]
        if all(_equal(_value(name, arm.choices, arm.config), v) for name, v in BASELINE_SETTINGS.items()):
            return i, "the settings before the optimisation: MSE, encoder weight 0.05"
    return candidates[0], "the first arm"


def find_arm(arms: Sequence[Arm], text: str) -> int:
    """Return the index of the arm with a name, or of the only arm that matches overrides such as "loss=mse".

    Raises:
        InputError: If there is no such arm or there are several.
    """
    names = [arm.name for arm in arms]
    if text in names:
        return names.index(text)
    if "=" not in text:
        raise InputError(f"--compare: {expected_one_of(text, names)}")
    return _find_matching(arms, shlex.split(text))


def parse_override(text: str) -> tuple[str, Any]:
    """Parse an override as on Hydra's command line.

    Args:
        text: The override, such as "loss=mse" or "+weights.encoder_loss_weight=5e-2".

    Returns:
        The dotted name or group, and the value.

    Raises:
        InputError: If the text is not an override.

    Example:
        >>> parse_override("weights.encoder_loss_weight=5e-2")
        ('weights.encoder_loss_weight', 0.05)
    """
    name, equals, value = text.lstrip("+").partition("=")
    try:
        if not (equals and name.strip()):
            raise ValueError
        return name.strip(), parse_yaml(value.encode())
    except ValueError:
        raise InputError(f"baseline: expected overrides such as loss=mse weights=baseline, got {text!r}") from None


def check_comparable(arms: Sequence[Arm], baseline: Arm, named: Sequence[str]) -> None:
    """Check that the arms differ from the baseline only in what may be compared.

    Args:
        arms: The arms.
        baseline: The baseline arm.
        named: Groups and settings in which arms may differ. If it is empty, they may differ in anything but CONDITIONS.

    Raises:
        InputError: If an arm differs in another setting. The message lists up to five differences.
    """
    problems = []
    for arm in arms:
        for name in differing_names(arm, baseline):
            condition = next((c for c in CONDITIONS if covers(c, name)), None)
            allowed = any(covers(n, name) for n in named) if named or condition else True
            if allowed and condition not in FIXED_CONDITIONS:
                continue
            reason = f" ({CONDITIONS[condition]})" if condition else ""
            value, base = format_setting(name, arm), format_setting(name, baseline)
            problems.append(f"{name} is {value} in '{arm.name}' and {base} in the baseline{reason}")
    if problems:
        factors = f" other than {', '.join(named)}" if named else " that must be equal"
        more = f"; and {len(problems) - 5} more differences" if len(problems) > 5 else ""
        raise InputError(
            f"the arms cannot be compared with '{baseline.name}' because they differ in settings{factors}: "
            f"{'; '.join(problems[:5])}{more}; analyse one question at a time, or name these factors in --baseline"
        )


def differing_names(arm: Arm, other: Arm) -> list[str]:
    """Return the names of the settings in which two arms differ.

    A group whose choice differs is included if the configuration holds none of its settings.
    """
    names = differing_settings([arm.config, other.config])
    known = {*arm.config, *other.config}
    return names + [
        group
        for group in _groups(arm.choices, other.choices)
        if arm.choices.get(group) != other.choices.get(group) and not any(covers(group, name) for name in known)
    ]


def covers(named: str, name: str) -> bool:
    """Return whether a setting belongs to a group or section.

    Args:
        named: A group ("loss", "model/context", "a@b") or a dotted name.
        name: Dotted name of the setting.

    Returns:
        Whether `name` equals `named` or lies in its section.

    Example:
        >>> covers("loss", "loss.name"), covers("loss", "loss_weight")
        (True, False)
    """
    return name == named or _in_section(named, name)


def _in_section(group: str, name: str) -> bool:
    section = group.partition("@")[2] or group.replace("/", ".")
    return name == section or name.startswith(f"{section}.")


def _groups(*choices: Mapping[str, Any]) -> list[str]:
    """Return the sorted names of the groups that can distinguish arms."""
    return [g for g in sorted({g for run in choices for g in run} - NOT_ARMS) if not g.startswith("hydra/")]


def format_value(value: Any) -> str:
    """Return the value of a setting as text: numbers as with %g, `true`, `false`, and `off` for null."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def format_setting(name: str, arm: Arm) -> str:
    """Return the value of a setting, or the choice of a group, in an arm as text."""
    return format_value(_value(name, arm.choices, arm.config))


def _merge(headers: Sequence[RunHeader]) -> list[int]:
    """Return the number of the arm of each configuration. Configurations with equal settings form one arm."""
    numbers: dict[Any, int] = {}
    arms = []
    for index, header in enumerate(headers):
        items = {(n, _hashable(v)) for n, v in header.settings.items() if n not in NEVER_COLUMNS and n != FOLD}
        # A choice whose settings are not in the configuration may have other effects, so it counts as a difference.
        unrecorded = [g for g in _groups(header.choices) if not any(covers(g, n) for n in header.settings)]
        key = (frozenset(items), *((g, str(header.choices[g])) for g in unrecorded)) if items else index
        arms.append(numbers.setdefault(key, len(numbers)))
    return arms


def _find_matching(arms: Sequence[Arm], overrides: Sequence[str]) -> int:
    expected = dict(parse_override(text) for text in overrides)
    known = sorted({name for arm in arms for name in (*arm.choices, *arm.config)})
    for name in expected:
        if arms and name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"baseline: expected a group or setting of the runs, got {name!r}{hint}")
    matches = [i for i, arm in enumerate(arms) if all(_matches(name, value, arm) for name, value in expected.items())]
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(_describe(arms[i]) for i in (matches or range(len(arms)))[:10])
    if matches:
        raise InputError(f"baseline: expected one arm, got {len(matches)} that match {' '.join(overrides)}: {listed}")
    raise InputError(f"baseline: no arm matches {' '.join(overrides)}; the arms are: {listed or 'none'}")


def _describe(arm: Arm) -> str:
    return f"'{arm.name}' ({' '.join(f'{n}={format_value(v)}' for n, v in arm.settings.items()) or 'no factor'})"


def _matches(name: str, value: Any, arm: Arm) -> bool:
    choice = arm.choices.get(name)
    is_chosen = choice is not None and str(choice) == str(value)
    return is_chosen or (name in arm.config and _equal(arm.config[name], value))


def _value(name: str, choices: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return the setting of this name, else the choice of the group, else the setting `name` in the group's section."""
    return settings[name] if name in settings else choices.get(name, settings.get(f"{name}.name"))


def _equal(left: Any, right: Any) -> bool:
    if is_number(left) and is_number(right):
        return math.isclose(left, right, rel_tol=1e-12)
    return bool(_hashable(left) == _hashable(right))


def is_number(value: Any) -> bool:
    """Return whether the value of a setting is a number. true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    """Return a hashable key that is equal for equal settings: 1 equals 1.0 but not true, and NaN equals NaN."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and math.isnan(value):
        return ("number", "nan")
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
