import argparse
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from joyful.losses.weights import LossWeightConfig, compute_training_loss, weighted_total
from joyful.records import COMPONENTS
from tests.support.host_reads import NoHostReads

DEFAULTS = {"encoder_loss_weight": 0.03, "cl_loss_weight": 0.2, "gate_reg_weight": 0.01}


def structured(node):
    OmegaConf.set_struct(node, True)
    return node


SOURCES = {
    "namespace": argparse.Namespace,
    "dict": dict,
    "omegaconf": lambda **values: OmegaConf.create(values),
    "omegaconf_struct": lambda **values: structured(OmegaConf.create(values)),
}


def test_defaults_are_those_of_the_note():
    assert LossWeightConfig().get_weights() == DEFAULTS
    assert list(LossWeightConfig().component_weights()) == list(COMPONENTS)
    assert LossWeightConfig().component_weights() == {
        "classification": 1.0, "contrastive": 0.2, "encoder": 0.03, "gate_reg": 0.01
    }  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_from_args(source):
    everything = {"encoder_loss_weight": 0.5, "cl_loss_weight": 0.0, "gate_reg_weight": 2}
    assert LossWeightConfig.from_args(source(**everything, epochs=3)).get_weights() == everything
    # what is missing or None keeps its default
    assert LossWeightConfig.from_args(source(cl_loss_weight=0.7)).get_weights() == {**DEFAULTS, "cl_loss_weight": 0.7}
    assert LossWeightConfig.from_args(source(encoder_loss_weight=None)).get_weights() == DEFAULTS
    assert LossWeightConfig.from_args(source()).get_weights() == DEFAULTS
    with pytest.raises(ValueError, match="cl_loss_weight"):
        LossWeightConfig.from_args(source(cl_loss_weight=-1.0))


def test_from_args_takes_a_mandatory_value_that_is_missing_as_missing():
    assert LossWeightConfig.from_args(OmegaConf.create({"cl_loss_weight": "???"})).get_weights() == DEFAULTS


BAD = [-0.1, -1, math.nan, math.inf, -math.inf, True, False, "0.03", None, torch.tensor(0.1), [0.1], 1j]


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("name", DEFAULTS)
def test_bad_weights_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name}: expected a finite number >= 0, got .*; set e\.g\. {name}=0\.03"):
        LossWeightConfig(**{name: value})
    config = LossWeightConfig()
    with pytest.raises(ValueError, match=name):
        config.update(**{name: value})
    assert config.get_weights() == DEFAULTS


@pytest.mark.parametrize("value", [0, 3, np.float32(0.5), np.int64(2), Fraction(1, 4)])
def test_other_numbers_become_floats(value):
    weight = LossWeightConfig(encoder_loss_weight=value).encoder_loss_weight
    assert type(weight) is float
    assert weight == value


def test_update_checks_everything_before_it_sets_anything():
    config = LossWeightConfig()
    config.update(cl_loss_weight=0.1, encoder_loss_weight=1.0)
    expected = {"encoder_loss_weight": 1.0, "cl_loss_weight": 0.1, "gate_reg_weight": 0.01}
    assert config.get_weights() == expected
    with pytest.raises(ValueError, match="gate_reg_weight"):
        config.update(cl_loss_weight=0.5, gate_reg_weight=-1.0)
    with pytest.raises(ValueError, match=r"gate_weight: expected the name of a weight; set one of .*gate_reg_weight"):
        config.update(cl_loss_weight=0.5, gate_weight=1.0)
    assert config.get_weights() == expected


def test_equality_and_text():
    assert LossWeightConfig() == LossWeightConfig(0.03, 0.2, 0.01)
    assert LossWeightConfig() != LossWeightConfig(0.05)
    assert repr(LossWeightConfig()) == (
        "LossWeightConfig(encoder_loss_weight=0.03, cl_loss_weight=0.2, gate_reg_weight=0.01)"
    )


def test_a_mutable_config_is_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(LossWeightConfig())


def losses(*values):
    return tuple(torch.tensor(value, requires_grad=True) for value in values)


