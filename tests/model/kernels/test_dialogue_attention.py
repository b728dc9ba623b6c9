"""Comparison with PyTorch's attention on each dialogue, and with the padded blocks that CUDA uses."""

import pytest
import torch

from joyful.model.kernels import dialogue_attention as module
from joyful.model.kernels.attention_blocks import attention_blocks, block_attention
from joyful.model.kernels.dialogue_attention import dialogue_attention, plain_dialogue_attention

LENGTHS = (5, 1, 17, 2)
BLOCKS = attention_blocks(LENGTHS, -1, -1, torch.device("cpu"))
HEADS, WIDTH = 4, 24


def inputs(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(LENGTHS), 3 * WIDTH, generator=generator, dtype=torch.float64).mul_(2).to(dtype)
    gradient = torch.randn(sum(LENGTHS), WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return qkv.requires_grad_(), gradient


def fast(qkv):
    return dialogue_attention(qkv, LENGTHS, BLOCKS, HEADS)


def plain(qkv):
    """PyTorch's attention on each dialogue separately."""
    return plain_dialogue_attention(qkv, LENGTHS, BLOCKS, HEADS)


def padded(qkv):
    """The form that CUDA uses."""
    return block_attention(*qkv.chunk(3, dim=1), BLOCKS, HEADS)


@pytest.mark.parametrize("stored", [0, 5, 128], ids=["weights recomputed", "some", "weights stored"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("other", [plain, padded])
def test_outputs_and_gradients_equal_those_of_other_forms(monkeypatch, stored, dtype, tolerance, other):
    monkeypatch.setattr(module, "MAX_STORED_LENGTH", stored)
    qkv, gradient = inputs(dtype)
    ours = fast(qkv)
    (our_gradient,) = torch.autograd.grad(ours, qkv, gradient)
    theirs = other(qkv)
    (their_gradient,) = torch.autograd.grad(theirs, qkv, gradient)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=tolerance, atol=tolerance)


def test_bfloat16_is_as_close_to_float64_as_the_padded_form():
    qkv, gradient = inputs(torch.bfloat16)

    def results(attention, x):
        output = attention(x)
        return output, *torch.autograd.grad(output, x, gradient.to(x.dtype))

    truths = results(plain, qkv.detach().double().requires_grad_())
    ours = results(fast, qkv)
    for our, their, truth in zip(ours, results(padded, qkv), truths, strict=True):
        assert (our - truth).norm() < 1.2 * (their - truth).norm()


@pytest.mark.slow
def test_gradient_against_finite_differences():
    qkv, _ = inputs(torch.float64, seed=1)
    assert torch.autograd.gradcheck(fast, (qkv,))


def test_a_dialogue_does_not_depend_on_others():
    qkv, _ = inputs(torch.float64)
    before = fast(qkv)
    changed = qkv.detach().clone()
    changed[6:23] += 1.0  # the third dialogue
    after = fast(changed)
    same = (before == after).all(dim=1)
    assert same[:6].all()
    assert not same[6:23].any()
    assert same[23:].all()


def test_weights_of_long_dialogues_are_not_stored():
    saved = []

    def pack(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    lengths = module.MAX_STORED_LENGTH + 1, 3
    qkv = torch.randn(sum(lengths), 3 * WIDTH, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        dialogue_attention(qkv, lengths, attention_blocks(lengths, -1, -1, torch.device("cpu")), HEADS)
    assert saved == [tuple(qkv.shape), (HEADS, 3, 3)]
