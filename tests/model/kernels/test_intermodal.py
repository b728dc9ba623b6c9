"""Comparison of the inter-modal softmax with a plain implementation in float64 that stores the matrix of weights.

All errors are relative. The error of an output is relative to the largest |x| of the row. The error of a gradient is relative
to its largest entry when every upstream gradient is positive, so that cancelling sums do not count. x and b are exact to eps,
so the exponents b x are exact to s eps, with s = |b| times the half range of x. No form can compute gradients more
accurately than a few times that.
"""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from joyful.model.kernels import intermodal
from joyful.model.kernels.intermodal import intermodal_softmax, plain_intermodal_softmax

torch.set_num_threads(1)
FUZZ_EXAMPLES = int(os.environ.get("JOYFUL_FUZZ_EXAMPLES", "60"))  # 60 take about 2 s; more examples find more

# Tolerances of (output, gradients) for each form. The exact form has only rounding errors.
TOLERANCE = {
    ("exact", torch.float32): (1e-6, 1e-6),
    ("exact", torch.float64): (1e-12, 1e-12),
    ("interpolated", torch.float32): (2e-6, 1e-5),
    ("interpolated", torch.float64): (1e-9, 1e-9),
}
CASES = pytest.mark.parametrize(("form", "dtype"), TOLERANCE)


def plain(x, b, g):
    """Return output and gradients for the upstream gradient g in float64, with PyTorch's softmax and autograd.

    The middle of each row, and then the output itself, are subtracted first and added afterwards. This only reduces the
    rounding errors of this function.
    """
    x, b = x.detach().double().requires_grad_(), b.detach().double().requires_grad_()
    middle = ((x.amin(dim=1, keepdim=True) + x.amax(dim=1, keepdim=True)) / 2).detach()
    weights_NIJ = torch.softmax(b[None, :, None] * (x - middle)[:, None, :], dim=2)
    output = (weights_NIJ * (x - middle)[:, None, :]).sum(dim=2).detach()
    output = output + (weights_NIJ * ((x - middle)[:, None, :] - output[:, :, None])).sum(dim=2)
    return (middle + output).detach(), *torch.autograd.grad(output, (x, b), g.double())


def fast(x, b, g, form):
    x, b = x.detach().requires_grad_(), b.detach().requires_grad_()
    output = intermodal_softmax(x, b, form)
    return output.detach(), *torch.autograd.grad(output, (x, b), g)


