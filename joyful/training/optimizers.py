"""Adam, AdamW, SGD with momentum and RMSprop, and a learning rate schedule that reacts to plateaus.

The updates use torch's fused kernels, and for RMSprop its foreach operations. The optimizer classes of torch are not
used, because their first step imports the compiler (torch._dynamo). This would take seconds and tens of MiB in every
run and every worker of a sweep. The entries of the state have the same names and values as in torch.

Sources: Kingma & Ba 2015 (Adam); Loshchilov & Hutter 2019 (AdamW); Polyak 1964 (momentum); Tieleman & Hinton 2012
(RMSprop).
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
    """Base class of the optimizers. A step skips parameters without a gradient, and their state.

    Args:
        parameters: The parameters to update in place.
        lr: Learning rate.
        weight_decay: Added to the gradient as weight_decay * parameter. AdamW instead subtracts
            lr * weight_decay * parameter from the parameter.
        names: Names of the tensors of a parameter's state.

    Attributes:
        lr: Learning rate of the next step. It may be set between steps.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float, names: tuple[str, ...]) -> None:
        self.parameters, self.lr, self.weight_decay, self.names = list(parameters), lr, weight_decay, names
        # All state is allocated here. Allocated in the first step, it would fragment the memory that this step frees.
        self._state = [self._zeros(parameter) for parameter in self.parameters]
        self._updated: set[int] = set()  # indices of the parameters that have had a gradient

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient. Never waits for the device."""
        parameters, gradients, states = [], [], []
        for index, (parameter, state) in enumerate(zip(self.parameters, self._state, strict=True)):
            if parameter.grad is None:
                continue
            self._updated.add(index)
            parameters.append(parameter)
            gradients.append(parameter.grad)
            states.append(state)
        if parameters:
            self._update(parameters, gradients, {name: [s[name] for s in states] for name in self.names})

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state by "<index of the parameter>.<name>", for parameters that have had a gradient."""
        return {f"{i}.{name}": value for i in sorted(self._updated) for name, value in self._state[i].items()}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Copy the state from a `state_dict`.

        Raises:
            ValueError: If it belongs to a different optimizer or to other parameters. The state is then unchanged.
        """
        states: list[State] = [{} for _ in self.parameters]
        for key, value in saved.items():
            number, _, name = key.partition(".")
            if not number.isdecimal() or int(number) >= len(states) or name not in self.names:
                raise ValueError(
                    f"optimizer.{key}: expected {', '.join(self.names) or 'no state'} of {len(states)} parameters"
                )
            parameter = self.parameters[int(number)]
            shape = () if name == "step" else tuple(parameter.shape)
            if tuple(value.shape) != shape:
                raise ValueError(f"optimizer.{key}: expected shape {shape}, got {tuple(value.shape)}")
            states[int(number)][name] = value
        for index, state in enumerate(states):
            if state and set(state) != set(self.names):
                raise ValueError(f"optimizer.{index}: expected {', '.join(self.names)}, got {', '.join(state)}")
        self._updated = {index for index, state in enumerate(states) if state}
        for own, state in zip(self._state, states, strict=True):
            for name, tensor in own.items():
                tensor.copy_(state[name]) if state else tensor.zero_()

    def _zeros(self, parameter: Tensor) -> State:
        count = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return {name: count if name == "step" else torch.zeros_like(parameter) for name in self.names}

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        raise NotImplementedError


class Adam(Optimizer):
    """Adam: p -= lr m / (sqrt(v) + 1e-8).

    m and v are the bias-corrected moving averages of g and g^2, with decay rates 0.9 and 0.999.
    """

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
    """Adam with decoupled weight decay, which does not enter the moving averages."""

    _kernel = staticmethod(torch._fused_adamw_)


class SGD(Optimizer):
    """SGD with momentum: b = momentum b + g; p -= lr b."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(parameters, lr, weight_decay, ("momentum_buffer",) if momentum else ())
        self.momentum = momentum

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], state: Mapping[str, list[Tensor]]) -> None:
        torch._fused_sgd_(
            parameters, gradients, state.get("momentum_buffer", []), weight_decay=self.weight_decay,
            momentum=self.momentum, lr=self.lr, dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip


class RMSprop(Optimizer):
    """RMSprop: b = momentum b + g / (sqrt(v) + 1e-8); p -= lr b.

    v is the moving average of g^2 with decay rate 0.99.
    """

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
    """Return the optimizer of the settings group `optimizer` for these parameters."""
    lr, decay, momentum = settings.learning_rate, settings.weight_decay, settings.momentum
    if settings.name == "rmsprop":
        return RMSprop(parameters, lr, decay, momentum)
    if settings.name == "sgd":
        return SGD(parameters, lr, decay, momentum)
    return (AdamW if settings.name == "adamw" else Adam)(parameters, lr, decay)


class Plateau:
    """Reduces the learning rate when a metric stops improving, as torch's ReduceLROnPlateau with threshold 0.

    The learning rate is multiplied by `factor` after more than `patience` epochs in a row without a new minimum of the
    metric. NaN never counts as a new minimum.

    Args:
        optimizer: The optimizer whose `lr` is set.
        factor: Factor of a reduction.
        patience: Number of epochs without a new minimum that are tolerated.
        minimum: Lower bound of the learning rate.
    """

    #: Smaller changes of the learning rate are not applied.
    LEAST_CHANGE = 1e-8

    def __init__(self, optimizer: Optimizer, factor: float, patience: int, minimum: float) -> None:
        self._optimizer, self._factor, self._patience, self._minimum = optimizer, factor, patience, minimum
        self.best, self.bad = math.inf, 0

    def step(self, value: float) -> None:
        """Process the value of the metric after an epoch."""
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
        """Return the state, of types that JSON can represent."""
        return {"best": self.best, "num_bad_epochs": self.bad}

    def load_state_dict(self, saved: Mapping[str, float]) -> None:
        """Restore the state from a `state_dict`.

        Raises:
            KeyError: If an entry is missing.
        """
        self.best, self.bad = float(saved["best"]), int(saved["num_bad_epochs"])
