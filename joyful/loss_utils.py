"""The public loss functions and classes, re-exported from `joyful.losses`."""

from joyful.losses.classification import FocalLoss
from joyful.losses.normalisation import LossNormalizer
from joyful.losses.reconstruction import WeightedMSELoss, create_reconstruction_loss
from joyful.losses.weighting import AdaptiveLossWeight
from joyful.losses.weights import LossWeightConfig, compute_training_loss

__all__ = [
    "AdaptiveLossWeight",
    "FocalLoss",
    "LossNormalizer",
    "LossWeightConfig",
    "WeightedMSELoss",
    "compute_training_loss",
    "create_reconstruction_loss",
]
