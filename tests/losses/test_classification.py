import math

import pytest
import torch
from torch.nn import functional

from joyful.losses.classification import FocalLoss, NLLLoss, class_weights
from tests.support.host_reads import NoHostReads

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(7, 4, generator=GENERATOR) * 3
CLASSES = torch.tensor([0, 1, 2, 3, 3, 0, 1])
SEVERAL = (torch.rand(7, 4, generator=GENERATOR) < 0.4).float()
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25])


def value_and_gradient(criterion, logits, labels):
    logits = logits.clone().requires_grad_()
    loss = criterion(logits, labels)
    return loss.detach(), *torch.autograd.grad(loss, logits)


def test_focal_by_hand():
    # softmax of (ln 3, 0) is (3/4, 1/4): -alpha (1 - p)^2 ln p
    logits = torch.tensor([[math.log(3), 0.0]]).repeat(2, 1)
    right, wrong = -(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)
    labels = torch.tensor([0, 1])
    assert FocalLoss(alpha=2.0, reduction="none")(logits, labels).tolist() == pytest.approx([2 * right, 2 * wrong])
    assert float(FocalLoss()(logits, labels)) == pytest.approx((right + wrong) / 2)
    assert float(FocalLoss(reduction="sum")(logits, labels)) == pytest.approx(right + wrong)
    weighted = FocalLoss(class_weights=torch.tensor([1.0, 3.0]))
    assert float(weighted(logits, labels)) == pytest.approx((right + 3 * wrong) / 4)  # mean over the sum of weights


def test_focal_multilabel_by_hand():
    # sigmoid of ln 3 is 3/4: right with 3/4 where the label is 1, with 1/4 where it is 0
    logits = torch.tensor([[math.log(3), math.log(3)]])
    right, wrong = -(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)
    loss = FocalLoss(reduction="none")(logits, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([[right, wrong]]))
    assert float(FocalLoss(alpha=3.0)(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(3 * (right + wrong) / 2)
    weighted = FocalLoss(class_weights=torch.tensor([1.0, 5.0]))
    assert float(weighted(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx((right + 5 * wrong) / 2)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("scale", [1.0, 100.0])  # at 100 some probabilities are exactly 1
def test_focal_at_gamma_0_is_the_cross_entropy(weights, scale):
    focal, nll = FocalLoss(gamma=0.0, class_weights=weights), NLLLoss(weights)
    for labels in (CLASSES, SEVERAL):
        ours = value_and_gradient(focal, LOGITS * scale, labels)
        theirs = value_and_gradient(nll, LOGITS * scale, labels)
        torch.testing.assert_close(ours, theirs)
    # and NLLLoss is torch's
    assert torch.equal(nll(LOGITS, CLASSES), functional.cross_entropy(LOGITS, CLASSES, weights))
    expected = functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL, weights)
    assert torch.equal(nll(LOGITS, SEVERAL), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("labels", [CLASSES, SEVERAL, SEVERAL.long()])
def test_focal_stays_finite_where_probabilities_are_0_or_1(gamma, labels):
    value, gradient = value_and_gradient(FocalLoss(gamma=gamma), LOGITS * 1000, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("labels", [CLASSES, SEVERAL])
def test_focal_gradient_against_finite_differences(labels):
    logits = LOGITS.double().requires_grad_()
    criterion = FocalLoss(alpha=0.7, gamma=2.0, class_weights=WEIGHTS.double())
    assert torch.autograd.gradcheck(lambda x: criterion(x, labels), logits)


def test_focal_reduces_the_weight_of_correct_utterances():
    confident = torch.tensor([[4.0, 0.0], [0.1, 0.0]])
    labels = torch.tensor([0, 0])
    ratio = FocalLoss(reduction="none")(confident, labels) / FocalLoss(gamma=0, reduction="none")(confident, labels)
    torch.testing.assert_close(ratio, (1 - confident.softmax(1)[:, 0]) ** 2)


@pytest.mark.parametrize("criterion", [FocalLoss(), NLLLoss(), FocalLoss(class_weights=WEIGHTS)])
def test_no_host_reads(criterion):
    with NoHostReads():
        criterion(LOGITS, CLASSES)
        criterion(LOGITS, SEVERAL)


@pytest.mark.parametrize("name", ["alpha", "gamma"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_focal_refuses_bad_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a finite number >= 0, got .*; set {name}="):
        FocalLoss(**{name: value})


def test_focal_refuses_unknown_reduction():
    with pytest.raises(ValueError, match="set reduction='mean'"):
        FocalLoss(reduction="all")


@pytest.mark.parametrize("criterion", [FocalLoss(), NLLLoss()])
@pytest.mark.parametrize("labels", [CLASSES[:-1], SEVERAL[:, :-1], SEVERAL[:-1], CLASSES[None, :, None]])
def test_shapes_that_do_not_match_are_refused(criterion, labels):
    with pytest.raises(ValueError, match=r"expected logits \(N, C\) with labels \(N,\) or \(N, C\), got \(7, 4\) and"):
        criterion(LOGITS, labels)


def test_class_weights_by_hand():
    counts = torch.tensor([1, 4, 0])
    assert class_weights(counts, "none") is None
    # 1 and 1/4 (and 1, 1/2), scaled to mean 1 over the two classes that occur
    assert class_weights(counts, "inverse").tolist() == pytest.approx([1.6, 0.4, 0.0])
    assert class_weights(counts, "sqrt").tolist() == pytest.approx([4 / 3, 2 / 3, 0.0])
    assert class_weights(counts.float(), "inverse").dtype == torch.float32
    with pytest.raises(ValueError, match="expected one of none, inverse, sqrt, got 'log'; set class_weight=none"):
        class_weights(counts, "log")
