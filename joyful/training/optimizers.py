"""The optimizers of torch by the names of the settings, and their state as named tensors for checkpoints.

The fused kernels of torch are used where there is one that fits. That of SGD fails if the first gradient of a parameter
comes after the first step, as for a head that is trained later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from joyful.compat import postpone_compiler
from joyful.config import OptimizerSettings
from joyful.registry import Registry

#: Name -> function that returns the optimizer of some parameters. `optimizer.name` selects it. The learning rate of all
#: parameters is the same. All values of the optimizer's state must be tensors, scalars or shaped as the parameter.
OPTIMIZERS = Registry[Callable[[Sequence[Tensor], OptimizerSettings], Optimizer]]("optimizer.name")


@OPTIMIZERS.register("adam", "Adam (Kingma & Ba 2015)")
def _adam(parameters: Sequence[Tensor], s: OptimizerSettings) -> Optimizer:
    return torch.optim.Adam(parameters, s.learning_rate, weight_decay=s.weight_decay, fused=True)


@OPTIMIZERS.register("adamw", "Adam with decoupled weight decay (Loshchilov & Hutter 2019)")
def _adamw(parameters: Sequence[Tensor], s: OptimizerSettings) -> Optimizer:
    return torch.optim.AdamW(parameters, s.learning_rate, weight_decay=s.weight_decay, fused=True)


@OPTIMIZERS.register("sgd", "SGD with momentum (Polyak 1964)")
def _sgd(parameters: Sequence[Tensor], s: OptimizerSettings) -> Optimizer:
    return torch.optim.SGD(parameters, s.learning_rate, s.momentum, weight_decay=s.weight_decay, foreach=True)


@OPTIMIZERS.register("rmsprop", "RMSprop (Tieleman & Hinton 2012)")
def _rmsprop(parameters: Sequence[Tensor], s: OptimizerSettings) -> Optimizer:
    return torch.optim.RMSprop(
        parameters, s.learning_rate, weight_decay=s.weight_decay, momentum=s.momentum, foreach=True
    )


def build_optimizer(settings: OptimizerSettings, parameters: Sequence[Tensor]) -> Optimizer:
    """Return the optimizer of the settings group `optimizer` for these parameters.

    A step skips parameters without a gradient, and their state, and never waits for the device.

    Raises:
        InputError: If there is no optimizer of that name.
    """
    postpone_compiler()
    return OPTIMIZERS[settings.name](parameters, settings)


def learning_rate(optimizer: Optimizer) -> float:
    """Return the learning rate of the next step."""
    return float(optimizer.param_groups[0]["lr"])


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = value


def state_shapes(settings: OptimizerSettings) -> dict[str, bool]:
    """Return the names of the tensors in the state of a parameter.

    Returns:
        Name -> whether the tensor is shaped as the parameter. The others are scalars.
    """
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.zeros(2)
    optimizer = build_optimizer(settings, [parameter])
    optimizer.step()
    return {name: value.shape == parameter.shape for name, value in optimizer.state[parameter].items()}


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state by "<index of the parameter>.<name>", for parameters that have had a gradient."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index in sorted(states) for name, value in states[index].items()}


def load_state_tensors(optimizer: Optimizer, settings: OptimizerSettings, saved: Mapping[str, Tensor]) -> None:
    """Copy the state from `state_tensors`, also from those that joyful 0.1 has saved.

    Args:
        optimizer: The optimizer to change, from `build_optimizer`.
        settings: The settings that it was built with.
        saved: The tensors, on any device.

    Raises:
        ValueError: If they belong to a different optimizer or to other parameters. The state is then unchanged.
    """
    shapes = state_shapes(settings)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Any]] = {}
    for key, value in saved.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters) or name not in shapes:
            raise ValueError(
                f"optimizer.{key}: expected {', '.join(shapes) or 'no state'} of {len(parameters)} parameters"
            )
        shape = tuple(parameters[int(number)].shape) if shapes[name] else ()
        if tuple(value.shape) != shape:
            raise ValueError(f"optimizer.{key}: expected shape {shape}, got {tuple(value.shape)}")
        states.setdefault(int(number), {})[name] = value.clone()
    for index, state in states.items():
        if settings.name == "rmsprop":  # torch counts its steps without using the number, which joyful 0.1 did not save
            state.setdefault("step", torch.zeros(()))
        if set(state) != set(shapes):
            raise ValueError(f"optimizer.{index}: expected {', '.join(shapes)}, got {', '.join(state)}")
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
