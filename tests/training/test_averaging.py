import pytest
import torch
from torch import nn

from joyful.training.averaging import ParameterAverage, too_few_steps


def parameter(*values):
    return nn.Parameter(torch.tensor(values))


def test_by_hand():
    p = parameter(1.0, 2.0)
    average = ParameterAverage({"p": p}, 0.9)
    p.data = torch.tensor([3.0, -2.0])
    average.update(1)  # decay min(0.9, 2 / 11)
    expected = 2 / 11 * torch.tensor([1.0, 2.0]) + 9 / 11 * torch.tensor([3.0, -2.0])
    torch.testing.assert_close(average.state_dict()["p"], expected)
    average.update(1000)  # min(0.9, 1001 / 1010) = 0.9
    torch.testing.assert_close(average.state_dict()["p"], 0.9 * expected + 0.1 * p.data)


def test_applied_swaps_and_puts_back():
    p, q = parameter(1.0), parameter(5.0)
    average = ParameterAverage({"p": p, "q": q}, 0.5)
    with torch.no_grad():
        p.add_(2.0)
    with average.applied():
        assert (float(p.detach()), float(q.detach())) == (1.0, 5.0)
    assert float(p.detach()) == 3.0
    assert float(average.state_dict()["p"]) == 1.0


def raise_inside(average):
    with average.applied():
        raise KeyError("inside")


def test_applied_puts_back_after_an_error():
    p = parameter(1.0)
    average = ParameterAverage({"p": p}, 0.5)
    with torch.no_grad():
        p.add_(2.0)
    with pytest.raises(KeyError, match="inside"):
        raise_inside(average)
    assert float(p.detach()) == 3.0


def test_optimizer_goes_on_with_the_parameters_themselves():
    p = parameter(1.0)
    optimizer = torch.optim.SGD([p], lr=1.0)
    average = ParameterAverage({"p": p}, 0.5)
    with average.applied():
        pass
    p.grad = torch.tensor([0.25])
    optimizer.step()
    average.update(100)
    assert float(p.detach()) == 0.75
    assert float(average.state_dict()["p"]) == 0.875  # (1 + 0.75) / 2


def test_decay_0_keeps_none():
    p = parameter(1.0)
    average = ParameterAverage({"p": p}, 0.0)
    average.update(1)
    assert average.state_dict() == {}
    with torch.no_grad():
        p.add_(1.0)
    with average.applied():
        assert float(p.detach()) == 2.0


def test_state_gives_the_same_continuation():
    p, p_2 = parameter(1.0), parameter(9.0)
    one, other = ParameterAverage({"p": p}, 0.9), ParameterAverage({"p": p_2}, 0.9)
    p.data = torch.tensor([4.0])
    one.update(3)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    p.data = p_2.data = torch.tensor([-1.0])
    one.update(4)
    other.update(4)
    assert torch.equal(one.state_dict()["p"], other.state_dict()["p"])
    with pytest.raises(KeyError):
        other.load_state_dict({})


def test_averages_have_no_gradient():
    p = parameter(1.0)
    average = ParameterAverage({"p": p}, 0.9)
    average.update(1)
    assert not average.state_dict()["p"].requires_grad


@pytest.mark.parametrize("decay", [0.9, 0.94, 0.98, 0.99, 0.999])
def test_the_steps_and_the_decay_that_a_warning_names_are_enough(decay):
    least = next(steps for steps in range(1, 3000) if too_few_steps(decay, steps) is None)
    assert f"expected at least {least}:" in too_few_steps(decay, least - 1)
    for steps in range(1, least):
        message = too_few_steps(decay, steps)
        fitting = float(message.partition("set training.moving_average=")[2].partition(",")[0])
        assert fitting < decay
        assert too_few_steps(fitting, steps) is None
