"""Loss normalisation: brings losses of different scales to comparable ones before they are weighted.

log      log(1 + l)
minmax   (l - min) / (max - min), with the least and greatest value seen so far of each loss
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

METHODS = ("log", "minmax")


class LossNormalizer:
    """Normalises losses by name. Call with {name: scalar tensor >= 0} -> {name: scalar tensor}; gradients flow through.

    The extremes of "minmax" are kept on the losses' device and never read by the host. Until two values further apart
    than `eps` were seen the range counts as 1. A NaN or infinite loss does not enter the extremes.
    Raises ValueError for another method.
    """

    def __init__(self, method: str = "log", eps: float = 1e-8) -> None:
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}; set method='log'")
        self.method, self.eps = method, eps
        self._extremes: dict[str, Tensor] = {}  # name -> (2,) least and greatest value

    def __call__(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._normalise(name, loss) for name, loss in losses.items()}

    def slopes(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Derivative of each normalised loss by the loss, at these losses and the extremes seen so far."""
        if self.method == "log":
            return {name: 1 / (1 + loss.detach().reshape(())) for name, loss in losses.items()}
        return {name: 1 / self._span(self._extremes[name]) for name in losses}

    def _normalise(self, name: str, loss: Tensor) -> Tensor:
        if self.method == "log":
            return torch.log1p(loss)
        value = loss.detach().reshape(())
        value = torch.where(torch.isfinite(value), value, torch.nan)  # which fmin and fmax pass over
        seen = self._extremes.get(name)
        seen = torch.stack([value, value]) if seen is None else seen.to(value)
        extremes = torch.stack([torch.fmin(seen[0], value), torch.fmax(seen[1], value)])
        self._extremes[name] = extremes
        return (loss - extremes[0]) / self._span(extremes)

    def _span(self, extremes: Tensor) -> Tensor:
        # Until two different values were seen the range is unknown: 1 leaves the gradient as it is.
        span = extremes[1] - extremes[0]
        return torch.where(span > self.eps, span, torch.ones_like(span))

    def state_dict(self) -> dict[str, Tensor]:
        """The extremes by name, (2,) tensors; empty for "log"."""
        return {name: value.clone() for name, value in self._extremes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up the extremes that `state_dict` gave."""
        self._extremes = {name: value.clone() for name, value in state.items()}
