"""Operation counts against counts by hand, and the peak rate of matrix products."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.machine import Peak, operations_of_a_step
from benchmarks.workload import build_coach, dataset, loss_overrides, one_batch_overrides, settings_of
from joyful.training.batching import epoch_order


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
    settings = settings_of("small", *one_batch_overrides("small", 4), "loss=mse")
    coach = build_coach(settings, dataset(settings))
    lengths = coach.splits["train"].lengths
    n = int(np.sum(lengths))
    linear = [
        m for name, m in coach.model.named_modules() if isinstance(m, nn.Linear) and "modal_attention" not in name
    ]
    weights = sum(m.weight.numel() for m in linear)
    counted = operations_of_a_step(coach)
    # Forward takes 2 n w; backward takes 2 n w for the weights and 2 n w for inputs that need a gradient. Convolutions
    # and contrast come on top; products of speakers and similarities are smaller than these here.
    assert 2 * (2 * n * weights) < counted < 1.5 * 3 * (2 * n * weights)
    assert coach.epoch == 0  # the first epoch was aborted
    twice = settings_of("small", *one_batch_overrides("small", 4), "data.synthetic.utterances=12")
    assert operations_of_a_step(build_coach(twice, dataset(twice))) > 1.6 * counted


def test_decoders_of_untrained_reconstructions_have_no_backward_pass():
    """The reference's loss saves two products per decoder weight and utterance before the last dialogue."""
    coaches = {}
    for loss in ("own", "reference"):
        settings = settings_of("small", *one_batch_overrides("small", None), *loss_overrides(loss))
        coaches[loss] = build_coach(settings, dataset(settings))
    decoders = ("dialogue_gate.fuse_out", "fuse_outInter")
    parameters = coaches["own"].model.fusion.named_parameters()
    weights = sum(p.numel() for name, p in parameters if p.ndim == 2 and name.startswith(decoders))
    train = coaches["own"].splits["train"].lengths
    (order,) = epoch_order(len(train), len(train), settings.seed, 1)
    untrained = int(np.sum(train)) - int(train[order[-1]])
    own, reference = (operations_of_a_step(coaches[loss]) for loss in ("own", "reference"))
    assert own - reference == 2 * 2 * weights * untrained


def test_the_command(measured):
    named, document = measured(machine.main, "--size", "small", "--threads", "1", "--repeats", "3")
    assert named["matrix products, fp32"].value > 0.1
    assert named["matrix products, fp32"].ratio == 1
    assert ("matrix products, bf16" in named) != (machine.NO_BFLOAT16 in document["notes"])


def test_a_coach_without_a_step_is_an_error(monkeypatch):
    settings = settings_of("small")
    coach = build_coach(settings, dataset(settings))
    monkeypatch.setattr(coach, "train_epoch", lambda epoch: [])
    with pytest.raises(RuntimeError, match="expected an optimizer step in the epoch, got none"):
        operations_of_a_step(coach)
