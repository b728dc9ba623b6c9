"""Convert Hydra's composed configuration to a training request. This module does not import torch."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.records import InputError, Request
from joyful.runtime.config_errors import config_error_message

#: Launchers whose jobs are processes on this machine.
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")


def launcher_name(config: DictConfig) -> str:
    """Return the class name of the configured launcher, without its module."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def resolved_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration of a job without the section ``hydra``.

    Raises:
        OmegaConfBaseException: If an interpolation fails or a mandatory value is missing.
    """
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(task, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def literal(text: object) -> str:
    """Return text that OmegaConf reads back unchanged, without interpolations.

    Example:
        >>> print(literal("runs/${x}"))
        runs/\\${x}
    """
    return str(text).replace("${", "\\${")


@cache
def string_text(text: str) -> str:
    """Return a string as a value of an override, in quotes if Hydra would read it as something else without them.

    Example:
        >>> string_text("outputs/a"), string_text("1e-3")
        ('outputs/a', "'1e-3'")
    """
    try:
        # as the first of two items, because a backslash at the end would change the comma
        if text and OverridesParser.create().parse_override(f"a=[{text},b]").value() == [text, "b"]:
            return text
    except HydraException:
        pass
    return QuotedString(text, Quote.single).with_quotes()


def is_multirun() -> bool:
    """Return whether the running Hydra job is part of a multirun."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def from_hydra(config: DictConfig) -> Request:
    """Return the training request of the running Hydra job.

    With hydra.job.chdir=true, the process returns to the folder in which the command was typed, because relative paths in
    settings are those of that folder. Hydra restores the working folder after the job.

    Args:
        config: The composed configuration of the job.

    Raises:
        InputError: If the configuration cannot be resolved, or that folder cannot be entered.
    """
    hydra = HydraConfig.get()
    _return_to_first_folder()
    try:
        values = resolved_config(config)
    except OmegaConfBaseException as error:
        raise InputError(config_error_message(error)) from None
    # an override is [+~]name=value or name@package=value; sign and package do not belong to the name
    names = tuple(item.lstrip("+~").split("=", 1)[0].split("@")[0].replace("/", ".") for item in hydra.overrides.task)
    choices = {k: str(v) for k, v in hydra.runtime.choices.items() if not k.startswith("hydra/") and v is not None}
    choices.pop("track", None)  # a run is the same with and without trackers
    return Request(
        config=values,
        choices=choices,
        overridden=names,
        folder=Path(hydra.runtime.output_dir),
        multirun=is_multirun(),
        sweep=Path(hydra.sweep.dir) if is_multirun() else None,
        overrides=tuple(hydra.overrides.task),
    )


def _return_to_first_folder() -> None:
    """Return to the folder in which the command was typed, if hydra.job.chdir=true has left it for the output folder."""
    hydra = HydraConfig.get()
    if hydra.job.chdir:
        try:
            os.chdir(hydra.runtime.cwd)
        except OSError as error:
            raise InputError(
                f"hydra.job.chdir=true: expected to enter {hydra.runtime.cwd}, the folder of the command, got "
                f"{error.strerror}; set hydra.job.chdir=false"
            ) from None
