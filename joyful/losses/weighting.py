"""Loss weightings: fixed, adaptive, on normalised losses, or balanced by gradient norms.

A weighting combines the scalar components of one training step into the total loss. All tensors stay on the device of
the losses, so the host never waits for the device.

To add a weighting, write a class with the methods of `Weighting` (it can inherit most of them from `FixedWeighting`)
and register it in `WEIGHTINGS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from joyful.losses.normalisation import LossNormalizer
from joyful.losses.weights import LossWeightConfig, weighted_total
from joyful.registry import Registry

#: Setting `weighting.name` -> class. The settings of the group `weighting` that are its parameters are passed to it.
WEIGHTINGS = Registry[type["Weighting"]]("weighting.name")

Combined = tuple[Tensor, dict[str, Tensor], dict[str, "float | Tensor"]]


class Weighting(Protocol):
    """The interface of a weighting, as `Coach` uses it.

    Attributes:
        needs_gradient_norms: Whether `observe` must be called with gradient norms from time to time.
    """

    needs_gradient_norms: bool

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Combine the components of one step into the total loss.

        Args:
            components: Name -> unweighted scalar with gradient.
            config: The configured weights.

        Returns:
            A tuple (total, parts, weights). total is a scalar with gradient. parts has the unweighted components and
            `total`, all detached. weights has the effective weight of each component: the factor of its gradient in
            the gradient of the total.
        """
        ...

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        """Record the gradient norm of each unweighted component on the shared parameters.

        Args:
            gradient_norms: Name of a component -> scalar >= 0.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint needs. Empty for a weighting without memory."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from a `state_dict`."""
        ...


