import math

import pytest
import torch

from joyful.losses.contrastive import info_nce
from tests.support.host_reads import NoHostReads


def plain(u, v, temperature):
    """Return the loss by the formula of the module docstring, in plain Python, one pair of nodes at a time."""

    def similarity(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    def one(a, b, i):
        positive = math.exp(similarity(a[i], b[i]) / temperature)
        across = sum(math.exp(similarity(a[i], b[j]) / temperature) for j in range(len(a)))
        within = sum(math.exp(similarity(a[i], a[j]) / temperature) for j in range(len(a)) if j != i)
        return -math.log(positive / (across + within))

    return sum(one(u, v, i) + one(v, u, i) for i in range(len(u))) / 2 / len(u)


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_against_a_double_loop(n, temperature):
    generator = torch.Generator().manual_seed(n)
    u, v = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = plain(u.tolist(), v.tolist(), temperature)
    assert float(info_nce(u, v, temperature)) == pytest.approx(expected, rel=1e-12)
    assert float(info_nce(u.float(), v.float(), temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(info_nce(v, u, temperature)) == pytest.approx(expected)
    assert float(info_nce(3 * u, v, temperature)) == pytest.approx(expected)  # depends only on angles


def test_a_node_is_never_its_own_negative():
    # two orthogonal nodes, both views equal: -ln(e^5 / (e^5 + 1 + 1)) at temperature 0.2; with the node itself among its
    # negatives, as in the library that the reference uses, it would be ln 2 higher
    view = torch.eye(2, dtype=torch.float64)
    assert float(info_nce(view, view)) == pytest.approx(math.log1p(2 * math.exp(-5)), rel=1e-12)


def test_one_node_has_no_negative():
    u = torch.randn(1, 3, requires_grad=True)
    loss = info_nce(u, torch.randn(1, 3))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert torch.equal(u.grad, torch.zeros(1, 3))


def test_gradient_against_finite_differences():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(3, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(info_nce, (u, v))


def test_autocast_does_not_change_it():
    u, v = torch.randn(5, 8), torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(u, v)
    assert torch.equal(loss, info_nce(u, v))


def test_no_host_reads():
    with NoHostReads():
        info_nce(torch.randn(5, 8, requires_grad=True), torch.randn(5, 8)).backward()


@pytest.mark.parametrize("shapes", [((3, 2), (4, 2)), ((3, 2), (3, 1)), ((3,), (3,))])
def test_views_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected two views of one shape \(N, H\)"):
        info_nce(*(torch.randn(*shape) for shape in shapes))


@pytest.mark.parametrize("temperature", [0.0, -0.2, math.nan])
def test_temperature_outside_its_range_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature: expected a number > 0.*set model.contrastive.temperature=0.2"):
        info_nce(torch.randn(3, 2), torch.randn(3, 2), temperature)
