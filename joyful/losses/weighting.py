"""How the weights of the loss move in training: fixed, adaptive, normalised, or balanced by gradient norms.

A weighting is called with the scalar components of one step and returns the total, the detached parts, and the weight
that each part had. Everything stays on the losses' device. To add one, write a class as `Weighting` describes it (most
of it can come from FixedWeighting) and name it in WEIGHTINGS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from joyful.losses.normalisation import LossNormalizer
from joyful.losses.weights import LossWeightConfig, weighted_total

Combined = tuple[Tensor, dict[str, Tensor], dict[str, "float | Tensor"]]


class Weighting(Protocol):
    """What the Coach needs of a weighting."""

    needs_gradient_norms: bool

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Total (with gradient), parts as of compute_training_loss, and effective weight of each part."""
        ...

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        """Take note of the gradient norm of each unweighted component on the shared parameters."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class AdaptiveLossWeight:
    """Weights inversely proportional to a moving average of each loss.

        m_k <- momentum m_k + (1 - momentum) l_k,     w_k = w0_k / m_k * sum(w0) / sum(w0 / m)

    so that the weights keep their sum. initial_weights: {name: number >= 0}; losses are scalars >= 0 by those names.
    The first update sets the averages to the losses. A NaN or infinite loss leaves its average as it was.
    Raises ValueError for a momentum outside [0, 1), a negative weight, or a loss without an initial weight.
    """

    def __init__(self, initial_weights: Mapping[str, float], momentum: float = 0.9, eps: float = 1e-8) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum!r}; set momentum=0.9")
        for name, value in initial_weights.items():
            if not 0.0 <= float(value) < float("inf"):
                raise ValueError(
                    f"initial_weights[{name!r}]: expected a finite number >= 0, got {value!r}; set e.g. 1.0"
                )
        self.initial_weights = {name: float(value) for name, value in initial_weights.items()}
        self.momentum, self.eps = momentum, eps
        self._averages: dict[str, Tensor] = {}

    def update(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move the averages and return the new weights, scalars by name, without gradient."""
        unknown = sorted(set(losses) - set(self.initial_weights))
        if unknown:
            raise ValueError(f"losses {unknown}: no initial weight; set initial_weights for {', '.join(unknown)}")
        for name, loss in losses.items():
            self._averages[name] = _moved(self._averages.get(name), loss.detach().reshape(()), self.momentum)
        return self.weights()

    def weights(self) -> dict[str, Tensor]:
        """The current weights; before the first update an empty dict."""
        raw = {name: self.initial_weights[name] / (mean + self.eps) for name, mean in self._averages.items()}
        if not raw:
            return {}
        total = torch.stack(list(raw.values())).sum()
        scale = sum(self.initial_weights[name] for name in raw) / total.clamp(min=torch.finfo(total.dtype).tiny)
        return {name: weight * scale for name, weight in raw.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The moving averages by name, scalars."""
        return {name: value.clone() for name, value in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up the averages that `state_dict` gave."""
        self._averages = {name: value.clone() for name, value in state.items()}


class FixedWeighting:
    """The configured weights, unchanged."""

    needs_gradient_norms = False

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        weights: dict[str, float | Tensor] = {name: config.of_components()[name] for name in components}
        return *weighted_total(components, weights), weights

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        """Nothing to note."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take up."""


class AdaptiveWeighting(FixedWeighting):
    """AdaptiveLossWeight from the configured weights. The classification loss keeps weight 1, as the unit of the
    rest."""

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._averages: dict[str, Tensor] = {}

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        configured = {name: config.of_components()[name] for name in components}
        # A component of weight 0, or one that this model has no part for (a constant), moves nothing and gets weight 0.
        moving = {
            name: weight
            for name, weight in configured.items()
            if weight > 0 and (name == "classification" or components[name].requires_grad)
        }
        adaptive = AdaptiveLossWeight(moving, self.momentum)
        adaptive.load_state_dict({name: average for name, average in self._averages.items() if name in moving})
        adapted = adaptive.update({name: components[name] for name in moving})
        self._averages |= adaptive.state_dict()
        unit = adapted["classification"]
        weights: dict[str, float | Tensor] = {
            name: adapted[name] / unit if name in adapted else 0.0 for name in components
        }
        weights["classification"] = 1.0
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._averages = {name: value.clone() for name, value in state.items()}


class NormalisedWeighting(FixedWeighting):
    """Configured weights on normalised losses (LossNormalizer). The weight reported is what a part's gradient carries,
    w_k d(normalised_k) / d(l_k): w_k / (1 + l_k) for log, w_k / range_k for min-max."""

    def __init__(self, method: str = "log") -> None:
        self.normalizer = LossNormalizer(method)

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        configured = config.of_components()
        normalised = self.normalizer(components)
        total, parts = weighted_total(normalised, {name: configured[name] for name in normalised})
        slopes = self.normalizer.slopes(components)
        weights: dict[str, float | Tensor] = {
            name: configured[name] * slopes[name] if configured[name] else 0.0 for name in components
        }
        return (
            total,
            {**{name: loss.detach().reshape(()) for name, loss in components.items()}, "total": parts["total"]},
            weights,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return self.normalizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.normalizer.load_state_dict(state)


class GradientBalancedWeighting(FixedWeighting):
    """A configured weight is the ratio of a part's gradient norm to the classification's on the shared parameters.

        w_k = w0_k * g_classification / g_k,   g: moving averages of gradient norms (after Chen et al. 2018, GradNorm)

    Until the first measurement, and for a part that has no gradient there, the configured weight itself holds. A NaN or
    infinite norm leaves its average as it was.
    """

    needs_gradient_norms = True

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._norms: dict[str, Tensor] = {}

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        for name, norm in gradient_norms.items():
            self._norms[name] = _moved(self._norms.get(name), norm.detach().reshape(()), self.momentum)

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        weights: dict[str, float | Tensor] = {}
        unit = self._norms.get("classification")
        for name in components:
            configured, norm = config.of_components()[name], self._norms.get(name)
            if name == "classification" or unit is None or norm is None or configured == 0:
                weights[name] = configured
            else:
                weights[name] = configured * torch.where(norm > 0, unit / norm, torch.ones_like(norm))
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._norms.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._norms = {name: value.clone() for name, value in state.items()}


def _moved(average: Tensor | None, value: Tensor, momentum: float) -> Tensor:
    """momentum average + (1 - momentum) value; where one of the two is not finite, the other."""
    if average is None:
        return value
    average = average.to(value)
    moved = torch.where(torch.isfinite(average), momentum * average + (1 - momentum) * value, value)
    return torch.where(torch.isfinite(value), moved, average)


#: weighting=NAME -> constructor of (momentum, normalisation method).
WEIGHTINGS: dict[str, Callable[[float, str], Weighting]] = {
    "fixed": lambda momentum, method: FixedWeighting(),
    "adaptive": lambda momentum, method: AdaptiveWeighting(momentum),
    "normalised": lambda momentum, method: NormalisedWeighting(method),
    "gradient_balanced": lambda momentum, method: GradientBalancedWeighting(momentum),
}
