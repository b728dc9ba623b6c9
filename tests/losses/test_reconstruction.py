import math

import pytest
import torch
from torch import nn

from joyful.losses.reconstruction import MSELoss, SmoothL1Loss, WeightedMSELoss, create_reconstruction_loss

# residuals prediction - target and their losses, by hand from the formulas in the module docstring
RESIDUALS = [-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]
SQUARED = [4.0, 0.25, 0.0, 0.0625, 1.0, 9.0]
SMOOTH = [1.5, 0.125, 0.0, 0.03125, 0.5, 2.5]
SMOOTH_HALF = [1.75, 0.25, 0.0, 0.0625, 0.75, 2.75]  # beta = 0.5


def pair():
    target = torch.tensor([[0.5, -1.0, 2.0, 0.0, 1.0, 0.25]])
    return target + torch.tensor([RESIDUALS]), target


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (MSELoss(), SQUARED),
        (SmoothL1Loss(), SMOOTH),
        (SmoothL1Loss(beta=0.5), SMOOTH_HALF),
        (WeightedMSELoss(), SQUARED),
        (WeightedMSELoss((1.0, 1.0, 1.0)), SQUARED),
        (WeightedMSELoss((0.5, 0.0, 2.0)), [2.0, 0.0, 0.0, 0.125, 2.0, 18.0]),  # widths 1, 2 and 3
    ],
)
def test_elementwise_values(criterion, expected):
    prediction, target = pair()
    values = criterion.elementwise(prediction, target, (1, 2, 3))
    torch.testing.assert_close(values, torch.tensor([expected]))


@pytest.mark.parametrize(("smooth", "expected"), [(False, SQUARED), (True, SMOOTH)])
def test_reductions_of_the_factory(smooth, expected):
    prediction, target = pair()
    made = {reduction: create_reconstruction_loss(smooth, reduction) for reduction in ("mean", "sum", "none")}
    assert float(made["mean"](prediction, target)) == pytest.approx(sum(expected) / 6)
    assert float(made["sum"](prediction, target)) == pytest.approx(sum(expected))
    torch.testing.assert_close(made["none"](prediction, target), torch.tensor([expected]))
    assert float(create_reconstruction_loss(smooth)(prediction, target)) == pytest.approx(sum(expected) / 6)


def test_factory_returns_the_types_of_the_note():
    # the note names nn.SmoothL1Loss and nn.MSELoss
    assert isinstance(create_reconstruction_loss(use_smooth_l1=True), nn.SmoothL1Loss)
    assert isinstance(create_reconstruction_loss(), nn.MSELoss)
    assert create_reconstruction_loss(use_smooth_l1=True).beta == 1.0


def test_smooth_l1_is_half_the_squared_error_near_zero():
    prediction, target = torch.rand(4, 5) * 0.9, torch.zeros(4, 5)
    torch.testing.assert_close(2 * SmoothL1Loss()(prediction, target), MSELoss()(prediction, target))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weighted_reductions_and_gradient(reduction):
    prediction, target = pair()
    prediction.requires_grad_()
    loss = WeightedMSELoss((0.5, 0.0, 2.0), reduction)(prediction, target, (1, 2, 3))
    total = 2 + 0.125 + 2 + 18
    expected = {"mean": total / 6, "sum": total, "none": total}[reduction]
    assert float(loss.detach().sum()) == pytest.approx(expected)
    loss.sum().backward()
    by_hand = torch.tensor([[2 * 0.5 * -2, 0, 0, 2 * 2 * 0.25, 2 * 2 * 1.0, 2 * 2 * 3.0]])  # 2 w r
    torch.testing.assert_close(prediction.grad, by_hand / (6 if reduction == "mean" else 1))


def test_weighted_accepts_a_mapping_in_order_and_any_leading_shape():
    prediction, target = pair()
    by_name = WeightedMSELoss({"audio": 0.5, "text": 0.0, "visual": 2.0})
    expected = WeightedMSELoss((0.5, 0.0, 2.0))(prediction, target, (1, 2, 3))
    assert torch.equal(by_name(prediction, target, (1, 2, 3)), expected)
    assert torch.equal(by_name(prediction.expand(2, 3, 6), target.expand(2, 3, 6), (1, 2, 3)), expected)
    assert torch.equal(by_name(prediction[0], target[0], (1, 2, 3)), expected)


def test_weighted_knows_the_reference_widths():
    # audio 100, text 768, visual 512: ones count 1 * 100 + 2 * 768 + 3 * 512
    ones = torch.ones(2, 1380)
    assert float(WeightedMSELoss((1, 2, 3), "sum")(ones, torch.zeros(2, 1380))) == 2 * (100 + 2 * 768 + 3 * 512)


@pytest.mark.parametrize("make", [MSELoss, SmoothL1Loss, WeightedMSELoss, create_reconstruction_loss])
def test_unknown_reduction_is_refused(make):
    with pytest.raises(ValueError, match="expected one of mean, sum, none, got 'avg'; set reduction='mean'"):
        make(reduction="avg")


@pytest.mark.parametrize("criterion", [MSELoss(), SmoothL1Loss(), WeightedMSELoss()])
@pytest.mark.parametrize("call", ["forward", "elementwise"])
def test_shapes_that_would_broadcast_are_refused(criterion, call):
    with pytest.raises(ValueError, match=r"one shape, got \(3, 2\) and \(1, 2\); set the decoder's output size"):
        getattr(criterion, call)(torch.zeros(3, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match=r"beta: expected a finite number > 0.*set beta=1.0"):
        SmoothL1Loss(beta=beta)


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_bad_modal_weights_are_refused(weight):
    with pytest.raises(ValueError, match=r"modal_weights: expected finite numbers >= 0.*set e\.g\."):
        WeightedMSELoss((1.0, weight))


@pytest.mark.parametrize(
    ("weights", "widths", "message"),
    [
        ((1, 2, 3), (1, 2, 2), r"add up to 6, got \(1, 2, 2\) \(sum 5\); set modal_dims"),
        (None, (1, 2, 2), "add up to 6"),
        ((1, 2, 3), (4, 2), r"3 widths, one for each modal weight, got \(4, 2\); set modal_dims"),
        ((1, 2, 3), None, "3 widths, one for each modal weight, got None; set modal_dims"),
    ],
)
def test_invalid_widths_are_refused(weights, widths, message):
    with pytest.raises(ValueError, match=message):
        WeightedMSELoss(weights)(*pair(), widths)
