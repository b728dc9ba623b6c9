"""What the sweeper reads from the configuration of a trial: its identity, its digest and its output folder."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from joyful.records import InputError
from joyful.runtime.hydra_request import literal

#: An interpolation whose value depends on the job or the time: one with a resolver, or one of Hydra's own settings.
_OF_THE_JOB = re.compile(r"\$\{\s*(?:[\w.]+\s*:|hydra\b)")


def identity(config: DictConfig) -> dict[str, Any]:
    """Return what identifies the configuration of a trial, as plain containers without the section hydra.

    References to other settings are resolved. Interpolations with a resolver, such as ``${now:%Y}`` or
    ``${hydra:runtime.output_dir}``, remain text, because their values depend on the job.

    Args:
        config: The composed configuration.

    Raises:
        InputError: If a mandatory value is missing.
        OmegaConfBaseException: If an interpolation is invalid.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    del plain["hydra"]
    literals, missing = _with_literals(plain, "")
    if missing:
        raise InputError(f"{missing[0]}: expected a value, got none (???); set {missing[0]}=VALUE")
    values: Any = OmegaConf.to_container(OmegaConf.create(literals), resolve=True)
    return dict(json.loads(json.dumps(values, default=str)))


def _with_literals(value: Any, name: str) -> tuple[Any, list[str]]:
    """Return a value whose interpolations of the job are text, and the names of the mandatory values that it lacks."""
    if isinstance(value, dict):
        parts = {key: _with_literals(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()}
        return {key: part for key, (part, _) in parts.items()}, [x for _, lacks in parts.values() for x in lacks]
    if isinstance(value, list):
        items = [_with_literals(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return [item for item, _ in items], [x for _, lacks in items for x in lacks]
    if value == "???":
        return value, [name]
    return (literal(value) if isinstance(value, str) and _OF_THE_JOB.search(value) else value), []


def digest_of(values: Mapping[str, Any]) -> str:
    """Return a digest of a configuration: the first 16 hexadecimal digits of the SHA-256 of its JSON text.

    Values that JSON does not have, such as paths, count by their text.

    Example:
        >>> digest_of({"a": 1}) == digest_of({"a": 1}) != digest_of({"a": 1.0})
        True
    """
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def output_folder(config: DictConfig) -> Path:
    """Return the absolute output folder of a trial, as Hydra's `run_job` chooses it."""
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, None
    try:
        instance.set_config(config)  # for interpolations with the resolver hydra
        return Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).absolute()
    finally:
        instance.cfg = before


def without(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a nested configuration without some settings.

    Args:
        config: The configuration, as plain containers.
        names: Dotted names of settings or sections; those that the configuration does not have are ignored.

    Example:
        >>> without({"data": {"root": "/a", "name": "meld"}, "seed": 1}, ["data.root", "track"])
        {'data': {'name': 'meld'}, 'seed': 1}
    """
    copied = copy.deepcopy(dict(config))
    for name in names:
        pop_key(copied, name)
    return copied


def pop_key(config: dict[str, Any], name: str) -> Any:
    """Remove a setting from a nested configuration, in place, and return its value; None if there is none.

    Args:
        config: The configuration, as plain containers.
        name: Dotted name of the setting.

    Example:
        >>> config = {"train": {"seed": 3, "steps": 5}}
        >>> pop_key(config, "train.seed"), config
        (3, {'train': {'steps': 5}})
    """
    *sections, last = name.split(".")
    section: Any = config
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    return section.pop(last, None) if isinstance(section, dict) else None
