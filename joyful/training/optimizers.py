"""Adam, AdamW, SGD with momentum and RMSprop, and the plateau schedule of the learning rate.

The arithmetic is torch's: its fused kernels, for RMSprop its operations on lists. Its classes are not used: from their first step
on they load the compiler (torch._dynamo), which takes seconds and tens of MiB in every run and every worker of a sweep, for
nothing that is used here. Checkpoints hold the same tensors by the same names.

Sources: Kingma & Ba 2015 (Adam); Loshchilov & Hutter 2019 (AdamW); Polyak 1964 (momentum); Tieleman & Hinton 2012 (RMSprop).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from joyful.config import OptimizerSettings

State = dict[str, Tensor]


class Optimizer:
    """Changes `parameters` by their gradients; those without one are left alone, their state too.

    lr: the learning rate, may be set between steps. weight_decay: added to the gradient as weight_decay * parameter (AdamW: taken
    off the parameter as lr * weight_decay * parameter). names: of the tensors of a parameter's state.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float, names: tuple[str, ...]) -> None:
        self.parameters, self.lr, self.weight_decay, self.names = list(parameters), lr, weight_decay, names
        # all from the beginning: taken in the first step, their memory would stand among what that step frees
        self._state = [self._zeros(parameter) for parameter in self.parameters]
        self._begun: set[int] = set()  # places of the parameters that have had a gradient

    @torch.no_grad()
    def step(self) -> None:
        """One step by the gradients that there are. Never waits for the device."""
        parameters, gradients, states = [], [], []
        for place, (parameter, state) in enumerate(zip(self.parameters, self._state, strict=True)):
            if parameter.grad is None:
                continue
            self._begun.add(place)
            parameters.append(parameter)
            gradients.append(parameter.grad)
            states.append(state)
        if parameters:
            self._update(parameters, gradients, {name: [s[name] for s in states] for name in self.names})

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The state as "<number of the parameter>.<name>", of the parameters that have had a gradient."""
        return {f"{i}.{name}": value for i in sorted(self._begun) for name, value in self._state[i].items()}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave. Raises ValueError where it is that of another optimizer or other parameters."""
        states: list[State] = [{} for _ in self.parameters]
        for key, value in saved.items():
            number, _, name = key.partition(".")
            if not number.isdecimal() or int(number) >= len(states) or name not in self.names:
                raise ValueError(
                    f"optimizer.{key}: expected {', '.join(self.names) or 'no state'} of {len(states)} tensors"
                )
            parameter = self.parameters[int(number)]
            shape = () if name == "step" else tuple(parameter.shape)
            if tuple(value.shape) != shape:
                raise ValueError(f"optimizer.{key}: expected shape {shape}, got {tuple(value.shape)}")
            states[int(number)][name] = value
        for place, state in enumerate(states):
            if state and set(state) != set(self.names):
                raise ValueError(f"optimizer.{place}: expected {', '.join(self.names)}, got {', '.join(state)}")
        self._begun = {place for place, state in enumerate(states) if state}
        for own, state in zip(self._state, states, strict=True):
            for name, tensor in own.items():
                tensor.copy_(state[name]) if state else tensor.zero_()

    def _zeros(self, parameter: Tensor) -> State:
        count = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return {name: count if name == "step" else torch.zeros_like(parameter) for name in self.names}

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        raise NotImplementedError


class Adam(Optimizer):
    """m, v: moving averages (0.9, 0.999) of g and g^2, corrected for their start; p -= lr m / (sqrt(v) + 1e-8)."""

    _kernel: ClassVar[Any] = staticmethod(torch._fused_adam_)

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr, weight_decay, ("step", "exp_avg", "exp_avg_sq"))

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        torch._foreach_add_(state["step"], 1)
        self._kernel(
            parameters, gradients, state["exp_avg"], state["exp_avg_sq"], [], state["step"], lr=self.lr, beta1=0.9,
            beta2=0.999, weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay does not go through the moving averages."""

    _kernel = staticmethod(torch._fused_adamw_)


class SGD(Optimizer):
    """b = momentum b + g; p -= lr b."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(parameters, lr, weight_decay, ("momentum_buffer",) if momentum else ())
        self.momentum = momentum

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        torch._fused_sgd_(
            parameters, gradients, state.get("momentum_buffer", []), weight_decay=self.weight_decay,
            momentum=self.momentum, lr=self.lr, dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip


class RMSprop(Optimizer):
    """v: moving average (0.99) of g^2; b = momentum b + g / (sqrt(v) + 1e-8); p -= lr b."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        names = ("square_avg", "momentum_buffer") if momentum else ("square_avg",)
        super().__init__(parameters, lr, weight_decay, names)
        self.momentum = momentum

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        averages = state["square_avg"]
        if self.weight_decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=self.weight_decay))
        torch._foreach_mul_(averages, 0.99)
        torch._foreach_addcmul_(averages, gradients, gradients, value=1 - 0.99)
        roots = torch._foreach_sqrt(averages)
        torch._foreach_add_(roots, 1e-8)
        if self.momentum:
            buffers = state["momentum_buffer"]
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_addcdiv_(buffers, gradients, roots)
            torch._foreach_add_(parameters, buffers, alpha=-self.lr)
        else:
            torch._foreach_addcdiv_(parameters, gradients, roots, value=-self.lr)


def build_optimizer(settings: OptimizerSettings, parameters: Sequence[Tensor]) -> Optimizer:
    """The optimizer that `optimizer` names."""
    lr, decay, momentum = settings.learning_rate, settings.weight_decay, settings.momentum
    if settings.name == "rmsprop":
        return RMSprop(parameters, lr, decay, momentum)
    if settings.name == "sgd":
        return SGD(parameters, lr, decay, momentum)
    return (AdamW if settings.name == "adamw" else Adam)(parameters, lr, decay)


class Plateau:
    """Multiplies the learning rate by `factor` when a quantity has not fallen for more than `patience` looks; not below `minimum`.

    As torch's ReduceLROnPlateau with threshold 0. A quantity that is NaN has not fallen.
    """

    #: A change of the learning rate below this is not made.
    LEAST_CHANGE = 1e-8

    def __init__(self, optimizer: Optimizer, factor: float, patience: int, minimum: float) -> None:
        self._optimizer, self._factor, self._patience, self._minimum = optimizer, factor, patience, minimum
        self.best, self.bad = math.inf, 0

    def step(self, value: float) -> None:
        """Take in the quantity of one more epoch."""
        if value < self.best:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.bad > self._patience:
            lr = max(self._optimizer.lr * self._factor, self._minimum)
            if self._optimizer.lr - lr > self.LEAST_CHANGE:
                self._optimizer.lr = lr
            self.bad = 0

    def state_dict(self) -> dict[str, float]:
        """What JSON can hold."""
        return {"best": self.best, "num_bad_epochs": self.bad}

    def load_state_dict(self, saved: Mapping[str, float]) -> None:
        """Take up what `state_dict` gave. Raises KeyError where something is missing."""
        self.best, self.bad = float(saved["best"]), int(saved["num_bad_epochs"])
