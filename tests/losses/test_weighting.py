import math

import pytest
import torch

from joyful.losses.weighting import WEIGHTINGS, AdaptiveLossWeight, GradientBalancedWeighting
from joyful.losses.weights import LossWeightConfig
from joyful.records import COMPONENTS
from tests.support.host_reads import NoHostReads
from tests.support.weightings import CHECKS, components, gradient_norms

VARIANTS = [(name, 0.9, "log") for name in WEIGHTINGS] + [("normalised", 0.9, "minmax"), ("adaptive", 0.0, "log")]


def weighting_of(name, momentum=0.9, normalisation="log"):
    return WEIGHTINGS.create(name, {"momentum": momentum, "normalisation": normalisation})


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize(("name", "momentum", "method"), VARIANTS)
def test_every_weighting_satisfies_the_suite(name, momentum, method, check):
    check(lambda: weighting_of(name, momentum, method))


@pytest.mark.parametrize("name", ["fixed", "adaptive", "gradient_balanced"])
def test_total_is_the_weighted_sum_of_the_parts(name):
    weighting = weighting_of(name, 0.9, "log")
    for step in range(5):
        if weighting.needs_gradient_norms:
            weighting.observe(gradient_norms(step))
        total, parts, weights = weighting.combine(components(step), LossWeightConfig())
        torch.testing.assert_close(total.detach(), sum(weights[name] * parts[name] for name in COMPONENTS))


def test_weightings_with_memory_have_a_state():
    # the suite's resume check would pass for a weighting that never changes: these must
    for name in ("adaptive", "gradient_balanced", "normalised"):
        weighting = weighting_of(name, 0.9, "minmax")
        if weighting.needs_gradient_norms:
            weighting.observe(gradient_norms(0))
        first = weighting.combine(components(0), LossWeightConfig())[2]["encoder"]
        if weighting.needs_gradient_norms:
            weighting.observe(gradient_norms(1))
        second = weighting.combine(components(1), LossWeightConfig())[2]["encoder"]
        assert weighting.state_dict()
        assert float(first) != float(second)


def test_guard_sees_host_reads():
    value = torch.tensor(1.0)
    for read in (value.item, lambda: bool(value), lambda: f"{value:.2f}", lambda: torch.ones(2).nonzero()):
        with pytest.raises(AssertionError, match="reads the device"), NoHostReads():
            read()


def scalars(**values):
    return {name: torch.tensor(float(value)) for name, value in values.items()}


def numbers(weights):
    return {name: float(weight) for name, weight in weights.items()}


def test_adaptive_two_updates_by_hand():
    # w0 = (1, 0.5), sum 1.5; first losses (2, 4) are the averages: w0 / m = (0.5, 0.125), scaled by 1.5 / 0.625
    adaptive = AdaptiveLossWeight({"a": 1.0, "b": 0.5}, momentum=0.5)
    assert adaptive.weights() == {}
    first = adaptive.update(scalars(a=2, b=4))
    assert numbers(first) == {"a": pytest.approx(1.2), "b": pytest.approx(0.3)}
    # losses (4, 0): averages (3, 2): w0 / m = (1/3, 1/4), scaled by 1.5 / (7/12)
    second = adaptive.update(scalars(a=4, b=0))
    assert numbers(second) == {"a": pytest.approx(18 / 21), "b": pytest.approx(13.5 / 21)}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e10])
def test_adaptive_weights_keep_their_sum(scale):
    adaptive = AdaptiveLossWeight({"a": 1.0, "b": 0.3, "c": 0.2})
    for step in range(5):
        weights = adaptive.update(scalars(a=scale * (1 + step), b=scale * 3, c=scale * (7 - step)))
        assert float(sum(weights.values())) == pytest.approx(1.5)
        assert float(weights["a"] / weights["b"]) == pytest.approx(
            float((1.0 / adaptive.state_dict()["a"]) / (0.3 / adaptive.state_dict()["b"])), rel=1e-3
        )


def test_adaptive_weights_have_no_gradient_and_default_momentum():
    loss = torch.tensor(2.0, requires_grad=True)
    adaptive = AdaptiveLossWeight({"a": 1.0})
    assert adaptive.momentum == 0.9
    assert not adaptive.update({"a": loss})["a"].requires_grad