def errors(x, b, form, seed=0):
    """Return the relative errors of the output, of the gradient in x (by row) and of the gradient in b, and s."""
    g = torch.randn(x.shape[0], b.shape[0], generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    output, grad_x, grad_b = fast(x, b, g, form)
    output_2, grad_x2, grad_b2 = plain(x, b, g)
    _, scale_x, scale_b = plain(x, b, g.abs())
    half = (x.amax(dim=1) - x.amin(dim=1)).double() / 2
    # f' can be much smaller at every b than between them, where the interpolant must follow it as well. Since x / half is
    # exact to eps, the variance v half^2 is exact to 2 eps sqrt(v), so v counts as at least 1e-4.
    between = torch.linspace(float(b.detach().min()), float(b.detach().max()), 401, dtype=torch.float64)
    _, _, slopes = plain(x, between, torch.ones(x.shape[0], 401))
    possible = float(torch.maximum(slopes.max(), 1e-4 * half.square().sum()) * g.abs().max())
    return (
        float(((output - output_2).abs().amax(dim=1) / x.abs().amax(dim=1).clamp(min=1e-37)).max()),
        float(((grad_x - grad_x2).abs().amax(dim=1) / scale_x.abs().amax(dim=1)).max()),
        # 1e-43, because squares of ranges below 1e-19 are subnormal in float32 and have few digits
        float(((grad_b - grad_b2).abs().max() - 1e-43).clamp(min=0.0)) / max(float(scale_b.max()), possible, 1e-300),
        float(b.abs().max() * half.max()),
    )


def assert_close(x, b, form, seed=0):
    output, grad_x, grad_b, s = errors(x, b, form, seed)
    limit_output, limit_gradient = TOLERANCE[form, x.dtype]
    conditioned = limit_gradient + 4 * s * torch.finfo(x.dtype).eps
    assert output <= limit_output, f"output: {output:.1e}"
    assert grad_x <= conditioned, f"gradient in x: {grad_x:.1e} of {conditioned:.1e}"
    assert grad_b <= conditioned, f"gradient in b: {grad_b:.1e} of {conditioned:.1e}"


def nodes_used(output):
    """Return number of nodes -> number of rows that use them; 0 stands for rows computed exactly."""
    n = output.shape[0]
    return {
        0 if group.matrix is None else len(group.nodes): n if group.rows is None else len(group.rows)
        for group in output.grad_fn.groups
    }


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def outlier_rows(units):
    """Return rows of -1 in which one, three, half or all but one of the values are 1."""
    return torch.stack(
        [torch.where(torch.arange(units) < k, 1.0, -1.0) for k in (1, 3, units // 2, units - 1)]
    ).double()


@CASES
@pytest.mark.parametrize("r", [0.0, 0.1, 1.0, 4.0, 16.0, 40.0, 200.0])
def test_ranges(form, dtype, r):
    assert_close(uniform(5, 61).to(dtype), (r * uniform(53, seed=1)).to(dtype), form)


@CASES
@pytest.mark.parametrize(("offset", "r"), [(3.0, 0.0), (-3.0, 1.0), (50.0, 0.0), (50.0, 1.0), (-200.0, 2.0)])
def test_ranges_off_zero(form, dtype, offset, r):
    # with all b on one side, the weights concentrate at one end of the row and f' is small everywhere
    assert_close(uniform(5, 61).to(dtype), (offset + r * uniform(53, seed=1)).to(dtype), form)


@CASES
def test_long_range_that_ends_near_zero(form, dtype):
    # f is steepest at b = 0, where a node rounded like the largest b would cause an error of 3e-6
    angles = torch.pi * (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    b = -27.073184725329472 + 28.486465508613726 * torch.cos(angles)
    for row in (torch.tensor([[-1.0, 1.0]]), outlier_rows(60)):
        assert_close(row.to(dtype), b.to(dtype), form)
        assert_close(row.to(dtype), -b.to(dtype), form)


@CASES
@pytest.mark.parametrize("r", [0.1, 1.0, 4.0, 16.0])
def test_rows_of_two_values_at_the_width_of_the_reference(form, dtype, r):
    # a float32 sum that adds 460 equal terms one by one has an error of 1e-5
    assert_close((0.37 * outlier_rows(460) + 0.1).to(dtype), (r / 0.37 * uniform(40)).to(dtype), form)


@CASES
def test_one_dominant_value(form, dtype):
    x = 0.01 * uniform(4, 61)
    x[:, 7] = torch.tensor([1.0, -1.0, 30.0, 0.02])
    for r in (1.0, 4.0, 20.0):
        assert_close(x.to(dtype), (r * uniform(53, seed=1)).to(dtype), form)


@CASES
@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_scales(form, dtype, scale):
    assert_close((scale * uniform(4, 61)).to(dtype), (3.0 / scale * uniform(53, seed=1)).to(dtype), form)


@CASES
def test_offset_of_the_rows(form, dtype):
    assert_close((1e4 + uniform(4, 61)).to(dtype), (3.0 * uniform(53, seed=1)).to(dtype), form)


@CASES
def test_mixed_rows_fall_into_groups(form, dtype):
    # half ranges from 0.01 to 100 and |b| <= 1 give r from 0.01 to 100: every number of nodes and the exact form
    x = 10.0 ** torch.linspace(-2, 2, 12, dtype=torch.float64)[:, None] * uniform(12, 61)
    b = uniform(53, seed=1)
    assert_close(x.to(dtype), b.to(dtype), form)
    groups = nodes_used(intermodal_softmax(x.to(dtype).requires_grad_(), b.to(dtype), form))
    assert groups == {0: 12} if form == "exact" else len(groups) >= 4


@CASES
@pytest.mark.parametrize(("rows", "units", "places"), [(1, 1, 1), (1, 1, 5), (1, 7, 1), (3, 2, 4), (1, 61, 53)])
def test_small_shapes(form, dtype, rows, units, places):
    assert_close(uniform(rows, units).to(dtype), (2.0 * uniform(places, seed=1)).to(dtype), form)


@CASES
def test_no_rows(form, dtype):
    x, b = torch.empty(0, 7, dtype=dtype, requires_grad=True), torch.ones(5, dtype=dtype, requires_grad=True)
    output = intermodal_softmax(x, b, form)
    assert output.shape == (0, 5)
    output.sum().backward()
    assert torch.equal(b.grad, torch.zeros(5, dtype=dtype))


@CASES
def test_constant_rows_give_their_constant(form, dtype):
    x = torch.tensor([[3.7] * 9, [0.0] * 9, [-1e4] * 9], dtype=dtype, requires_grad=True)
    b = torch.linspace(-40, 60, 7, dtype=dtype, requires_grad=True)
    output = intermodal_softmax(x, b, form)
    assert torch.equal(output, x[:, :7])
    output.sum().backward()
    torch.testing.assert_close(
        x.grad, torch.full((3, 9), 7 / 9, dtype=dtype)
    )  # 7 outputs, each with equal weights for 9 values
    assert torch.equal(b.grad, torch.zeros(7, dtype=dtype))


@st.composite
def inputs(draw):
    """Draw x (N, J) with rows of several kinds and half ranges, and b (I,) of some range and offset, in float64."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units, places, rows = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    kinds = st.sampled_from(["uniform", "normal", "two", "dominant", "clusters", "cauchy", "powers", "constant"])
    scale = 10.0 ** draw(st.sampled_from([-20, -3, 0, 0, 0, 2, 15]))
    x = np.empty((rows, units))
    for row in range(rows):
        kind = draw(kinds)
        x[row] = {
            "uniform": lambda: rng.uniform(-1, 1, units),
            "normal": lambda: rng.normal(size=units),
            "two": lambda: rng.choice([-1.0, 1.0], units),
            "dominant": lambda: np.where(np.arange(units) == 0, rng.choice([-1.0, 1.0]), 0.01 * rng.normal(size=units)),
            "clusters": lambda: rng.choice([-1.0, -0.4, 0.9, 1.0], units) + 1e-3 * rng.normal(size=units),
            "cauchy": lambda: rng.standard_cauchy(units),
            "powers": lambda: 10.0 ** -rng.uniform(0, 6, units),
            "constant": lambda: np.full(units, rng.normal()),
        }[kind]()
        half = np.ptp(x[row]) / 2 or 1.0
        relative = draw(st.sampled_from([1.0, 1.0, 0.1, 1e-3]))
        offset = draw(st.sampled_from([0.0, 0.0, 1.0, -30.0, 1e4]))
        x[row] = scale * relative * (x[row] / half + offset)
    r = draw(st.floats(1e-3, 200.0))
    offset = draw(st.one_of(st.just(0.0), st.floats(-1.0, 1.0).map(lambda f: f * r), st.floats(-100.0, 100.0)))
    points = rng.uniform(-1, 1, places)
    points[: min(2, places)] = (-1.0, 1.0)[: min(2, places)]
    return torch.from_numpy(x), torch.from_numpy((offset + r * points) / scale)


@CASES
@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(inputs())
def test_any_input(form, dtype, values):
    x, b = values
    assert_close(x.to(dtype), b.to(dtype), form)


@CASES
def test_a_row_does_not_depend_on_the_others(form, dtype):
    # except for one or two bits: the order of additions in the matrix product depends on the number of rows
    x = (10.0 ** torch.linspace(-1, 1.5, 9, dtype=torch.float64)[:, None] * uniform(9, 61)).to(dtype)
    b, g = uniform(53, seed=1).to(dtype), torch.ones(9, 53, dtype=dtype)
    eps = torch.finfo(dtype).eps
    together, gradient, _ = fast(x, b, g, form)
    backwards, _, _ = fast(x.flip(0), b, g, form)
    for row in range(9):
        limit = 4 * eps * float(x[row].abs().max())
        alone, gradient_alone, _ = fast(x[row : row + 1], b, g[:1], form)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=limit)
        torch.testing.assert_close(backwards[8 - row], together[row], rtol=0, atol=limit)
        torch.testing.assert_close(gradient_alone[0], gradient[row], rtol=0, atol=200 * eps)


@pytest.mark.parametrize("form", ["exact", "interpolated"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_or_infinity_stays_in_its_row_of_x(form, bad):
    x, b, g = uniform(5, 21).float(), uniform(13, seed=1).float(), torch.ones(5, 13)
    expected, gradient, _ = fast(x, b, g, form)
    x[2, 4] = bad
    output, gradient_2, _ = fast(x, b, g, form)
    assert output[2].isnan().all()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(output[others], expected[others], rtol=0, atol=1e-7)
    torch.testing.assert_close(gradient_2[others], gradient[others])


@pytest.mark.parametrize("form", ["exact", "interpolated"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_or_infinity_stays_in_its_column_of_b(form, bad):
    x, b = uniform(5, 21).float(), uniform(13, seed=1).float()
    b_2 = b.clone()
    b_2[3] = bad
    output, expected = intermodal_softmax(x, b_2, form), intermodal_softmax(x, b, "exact")
    assert output[:, 3].isnan().all()
    others = torch.arange(13) != 3
    torch.testing.assert_close(output[:, others], expected[:, others], rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["exact", "interpolated"])
def test_gradient_against_finite_differences(form):
    # independent of both the implementation and the comparison with autograd
    x, b = uniform(3, 5).requires_grad_(), (2.0 * uniform(4, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, b: intermodal_softmax(x, b, form), (x, b))


def test_differentiable_only_once():
    x, g = uniform(2, 5).requires_grad_(), torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(intermodal_softmax(x, uniform(4)), x, g, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("form", ["exact", "interpolated"])
def test_the_matrix_of_weights_is_never_stored(form):
    rows, units = 24, 460
    x, b = uniform(rows, units).float(), (3.0 * uniform(units, seed=1)).float()
    with LargestTensor() as seen:
        fast(x, b, torch.ones(rows, units), form)
    assert seen.elements <= intermodal._BLOCK["cpu"]
    assert intermodal._BLOCK["cpu"] < rows * units * units / 10
    with LargestTensor() as seen:  # checks the measurement: the plain implementation stores the matrix
        plain(x[:2], b, torch.ones(2, units))
    assert seen.elements == 2 * units * units


@CASES
@pytest.mark.parametrize("budget", [1, 70, 1000])
def test_blocks_of_any_size_give_the_same(form, dtype, budget, monkeypatch):
    x = (10.0 ** torch.linspace(-1, 1.5, 5, dtype=torch.float64)[:, None] * uniform(5, 31)).to(dtype)
    b, g = uniform(17, seed=1).to(dtype), torch.ones(5, 17, dtype=dtype)
    expected = fast(x, b, g, form)
    monkeypatch.setitem(intermodal._BLOCK, "cpu", budget)
    limit = 20 * torch.finfo(dtype).eps
    for one, other in zip(fast(x, b, g, form), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=limit, atol=limit * float(other.abs().max()))


@pytest.mark.parametrize("form", ["exact", "interpolated"])
def test_the_plain_form_computes_the_same(form):
    x, b = uniform(5, 7).requires_grad_(), uniform(9, seed=1).requires_grad_()
    results = []
    for output in (intermodal_softmax(x, b, form), plain_intermodal_softmax(x, b, form)):
        results.append([output.detach(), *torch.autograd.grad(output.square().sum(), (x, b))])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_16_nodes_at_the_initial_ranges():
    # standardised features and projections of the reference's sizes with PyTorch's initialisation: r is 2.3 to 4.3
    torch.manual_seed(0)
    b = nn.Sequential(nn.Linear(460, 460))(torch.ones(460)).detach()
    for width in (100, 768, 512):
        x = nn.Linear(width, 460)(torch.randn(40, width)).detach().requires_grad_()
        used = nodes_used(intermodal_softmax(x, b))
        assert used[16] >= 38
        assert sum(used.values()) == used[16] + used.get(20, 0) == 40
        assert_close(x[:3].detach(), b, "interpolated")
        assert 16 not in nodes_used(intermodal_softmax(x, 5 * b)), "the number of nodes does not depend on the range"


def test_two_calls_are_bitwise_equal():
    x, b, g = uniform(6, 61).float(), uniform(53, seed=1).float(), torch.ones(6, 53)
    for form in intermodal.FORMS:
        for one, other in zip(fast(x, b, g, form), fast(x, b, g, form), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("form", intermodal.FORMS)
def test_autocast_does_not_change_it(form):
    x, b = uniform(4, 61).float(), uniform(53, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = intermodal_softmax(x, b, form)
    assert torch.equal(output, intermodal_softmax(x, b, form))


def test_auto_is_interpolated_on_the_cpu():
    x, b = uniform(4, 61), uniform(53, seed=1)
    assert torch.equal(intermodal_softmax(x, b), intermodal_softmax(x, b, "interpolated"))
    assert not torch.equal(intermodal_softmax(x, b), intermodal_softmax(x, b, "exact"))


@pytest.mark.parametrize(
    ("x", "b", "form", "message"),
    [
        (torch.ones(2, 3), torch.ones(4), "fast", "one of auto, exact, interpolated, got 'fast'; set fusion.intermodal=auto"),
        (torch.ones(3), torch.ones(4), "auto", r"expected x \(N, J\) and b \(I,\), got \(3,\) and \(4,\)"),
        (torch.ones(2, 3), torch.ones(1, 4), "auto", r"got \(2, 3\) and \(1, 4\)"),
        (torch.ones(2, 0), torch.ones(4), "auto", r"got \(2, 0\) and \(4,\)"),
        (torch.ones(2, 3), torch.ones(0), "auto", r"got \(2, 3\) and \(0,\)"),
        (torch.ones(2, 3).half(), torch.ones(4).half(), "auto", "expected float32 or float64, got torch.float16"),
        (torch.ones(2, 3), torch.ones(4).double(), "auto", "got torch.float32 and torch.float64; cast x and b"),
        (torch.ones(2, 3).long(), torch.ones(4).long(), "exact", "got torch.int64"),
        # "meta" stands for any device other than the CPU
        (torch.ones(2, 3, device="meta"), torch.ones(4, device="meta"), "interpolated", "set fusion.intermodal=auto"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(x, b, form, message):
    with pytest.raises(ValueError, match=message):
        intermodal_softmax(x, b, form)
