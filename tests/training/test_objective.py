import pytest
import torch

from joyful.config import ClassificationSettings, FusionSettings, LossSettings
from joyful.losses.classification import FocalLoss, NLLLoss
from joyful.losses.reconstruction import MSELoss, SmoothL1Loss, WeightedMSELoss
from joyful.model.joyful import FusionOutput, ModelOutput
from joyful.records import COMPONENTS
from joyful.training.objective import (
    classification_criterion,
    components,
    reconstruction_criterion,
    reduce_encoder_losses,
    trained_reconstructions,
    unimodal_loss,
    unimodal_weight,
)
from tests.support.models import random_batch

LENGTHS = (2, 1, 3)
BATCH = random_batch(LENGTHS)


def loss_settings(name, **changes):
    values = {"name": name, "beta": 0.5, "modal_weights": {"audio": 0.5, "visual": 3.0}, "encoder_reduction": "mean"}
    return LossSettings.model_validate({**values, **changes})


def fusion_settings(**changes):
    values = {
        "name": "auto", "intermodal": "auto", "use_ulgm": True, "unimodal_loss_weight": 0.002, "ulgm_hidden_size": 4,
        "ulgm_delay_epochs": 2, "ulgm_warmup_epochs": 5,
    }  # fmt: skip
    return FusionSettings.model_validate({**values, **changes})


def model_output():
    losses = torch.arange(1.0, 7.0)
    fusion = FusionOutput(torch.zeros(6, 2), losses, torch.tensor(0.4), {})
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    unimodal = {name: logits * scale for name, scale in (("text", 1.0), ("audio", 2.0), ("visual", -1.0))}
    return ModelOutput(logits, torch.tensor(5.0), fusion, unimodal)


def test_reconstruction_criteria():
    names = ("audio", "text", "visual")
    assert isinstance(reconstruction_criterion(loss_settings("mse"), names), MSELoss)
    smooth = reconstruction_criterion(loss_settings("smoothl1"), names)
    assert isinstance(smooth, SmoothL1Loss)
    assert smooth.beta == 0.5
    weighted = reconstruction_criterion(loss_settings("weighted_mse"), names)
    assert isinstance(weighted, WeightedMSELoss)
    assert weighted.modal_weights == (0.5, 1.0, 3.0)  # 1 where none is set
    assert reconstruction_criterion(loss_settings("weighted_mse"), ("visual",)).modal_weights == (3.0,)


def test_classification_criteria():
    weights = torch.tensor([1.0, 2.0, 3.0])
    nll = ClassificationSettings(name="nll", gamma=2.0, alpha=1.0, class_weight="none")
    focal = ClassificationSettings(name="focal", gamma=3.0, alpha=0.5, class_weight="none")
    assert isinstance(classification_criterion(nll, None), NLLLoss)
    assert torch.equal(classification_criterion(nll, weights).class_weights, weights)
    criterion = classification_criterion(focal, weights)
    assert isinstance(criterion, FocalLoss)
    assert (criterion.gamma, criterion.alpha) == (3.0, 0.5)
    assert torch.equal(criterion.class_weights, weights)


def test_encoder_reductions_by_hand():
    # losses 1 to 6 of dialogues of 2, 1 and 3 utterances: the last one holds 4, 5 and 6
    losses = torch.arange(1.0, 7.0)
    assert float(reduce_encoder_losses(losses, LENGTHS, "mean")) == 3.5
    assert float(reduce_encoder_losses(losses, LENGTHS, "legacy_sum")) == 15.0
    assert float(reduce_encoder_losses(losses, LENGTHS, "legacy_mean")) == 5.0
    with pytest.raises(
        ValueError, match=r"mean, legacy_sum or legacy_mean, got 'sum'; set loss\.encoder_reduction=mean"
    ):
        reduce_encoder_losses(losses, LENGTHS, "sum")


@pytest.mark.parametrize("how", ["mean", "legacy_sum", "legacy_mean"])
def test_trained_reconstructions_are_those_with_gradients(how):
    losses = torch.arange(1.0, 7.0, requires_grad=True)
    reduce_encoder_losses(losses, LENGTHS, how).backward()
    read = losses.grad.nonzero().flatten().tolist()
    assert read == list(range(6))[-(trained_reconstructions(LENGTHS, how) or 6) :]


@pytest.mark.parametrize(("reduction", "encoder"), [("mean", 3.5), ("legacy_sum", 15.0)])
def test_components(reduction, encoder):
    output, criterion = model_output(), NLLLoss()
    parts = components(output, BATCH, criterion, reduction)
    assert list(parts) == list(COMPONENTS)
    assert torch.equal(parts["classification"], criterion(output.logits, BATCH.labels))
    assert [float(parts[name]) for name in COMPONENTS[1:]] == pytest.approx([5.0, encoder, 0.4])


def test_unimodal_loss_by_hand():
    output, criterion = model_output(), NLLLoss()
    each = {name: criterion(logits, BATCH.labels) for name, logits in output.unimodal.items()}
    expected = each["text"] + 0.5 * each["audio"] + 0.5 * each["visual"]
    torch.testing.assert_close(unimodal_loss(output, BATCH, criterion), expected)


def test_unimodal_weight_rises_after_its_delay():
    # two epochs without, then a linear rise over five to 0.002
    settings = fusion_settings()
    expected = [0.0, 0.0, 0.0004, 0.0008, 0.0012, 0.0016, 0.002, 0.002]
    assert [unimodal_weight(settings, epoch) for epoch in range(1, 9)] == pytest.approx(expected)
    assert unimodal_weight(fusion_settings(ulgm_delay_epochs=0, ulgm_warmup_epochs=0), 1) == 0.002
    assert unimodal_weight(fusion_settings(use_ulgm=False), 100) == 0.0
