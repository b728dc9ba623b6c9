"""Every private name of torch, Hydra and Optuna that this package uses, so that a new version is checked in one place.

Tried with torch 2.13.0, hydra-core and hydra-optuna-sweeper 1.4.0rc3, hydra-ray-launcher 1.4.0rc3 and Optuna 5.0.0.
`tests/test_compat.py` has a contract test of each, and asserts that no other module uses such a name. This module
imports these packages inside its functions only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
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


def start_ray(init: Any) -> None:
    """Connect to a Ray cluster as Hydra's Ray launcher does. The launcher calls it only when it launches.

    Args:
        init: The configuration `hydra.launcher.ray.init`.
    """
    from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray as start

    start(init)


def parse_search_space(overrides: Sequence[str]) -> tuple[dict[str, BaseDistribution], dict[str, Any], list[str]]:
    """Read overrides as the stock Optuna sweeper reads them, which has no public function for it.

    Returns:
        The distributions by name, the fixed values by name, and the other overrides.

    Raises:
        ValueError, NotImplementedError, AssertionError, hydra.errors.HydraException: If an override is invalid.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    space, fixed, rest = create_params_from_overrides(list(overrides))
    return space, fixed, rest


def grid_choices(distribution: BaseDistribution) -> list[Any]:
    """Return the values of a distribution in a grid of the stock Optuna sweeper, which exports no function for it.

    Raises:
        ValueError: If the distribution is an interval without a step.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    return list(OptunaSweeperImpl._to_grid_sampler_choices(distribution))


def optuna_models() -> Any:
    """Return the module with Optuna's tables.

    Optuna has no function that sets a finished trial to waiting again, and none that reads the states of all trials
    without their parameters and values.
    """
    from optuna.storages._rdb import models

    return models


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
