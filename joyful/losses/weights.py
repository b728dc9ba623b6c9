"""The weights of the training loss, and the weighted sum.

total = classification + cl_loss_weight * contrastive + encoder_loss_weight * encoder + gate_reg_weight * gate_reg
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

#: Component of the loss -> setting of its weight. The classification loss has weight 1.
WEIGHT_SETTINGS = {"contrastive": "cl_loss_weight", "encoder": "encoder_loss_weight", "gate_reg": "gate_reg_weight"}


class LossWeightConfig:
    """The weights of the training loss, relative to the classification loss, which has weight 1.

        total = classification + cl_loss_weight * contrastive + encoder_loss_weight * encoder
                + gate_reg_weight * gate_reg

    Two configurations with the same weights are equal.

    Args:
        encoder_loss_weight: Weight of the reconstruction loss, finite and >= 0.
        cl_loss_weight: Weight of the contrastive loss, finite and >= 0.
        gate_reg_weight: Weight of the gate regularisation, finite and >= 0.

    Raises:
        ValueError: If a weight is not a finite number >= 0.

    Example:
        >>> config = LossWeightConfig(encoder_loss_weight=0.05)
        >>> config.update(cl_loss_weight=0.1)
        >>> config
        LossWeightConfig(encoder_loss_weight=0.05, cl_loss_weight=0.1, gate_reg_weight=0.01)
    """

    def __init__(
        self, encoder_loss_weight: float = 0.03, cl_loss_weight: float = 0.2, gate_reg_weight: float = 0.01
    ) -> None:
        self.update(
            encoder_loss_weight=encoder_loss_weight, cl_loss_weight=cl_loss_weight, gate_reg_weight=gate_reg_weight
        )

    encoder_loss_weight: float
    cl_loss_weight: float
    gate_reg_weight: float

    @classmethod
    def from_args(cls, args: Any) -> LossWeightConfig:
        """Create a configuration from command-line arguments or settings.

        Args:
            args: An argparse namespace, a mapping or an OmegaConf node. Other entries are ignored.

        Returns:
            The configuration. A weight that is missing or None has its default value.

        Raises:
            ValueError: If a weight is not a finite number >= 0.

        Example:
            >>> LossWeightConfig.from_args({"cl_loss_weight": 0.1, "seed": 24}).get_weights()
            {'encoder_loss_weight': 0.03, 'cl_loss_weight': 0.1, 'gate_reg_weight': 0.01}
        """
        read = args.get if isinstance(args, Mapping) or hasattr(args, "get") else lambda name: getattr(args, name, None)
        weights = {name: read(name) for name in WEIGHT_SETTINGS.values()}
        return cls(**{name: value for name, value in weights.items() if value is not None})

    def get_weights(self) -> dict[str, float]:
        """Return the weights by name, in the order of the constructor."""
        return {name: getattr(self, name) for name in ("encoder_loss_weight", "cl_loss_weight", "gate_reg_weight")}

    def update(self, **weights: float) -> None:
        """Set some of the weights.

        Args:
            **weights: Name of a weight -> finite number >= 0.

        Raises:
            ValueError: If a name is unknown or a value is invalid. No weight is changed in that case.
        """
        checked = {name: _check_weight(name, value) for name, value in weights.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def component_weights(self) -> dict[str, float]:
        """Return the weight of each component, classification (1.0) included, in the order of `records.COMPONENTS`."""
        weights = self.get_weights()
        return {"classification": 1.0, **{component: weights[name] for component, name in WEIGHT_SETTINGS.items()}}

    def __repr__(self) -> str:
        return f"LossWeightConfig({', '.join(f'{name}={value}' for name, value in self.get_weights().items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LossWeightConfig) and self.get_weights() == other.get_weights()


def compute_training_loss(
    classification_loss: Tensor,
    contrastive_loss: Tensor,
    encoder_loss: Tensor,
    weight_config: LossWeightConfig,
    gate_reg_loss: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the loss components, and the components for monitoring.

        total = classification + cl_loss_weight * contrastive + encoder_loss_weight * encoder
                + gate_reg_weight * gate_reg

    A component of weight 0 is left out of the sum, so it has no gradient and its NaN does not reach the total. NaN in
    any other component makes the total NaN.

    Args:
        classification_loss: Scalar.
        contrastive_loss: Scalar.
        encoder_loss: Scalar, the reconstruction loss.
        weight_config: The weights.
        gate_reg_loss: Scalar, or None if the model has no gates (counts as 0).

    Returns:
        A tuple (total, loss_dict). total is a scalar with gradient. loss_dict has the unweighted components
        `classification`, `contrastive`, `encoder` and `gate_reg`, and `total`. Its values are detached scalars on the
        device of the losses, so this function does not wait for the device. Formatting them as numbers does.

    Raises:
        ValueError: If a loss is not a tensor with one element.

    Example:
        >>> import torch
        >>> total, loss_dict = compute_training_loss(
        ...     torch.tensor(1.0), torch.tensor(2.0), torch.tensor(0.5), LossWeightConfig(encoder_loss_weight=0.1)
        ... )
        >>> total  # 1 + 0.2 * 2 + 0.1 * 0.5
        tensor(1.4500)
        >>> loss_dict["encoder"]
        tensor(0.5000)
    """
    losses = {"classification": classification_loss, "contrastive": contrastive_loss, "encoder": encoder_loss}
    components = {name: _scalar(name, loss) for name, loss in losses.items()}
    components["gate_reg"] = components["classification"].new_zeros(()) if gate_reg_loss is None else gate_reg_loss
    return weighted_total(components, weight_config.component_weights())


def weighted_total(
    components: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of weights[name] * components[name], and the components.

    A component whose weight is the number 0.0 is left out of the sum.

    Args:
        components: Name -> scalar. At least one.
        weights: Name -> number or scalar, for every component.

    Returns:
        A tuple (total, parts). total is a scalar with gradient. parts has the unweighted components and `total`, all
        detached.

    Raises:
        ValueError: If a component is not a tensor with one element.

    Example:
        >>> import torch
        >>> weighted_total({"a": torch.tensor(1.0), "b": torch.tensor(3.0)}, {"a": 1.0, "b": 0.5})
        (tensor(2.5000), {'a': tensor(1.), 'b': tensor(3.), 'total': tensor(2.5000)})
    """
    scalars = {name: _scalar(name, loss) for name, loss in components.items()}
    # Leaving out components of weight 0 saves the computation of their gradients, and avoids 0 * NaN = NaN.
    terms = [
        loss if isinstance(weights[name], float) and weights[name] == 1.0 else weights[name] * loss
        for name, loss in scalars.items()
        if not (isinstance(weights[name], float) and weights[name] == 0.0)
    ]
    total = torch.stack(terms).sum() if terms else next(iter(scalars.values())) * 0.0
    return total, {**{name: loss.detach() for name, loss in scalars.items()}, "total": total.detach()}


def _scalar(name: str, loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"{name} loss: expected a scalar tensor, got {got}; reduce it to its mean first")
    return loss.reshape(())


def _check_weight(name: str, value: Any) -> float:
    if name not in WEIGHT_SETTINGS.values():
        raise ValueError(f"{name}: expected the name of a weight; set one of {', '.join(WEIGHT_SETTINGS.values())}")
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}; set e.g. {name}=0.03")
    return float(value)
