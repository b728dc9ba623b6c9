"""Checks of the jobs of a command, before Hydra creates a folder for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from joyful.messages import expected_one_of, this_command
from joyful.records import InputError
from joyful.runtime.config_errors import config_error_message
from joyful.runtime.hydra_request import literal

#: Maximum number of jobs of a multirun that are composed to check them. Hydra composes each of them again.
MAXIMUM_CHECKED = 500


def check_choices(config: DictConfig) -> None:
    """Raise InputError if an option of a config group is a file with ``_``, which is only a part of other files.

    Args:
        config: A composed configuration, with the section hydra.
    """
    for group, choice in config.hydra.runtime.choices.items():
        if str(choice).rpartition("/")[2].startswith("_"):
            loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
            found = loader.get_group_options(str(group), ObjectType.CONFIG) if loader is not None else []
            options = [option for option in found if not option.startswith("_")]
            raise InputError(f"{group}: {expected_one_of(choice, options)}; names with _ are parts of other files")


def refuse_sweep_without_multirun(config: DictConfig) -> None:
    """Raise InputError if the configuration of a single run has a ready-made sweep (``+sweeps=NAME``)."""
    if sweep := config.hydra.runtime.choices.get("sweeps"):
        raise InputError(
            f"+sweeps={sweep}: expected -m, which trains the runs of a sweep, got none; run {this_command('-m')}"
        )


def check_jobs(config: DictConfig, check: Callable[[DictConfig], None]) -> None:
    """Check jobs of a multirun that have each value of each swept setting at least once.

    The first job has the first value of each, and every other job differs from it in one value.

    Args:
        config: The composed configuration of the multirun.
        check: Checks the composed configuration of a job, and raises InputError if it is invalid.

    Raises:
        InputError: If a job cannot be composed or is invalid. The message starts with its number and its value.
    """
    loader = GlobalHydra.instance().config_loader()
    axes = _axes(config, loader)
    swept = any(len(values) > 1 for values in axes.values())
    for count, (number, values, overrides) in enumerate(_jobs(axes)):
        if count == MAXIMUM_CHECKED:
            return
        try:
            with _as_job(loader, config, overrides) as job:
                check(job)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            message = str(error) if isinstance(error, InputError) else config_error_message(error)
            raise InputError(f"run {number} ({values}): {message}" if swept else message) from None


def _axes(config: DictConfig, loader: ConfigLoader) -> dict[str, list[str]]:
    """Return the overrides of each setting or group, in the order in which Hydra's basic sweeper combines them."""
    params = config.hydra.sweeper.get("params") or {}
    typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    texts = [*(f"{name}={value}" for name, value in params.items()), *typed]
    axes: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(texts):
        name = override.get_key_element()
        axes[name] = [f"{name}={value}" for value in _values(override, config)] or [str(override.input_line)]
    return axes


def _values(override: Override, config: DictConfig) -> list[str]:
    """Return the values of a swept setting, or the ends of an interval; empty for a setting with one value."""
    if not override.is_sweep_override():
        return []
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return list(override.sweep_string_iterator())
    if "basic_sweeper" in str(config.hydra.sweeper._target_):
        raise InputError(
            f"{override.input_line}: expected values or range(...) with hydra/sweeper=basic, got an interval; add "
            "hydra/sweeper=optuna_pruned"
        )
    return [str(value.start), str(value.end)]


def _jobs(axes: dict[str, list[str]]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (number, swept values, overrides) of the first job, and of those that differ from it in one value."""
    first = {name: values[0] for name, values in axes.items()}
    swept = [values[0] for values in axes.values() if len(values) > 1]
    yield 0, " ".join(swept), list(first.values())
    names = list(axes)
    for place, name in enumerate(names):
        step = math.prod(len(axes[later]) for later in names[place + 1 :])
        for index, value in enumerate(axes[name][1:], start=1):
            yield index * step, value, list((first | {name: value}).values())


@contextmanager
def _as_job(loader: ConfigLoader, config: DictConfig, overrides: list[str]) -> Iterator[DictConfig]:
    """Compose the configuration of a job, with what Hydra adds to it when the job starts."""
    job: DictConfig = loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = "0", 0
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, None
    try:
        instance.set_config(job)  # for interpolations with the resolver hydra
        folder = literal(Path(str(job.hydra.sweep.dir), str(job.hydra.sweep.subdir)))
        with read_write(job.hydra.runtime):
            job.hydra.runtime.output_dir = folder
        instance.cfg = None
        instance.set_config(job)
        yield job
    finally:
        instance.cfg = before