class AdaptiveLossWeight:
    """Weights that are inversely proportional to a moving average of each loss.

        m_k <- momentum m_k + (1 - momentum) l_k
        w_k  = w0_k / (m_k + eps) * sum(w0) / sum(w0 / (m + eps))

    The sum of the weights is constant. The first update sets the averages to the losses. A NaN or infinite loss does
    not change its average.

    Args:
        initial_weights: Name of a loss -> w0, finite and >= 0.
        momentum: Momentum of the averages, in [0, 1).
        eps: Added to each average, in units of the loss.

    Raises:
        ValueError: If the momentum is out of range or an initial weight is negative or not finite.

    Example:
        >>> import torch
        >>> adaptive = AdaptiveLossWeight({"classification": 1.0, "encoder": 1.0})
        >>> adaptive.update({"classification": torch.tensor(1.0), "encoder": torch.tensor(3.0)})
        {'classification': tensor(1.5000), 'encoder': tensor(0.5000)}
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
        """Update the averages and return the new weights.

        Args:
            losses: Name -> scalar >= 0.

        Returns:
            Name -> scalar without gradient, for all losses so far.

        Raises:
            ValueError: If a loss has no initial weight.
        """
        unknown = sorted(set(losses) - set(self.initial_weights))
        if unknown:
            raise ValueError(f"losses {unknown}: no initial weight; set initial_weights for {', '.join(unknown)}")
        for name, loss in losses.items():
            self._averages[name] = _moving_average(self._averages.get(name), loss.detach().reshape(()), self.momentum)
        return self.weights()

    def weights(self) -> dict[str, Tensor]:
        """Return the current weights by name, scalars without gradient. Empty before the first update."""
        raw = {name: self.initial_weights[name] / (mean + self.eps) for name, mean in self._averages.items()}
        if not raw:
            return {}
        total = torch.stack(list(raw.values())).sum()
        scale = sum(self.initial_weights[name] for name in raw) / total.clamp(min=torch.finfo(total.dtype).tiny)
        return {name: weight * scale for name, weight in raw.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moving averages by name, scalars."""
        return {name: value.clone() for name, value in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averages from a `state_dict`."""
        self._averages = {name: value.clone() for name, value in state.items()}


@WEIGHTINGS.register("fixed", "constant weights")
class FixedWeighting:
    """Constant weights, as configured: total = sum of w0_k l_k."""

    needs_gradient_norms = False

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Return the total, the parts and the configured weights (see `Weighting.combine`)."""
        weights: dict[str, float | Tensor] = {name: config.component_weights()[name] for name in components}
        return *weighted_total(components, weights), weights

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        """Ignore the gradient norms."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ignore the state, which is empty."""


@WEIGHTINGS.register("adaptive", "weights inversely proportional to a moving average of each loss")
class AdaptiveWeighting(FixedWeighting):
    """Weights that are inversely proportional to a moving average of each loss, relative to the classification loss.

        w_k = w0_k m_classification / m_k

    The averages m are those of `AdaptiveLossWeight`, with the configured weights w0 as initial weights. The
    classification loss has weight 1. A component with configured weight 0 or without gradient has weight 0.

    Args:
        momentum: Momentum of the averages, in [0, 1).
    """

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._averages: dict[str, Tensor] = {}

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Update the averages; return the total, the parts and the weights (see `Weighting.combine`)."""
        configured = {name: config.component_weights()[name] for name in components}
        # A component without gradient is a constant: the model has no such part.
        trained = {
            name: weight
            for name, weight in configured.items()
            if weight > 0 and (name == "classification" or components[name].requires_grad)
        }
        adaptive = AdaptiveLossWeight(trained, self.momentum)
        adaptive.load_state_dict({name: average for name, average in self._averages.items() if name in trained})
        adapted = adaptive.update({name: components[name] for name in trained})
        self._averages |= adaptive.state_dict()
        unit = adapted["classification"]
        weights: dict[str, float | Tensor] = {
            name: adapted[name] / unit if name in adapted else 0.0 for name in components
        }
        weights["classification"] = 1.0
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages of the losses by name, scalars."""
        return {name: value.clone() for name, value in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averages from a `state_dict`."""
        self._averages = {name: value.clone() for name, value in state.items()}


@WEIGHTINGS.register("normalised", "constant weights of normalised losses")
class NormalisedWeighting(FixedWeighting):
    """Configured weights on losses that are normalised by `LossNormalizer`.

        total = sum of w0_k normalised(l_k)

    The effective weight is the factor of a component's gradient, w0_k d normalised(l_k) / d l_k. It is w0_k / (1 + l_k)
    for "log" and w0_k / (max_k - min_k) for "minmax".

    Args:
        normalisation: Method of the normalizer, "log" or "minmax".

    Raises:
        ValueError: If the method is unknown.
    """

    def __init__(self, normalisation: str = "log") -> None:
        self.normalizer = LossNormalizer(normalisation)

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Normalise the components; return the total, the parts and the weights (see `Weighting.combine`)."""
        configured = config.component_weights()
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
        """Return the state of the normalizer."""
        return self.normalizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of the normalizer from a `state_dict`."""
        self.normalizer.load_state_dict(state)


@WEIGHTINGS.register("gradient_balanced", "weights that keep the ratios of the gradient norms")
class GradientBalancedWeighting(FixedWeighting):
    """Weights that set the ratio of each component's gradient norm to that of the classification loss.

        g_k <- momentum g_k + (1 - momentum) n_k
        w_k  = w0_k g_classification / g_k

    n_k is the norm of the gradient of the unweighted component on the shared parameters. The configured weight w0_k is
    therefore the ratio of the weighted gradients. The configured weight itself is used before the first measurement,
    and for a component whose gradient norm is 0. A NaN or infinite norm does not change its average.

    Source: adapted from Z. Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", 2018.

    Args:
        momentum: Momentum of the averages, in [0, 1).
    """

    needs_gradient_norms = True

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self._norms: dict[str, Tensor] = {}

    def observe(self, gradient_norms: Mapping[str, Tensor]) -> None:
        """Update the averages of the gradient norms."""
        for name, norm in gradient_norms.items():
            self._norms[name] = _moving_average(self._norms.get(name), norm.detach().reshape(()), self.momentum)

    def combine(self, components: Mapping[str, Tensor], config: LossWeightConfig) -> Combined:
        """Return the total, the parts and the weights (see `Weighting.combine`)."""
        weights: dict[str, float | Tensor] = {}
        unit = self._norms.get("classification")
        for name in components:
            configured, norm = config.component_weights()[name], self._norms.get(name)
            if name == "classification" or unit is None or norm is None or configured == 0:
                weights[name] = configured
            else:
                weights[name] = configured * torch.where(norm > 0, unit / norm, torch.ones_like(norm))
        return *weighted_total(components, weights), weights

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages of the gradient norms by name, scalars."""
        return {name: value.clone() for name, value in self._norms.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averages from a `state_dict`."""
        self._norms = {name: value.clone() for name, value in state.items()}


def _moving_average(average: Tensor | None, value: Tensor, momentum: float) -> Tensor:
    """Return momentum * average + (1 - momentum) * value. If one of the two is not finite, return the other."""
    if average is None:
        return value
    average = average.to(value)
    updated = torch.where(torch.isfinite(average), momentum * average + (1 - momentum) * value, value)
    return torch.where(torch.isfinite(value), updated, average)