def test_adaptive_ignores_losses_that_are_not_finite():
    adaptive = AdaptiveLossWeight({"a": 1.0, "b": 1.0}, momentum=0.5)
    expected = numbers(adaptive.update(scalars(a=2, b=4)))
    assert numbers(adaptive.update(scalars(a=math.nan, b=4))) == expected
    assert numbers(adaptive.update(scalars(a=math.inf, b=4))) == expected
    # also where the very first loss was NaN: the next one starts the average
    late = AdaptiveLossWeight({"a": 1.0, "b": 1.0}, momentum=0.5)
    late.update(scalars(a=math.nan, b=4))
    assert numbers(late.update(scalars(a=2, b=4))) == expected


def test_adaptive_state_gives_the_same_next_weights():
    one, other = (AdaptiveLossWeight({"a": 1.0, "b": 2.0}) for _ in range(2))
    one.update(scalars(a=1.1, b=0.3))
    other.load_state_dict(one.state_dict())
    assert numbers(one.update(scalars(a=0.7, b=0.9))) == numbers(other.update(scalars(a=0.7, b=0.9)))


def test_adaptive_weights_of_zero_are_zeros():
    weights = AdaptiveLossWeight({"a": 0.0, "b": 0.0}).update(scalars(a=1, b=2))
    assert numbers(weights) == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("momentum", [1.0, -0.1, math.nan, 2])
def test_adaptive_refuses_momentum_outside_its_range(momentum):
    with pytest.raises(ValueError, match=r"momentum: expected a number in \[0, 1\).*set momentum=0.9"):
        AdaptiveLossWeight({"a": 1.0}, momentum)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_adaptive_refuses_bad_initial_weights(weight):
    with pytest.raises(ValueError, match=r"initial_weights\['a'\].*got"):
        AdaptiveLossWeight({"a": weight})


def test_adaptive_refuses_unknown_losses():
    with pytest.raises(ValueError, match="no initial weight; set initial_weights for b"):
        AdaptiveLossWeight({"a": 1.0}).update(scalars(a=1, b=1))


def test_adaptive_weighting_by_hand():
    # first step: averages are the losses, so w_k = w0_k / l_k * l_classification
    losses = components(0, classification=2.0, contrastive=4.0, encoder=0.5, gate_reg=1.0)
    _, _, weights = weighting_of("adaptive").combine(losses, LossWeightConfig())
    expected = {"classification": 1.0, "contrastive": 0.2 / 2, "encoder": 0.03 * 4, "gate_reg": 0.01 * 2}
    assert numbers(weights) == pytest.approx(expected)


def test_normalised_weighting_by_hand():
    losses = components(0, classification=1.0, contrastive=3.0, encoder=0.5, gate_reg=0.25)
    total, _, weights = weighting_of("normalised").combine(losses, LossWeightConfig())
    expected = math.log(2) + 0.2 * math.log(4) + 0.03 * math.log(1.5) + 0.01 * math.log(1.25)
    assert float(total.detach()) == pytest.approx(expected)
    assert float(weights["contrastive"]) == pytest.approx(0.2 / 4)  # d log(1 + l) = 1 / (1 + l)


def test_gradient_balanced_by_hand():
    weighting = GradientBalancedWeighting(momentum=0.5)
    config = LossWeightConfig()
    assert weighting.combine(components(0), config)[2] == config.component_weights()  # nothing measured yet
    weighting.observe(scalars(classification=2, contrastive=8, encoder=0.1, gate_reg=0))
    weights = weighting.combine(components(0), config)[2]
    # w0 * g_classification / g_k; without a gradient the configured weight
    expected = {"classification": 1.0, "contrastive": 0.2 * 2 / 8, "encoder": 0.03 * 2 / 0.1, "gate_reg": 0.01}
    assert numbers(weights) == pytest.approx(expected)
    # moving averages: (2 + 4) / 2 = 3 and (8 + 2) / 2 = 5; NaN leaves the average of encoder at 0.1
    weighting.observe(scalars(classification=4, contrastive=2, encoder=math.nan, gate_reg=0))
    weights = weighting.combine(components(0), config)[2]
    assert float(weights["contrastive"]) == pytest.approx(0.2 * 3 / 5)
    assert float(weights["encoder"]) == pytest.approx(0.03 * 3 / 0.1)


def test_gradient_balanced_without_any_gradient_keeps_the_configured_weights():
    weighting = GradientBalancedWeighting()
    weighting.observe(scalars(classification=0, contrastive=0, encoder=0, gate_reg=0))
    weights = weighting.combine(components(0), LossWeightConfig())[2]
    assert numbers(weights) == pytest.approx(LossWeightConfig().component_weights())
