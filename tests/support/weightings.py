"""Checks that every weighting of the loss must pass. The test of a new weighting:

@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_my_weighting(check):
    check(MyWeighting)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from joyful.losses.weighting import Weighting
from joyful.losses.weights import LossWeightConfig
from joyful.records import COMPONENTS
from tests.support.host_reads import NoHostReads

Make = Callable[[], Weighting]
#: Typical values in training: a small reconstruction loss and a large contrastive loss.
_SIZES = {"classification": 1.5, "contrastive": 6.0, "encoder": 0.1, "gate_reg": 0.3}


def components(step: int, **values: float) -> dict[str, Tensor]:
    """Return positive component losses of a step, which vary at different rates and require gradients.

    `values` replace some of them.
    """
    moving = {name: _SIZES[name] * (1.2 + math.sin(step * (place + 1))) for place, name in enumerate(COMPONENTS)}
    return {name: torch.tensor(value, requires_grad=True) for name, value in {**moving, **values}.items()}


def gradient_norms(step: int) -> dict[str, Tensor]:
    """Return gradient norms of a step, as the Coach passes them to `observe`."""
    return {name: loss.detach() * 0.7 for name, loss in components(step + 100).items()}


def steps(
    weighting: Weighting, config: LossWeightConfig, first: int, last: int
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Combine the losses of the steps `first` to `last`, and yield the total and the weights of each step."""
    for step in range(first, last + 1):
        if weighting.needs_gradient_norms and step % 2 == 0:
            weighting.observe(gradient_norms(step))
        total, _, weights = weighting.combine(components(step), config)
        yield total.detach(), {name: float(weight) for name, weight in weights.items()}


def check_total(make: Make) -> None:
    """The gradient of the total by each component is its weight. The parts are the unweighted losses, detached."""
    weighting, config = make(), LossWeightConfig()
    for step in range(6):
        if weighting.needs_gradient_norms and step >= 2:
            weighting.observe(gradient_norms(step))
        losses = components(step)
        total, parts, weights = weighting.combine(losses, config)
        assert total.shape == ()
        assert list(parts) == [*COMPONENTS, "total"]
        assert list(weights) == list(COMPONENTS)
        gradients = torch.autograd.grad(total, list(losses.values()))
        for name, gradient in zip(losses, gradients, strict=True):
            torch.testing.assert_close(gradient, torch.as_tensor(weights[name]))
            assert math.isfinite(weights[name])
            assert weights[name] >= 0
            assert torch.equal(parts[name], losses[name].detach())
        assert torch.equal(parts["total"], total.detach())
        assert not any(part.requires_grad for part in parts.values())
        assert not any(w.requires_grad for w in weights.values() if isinstance(w, Tensor))


def check_resume(make: Make) -> None:
    """A weighting restored from its state continues bit for bit. A returned state does not change afterwards."""
    config = LossWeightConfig()
    uninterrupted = make()
    expected = list(steps(uninterrupted, config, 0, 9))
    for stop in (0, 1, 4):
        interrupted = make()
        head = list(steps(interrupted, config, 0, stop - 1))
        state = interrupted.state_dict()
        assert all(isinstance(value, Tensor) for value in state.values()), "checkpoints hold tensors"
        copy = {name: value.clone() for name, value in state.items()}
        list(steps(interrupted, config, stop, 9))
        assert all(torch.equal(copy[name], value) for name, value in state.items())
        resumed = make()
        resumed.load_state_dict(copy)
        tail = list(steps(resumed, config, stop, 9))
        for (total, weights), (total_2, weights_2) in zip(expected, head + tail, strict=True):
            assert torch.equal(total, total_2)
            assert weights == weights_2
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in uninterrupted.state_dict().items())


