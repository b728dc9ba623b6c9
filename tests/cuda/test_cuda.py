"""Tests that need a CUDA device: agreement with the CPU, and training steps that do not wait for the device."""

import pytest
import torch

from joyful.training.batching import epoch_order
from tests.support.runs import tiny_coach, tiny_settings

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False"
)


@pytest.mark.parametrize(
    "overrides",
    [(), ("model.context=transformer", "fusion=auto"), ("model.context=lstm",), ("weighting=adaptive",)],
)
def test_cuda_and_processor_curves_agree(overrides):
    settings = tiny_settings("fusion.intermodal=exact", "optimizer=sgd", *overrides)
    curves = {}
    for device in ("cpu", "cuda"):
        rows = [row for record in tiny_coach(settings, device=device).train() for row in record.rows]
        columns = ("nll", "recon_mse", "loss_contrastive")  # the last one is measured on train alone
        curves[device] = [{name: row[name] for name in columns if name in row} for row in rows]
    for cpu, cuda in zip(curves["cpu"], curves["cuda"], strict=True):
        assert cuda == pytest.approx(cpu, rel=1e-3)


@pytest.mark.parametrize("context", ["transformer", "gru", "lstm"])
def test_the_step_never_waits_for_the_device(context):
    settings = tiny_settings(f"model.context={context}")
    coach = tiny_coach(settings, device="cuda")
    batches = [
        coach.splits["train"].batch(part) for part in epoch_order(len(coach.splits["train"]), 2, settings.seed, 1)
    ]
    coach._train_step(batches[0], 1, None, {})  # the first step initialises libraries, which may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:3]:
            coach._train_step(batch, 1, None, {})
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_two_cuda_runs_give_the_same_bits():
    first, second = (
        [row for record in tiny_coach(tiny_settings(), device="cuda").train() for row in record.rows] for _ in range(2)
    )
    assert repr(first) == repr(second)
