"""Every private name of torch, Hydra and Optuna that this package uses, so that a new version is checked in one place.

Tried with torch 2.13.0, hydra-core and hydra-optuna-sweeper 1.4.0rc3, hydra-ray-launcher 1.4.0rc3 and Optuna 5.0.0.
`tests/test_compat.py` has a contract test of each, and asserts that no other module uses such a name. This module
imports these packages inside its functions only.
"""

from __future__ import annotations

import copy
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from torch import Tensor

#: Pattern of the `_target_` of Hydra's own launchers and sweepers. Hydra's configuration names them by these modules.
HYDRA_PLUGINS = "hydra._internal.core_plugins.*"


def softmax_backward(gradient: Tensor, result: Tensor) -> Tensor:
    """Return the gradient with respect to x of `result` = softmax(x) over the last dimension.

    The public way is autograd, which needs x and stores its own copy of the result.
    """
    import torch

    return torch._softmax_backward_data(gradient, result, -1, result.dtype)


def relu_backward(gradient: Tensor, result: Tensor) -> Tensor:
    """Return `gradient` where `result` is positive and 0 elsewhere, in one pass. No public operation does this."""
    import torch

    masked: Tensor = torch.ops.aten.threshold_backward(gradient, result, 0)
    return masked


def use_deterministic_algorithms() -> None:
    """Have torch raise an error where an operation has no deterministic form, also in code that its compiler makes.

    `torch.use_deterministic_algorithms` imports the compiler for this, which takes a second.
    """
    import torch

    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(True)
    else:
        os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")  # the compiler reads it if it is imported later
        torch.set_deterministic_debug_mode("error")


#: The attribute in which torch keeps the form of a function that its compiler leaves out.
_LEFT_OUT = "__dynamo_disable"


def postpone_compiler() -> None:
    """Keep the optimizers of torch from importing its compiler (torch._dynamo), which takes more than a second.

    At the first call of some methods of an optimizer, torch imports the compiler to have it leave them out. There is no public
    way to prevent this. As soon as something else has imported the compiler, the methods behave as torch intends.
    """
    from torch.optim import SGD, Adam, Optimizer, RMSprop

    if _compiler_is_imported():
        return
    for method in (Optimizer.add_param_group, Optimizer.load_state_dict, Optimizer.state_dict, Optimizer.zero_grad):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, _LEFT_OUT):
            setattr(plain, _LEFT_OUT, _without_compiler(method, plain))
    for kind in (Adam, SGD, RMSprop):
        if kind.step.__code__.co_name == "_use_grad":
            kind.step = _step_without_compiler(kind.step)  # type: ignore[method-assign]


def _compiler_is_imported() -> bool:
    return "torch._dynamo" in sys.modules


