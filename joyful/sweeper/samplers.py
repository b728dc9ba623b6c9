"""Samplers and pruners of a sweep: build them from the configuration, in the driver and in its workers.

Only what the user set reaches them. The sampler files of hydra-optuna-sweeper repeat Optuna's defaults of an earlier
version, and Optuna's own defaults hold instead: with `sampler=tpe`, these are `multivariate` for one objective and
`constant_liar=true`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigLoadError
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from joyful.records import InputError, one_line
from joyful.runtime.config_errors import config_error_message, is_explained

#: Names that the `_target_` of a sampler or pruner may always have.
TARGETS = (
    "hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "optuna.pruners.*", "joyful.sweeper.pausing.PromotionPruner"
)  # fmt: skip

#: Config group of the samplers, and its place in the configuration.
_GROUP, _PLACE = "hydra/sweeper/sampler", "hydra.sweeper.sampler"


def allowed_targets(program: Any) -> tuple[str, ...]:
    """Return the names that `_target_` may have: TARGETS, those of the program, and those in JOYFUL_TARGETS.

    Workers may run without this environment variable, so the driver hands them the names.

    Args:
        program: The execution whitelist of the program, `HydraContext.execution_whitelist`; None if it has none.
    """
    of_program = program if isinstance(program, (list, tuple)) else ()
    of_user = filter(None, os.environ.get("JOYFUL_TARGETS", "").split(","))
    return tuple(dict.fromkeys([*TARGETS, *of_program, *of_user]))


def set_by_user(config: Mapping[str, Any], choice: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return a sampler's configuration without the defaults of the stock file that the user did not set.

    A value counts as set if an override names it, or if it differs from the stock file.

    Args:
        config: The composed configuration of the sampler.
        choice: The option of the group hydra/sweeper/sampler. The files of other packages are kept whole.
        overrides: The overrides of Hydra's settings, `hydra.overrides.hydra`, unresolved.

    Example:
        >>> tpe = {"_target_": "optuna.samplers.TPESampler", "multivariate": False, "constant_liar": False}
        >>> set_by_user(tpe, "tpe", ["hydra.sweeper.sampler.constant_liar=false"])
        {'_target_': 'optuna.samplers.TPESampler', 'constant_liar': False}
    """
    named: set[str] = set()
    own = [text for text in overrides if text.lstrip("+").startswith(_PLACE)]
    for override in OverridesParser.create().parse_overrides(own):
        value = override.value()
        if override.key_or_group == _PLACE and isinstance(value, Mapping):
            named |= value.keys()
        elif override.key_or_group.startswith(f"{_PLACE}."):
            named.add(override.key_or_group.removeprefix(f"{_PLACE}.").split(".")[0])
    stock = _stock_file(choice)
    return {
        name: value
        for name, value in config.items()
        if name.startswith("_") or name in named or name not in stock or value != stock[name]
    }


def _stock_file(choice: str | None) -> Mapping[str, Any]:
    import_module("hydra_plugins.hydra_optuna_sweeper.config")  # registers the files
    try:
        stored = ConfigStore.instance().load(f"{_GROUP}/{choice}.yaml")
    except ConfigLoadError:
        return {}
    if stored.provider != "optuna_sweeper":
        return {}
    stock: dict[str, Any] = OmegaConf.to_container(stored.node)  # type: ignore[assignment]
    return stock


@dataclass(frozen=True)
class SamplerBuilder:
    """Builds the samplers of a sweep. Picklable; it builds them in workers without the surroundings of the driver.

    Attributes:
        config: The configuration of the sampler, with what the user set.
        allowed: Names that `_target_` may have.
    """

    config: Mapping[str, Any]
    allowed: tuple[str, ...]

    @property
    def kind(self) -> Any:
        """Return the class or function that `_target_` names.

        Raises:
            InputError: If there is none, if it is not allowed, or if a value of the configuration is invalid.
        """
        return self._partial().func

    def __call__(self, seed: int) -> BaseSampler:
        """Return a sampler.

        Args:
            seed: Its seed. A sampler without a parameter `seed` is built without it.

        Raises:
            InputError: If it cannot be built.
        """
        build = self._partial()
        parameters = inspect.signature(build.func).parameters.values()
        if any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            build = partial(build, seed=seed)
        try:
            sampler = build()
        except Exception as error:
            raise InputError(f"hydra/sweeper/sampler: {one_line(error, 500)}") from None
        if not isinstance(sampler, BaseSampler):
            raise InputError(
                f"hydra/sweeper/sampler: expected a sampler of Optuna, got {sampler!r:.100}; set _target_ to its class"
            )
        return sampler

    def _partial(self) -> partial[Any]:
        # `_partial_` delays the call until the seed is known, also for a configuration that sets it
        delayed: partial[Any] = build_object("sampler", {**self.config, "_partial_": True}, self.allowed)
        return delayed


def build_pruner(config: Mapping[str, Any], allowed: Sequence[str]) -> BasePruner:
    """Return a pruner.

    Args:
        config: The configuration of the pruner.
        allowed: Names that `_target_` may have.

    Raises:
        InputError: If it cannot be built.
    """
    pruner = build_object("pruner", config, allowed)
    if not isinstance(pruner, BasePruner):
        raise InputError(
            f"hydra/sweeper/pruner: expected a pruner of Optuna, got {pruner!r:.100}; set _target_ to its class"
        )
    return pruner


def build_object(group: str, config: Mapping[str, Any], allowed: Sequence[str]) -> Any:
    """Return the object of a section of `hydra.sweeper` with `_target_`.

    Args:
        group: Name of the section.
        config: Its configuration.
        allowed: Names that `_target_` may have.

    Raises:
        InputError: If it is not allowed, or cannot be built.
    """
    target = config.get("_target_")
    if not isinstance(target, str):
        raise InputError(
            f"hydra.sweeper.{group}._target_: expected the name of a class, got {target!r}; set hydra/sweeper/{group}"
        )
    if not any(target == name or (name.endswith(".*") and target.startswith(name[:-1])) for name in allowed):
        expected = "a class" if group == "check" else "a class of Optuna"
        raise InputError(
            f"hydra.sweeper.{group}._target_: expected {expected}, got {target}, which is not allowed; to allow "
            f"it, set the environment variable JOYFUL_TARGETS={target}"
        )
    try:
        return instantiate(config, _execution_whitelist_=allowed)
    except Exception as error:
        if is_explained(error):  # a _target_ inside it that is not allowed
            raise InputError(config_error_message(error)) from None
        raise InputError(f"hydra/sweeper/{group}: {one_line(error, 500)}") from None
