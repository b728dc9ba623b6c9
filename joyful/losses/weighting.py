"""How the weights of the loss move in training: fixed, adaptive, normalised, or balanced by gradient norms.

A weighting is called with the scalar components of one step and returns the total, the detached parts, and the weight
that each part had. Everything stays on the losses' device. To add one, write a class with `combine`, `state_dict` and
`load_state_dict` and name it in WEIGHTINGS.
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
    The first update sets the averages to the losses. A NaN loss leaves its average as it was.
    Raises ValueError for a momentum outside [0, 1), a negative weight, or a loss without an initial weight.
    """

    def __init__(self, initial_weights: Mapping[str, float], momentum: float = 0.9, eps: float = 1e-8) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum!r}; set momentum=0.9")
        for name, value in initial_weights.items():
            if not 0.0 <= float(value) < float("inf"):
                raise ValueError(f"initial_weights[{name!r}]: expected a finite number >= 0, got {value!r}; set e.g. 1.0")
        self.initial_weights = {name: float(value) for name, value in initial_weights.items()}
        self.momentum, self.eps = momentum, eps
        self._averages: dict[str, Tensor] = {}

    def update(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move the averages and return the new weights, scalars by name, without gradient."""
        unknown = sorted(set(losses) - set(self.initial_weights))
        if unknown:
            raise ValueError(f"losses {unknown}: no initial weight; set initial_weights for {', '.join(unknown)}")
        for name, loss in losses.items():
            value, old = loss.detach(), self._averages.get(name)
            moved = value if old is None else self.momentum * old.to(value) + (1 - self.momentum) * value
            self._averages[name] = moved if old is None else torch.where(torch.isfinite(moved), moved, old.to(value))
        return self.weights()

    def weights(self) -> dict[str, Tensor]:
        """The current weights; before the first update an empty dict."""
        raw = {name: self.initial_weights[name] / (mean + self.eps) for name, mean in self._averages.items()}
        if not raw:
            return {}
        total = torch.stack(list(raw.values())).sum()
        scale = sum(self.initial_weights[name] for name in raw) / (total + self.eps)
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
    """AdaptiveLossWeight started at the configured weights. The classification loss keeps weight 1, as the unit of the rest."""

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._adaptive: AdaptiveLossWeight | None = None
        self._loaded: Mapping[str, Tensor] = {}

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        configured = {name: config.of_components()[name] for name in components}
        # A component of weight 0 (or without a part in this model) must not take weight from the others.
        moving = {name: weight for name, weight in configured.items() if weight > 0}
        if self._adaptive is None:
            self._adaptive = AdaptiveLossWeight(moving, self.momentum)
            self._adaptive.load_state_dict(self._loaded)
        adapted = self._adaptive.update({name: components[name] for name in moving})
        unit = adapted["classification"]
        weights: dict[str, float | Tensor] = {name: adapted[name] / unit if name in adapted else 0.0 for name in components}
        weights["classification"] = 1.0
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._loaded) if self._adaptive is None else self._adaptive.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._loaded, self._adaptive = dict(state), None


class NormalisedWeighting(FixedWeighting):
    """Configured weights on normalised losses (LossNormalizer). The weight reported is w_k * normalised_k / l_k."""

    def __init__(self, method: str = "log") -> None:
        self.normalizer = LossNormalizer(method)

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        configured = config.of_components()
        normalised = self.normalizer(components)
        total, parts = weighted_total(normalised, {name: configured[name] for name in normalised})
        weights: dict[str, float | Tensor] = {}
        for name, loss in components.items():
            parts[name] = loss.detach().reshape(())
            safe = torch.where(parts[name] == 0, torch.ones_like(parts[name]), parts[name])
            weights[name] = configured[name] * normalised[name].detach().reshape(()) / safe
        return total, parts, weights

    def state_dict(self) -> dict[str, Tensor]:
        return self.normalizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.normalizer.load_state_dict(state)


class GradientBalancedWeighting(FixedWeighting):
    """A configured weight is the ratio of a part's gradient norm to the classification's on the shared parameters.

        w_k = w0_k * g_classification / g_k,   g: moving averages of gradient norms (after Chen et al. 2018, GradNorm)

    Until the first measurement, and for a part that has no gradient there, the configured weight itself holds.
    """

    needs_gradient_norms = True

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._norms: dict[str, Tensor] = {}

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        for name, norm in gradient_norms.items():
            old = self._norms.get(name)
            self._norms[name] = norm if old is None else self.momentum * old.to(norm) + (1 - self.momentum) * norm

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        weights: dict[str, float | Tensor] = {}
        unit = self._norms.get("classification")
        for name in components:
            configured, norm = config.of_components()[name], self._norms.get(name)
            if name == "classification" or unit is None or norm is None or configured == 0:
                weights[name] = configured
            else:
                ratio = unit / torch.where(norm > 0, norm, unit.clamp(min=torch.finfo(norm.dtype).tiny))
                weights[name] = configured * ratio
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._norms.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._norms = {name: value.clone() for name, value in state.items()}


#: weighting=NAME -> constructor of (momentum, normalisation method).
WEIGHTINGS: dict[str, Callable[[float, str], Weighting]] = {
    "fixed": lambda momentum, method: FixedWeighting(),
    "adaptive": lambda momentum, method: AdaptiveWeighting(momentum),
    "normalised": lambda momentum, method: NormalisedWeighting(method),
    "gradient_balanced": lambda momentum, method: GradientBalancedWeighting(momentum),
}
