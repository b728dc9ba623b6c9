import pytest
import torch
from torch import nn

from joyful.model.kernels.attention_blocks import attention_blocks
from joyful.model.kernels.recurrence import bidirectional_gru, packed_layer, recurrent_layer


def layer(width=5, hidden=3, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.GRU(width, hidden, batch_first=True, bidirectional=True, dtype=dtype)


def plain(gru, x_ND, lengths):
    """nn.GRU on each dialogue separately."""
    return torch.cat([gru(part.unsqueeze(0))[0].squeeze(0) for part in x_ND.split(lengths)])


@pytest.mark.parametrize("lengths", [(1,), (4,), (1, 1, 1), (2, 7, 1, 7, 3), (3, 2, 1)])
def test_values_and_gradients_equal_those_of_pytorch(lengths):
    gru, n = layer(), sum(lengths)
    x = torch.randn(n, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(n, 6, dtype=torch.float64)
    results, blocks = [], attention_blocks(lengths, -1, -1, torch.device("cpu"))
    for states in (
        plain(gru, x, lengths),
        packed_layer(gru, x, lengths, blocks),
        recurrent_layer(gru, x, lengths, blocks),
    ):
        results.append([states.detach(), *torch.autograd.grad((states * weight).sum(), [x, *gru.parameters()])])
    for expected, packed, ours in zip(*results, strict=True):
        torch.testing.assert_close(packed, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_float32_over_a_long_dialogue_stays_close():
    gru = layer(dtype=torch.float32)
    x = torch.randn(400, 5)
    torch.testing.assert_close(bidirectional_gru(gru, x, (300, 100)), plain(gru, x, (300, 100)), rtol=1e-4, atol=1e-5)


def test_a_dialogue_does_not_depend_on_its_batch():
    gru = layer()
    x = torch.randn(9, 5, dtype=torch.float64)
    alone = bidirectional_gru(gru, x[2:6], (4,))
    torch.testing.assert_close(bidirectional_gru(gru, x, (2, 4, 3))[2:6], alone, rtol=1e-12, atol=1e-14)


def test_autocast_does_not_round_the_recurrence():
    gru, x = layer(dtype=torch.float32), torch.randn(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = bidirectional_gru(gru, x.bfloat16().float(), (4, 2))
    assert torch.equal(states, bidirectional_gru(gru, x.bfloat16().float(), (4, 2)))


def test_the_gradient_can_be_computed_twice():
    gru = layer()
    loss = bidirectional_gru(gru, torch.randn(4, 5, dtype=torch.float64), (4,)).square().sum()
    first = torch.autograd.grad(loss, gru.weight_hh_l0, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, gru.weight_hh_l0)[0])


def test_the_order_cached_in_evaluation_works_in_training():
    gru, x = layer(), torch.randn(11, 5, dtype=torch.float64)
    with torch.inference_mode():
        states = bidirectional_gru(gru, x, (5, 6))
    trained = bidirectional_gru(gru, x, (5, 6))
    trained.sum().backward()
    assert torch.equal(trained.detach(), states)