def check_left_out(make: Make) -> None:
    """A component with configured weight 0 has no gradient, and its NaN does not affect the total or later steps."""
    config = LossWeightConfig(cl_loss_weight=0.0)
    clean, dirty = make(), make()
    for step in range(4):
        for weighting, value in ((clean, 1.0), (dirty, math.nan)):
            if weighting.needs_gradient_norms:
                weighting.observe({**gradient_norms(step), "contrastive": torch.tensor(value)})
        losses = components(step, contrastive=math.nan)
        total, parts, weights = dirty.combine(losses, config)
        expected, _, _ = clean.combine(components(step, contrastive=1.0), config)
        assert torch.equal(total, expected)
        assert torch.isfinite(total)
        assert float(weights["contrastive"]) == 0.0
        assert torch.isnan(parts["contrastive"])
        total.backward()
        assert losses["contrastive"].grad is None
        assert all(torch.isfinite(losses[name].grad) for name in COMPONENTS if name != "contrastive")  # type: ignore[arg-type]
    assert torch.isfinite(dirty.combine(components(5), LossWeightConfig())[0]), "the NaN affects later steps"


def check_only_classification(make: Make) -> None:
    """If all other weights are 0, only the classification loss is trained."""
    weighting, config = make(), LossWeightConfig(encoder_loss_weight=0, cl_loss_weight=0, gate_reg_weight=0)
    for step in range(3):
        losses = components(step)
        total, _, weights = weighting.combine(losses, config)
        assert {name: float(weights[name]) for name in COMPONENTS[1:]} == dict.fromkeys(COMPONENTS[1:], 0.0)
        (gradient,) = torch.autograd.grad(total, [losses["classification"]])
        assert torch.isfinite(gradient)
        assert gradient > 0


def check_absent_part(make: Make) -> None:
    """A component that is always 0, such as the regulariser of a fusion without gates, does not affect the others."""
    weighting, without = make(), make()
    for step in range(4):
        for each in (weighting, without):
            if each.needs_gradient_norms:
                each.observe({**gradient_norms(step), "gate_reg": torch.tensor(0.0)})
        losses = {**components(step), "gate_reg": torch.tensor(0.0)}
        total, _, weights = weighting.combine(losses, LossWeightConfig())
        expected, _, expected_weights = without.combine(losses, LossWeightConfig(gate_reg_weight=0.0))
        torch.testing.assert_close(total, expected)
        for name in COMPONENTS[:3]:
            torch.testing.assert_close(torch.as_tensor(weights[name]), torch.as_tensor(expected_weights[name]))
        assert float(weights["gate_reg"]) <= 1.0


def check_zero_losses(make: Make) -> None:
    """Totals and gradients are finite if losses are exactly 0."""
    weighting = make()
    for step in range(3):
        losses = components(step, encoder=0.0, contrastive=0.0)
        if weighting.needs_gradient_norms:
            weighting.observe({**gradient_norms(step), "encoder": torch.tensor(0.0)})
        total, _, _ = weighting.combine(losses, LossWeightConfig())
        gradients = torch.autograd.grad(total, list(losses.values()))
        assert all(torch.isfinite(value) for value in (total, *gradients))


def check_configuration_moves(make: Make) -> None:
    """Weights may be changed between steps, also to 0 and back."""
    weighting = make()
    list(steps(weighting, LossWeightConfig(), 0, 3))
    ((_, weights),) = steps(weighting, LossWeightConfig(encoder_loss_weight=0.0), 4, 4)
    assert weights["encoder"] == 0.0
    small, large = make(), make()
    for each in (small, large):
        list(steps(each, LossWeightConfig(), 0, 4))
    ((_, one),) = steps(small, LossWeightConfig(encoder_loss_weight=0.03), 5, 5)
    ((_, two),) = steps(large, LossWeightConfig(encoder_loss_weight=0.06), 5, 5)
    assert math.isclose(two["encoder"], 2 * one["encoder"], rel_tol=1e-5)
    ((_, back),) = steps(weighting, LossWeightConfig(), 5, 5)
    assert back["encoder"] > 0


def check_stays_on_device(make: Make) -> None:
    """The host never waits for the device."""
    weighting, config = make(), LossWeightConfig()
    with NoHostReads():
        for step in range(3):
            if weighting.needs_gradient_norms:
                weighting.observe(gradient_norms(step))
            total, _, _ = weighting.combine(components(step), config)
            total.backward()
            make().load_state_dict(weighting.state_dict())


CHECKS: dict[str, Callable[[Make], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_total,
        check_resume,
        check_left_out,
        check_only_classification,
        check_absent_part,
        check_zero_losses,
        check_configuration_moves,
        check_stays_on_device,
    )
}
