"""From Hydra's composed configuration to the request that experiment trains. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.records import InputError, Request


def plain(config: DictConfig) -> dict[str, Any]:
    """A job's configuration without Hydra's own part, resolved. Raises OmegaConf's errors."""
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(task, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def from_hydra(config: DictConfig) -> Request:
    """The request of the running Hydra job: its configuration resolved, its choices, what was overridden, its output folder."""
    hydra = HydraConfig.get()
    try:
        values = plain(config)
    except OmegaConfBaseException as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from None
    # an override is [+~]name=value or name@package=value; the sign and the package are not part of the name
    names = tuple(item.lstrip("+~").split("=", 1)[0].split("@")[0].replace("/", ".") for item in hydra.overrides.task)
    choices = {k: str(v) for k, v in hydra.runtime.choices.items() if not k.startswith("hydra/") and v is not None}
    return Request(
        config=values,
        choices=choices,
        overridden=names,
        folder=Path(hydra.runtime.output_dir),
        multirun=hydra.mode == RunMode.MULTIRUN,
    )
