import math

import pytest
import torch

from joyful.losses.normalisation import METHODS, LossNormalizer
from tests.support.host_reads import NoHostReads


def normalise(normalizer, value, name="a"):
    loss = torch.tensor(value, requires_grad=True)
    result = normalizer({name: loss})[name]
    (gradient,) = torch.autograd.grad(result, loss)
    return float(result.detach()), float(gradient)


def test_log_by_hand():
    assert normalise(LossNormalizer(), 3.0) == pytest.approx((math.log(4), 0.25))
    assert normalise(LossNormalizer("log"), 0.0) == (0.0, 1.0)


def test_minmax_by_hand():
    normalizer = LossNormalizer("minmax")
    assert normalise(normalizer, 2.0) == (0.0, 1.0)  # one value: the range counts as 1
    assert normalise(normalizer, 6.0) == (1.0, 0.25)  # 2 to 6
    assert normalise(normalizer, 3.0) == (0.25, 0.25)
    assert normalise(normalizer, 1.0) == (0.0, pytest.approx(0.2))  # 1 to 6
    assert normalise(normalizer, 6.0) == (1.0, pytest.approx(0.2))


def test_minmax_keeps_losses_apart():
    normalizer = LossNormalizer("minmax")
    normalise(normalizer, 2.0, "a")
    assert normalise(normalizer, 6.0, "b") == (0.0, 1.0)
    assert normalise(normalizer, 4.0, "a") == (1.0, 0.5)


def test_minmax_range_below_eps_counts_as_1():
    normalizer = LossNormalizer("minmax", eps=0.5)
    normalise(normalizer, 2.0)
    assert normalise(normalizer, 2.25) == (0.25, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_minmax_ignores_losses_that_are_not_finite(bad, first):
    normalizer = LossNormalizer("minmax")
    values = [bad, 2.0, 6.0] if first else [2.0, 6.0, bad]
    results = [normalise(normalizer, value)[0] for value in values]
    assert not math.isfinite(results[values.index(bad)])
    assert normalise(normalizer, 3.0) == (0.25, 0.25)
    assert normalizer.state_dict()["a"].tolist() == [2.0, 6.0]


@pytest.mark.parametrize("method", METHODS)
def test_slopes_are_the_derivatives(method):
    normalizer = LossNormalizer(method)
    for value in (1.0, 4.0, 2.5):
        _, gradient = normalise(normalizer, value)
        assert float(normalizer.slopes({"a": torch.tensor(value)})["a"]) == pytest.approx(gradient)


@pytest.mark.parametrize("method", METHODS)
def test_state_gives_the_same_continuation(method):
    one, other = LossNormalizer(method), LossNormalizer(method)
    normalise(one, 2.0)
    normalise(one, 7.3)
    state = one.state_dict()
    other.load_state_dict(state)
    normalise(other, 100.0)  # must change neither the copied state nor the original
    other.load_state_dict(state)
    assert normalise(one, 3.1) == normalise(other, 3.1)
    assert normalise(one, 9.0) == normalise(other, 9.0)


@pytest.mark.parametrize("method", METHODS)
def test_no_host_reads(method):
    normalizer = LossNormalizer(method)
    with NoHostReads():
        for value in (1.0, 2.0):
            normalizer({"a": torch.tensor(value)})


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected one of log, minmax, got 'zscore'; set method='log'"):
        LossNormalizer("zscore")
