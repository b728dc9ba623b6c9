import math

import pytest
import torch

from joyful.model.kernels import contrastive_blocks
from joyful.model.kernels.contrastive_blocks import MIN_TEMPERATURE, info_nce_of_views, plain_info_nce_of_views
from tests.support.host_reads import NoHostReads


def nodes(n, dtype=torch.float64, h=6, count=3):
    generator = torch.Generator().manual_seed(n)
    anchor = torch.randn(n, h, generator=generator, dtype=dtype)
    near = [anchor + 0.5 * torch.randn(n, h, generator=generator, dtype=dtype) for _ in range(count - 1)]
    return [x.requires_grad_() for x in (anchor, *near)]


def both(tensors, temperature):
    """Return value and gradients of the plain form and of the fast form."""
    anchor, *views = tensors
    results = []
    for loss in (
        plain_info_nce_of_views(anchor, views, temperature),
        info_nce_of_views(anchor, views, temperature),
    ):
        results.append([loss.detach(), *torch.autograd.grad(3.0 * loss, tensors)])
    return results


@pytest.mark.parametrize("n", [1, 2, 5, 33])
@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 0.2, 1.0])
@pytest.mark.parametrize("block", [1, 40, 1 << 18])
def test_it_is_the_sum_of_the_plain_losses(n, temperature, block, monkeypatch):
    monkeypatch.setitem(contrastive_blocks._BLOCK, "cpu", block)
    for plain, ours in zip(*both(nodes(n), temperature), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 0.2])
def test_float32_is_as_close_to_float64_as_the_plain_form_is(temperature):
    """Nodes at different angles: equal, opposite and random views."""
    anchor, view, _ = nodes(200, h=16)
    tensors = [anchor, view, (-anchor).detach().requires_grad_()]
    exact, _ = both(tensors, temperature)
    plain, ours = both([t.detach().float().requires_grad_() for t in tensors], temperature)

    def distance(results):
        return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(results, exact, strict=True)]

    for our_error, plain_error in zip(distance(ours), distance(plain), strict=True):
        assert our_error < max(2 * plain_error, 1e-6)


def test_below_the_minimum_temperature_it_is_the_plain_form():
    plain, ours = both(nodes(7, torch.float32), MIN_TEMPERATURE / 2)
    for a, b in zip(ours, plain, strict=True):
        assert torch.equal(a, b)


def test_gradient_against_finite_differences():
    assert torch.autograd.gradcheck(lambda a, *v: info_nce_of_views(a, v), nodes(4, h=3))


def test_without_gradients_the_value_is_the_same():
    """Without gradients, all rows share the memory of one block."""
    anchor, *views = nodes(50)
    with torch.no_grad():
        value = info_nce_of_views(anchor, views)
    assert value.grad_fn is None
    assert float(value) == pytest.approx(float(info_nce_of_views(anchor, views).detach()), rel=1e-12)


def test_autocast_does_not_round_it_and_the_host_reads_nothing():
    anchor, *views = nodes(9, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce_of_views(anchor, views)
    assert torch.equal(loss, info_nce_of_views(anchor, views))
    with NoHostReads():
        info_nce_of_views(anchor, views).backward()


def test_the_gradient_can_be_computed_twice():
    """Gradient-balanced weights compute the gradient of a component before the training step does."""
    anchor, *views = nodes(8)
    loss = info_nce_of_views(anchor, views)
    first = torch.autograd.grad(loss, anchor, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, anchor)[0])


def test_nan_propagates_to_the_loss():
    anchor, view, _ = nodes(5, torch.float32)
    broken = view.detach().clone()
    broken[2, 0] = math.nan
    assert math.isnan(float(info_nce_of_views(anchor, [view, broken]).detach()))


def test_bad_views_are_refused_as_by_the_plain_form():
    with pytest.raises(ValueError, match="expected two views of one shape"):
        info_nce_of_views(torch.randn(3, 2), [torch.randn(3, 2), torch.randn(4, 2)])
    with pytest.raises(ValueError, match="temperature: expected a number > 0"):
        info_nce_of_views(torch.randn(3, 2), [torch.randn(3, 2)], -1.0)
