"""Loss normalisation: brings losses of different scales to comparable scales before they are weighted.

log      log(1 + l)
minmax   (l - min) / (max - min), where min and max are the smallest and largest value of this loss so far
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

METHODS = ("log", "minmax")


class LossNormalizer:
    """Normalise losses by name. Gradients flow through the normalisation.

        "log"      log(1 + l)
        "minmax"   (l - min) / (max - min)

    min and max are the smallest and largest value of a loss so far, the current one included. They are constants for
    the gradient. A NaN or infinite loss does not change them. While max - min is at most `eps`, the range counts as 1.
    They stay on the device of the losses, so the host never waits for the device.

    Args:
        method: "log" or "minmax".
        eps: Smallest range of "minmax", in units of the loss.

    Raises:
        ValueError: If the method is unknown.

    Example:
        >>> import torch
        >>> normalizer = LossNormalizer("minmax")
        >>> for value in (2.0, 6.0, 3.0):
        ...     print(normalizer({"encoder": torch.tensor(value)}))
        {'encoder': tensor(0.)}
        {'encoder': tensor(1.)}
        {'encoder': tensor(0.2500)}
    """

    def __init__(self, method: str = "log", eps: float = 1e-8) -> None:
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}; set method='log'")
        self.method, self.eps = method, eps
        self._extremes: dict[str, Tensor] = {}  # name -> (2,), minimum and maximum

    def __call__(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalise losses and, for "minmax", update the extremes.

        Args:
            losses: Name -> scalar >= 0.

        Returns:
            Name -> normalised scalar, with gradient.
        """
        return {name: self._normalise(name, loss) for name, loss in losses.items()}

    def slopes(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the derivative of each normalised loss with respect to the loss.

        "log": 1 / (1 + l). "minmax": 1 / (max - min), with the extremes so far.

        Args:
            losses: Name -> scalar. For "minmax", each name must have been normalised before.

        Returns:
            Name -> scalar without gradient.
        """
        if self.method == "log":
            return {name: 1 / (1 + loss.detach().reshape(())) for name, loss in losses.items()}
        return {name: 1 / self._span(self._extremes[name]) for name in losses}

    def _normalise(self, name: str, loss: Tensor) -> Tensor:
        if self.method == "log":
            return torch.log1p(loss)
        value = loss.detach().reshape(())
        value = torch.where(torch.isfinite(value), value, torch.nan)  # fmin and fmax ignore NaN
        extremes = self._extremes.get(name)
        extremes = torch.stack([value, value]) if extremes is None else extremes.to(value)
        extremes = torch.stack([torch.fmin(extremes[0], value), torch.fmax(extremes[1], value)])
        self._extremes[name] = extremes
        return (loss - extremes[0]) / self._span(extremes)

    def _span(self, extremes: Tensor) -> Tensor:
        # The range is unknown until there are two different values. A range of 1 does not change the gradient.
        span = extremes[1] - extremes[0]
        return torch.where(span > self.eps, span, torch.ones_like(span))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the extremes by name, (2,) tensors of minimum and maximum. Empty for "log"."""
        return {name: value.clone() for name, value in self._extremes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the extremes from a `state_dict`."""
        self._extremes = {name: value.clone() for name, value in state.items()}
