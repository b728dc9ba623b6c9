"""Moving average of the parameters, evaluated in place of the parameters themselves (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ParameterAverage:
    """average <- d average + (1 - d) parameter after each step, d = min(decay, (1 + step) / (10 + step)).

    decay 0 keeps none: the parameters themselves are evaluated.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._parameters, self.decay = parameters, decay
        self._average = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    def update(self, step: int) -> None:
        """Take in the parameters after optimizer step `step` (from 1)."""
        if self._average:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self._average.values()), [p.detach() for p in self._parameters.values()], 1 - decay
            )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's parameters are the averages; afterwards the parameters are back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, average in self._average.items():
            parameter = self._parameters[name]
            parameter.data, self._average[name] = average, parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self._average.items():
            average.copy_(state[name])
