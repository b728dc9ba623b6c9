"""Measurement of the speed of bfloat16."""

import torch

from joyful.training import precision


def test_the_gain_is_the_ratio_of_two_measured_times(monkeypatch):
    monkeypatch.setattr(precision, "SIDE", 64)
    seen = []
    seconds = {torch.float32: 3.0, torch.bfloat16: 1.5}
    original = precision._seconds

    def timed(matrix, repeats):
        seen.append((matrix.dtype, tuple(matrix.shape), repeats))
        assert 0 < original(matrix, repeats) < 60
        return seconds[matrix.dtype]

    monkeypatch.setattr(precision, "_seconds", timed)
    assert precision.bfloat16_gain(repeats=2) == 2.0
    assert seen == [(torch.float32, (64, 64), 2), (torch.bfloat16, (64, 64), 2)]


def test_the_gain_on_this_processor_is_plausible():
    state = torch.get_rng_state()
    assert 1e-4 < precision.bfloat16_gain() < 100
    assert torch.equal(torch.get_rng_state(), state)
