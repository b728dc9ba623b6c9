"""joyful.loss_utils has the names, signatures and defaults of the note, which the design fixes."""

import inspect
import subprocess
import sys

import pytest
import torch

from joyful import loss_utils

SIGNATURES = {
    "create_reconstruction_loss": {"use_smooth_l1": False, "reduction": "mean"},
    "LossWeightConfig": {"encoder_loss_weight": 0.03, "cl_loss_weight": 0.2, "gate_reg_weight": 0.01},
    "compute_training_loss": {
        "classification_loss": ..., "contrastive_loss": ..., "encoder_loss": ..., "weight_config": ..., "gate_reg_loss": None
    },
    "WeightedMSELoss": {"modal_weights": None, "reduction": "mean"},
    "WeightedMSELoss.forward": {"self": ..., "pred": ..., "target": ..., "modal_dims": None},
    "FocalLoss": {"alpha": 1.0, "gamma": 2.0, "class_weights": None, "reduction": "mean"},
    "FocalLoss.forward": {"self": ..., "logits": ..., "labels": ...},
    "AdaptiveLossWeight": {"initial_weights": ..., "momentum": 0.9, "eps": 1e-8},
    "LossWeightConfig.from_args": {"args": ...},
    "LossWeightConfig.get_weights": {"self": ...},
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    attribute = loss_utils
    for part in name.split("."):
        attribute = getattr(attribute, part)
    parameters = inspect.signature(attribute).parameters
    defaults = {n: ... if p.default is p.empty else p.default for n, p in parameters.items()}
    assert defaults == SIGNATURES[name]


def test_public_names():
    assert sorted(loss_utils.__all__) == [
        "AdaptiveLossWeight", "FocalLoss", "LossNormalizer", "LossWeightConfig", "WeightedMSELoss",
        "compute_training_loss", "create_reconstruction_loss",
    ]  # fmt: skip
    assert all(hasattr(loss_utils, name) for name in loss_utils.__all__)


def test_the_example_of_the_note():
    criterion = loss_utils.create_reconstruction_loss(use_smooth_l1=True)
    weight_config = loss_utils.LossWeightConfig(encoder_loss_weight=0.03)
    encoder_loss = criterion(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    total, loss_dict = loss_utils.compute_training_loss(
        classification_loss=torch.tensor(1.0),
        contrastive_loss=torch.tensor(2.0),
        encoder_loss=encoder_loss,
        weight_config=weight_config,
        gate_reg_loss=torch.tensor(0.5),
    )
    # SmoothL1 of 0.5 and 3: (0.125 + 2.5) / 2 = 1.3125
    assert f"{loss_dict['encoder']:.4f}" == "1.3125"
    assert float(total) == pytest.approx(1.0 + 0.2 * 2.0 + 0.03 * 1.3125 + 0.01 * 0.5)
    assert weight_config.get_weights()["encoder_loss_weight"] == 0.03


def test_import_stays_light():
    unwanted = {
        "hydra",
        "pandas",
        "pyarrow",
        "optuna",
        "pydantic",
        "joyful.training.coach",
        "joyful.config",
        "joyful.training.experiment",
    }
    code = f"import sys, joyful.loss_utils; print(*sorted({unwanted!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
