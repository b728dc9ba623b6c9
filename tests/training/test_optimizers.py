import math
import random
import subprocess
import sys

import pytest
import torch

from joyful.config import OptimizerSettings
from joyful.training.optimizers import SGD, Adam, Plateau, build_optimizer

THEIRS = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "sgd": (torch.optim.SGD, {}),  # its fused kernel fails if the first gradient of a parameter comes late
    "rmsprop": (torch.optim.RMSprop, {}),
}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 5), (7,), (2,), ())]


def give_gradients(tensors, step):
    """Set random gradients. The third tensor has none before the third step, as a head that is trained later."""
    generator = torch.Generator().manual_seed(step)
    for number, tensor in enumerate(tensors):
        gradient = torch.randn(tensor.shape, generator=generator)
        tensor.grad = None if number == 2 and step < 3 else gradient


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", THEIRS)
def test_steps_and_state_agree_with_torch(name, decay, momentum):
    settings = OptimizerSettings(name=name, learning_rate=0.05, weight_decay=decay, momentum=momentum, warmup_steps=0)
    mine, theirs = parameters(), parameters()
    kind, options = THEIRS[name]
    if name in ("sgd", "rmsprop"):
        options = {**options, "momentum": momentum}
    ours, reference = build_optimizer(settings, mine), kind(theirs, lr=0.05, weight_decay=decay, **options)
    for step in range(6):
        for tensors in (mine, theirs):
            give_gradients(tensors, step)
        ours.lr = reference.param_groups[0]["lr"] = 0.05 / (step + 1)
        ours.step()
        reference.step()
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    states = reference.state_dict()["state"]
    kept = ours.state_dict()
    for key, value in kept.items():
        number, entry = key.split(".")
        torch.testing.assert_close(value, states[int(number)][entry], rtol=1e-6, atol=1e-7)
    entries = {"sgd": bool(momentum), "rmsprop": 1 + bool(momentum)}.get(name, 3)
    assert len(kept) == 4 * entries


@pytest.mark.parametrize("name", THEIRS)
def test_a_saved_state_continues_bit_for_bit(name):
    settings = OptimizerSettings(name=name, learning_rate=0.05, weight_decay=0.01, momentum=0.5, warmup_steps=0)
    first, second = parameters(), parameters()
    one = build_optimizer(settings, first)
    for step in range(2):
        give_gradients(first, step)
        one.step()
    with torch.no_grad():
        for a, b in zip(first, second, strict=True):
            b.copy_(a)
    other = build_optimizer(settings, second)
    other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
    for step in range(2, 5):
        for tensors, optimizer in ((first, one), (second, other)):
            give_gradients(tensors, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"0.momentum_buffer": torch.zeros(3, 5)}, "expected step, exp_avg, exp_avg_sq of 4 parameters"),
        ({"9.exp_avg": torch.zeros(3, 5)}, "of 4 parameters"),
        ({"x.exp_avg": torch.zeros(3, 5)}, "of 4 parameters"),
        ({"0.exp_avg": torch.zeros(3, 4)}, r"expected shape \(3, 5\), got \(3, 4\)"),
        ({"0.step": torch.zeros(2)}, r"expected shape \(\), got \(2,\)"),
        ({"0.exp_avg": torch.zeros(3, 5)}, "expected step, exp_avg, exp_avg_sq, got exp_avg"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_changed(saved, message):
    tensors = parameters()
    optimizer = Adam(tensors, 0.1, 0.0)
    give_gradients(tensors, 5)
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert all(torch.equal(value, before[key]) for key, value in optimizer.state_dict().items())


def test_a_loaded_state_replaces_the_previous_one():
    tensors, others = parameters(), parameters()
    optimizer, other = Adam(tensors, 0.1, 0.0), Adam(others, 0.1, 0.0)
    for step in range(5):
        give_gradients(tensors, step)
        optimizer.step()
    give_gradients(others, 1)
    other.step()
    saved = {key: value.clone() for key, value in other.state_dict().items()}
    assert {key.split(".")[0] for key in saved} == {"0", "1", "3"}  # parameters without a gradient have no state
    optimizer.load_state_dict(saved)
    assert optimizer.state_dict().keys() == saved.keys()
    with torch.no_grad():
        for a, b in zip(tensors, others, strict=True):
            a.copy_(b)
    for one, its in ((optimizer, tensors), (other, others)):
        give_gradients(its, 4)
        one.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in optimizer.state_dict().items())


def test_zero_grad_removes_gradients_and_a_step_without_gradients_changes_nothing():
    tensors = parameters()
    optimizer = SGD(tensors, 0.1, 0.0, 0.9)
    give_gradients(tensors, 5)
    optimizer.zero_grad()
    assert all(tensor.grad is None for tensor in tensors)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors, parameters(), strict=True))
    assert optimizer.state_dict() == {}


@pytest.mark.parametrize("minimum", [0.0, 0.02])
def test_the_plateau_agrees_with_torch(minimum):
    optimizer = SGD(parameters(), 0.1, 0.0, 0.0)
    theirs = torch.optim.SGD(parameters(), lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.5, patience=2, min_lr=minimum, threshold=0.0
    )
    ours, chance, rates = Plateau(optimizer, 0.5, 2, minimum), random.Random(1), set()
    for step in range(60):
        value = math.nan if step % 17 == 5 else 1 / (1 + step / 10) + 0.3 * chance.random()
        ours.step(value)
        reference.step(value)
        assert optimizer.lr == theirs.param_groups[0]["lr"]
        assert ours.state_dict() == {k: reference.state_dict()[k] for k in ("best", "num_bad_epochs")}
        rates.add(optimizer.lr)
    assert len(rates) > 3 or minimum
    again = Plateau(optimizer, 0.5, 2, minimum)
    again.load_state_dict(ours.state_dict())
    assert again.state_dict() == ours.state_dict()


def test_training_does_not_load_the_compiler(tmp_path):
    """Importing torch._dynamo would take seconds in every process that trains."""
    code = (
        "import sys, torch; from pathlib import Path; from joyful.training.experiment import train_run\n"
        "from tests.support.runs import tiny_request; train_run(tiny_request(Path('run'), 'training.epochs=1'))\n"
        "assert torch.are_deterministic_algorithms_enabled(); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
