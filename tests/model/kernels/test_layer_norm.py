"""Comparison of values and gradients with PyTorch's layer normalisation."""

import pytest
import torch
from torch import nn

from joyful.model.kernels.layer_norm import MAX_RATIO, lean_layer_norm, plain_layer_norm


def norm_of(weight, bias, dtype=torch.float64):
    norm = nn.LayerNorm(len(weight)).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(weight))
        norm.bias.copy_(torch.tensor(bias))
    return norm


def random_norm(width, dtype):
    """Return a norm with weights of both signs and many sizes, and biases up to MAX_RATIO times as large."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(width, generator=generator) * 10 ** torch.linspace(-3, 3, width)
    bias = weight * MAX_RATIO * (2 * torch.rand(width, generator=generator) - 1)
    return norm_of(weight.tolist(), (0.999 * bias).tolist(), dtype)


def both(norm, x, gradient):
    """Return value and gradients of PyTorch's form and of ours, the tensors that ours stores, and its output."""
    stored = []
    plain = plain_layer_norm(x, norm)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        ours = lean_layer_norm(x, norm)
    inputs = [x, norm.weight, norm.bias]
    return [[y.detach(), *torch.autograd.grad(y, inputs, gradient)] for y in (plain, ours)], stored, ours


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(1, 5), (7, 16), (40, 64)])
def test_value_and_gradients_equal_those_of_pytorch(shape, dtype, tolerance):
    generator = torch.Generator().manual_seed(1)
    x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 2).to(dtype).requires_grad_()
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    (plain, ours), stored, output = both(random_norm(shape[1], dtype), x, gradient)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max())))
    assert [t.data_ptr() for t in stored if t.shape == shape] == [output.data_ptr()]  # the output, not x


def test_rows_without_deviation():
    x = torch.full((2, 4), 3.0, dtype=torch.float64, requires_grad=True)
    norm = norm_of([1.0, -2.0, 0.5, 1.0], [0.5, 1.0, 0.0, -1.0])
    (plain, ours), *_ = both(norm, x, torch.arange(8.0, dtype=torch.float64).view(2, 4))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("weight", "bias"), [([1.0, 0.0, 1.0], [0.0] * 3), ([1.0, 1.0, 0.1], [0.0, 0.0, 1.0])])
def test_an_input_that_cannot_be_recovered_is_stored(weight, bias):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (plain, ours), stored, _ = both(norm_of(weight, bias), x, torch.ones(6, 3, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert x.data_ptr() in [t.data_ptr() for t in stored]


def test_bfloat16_uses_the_form_of_pytorch():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    (plain, ours), stored, _ = both(norm_of([1.0] * 3, [0.0] * 3, torch.float32), x, torch.ones(6, 3).bfloat16())
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert x.data_ptr() in [t.data_ptr() for t in stored]


def test_nan_stays_in_its_row():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[1, 2] = float("nan")
    (plain, ours), *_ = both(norm_of([1.0] * 4, [0.0] * 4), x.requires_grad_(), torch.ones(3, 4, dtype=torch.float64))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
    assert plain[0][1].isnan().all()
