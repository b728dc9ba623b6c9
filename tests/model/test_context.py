"""Comparison with PyTorch's layers, applied to each dialogue separately."""

import pytest
import torch
from torch import nn

from joyful.model import joyful as model
from joyful.model.joyful import RecurrentContext, TransformerContext, TransformerLayer, initialise
from joyful.model.kernels.attention_blocks import attention_blocks
from joyful.randomness import Draws

CPU = torch.device("cpu")
LENGTHS = (5, 1, 8, 3)
BLOCKS = attention_blocks(LENGTHS, -1, -1, CPU)
N = sum(LENGTHS)


def by_dialogue(function, x):
    return torch.cat([function(part) for part in x.split(LENGTHS)])


def assert_same_with_gradients(output, expected, inputs, expected_inputs, names=None):
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    mine = torch.autograd.grad((output * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), expected_inputs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_transformer_layer_against_torch(heads):
    torch.manual_seed(0)
    ours = TransformerLayer(8, heads, 10, drop=0.0)
    theirs = nn.TransformerEncoderLayer(8, heads, 10, dropout=0.0, batch_first=True)
    for parameter in ours.parameters():  # including the norms, which start at 1 and 0
        nn.init.normal_(parameter, std=0.5)
    names = {
        "qkv.weight": "self_attn.in_proj_weight", "qkv.bias": "self_attn.in_proj_bias",
        "out.weight": "self_attn.out_proj.weight", "out.bias": "self_attn.out_proj.bias",
    }  # fmt: skip
    theirs.load_state_dict({names.get(name, name): value for name, value in ours.state_dict().items()})
    x = torch.randn(N, 8, requires_grad=True)
    expected = by_dialogue(lambda part: theirs(part[None])[0], x)
    named = dict(theirs.named_parameters())
    assert_same_with_gradients(
        ours(x, LENGTHS, BLOCKS, None, "layer"),
        expected,
        [x, *ours.parameters()],
        [x, *(named[names.get(name, name)] for name, _ in ours.named_parameters())],
    )


def test_transformer_context_is_its_layers_and_a_projection():
    torch.manual_seed(0)
    context = TransformerContext(8, 3, layers=2, heads=2, feedforward=10, drop=0.5)
    x = torch.randn(N, 8)
    expected = x
    for layer in context.layers:
        expected = layer(expected, LENGTHS, BLOCKS, None, "")
    assert torch.equal(context(x, LENGTHS, BLOCKS, None), context.project(expected))


@pytest.mark.parametrize(("kind", "cell"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_context_against_torch(kind, cell, layers):
    torch.manual_seed(0)
    ours = RecurrentContext(kind, 7, 4, layers, drop=0.5)
    theirs = cell(7, 4, layers, batch_first=True, bidirectional=True)
    # ours is one module a layer: layers.1.weight_ih_l0 is torch's weight_ih_l1
    names = {
        f"layers.{layer}.{name}": name.replace("_l0", f"_l{layer}")
        for layer in range(layers)
        for name, _ in ours.layers[0].named_parameters()
    }
    state = ours.state_dict()
    theirs.load_state_dict({name: state[own] for own, name in names.items()})
    project = nn.Linear(8, 4)
    project.load_state_dict(ours.project.state_dict())
    x = torch.randn(N, 7, requires_grad=True)
    expected = by_dialogue(lambda part: project(theirs(part[None])[0][0]), x)
    mine, named = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert_same_with_gradients(
        ours(x, LENGTHS, BLOCKS, None),
        expected,
        [x, *(mine[own] for own in names), *ours.project.parameters()],
        [x, *(named[name] for name in names.values()), *project.parameters()],
    )


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_layers_have_gradients_on_cuda_in_evaluation_mode(kind):
    context = RecurrentContext(kind, 7, 4, layers=2, drop=0.5).eval()
    assert not context.training
    assert all(layer.training for layer in context.layers)  # cuDNN refuses the gradients of others
    assert all(layer.dropout == 0 for layer in context.layers)  # so both modes compute the same
    x = torch.randn(N, 7)
    assert torch.equal(context(x, LENGTHS, BLOCKS, None), context.train()(x, LENGTHS, BLOCKS, None))


@pytest.mark.parametrize("kind", ["transformer", "gru", "lstm"])
def test_dropout_is_a_function_of_the_draws(kind):
    torch.manual_seed(0)
    if kind == "transformer":
        context = TransformerContext(8, 3, layers=2, heads=2, feedforward=10, drop=0.5)
    else:
        context = RecurrentContext(kind, 8, 3, layers=2, drop=0.5)
    x = torch.randn(N, 8)

    def run(draws):
        return context(x, LENGTHS, BLOCKS, draws)

    assert torch.equal(run(Draws(1, 1, 1)), run(Draws(1, 1, 1)))
    assert not torch.allclose(run(Draws(1, 1, 1)), run(Draws(1, 1, 2)))
    assert not torch.allclose(run(Draws(1, 1, 1)), run(None))
    state = torch.get_rng_state()
    run(Draws(1, 1, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_each_layer_draws_its_own_masks(monkeypatch):
    places = []
    for name in ("dropout", "relu_dropout_"):
        monkeypatch.setattr(model, name, lambda x, drop, draws, place: places.append(place) or x)
    TransformerContext(8, 3, layers=2, heads=2, feedforward=10, drop=0.5)(
        torch.randn(N, 8), LENGTHS, BLOCKS, Draws(1, 1, 1)
    )
    RecurrentContext("gru", 8, 3, layers=2, drop=0.5)(torch.randn(N, 8), LENGTHS, BLOCKS, Draws(1, 1, 1))
    # three masks in each transformer layer, one before each recurrent layer
    assert places[:6] == [
        f"context.{layer}.{part}" for layer in (0, 1) for part in ("attention", "hidden", "feedforward")
    ]
    assert places[6:] == ["context.0", "context.1"]


def test_attention_projections_have_glorot_initialisation():
    context = TransformerContext(48, 8, layers=2, heads=4, feedforward=16, drop=0.0)
    initialise(context, seed=1)
    bound = (6 / (48 + 3 * 48)) ** 0.5
    for layer in context.layers:
        assert float(layer.qkv.weight.detach().abs().max()) <= bound
        assert float(layer.qkv.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not layer.qkv.bias.any()
        assert not layer.out.bias.any()
    assert not torch.equal(context.layers[0].qkv.weight, context.layers[1].qkv.weight)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(
        ValueError, match=r"context_heads: expected a divisor of the context's width 6, got 4; .*\[1, 2, 3, 6\]"
    ):
        TransformerContext(6, 3, layers=1, heads=4, feedforward=4, drop=0.0)
