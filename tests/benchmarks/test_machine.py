"""Counted operations against counts by hand, and a peak that is a rate."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.machine import Peak, operations_of_a_step
from benchmarks.workload import build_coach, dataset, one_batch, settings_of


def test_the_peak_is_the_operations_of_the_best_size():
    peak = Peak("fp32", (16, 32))
    spent = [peak.round() for _ in range(3)]
    assert all(seconds > 0 for seconds in spent)
    peak._rounds = {16: [1.0, 2.0, 9.0], 32: [4.0, 4.0, 1.0]}
    assert peak.operations_per_second() == 2 * 32**3 / 4.0


def test_attention_on_the_processor_is_counted():
    q, k, v = (torch.randn(2, 3, t, 8, requires_grad=True) for t in (5, 7, 7))
    with FlopCounterMode(display=False, custom_mapping=machine._ATTENTION) as counter:
        output = nn.functional.scaled_dot_product_attention(q, k, v)
        forward = counter.get_total_flops()
        output.sum().backward()
    one = 2 * 2 * 3 * 5 * 7 * 8  # operations of one product
    assert forward == 2 * one  # scores and values
    assert counter.get_total_flops() == (2 + 5) * one  # backward: the scores again, and four products


def test_a_step_counts_every_matrix_that_trains():
    settings = settings_of("small", *one_batch("small", 4), "loss=mse")
    coach = build_coach(settings, dataset(settings))
    lengths = coach.splits["train"].lengths
    n = int(np.sum(lengths))
    linear = [
        m for name, m in coach.model.named_modules() if isinstance(m, nn.Linear) and "modal_attention" not in name
    ]
    weights = sum(m.weight.numel() for m in linear)
    counted = operations_of_a_step(coach)
    # forward 2 n w; backward as much again for the weights, and for inputs that need a gradient; convolution and
    # contrast come on top, and products of speakers and of similarities are no larger than these here
    assert 2 * (2 * n * weights) < counted < 1.5 * 3 * (2 * n * weights)
    assert coach.epoch == 0  # used up in its first epoch
    twice = settings_of("small", *one_batch("small", 4), "data.synthetic.utterances=12")
    assert operations_of_a_step(build_coach(twice, dataset(twice))) > 1.6 * counted


def test_the_command(measured):
    named, told = measured(machine.main, "--size", "small", "--threads", "1", "--repeats", "3")
    assert named["matrix products, fp32"].value > 0.1
    assert named["matrix products, fp32"].ratio == 1
    assert ("matrix products, bf16" in named) != (machine.NO_BFLOAT16 in told["notes"])


def test_a_coach_without_a_step_is_an_error(monkeypatch):
    settings = settings_of("small")
    coach = build_coach(settings, dataset(settings))
    monkeypatch.setattr(coach, "train_epoch", lambda epoch: [])
    with pytest.raises(RuntimeError, match="no optimizer step"):
        operations_of_a_step(coach)
