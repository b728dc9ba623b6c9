"""From Hydra's composed configuration to the request that experiment trains. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.records import InputError, Request, one_line

#: What the messages of Hydra and OmegaConf say beside what is wrong.
_NOISE = re.compile(r"\s*(object_type=|reference_type=|See https://|_\w+$|$)")


def plain(config: DictConfig) -> dict[str, Any]:
    """A job's configuration without Hydra's own part, resolved. Raises OmegaConf's errors."""
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(task, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def refusal(error: Exception) -> str:
    """What Hydra, OmegaConf or a YAML reader refuse, on one line."""
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"
    lines = [line for line in text.split("Config search path:")[0].splitlines() if not _NOISE.match(line)]
    # (a list, such as that of a group's options, has a tab before each item)
    words = re.sub(r"\n\s*full_key: (\S+)", r" (\1)", re.sub(r"(\n\t\S+)(?=\n\t)", r"\1,", "\n".join(lines)))
    kind = "" if isinstance(error, (HydraException, OmegaConfBaseException)) else f"{type(error).__name__}: "
    return one_line(f"configuration: {kind}{words}", limit=600)


def from_hydra(config: DictConfig) -> Request:
    """The request of the running Hydra job: its configuration resolved, its choices, what was overridden, its output folder."""
    hydra = HydraConfig.get()
    try:
        values = plain(config)
    except OmegaConfBaseException as error:
        raise InputError(refusal(error)) from None
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
