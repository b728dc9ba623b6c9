"""The plan of a sweep: a search space or a list of trials, fixed before the first trial.

hydra-optuna-sweeper parses the search space. A grid has a fixed order of its points, and a sweep trains the first
`n_trials` of them.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from joyful.compat import grid_choices, parse_search_space
from joyful.records import InputError, one_line
from joyful.runtime.config_errors import config_error_message
from joyful.runtime.hydra_request import string_text
from joyful.sweeper.job_config import output_folder
from joyful.sweeper.settings import CALIBRATION_SEEDS, Finals, SweepSettings

log = logging.getLogger(__name__)

#: Composes the configuration of a job from override strings.
Compose = Callable[[Sequence[str]], DictConfig]

#: Maximum number of points of a full grid.
MAXIMUM_TRIALS = 1_000_000

#: The golden section. A multiple of it has many digits, and its multiples are spread over the unit interval.
_GOLDEN = 0.618033988749895

#: Bases of the sequences in which a grid visits the values of its axes.
_BASES = (2, 3, 5, 7, 11, 13)


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep.

    Attributes:
        n_trials: Number of trials.
        fixed: Overrides of every trial.
        space: Parameter -> distribution; empty for a list of trials.
        trials: Overrides of each trial, for a list of trials.
        arms: Overrides of the arm of each trial, as one text, for arms.
        seeds: Seed of each trial, for arms.
        n_calibration: Number of calibration runs, the first trials, for arms.
        grid: Parameters of each trial, for a grid.
        raw: Parameter -> those of its choices that are text of an override, such as lists.
        finals: How the finalists of the search are trained on further seeds; None: not.
    """

    n_trials: int
    fixed: tuple[str, ...]
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    trials: tuple[tuple[str, ...], ...] | None = None
    arms: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    n_calibration: int = 0
    grid: tuple[Mapping[str, Any], ...] | None = None
    raw: Mapping[str, Collection[str]] = field(default_factory=dict)
    finals: Finals | None = None

    def describe(self) -> dict[str, Any]:
        """Return the part of the plan that may not change during a study, as JSON types."""
        return {
            "space": {name: json.loads(distribution_to_json(d)) for name, d in sorted(self.space.items())},
            "trials": [" ".join(trial) for trial in self.trials] if self.trials is not None else None,
        }

    def arm(self, number: int) -> str | None:
        """Return the overrides of a trial's arm; None without arms."""
        return self.arms[number] if self.arms is not None else None

    def role(self, number: int) -> str:
        """Return the role of a trial: calibration, comparison or search."""
        if self.trials is None:
            return "search"
        return "calibration" if number < self.n_calibration else "comparison"

    def varied(self) -> set[str]:
        """Return the names of the settings and groups that differ between trials."""
        if self.trials is None:
            return set(self.space) | ({self.finals.seed_key} if self.finals is not None else set())
        pairs = {tuple(item.split("=", 1)) for trial in self.trials for item in trial if "=" in item}
        names = [name for name, _ in pairs]
        return {name for name in names if names.count(name) > 1}

    def first_overrides(self) -> list[str]:
        """Return the overrides of the first trial of a list or grid, or the low end of each parameter of a space."""
        if self.grid is not None:
            return self.overrides(0, self.grid[0])
        return self.overrides(0, {name: _extremes(distribution)[0] for name, distribution in self.space.items()})

    def overrides(self, number: int, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial.

        Args:
            number: Number of the trial.
            params: Its parameters; not used for a list of trials.
        """
        if self.trials is not None:
            return [*self.fixed, *self.trials[number]]
        raw = {name for name, value in params.items() if value in self.raw.get(name, ())}
        return [*self.fixed, *(f"{n}={v}" if n in raw else override(n, v) for n, v in params.items())]

    def with_points(self, existing: Mapping[int, Mapping[str, Any]]) -> Plan:
        """Return the plan of a grid whose trials keep the points that they have, and share out the others.

        Earlier versions had another order of the points. Their studies continue with the points that they lack.

        Args:
            existing: Parameters of trials by number.
        """
        if self.grid is None or not existing:
            return self
        taken = {frozenset(point.items()) for point in existing.values()}
        left = iter([point for point in self.grid if frozenset(point.items()) not in taken])
        points = [existing[number] if number in existing else next(left) for number in range(self.n_trials)]
        return replace(self, grid=tuple(points))


def override(name: str, value: Any) -> str:
    """Return the override NAME=VALUE.

    Example:
        >>> override("weights.encoder_loss_weight", 0.03)
        'weights.encoder_loss_weight=0.03'
    """
    return f"{name}={value_text(value)}"


def value_text(value: Any) -> str:
    """Return the text of a value in an override, which Hydra reads as exactly this value.

    A string has quotes if Hydra would read it as something else without them.

    Args:
        value: None, a bool, a number, a string, or a list or dictionary of these.

    Example:
        >>> [value_text(value) for value in ("mse", "1e-3", 1e-3, None, ["a", "b,c"], {"x": "null"})]
        ['mse', "'1e-3'", '0.001', 'null', "[a,'b,c']", "{x:'null'}"]
    """
    if value is None:
        return "null"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{value_text(key)}:{value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(value_text, value))}]"
    return str(value)


def make_plan(
    settings: SweepSettings, arguments: Sequence[str], grid: bool, config_loader: ConfigLoader | None = None
) -> Plan:
    """Make the plan of a sweep.

    Args:
        settings: The settings of the sweep.
        arguments: The overrides of the command line. They replace `settings.params` of the same name.
        grid: Whether the sampler is GridSampler.
        config_loader: Finds the options of config groups, for glob(...).

    Raises:
        InputError: If the search space is invalid or missing, or if there is a list of trials as well.
    """
    # a string in `params` is text of an override, as on the command line
    params = {name: value if isinstance(value, str) else value_text(value) for name, value in settings.params.items()}
    try:
        parsed = parse_search_space([*(f"{name}={text}" for name, text in params.items()), *arguments], config_loader)
    except (HydraException, ValueError, NotImplementedError, AssertionError) as error:
        raise InputError(
            f"search space: {one_line(error, 500)}; expected NAME=interval(LOW, HIGH), choice(A, B) or range(LOW, HIGH, "
            "step=S), LOW below HIGH"
        ) from None
    space = {name: distribution for name, distribution in parsed.space.items() if name not in parsed.fixed}
    _check_ranges(space)
    fixed = [*(f"{name}={text}" for name, text in parsed.fixed.items()), *parsed.rest]
    if settings.trials or settings.arms:
        if space:
            raise InputError(
                "hydra.sweeper: expected a list of trials (trials or arms) or a search space, got both "
                f"({', '.join(space)}); set each of these to a single value"
            )
        if settings.arms:
            return _plan_of_arms(settings, settings.arms, tuple(fixed))
        trials = tuple(tuple(_split(trial, "trials")) for trial in settings.trials or ())
        return Plan(len(trials), tuple(fixed), trials=trials)
    if not space:
        raise InputError(
            "hydra.sweeper: expected a search space, got none; set NAME='interval(LOW,HIGH)' or NAME='choice(A,B)' on the "
            "command line or in hydra.sweeper.params, or set hydra.sweeper.trials or hydra.sweeper.arms"
        )
    if grid:
        points, size = _grid(space, settings.n_trials)
        if len(points) < size:
            log.info(
                "%d of %d grid points are trained, spread over the grid; set hydra.sweeper.n_trials=%d for all",
                len(points), size, size,
            )  # fmt: skip
        return Plan(len(points), tuple(fixed), space, grid=points, raw=parsed.raw)
    return Plan(settings.n_trials, tuple(fixed), space, raw=parsed.raw)


def check_compositions(plan: Plan, compose: Compose, check: Callable[[DictConfig], None]) -> None:
    """Compose and check configurations before any trial exists.

    These are all trials of a list, and for arms those of the calibration, of the first pair and of the last. For a search
    space, they cover both ends of each range, a value with many digits between them, and every choice of each parameter.

    Args:
        plan: The plan.
        compose: Composes a configuration.
        check: Checks a composed configuration, and raises an exception if it is invalid.

    Raises:
        InputError: If a configuration is invalid, or if its output folder has too long a name. The message starts with
            its overrides.
    """
    for overrides in _samples(plan):
        try:
            job = compose(overrides)
            check(job)
            _check_folder_names(job)
        except Exception as error:
            message = config_error_message(error) if isinstance(error, HydraException) else one_line(error, 500)
            raise InputError(f"{_what(plan, overrides)}: {message}") from None


def _what(plan: Plan, overrides: list[str]) -> str:
    """Return the number and the overrides of a trial of a list, or only the overrides of a search space."""
    own = " ".join(overrides[len(plan.fixed) :])
    if plan.trials is None:
        return f"a trial with {own}" if own else "the sweep"
    return f"trial {plan.trials.index(tuple(overrides[len(plan.fixed) :]))} ({own})"


def _check_folder_names(job: DictConfig) -> None:
    """Raise InputError if a part of the path of a trial's output folder is longer than its file system allows."""
    if OmegaConf.select(job, "hydra.sweep") is None:
        return
    folder = output_folder(job)
    parent = next(path for path in folder.parents if os.path.exists(path))
    limit = os.pathconf(parent, "PC_NAME_MAX")
    longest = max(folder.relative_to(parent).parts, key=_bytes)
    if _bytes(longest) > limit:
        raise InputError(
            f"hydra.sweep.subdir: expected folder names of at most {limit} bytes, got {_bytes(longest)} "
            f"({longest[:20]}...); set hydra.sweep.subdir='${{hydra.job.num}}', or leave settings out of its names with "
            "hydra.job.config.override_dirname.exclude_keys=[NAME]"
        )


def _bytes(name: str) -> int:
    return len(os.fsencode(name))


def _samples(plan: Plan) -> list[list[str]]:
    if plan.seeds is not None:  # the seeds of the calibration, of the first pair and of the last
        checked = {*plan.seeds[: plan.n_calibration + 1], plan.seeds[-1]}
        return [plan.overrides(number, {}) for number, seed in enumerate(plan.seeds) if seed in checked]
    if plan.trials is not None:
        return [plan.overrides(number, {}) for number in range(plan.n_trials)]
    values = {name: _extremes(distribution) for name, distribution in plan.space.items()}
    # Combine the i-th values of all parameters, so that each value is composed once instead of each combination.
    length = max(map(len, values.values()))
    return [plan.overrides(0, {name: v[min(i, len(v) - 1)] for name, v in values.items()}) for i in range(length)]


def _extremes(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        return [
            distribution.low,
            distribution.high,
            distribution.low + (distribution.high - distribution.low) * _GOLDEN,
        ]
    return [distribution.low, distribution.high]


def _check_ranges(space: Mapping[str, BaseDistribution]) -> None:
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution) and not distribution.choices:
            raise InputError(f"search space: {name}: expected at least one choice, got none; set {name}='choice(A,B)'")
        if isinstance(distribution, FloatDistribution) and distribution.low == distribution.high:
            raise InputError(
                f"search space: {name}: expected a range, got the single value {distribution.low}; set "
                f"{name}={distribution.low}"
            )


def _plan_of_arms(settings: SweepSettings, given: Sequence[str], fixed: tuple[str, ...]) -> Plan:
    arms = [tuple(_split(arm, "arms")) for arm in given]
    if len(arms) < 2 or len(set(arms)) < len(arms):
        raise InputError(
            f"hydra.sweeper.arms: expected two or more different arms, got {settings.arms}; add an arm or remove the "
            "duplicate"
        )
    folds = [()] if settings.folds is None else [(override(settings.fold_key, fold),) for fold in settings.folds]
    role = () if settings.role_key is None else (f"{settings.role_key}=calibration",)
    calibration = CALIBRATION_SEEDS if settings.calibration else ()
    listed = [(arms[0], seed, (*fold, *role)) for seed in calibration for fold in folds]
    n_calibration = len(listed)
    seeds = range(settings.first_seed, settings.first_seed + settings.most_pairs)
    listed += [(arm, seed, fold) for seed in seeds for arm in arms for fold in folds]
    return Plan(
        len(listed), fixed,
        trials=tuple((*arm, override(settings.seed_key, seed), *own) for arm, seed, own in listed),
        arms=tuple(shlex.join(arm) for arm, _, _ in listed), seeds=tuple(seed for _, seed, _ in listed),
        n_calibration=n_calibration,
    )  # fmt: skip


def _split(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"hydra.sweeper.{name}: {text!r}: {error}; close the quotes") from None


def _grid(space: Mapping[str, BaseDistribution], limit: int) -> tuple[tuple[dict[str, Any], ...], int]:
    """Return the first points of a grid in their fixed order, at most `limit`, and the size of the grid."""
    try:
        axes = {name: grid_choices(d) for name, d in space.items()}
    except ValueError:
        raise InputError(
            "hydra/sweeper/sampler=grid: expected choices or ranges with a step, got an interval; set choice(...) or "
            "another sampler"
        ) from None
    size = math.prod(map(len, axes.values()))
    if size > MAXIMUM_TRIALS:
        raise InputError(
            f"hydra/sweeper/sampler=grid: expected at most {MAXIMUM_TRIALS} points, got {size}; reduce the choices"
        )
    places = itertools.islice(balanced_order([len(values) for values in axes.values()]), limit)
    points = ({name: axes[name][i] for name, i in zip(axes, place, strict=True)} for place in places)
    return tuple(points), size


def balanced_order(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all points of a grid, as indices per axis, so that the first n of them are spread over the grid for any n.

    On each axis, the numbers of points at any two values differ by at most 1 among the first n points. The first
    values of an axis are its ends, and the next ones halve the gaps (thirds on the second axis, and so on).

    Args:
        sizes: Number of values of each axis.
    """
    orders = [_spread(size, base) for size, base in zip(sizes, itertools.cycle(_BASES))]
    total, length, seen = math.prod(sizes), math.lcm(*sizes), set()
    # A step near the golden section of `total`, without a common divisor, leads through all starts in a spread order.
    step = next(s for s in itertools.count(round(total * _GOLDEN) or 1) if math.gcd(s, total) == 1)
    for number in range(total):
        flat, start = number * step % total, []
        for size in reversed(sizes):
            flat, index = divmod(flat, size)
            start.append(index)
        start.reverse()
        if tuple(start) in seen:
            continue
        for i in range(length):  # the diagonal through `start` has each value of an axis equally often
            point = tuple((first + i) % size for first, size in zip(start, sizes, strict=True))
            seen.add(point)
            yield tuple(order[index] for order, index in zip(orders, point, strict=True))


def _spread(size: int, base: int) -> list[int]:
    """Return 0, ..., size - 1 in the order of a van der Corput sequence: the ends first, then the gaps between them."""
    order = dict.fromkeys((0, size - 1))
    for number in itertools.count(1):
        if len(order) == size:
            return list(order)
        place, digits, scale = 0.0, number, 1.0
        while digits:
            digits, digit = divmod(digits, base)
            scale /= base
            place += digit * scale
        order[round(place * (size - 1))] = None
    raise AssertionError