def _without_compiler(method: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `plain` until the compiler is imported, and then what torch intends for `method`."""

    def call(*arguments: Any, **named: Any) -> Any:
        if not _compiler_is_imported():
            return plain(*arguments, **named)
        if getattr(plain, _LEFT_OUT, None) is call:
            delattr(plain, _LEFT_OUT)
        return method(*arguments, **named)

    return call


def _step_without_compiler(step: Any) -> Any:
    """Return the step of an optimizer, which torch wraps in a function that turns gradients off around it."""
    plain = step.__wrapped__

    @functools.wraps(plain)
    def call(self: Any, closure: Any = None) -> Any:
        import torch

        if _compiler_is_imported():
            return step(self, closure)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return plain(self, closure)

    return call


def start_ray(init: Any) -> None:
    """Connect to a Ray cluster as Hydra's Ray launcher does. The launcher calls it only when it launches.

    Args:
        init: The configuration `hydra.launcher.ray.init`.
    """
    from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray as start

    start(init)


@dataclass(frozen=True)
class SearchSpace:
    """Overrides as the stock Optuna sweeper reads them.

    Attributes:
        space: Parameter -> distribution.
        raw: Parameter -> those of its choices that are text of an override: lists, dictionaries, null, and strings with
            their quotes. Optuna stores them as strings. Its other strings are values.
        fixed: Parameter -> its single value, as text of an override.
        rest: The other overrides.
    """

    space: dict[str, BaseDistribution] = field(default_factory=dict)
    raw: dict[str, frozenset[str]] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def parse_search_space(overrides: Sequence[str], config_loader: ConfigLoader | None = None) -> SearchSpace:
    """Read overrides as the stock Optuna sweeper reads them, which has no public function for it.

    It also reads glob(...), as Hydra's basic sweeper does. shuffle(...) has no effect, because a study keeps the order
    of its choices.

    Args:
        overrides: The overrides.
        config_loader: Finds the options of the config groups for glob(...).

    Raises:
        ValueError, NotImplementedError, AssertionError, hydra.errors.HydraException: If an override is invalid.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, Glob, RangeSweep
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    parsed = SearchSpace()
    for override in OverridesParser.create(config_loader=config_loader).parse_overrides(list(overrides)):
        if override.is_delete():
            parsed.rest.append(str(override.input_line))
            continue
        name, value = override.get_key_element(), override.value()
        if isinstance(value, (ChoiceSweep, RangeSweep)):
            value.shuffle = False
        if isinstance(value, Glob):
            parsed.space[name] = CategoricalDistribution(_group_options(override))
            continue
        distribution = create_optuna_distribution_from_override(override)
        if isinstance(distribution, BaseDistribution):
            parsed.space[name] = distribution
            parsed.raw[name] = _raw_choices(override) if override.is_choice_sweep() else frozenset()
        else:
            parsed.fixed[name] = distribution
    return parsed


def _group_options(override: Override) -> list[str]:
    options = [str(option) for option in override.sweep_iterator()]
    if not options:
        raise ValueError(
            f"{override.input_line}: expected a pattern that matches an option of the config group "
            f"{override.key_or_group}, got none; set another pattern, or choice(A, B)"
        )
    return options


def _raw_choices(override: Override) -> frozenset[str]:
    """Return the choices that the stock sweeper returns as text of an override."""
    from hydra.core.override_parser.types import Transformer

    choices = list(override.sweep_iterator())
    raw = frozenset(Transformer.str(choice) for choice in choices if not isinstance(choice, (str, int, float)))
    for choice in choices:
        if isinstance(choice, str) and choice in raw:
            raise ValueError(f"{override.input_line}: expected different choices, got {choice} twice; remove one")
    return raw


def grid_choices(distribution: BaseDistribution) -> list[Any]:
    """Return the values of a distribution in a grid of the stock Optuna sweeper, which exports no function for it.

    Raises:
        ValueError: If the distribution is an interval without a step.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    return list(OptunaSweeperImpl._to_grid_sampler_choices(distribution))


def config_of_error(error: BaseException) -> DictConfig | None:
    """Return the whole configuration in which OmegaConf did not find a name, or None for any other error.

    The public attribute `parent_node` of the error is only the section that was reached, and a node does not have a public
    way to its root.
    """
    from omegaconf import DictConfig

    node: Any = getattr(error, "parent_node", None)
    root = None if node is None else node._get_root()
    return root if isinstance(root, DictConfig) else None


def hydra_parser() -> ArgumentParser:
    """Return the parser of Hydra's options, such as --multirun. `hydra.main` exports no function for it."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def optuna_models() -> Any:
    """Return the module with Optuna's tables.

    Optuna has no function that sets a finished trial to waiting again, and none that reads the states of all trials
    without their parameters and values.
    """
    from optuna.storages._rdb import models

    return models


def storage_view(backend: BaseStorage, hidden: str, pruned: Set[int]) -> BaseStorage:
    """Return Optuna's cached storage of a database, with other lists of trials for samplers and pruners.

    Like `optuna.storages.get_storage`, it returns a storage that is not a database unchanged.

    Optuna has no way to hide a trial from them. TPE learns nothing from a running trial, but it does from a pruned one.

    Args:
        backend: The storage.
        hidden: Name of a user attribute. Trials that have it are left out.
        pruned: Numbers of the running trials that are shown as pruned.
    """
    from optuna.storages import RDBStorage
    from optuna.storages._cached_storage import _CachedStorage
    from optuna.trial import TrialState

    if not isinstance(backend, RDBStorage):
        return backend

    def shown(trial: FrozenTrial) -> FrozenTrial:
        if trial.number not in pruned or trial.state != TrialState.RUNNING:
            return trial
        view = copy.copy(trial)
        view.state = TrialState.PRUNED
        return view

    class Storage(_CachedStorage):
        def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
            # the inherited method accepts only trials that it has read together with all others
            backend.set_trial_param(trial_id, name, value, distribution)

        def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
            trials = [shown(t) for t in super().get_all_trials(study_id, deepcopy) if hidden not in t.user_attrs]
            return trials if states is None else [trial for trial in trials if trial.state in states]

    return Storage(backend)


def main_description() -> dict[str, Any]:
    """Return how another process imports the main module of this one, as `multiprocessing` does: JSON types.

    The module `multiprocessing.spawn` is not documented, but its start method is.
    """
    from multiprocessing.spawn import get_preparation_data

    names = ("sys_path", "sys_argv", "orig_dir", "dir", "init_main_from_name", "init_main_from_path")
    data = get_preparation_data("")
    return {name: data[name] for name in names if name in data}


def import_main(description: Mapping[str, Any]) -> None:
    """Import the main module of another process as ``__mp_main__`` and ``__main__``, without running its main part.

    Args:
        description: The result of `main_description` in that process.
    """
    from multiprocessing.spawn import prepare

    prepare(dict(description))