def test_total_by_hand():
    classification, contrastive, encoder, gate_reg = losses(1.5, 6.0, 0.5, 0.25)
    config = LossWeightConfig(encoder_loss_weight=0.04, cl_loss_weight=0.5, gate_reg_weight=2.0)
    total, parts = compute_training_loss(classification, contrastive, encoder, config, gate_reg)
    assert float(total.detach()) == pytest.approx(1.5 + 0.5 * 6 + 0.04 * 0.5 + 2 * 0.25)
    expected = {"classification": 1.5, "contrastive": 6.0, "encoder": 0.5, "gate_reg": 0.25, "total": 5.02}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(expected)
    assert list(parts) == list(expected)
    gradients = torch.autograd.grad(total, (classification, contrastive, encoder, gate_reg))
    assert [float(g) for g in gradients] == pytest.approx([1.0, 0.5, 0.04, 2.0])


def test_without_a_gate_regulariser_its_part_is_0():
    total, parts = compute_training_loss(*losses(1.0, 1.0, 1.0), LossWeightConfig())
    assert float(total.detach()) == pytest.approx(1.23)
    assert float(parts["gate_reg"]) == 0.0


def test_parts_are_detached_and_format_as_numbers():
    total, parts = compute_training_loss(*losses(1.0, 2.0, 3.0), LossWeightConfig())
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    assert f"Classification: {parts['classification']:.2f} Encoder: {parts['encoder']:.1e}" == (
        "Classification: 1.00 Encoder: 3.0e+00"
    )


def test_a_component_of_weight_0_is_left_out():
    classification, contrastive, encoder = losses(1.0, math.nan, 3.0)
    config = LossWeightConfig(encoder_loss_weight=1.0, cl_loss_weight=0)
    total, parts = compute_training_loss(classification, contrastive, encoder, config)
    assert float(total.detach()) == 4.0
    assert math.isnan(parts["contrastive"])
    total.backward()
    assert contrastive.grad is None


def test_nan_in_a_weighted_component_reaches_the_total():
    total, _ = compute_training_loss(*losses(1.0, math.nan, 3.0), LossWeightConfig())
    assert math.isnan(total.detach())


def test_no_host_reads():
    arguments = losses(1.0, 2.0, 3.0)
    with NoHostReads():
        total, _ = compute_training_loss(*arguments, LossWeightConfig(), torch.tensor(0.5))
        total.backward()


def test_device_and_type_follow_the_losses():
    total, parts = compute_training_loss(*(x.double() for x in losses(1.0, 2.0, 3.0)), LossWeightConfig())
    assert total.dtype == torch.float64
    assert {part.dtype for part in parts.values()} == {torch.float64}


def test_one_element_counts_as_a_scalar():
    total, parts = compute_training_loss(torch.ones(1), torch.ones(1, 1), torch.tensor(1.0), LossWeightConfig())
    assert total.shape == ()
    assert {part.shape for part in parts.values()} == {torch.Size()}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("bad", [torch.ones(3), 1.0, torch.ones(0)], ids=["vector", "float", "empty"])
def test_a_loss_that_is_not_a_scalar_tensor_is_refused_by_name(place, bad):
    given = list(losses(1.0, 1.0, 1.0, 1.0))
    given[place] = bad
    for gate_reg in (given[3], None) if place < 3 else (given[3],):
        with pytest.raises(ValueError, match=f"{COMPONENTS[place]} loss: expected a scalar tensor, got .*reduce it"):
            compute_training_loss(*given[:3], LossWeightConfig(), gate_reg)


def test_total_of_tensor_weights_by_hand():
    weights = {"classification": 1.0, "encoder": torch.tensor(0.25)}
    total, _ = weighted_total({"classification": torch.tensor(2.0), "encoder": torch.tensor(8.0)}, weights)
    assert float(total) == 4.0


def test_all_weights_0_give_0_with_a_gradient():
    (loss,) = losses(3.0)
    total, _ = weighted_total({"encoder": loss}, {"encoder": 0.0})
    total.backward()
    assert float(total.detach()) == 0.0
    assert float(loss.grad) == 0.0
