"""The weights of the training loss and the weighted sum itself.

total = classification + cl_loss_weight * contrastive + encoder_loss_weight * encoder + gate_reg_weight * gate_reg
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

#: Component of the loss -> the setting that weighs it; the classification loss has weight 1.
WEIGHT_OF = {"contrastive": "cl_loss_weight", "encoder": "encoder_loss_weight", "gate_reg": "gate_reg_weight"}


class LossWeightConfig:
    """The three loss weights, each a finite number >= 0. Raises ValueError naming the weight, its range and what
    came."""

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
        """Read the weights from an argparse namespace, a mapping or an OmegaConf node; what is missing or None keeps
        its default."""
        read = args.get if isinstance(args, Mapping) or hasattr(args, "get") else lambda name: getattr(args, name, None)
        found = {name: read(name) for name in WEIGHT_OF.values()}
        return cls(**{name: value for name, value in found.items() if value is not None})

    def get_weights(self) -> dict[str, float]:
        """The weights by name, in the order of the constructor."""
        return {name: getattr(self, name) for name in ("encoder_loss_weight", "cl_loss_weight", "gate_reg_weight")}

    def update(self, **weights: float) -> None:
        """Set some of the weights. All are checked before any is set."""
        checked = {name: _check_weight(name, value) for name, value in weights.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def of_components(self) -> dict[str, float]:
        """Component -> weight, classification (1.0) included, in the order of joyful.records.COMPONENTS."""
        weights = self.get_weights()
        return {"classification": 1.0, **{component: weights[name] for component, name in WEIGHT_OF.items()}}

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
    """The weighted sum of scalar losses, and its parts for monitoring.

    Returns (total, loss_dict): total carries the gradient; loss_dict has `classification`, `contrastive`, `encoder`,
    `gate_reg` (unweighted; 0 where none was given) and `total` (weighted), detached scalars on the losses' device, so
    that nothing here waits for the device. They format as numbers, which does wait.
    Raises ValueError for a loss that is not a scalar.
    """
    given = {"classification": classification_loss, "contrastive": contrastive_loss, "encoder": encoder_loss}
    components = {name: _scalar(name, loss) for name, loss in given.items()}
    components["gate_reg"] = components["classification"].new_zeros(()) if gate_reg_loss is None else gate_reg_loss
    return weighted_total(components, weight_config.of_components())


def weighted_total(
    components: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of weights[name] * components[name]; returns (total, {name: detached component} with "total")."""
    scalars = {name: _scalar(name, loss) for name, loss in components.items()}
    # A component of weight 0 stays out of the graph: its gradient need not be computed, and 0 * NaN would be NaN.
    terms = [
        loss if isinstance(weights[name], float) and weights[name] == 1.0 else weights[name] * loss
        for name, loss in scalars.items()
        if not (isinstance(weights[name], float) and weights[name] == 0.0)
    ]
    total = torch.stack(terms).sum() if terms else next(iter(scalars.values())) * 0.0
    return total, {**{name: loss.detach() for name, loss in scalars.items()}, "total": total.detach()}


def _scalar(name: str, loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        came = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"{name} loss: expected a scalar tensor, got {came}; reduce it to its mean first")
    return loss.reshape(())


def _check_weight(name: str, value: Any) -> float:
    if name not in WEIGHT_OF.values():
        raise ValueError(f"{name}: there is no such weight; set one of {', '.join(WEIGHT_OF.values())}")
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}; set e.g. {name}=0.03")
    return float(value)
