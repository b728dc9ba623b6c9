"""Moving average of the parameters, used for evaluation instead of the parameters (Polyak & Juditsky 1992)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ParameterAverage:
    """Exponential moving average of the parameters of a model.

        average <- d average + (1 - d) parameter    after each step, with d = min(decay, (1 + step) / (10 + step))

    Args:
        parameters: Name -> parameter. The average starts at the current values.
        decay: From 0 to 1. With 0 no average is kept, and `applied` changes nothing.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._parameters, self.decay = parameters, decay
        self._average = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    def restart(self) -> None:
        """Start the average at the current values again."""
        for name, average in self._average.items():
            average.copy_(self._parameters[name].detach())

    def update(self, step: int) -> None:
        """Update the average with the parameters after optimizer step `step`, counted from 1."""
        if self._average:
            decay = min(self.decay, (1 + step) / (10 + step))
            update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            update(list(self._average.values()), list(self._parameters.values()), None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by their averages inside a `with` block, and restore them afterwards."""
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
        """Return the averages by parameter name; empty for decay 0."""
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the averages from a `state_dict`.

        Raises:
            KeyError: If the average of a parameter is missing.
        """
        for name, average in self._average.items():
            average.copy_(state[name])


def too_few_steps(decay: float, steps: int) -> str | None:
    """Return a message if a run is too short for its moving average; None if it is long enough.

    The average covers about 1 / (1 - decay) steps. A run of fewer than two such spans mostly evaluates early parameters:
    200 steps with a decay of 0.99.

    Args:
        decay: The setting training.moving_average, in [0, 1).
        steps: Optimizer steps of the run.

    Example:
        >>> print(too_few_steps(0.99, 80).partition(":")[0])
        training.moving_average=0.99 averages about 100 steps, but the run has 80; expected at least 200
        >>> too_few_steps(0.99, 400) is None
        True
    """
    span = 1 / (1 - decay)
    enough = math.ceil(2 * span - 1e-6)  # 1 / (1 - 0.9) is a little more than 10
    if not decay or steps >= enough:
        return None
    fitting = math.floor(100 * (1 - 2 / max(steps, 2))) / 100  # 2 / (1 - decay) <= steps
    return (
        f"training.moving_average={decay:g} averages about {span:.0f} steps, but the run has {steps}; expected at least"
        f" {enough}: set training.moving_average={fitting:g}, more training.epochs, or training.batch_size=auto"
    )
