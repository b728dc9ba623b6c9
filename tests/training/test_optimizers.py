import math

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from joyful.config import OptimizerSettings
from joyful.records import InputError
from joyful.training.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    learning_rate,
    load_state_tensors,
    set_learning_rate,
    state_shapes,
    state_tensors,
)
from tests.support.host_reads import NoHostReads
from tests.support.runs import tiny_coach, tiny_settings

#: Entries of the state of a parameter, with momentum.
ENTRIES = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
    "rmsprop": ("step", "square_avg", "momentum_buffer"),
}


def settings_of(name, momentum=0.5):
    return OptimizerSettings(name=name, learning_rate=0.05, weight_decay=0.01, momentum=momentum, warmup_steps=0)


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 5), (7,), (2,), ())]


def give_gradients(tensors, step):
    """Set random gradients. The third tensor has none before the third step, as a head that is trained later."""
    generator = torch.Generator().manual_seed(step)
    for number, tensor in enumerate(tensors):
        gradient = torch.randn(tensor.shape, generator=generator)
        tensor.grad = None if number == 2 and step < 3 else gradient


def copies(tensors):
    return {key: value.clone() for key, value in tensors.items()}


def test_the_registry_has_the_names_of_the_settings():
    assert set(OPTIMIZERS) == set(ENTRIES)
    unknown = settings_of("adam").model_copy(update={"name": "adamm"})
    with pytest.raises(InputError, match=r"optimizer.name: expected one of .*, got 'adamm'; did you mean adam"):
        build_optimizer(unknown, parameters())


@pytest.mark.parametrize("name", ENTRIES)
def test_the_first_step_follows_the_formula(name):
    """With a gradient of 1 and no decay, by hand: Adam's, SGD's and RMSprop's first steps."""
    settings = settings_of(name).model_copy(update={"weight_decay": 0.0})
    parameter = torch.ones(2, requires_grad=True)
    optimizer = build_optimizer(settings, [parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    moved = {"rmsprop": 0.05 / math.sqrt(0.01)}.get(name, 0.05)
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 1 - moved))


@pytest.mark.parametrize("name", ENTRIES)
def test_no_step_reads_the_device_from_the_host(name):
    tensors = parameters()
    optimizer = build_optimizer(settings_of(name), tensors)
    for step in range(2):
        give_gradients(tensors, step)
        with NoHostReads():
            optimizer.step()
    assert not torch.equal(tensors[0], parameters()[0])


@pytest.mark.parametrize("name", ENTRIES)
def test_a_saved_state_continues_bit_for_bit(name):
    settings = settings_of(name)
    first, second = parameters(), parameters()
    one = build_optimizer(settings, first)
    for step in range(2):
        give_gradients(first, step)
        one.step()
    saved = copies(state_tensors(one))
    assert list(saved) == [f"{i}.{entry}" for i in (0, 1, 3) for entry in ENTRIES[name]]  # 2 has had no gradient
    with torch.no_grad():
        for a, b in zip(first, second, strict=True):
            b.copy_(a)
    other = build_optimizer(settings, second)
    load_state_tensors(other, settings, saved)
    for step in range(2, 5):
        for tensors, optimizer in ((first, one), (second, other)):
            give_gradients(tensors, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    ours, theirs = state_tensors(one), state_tensors(other)
    assert len(ours) == 4 * len(ENTRIES[name])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_the_saved_tensors_are_copied():
    settings, tensors = settings_of("adam"), parameters()
    optimizer = build_optimizer(settings, tensors)
    give_gradients(tensors, 5)
    optimizer.step()
    saved = copies(state_tensors(optimizer))
    load_state_tensors(optimizer, settings, saved)
    optimizer.step()
    assert float(saved["0.step"]) == 1


def test_a_state_of_rmsprop_without_the_number_of_steps_is_loaded():
    """joyful 0.1 did not save this number, which has no effect."""
    settings, tensors = settings_of("rmsprop"), parameters()
    optimizer = build_optimizer(settings, tensors)
    give_gradients(tensors, 5)
    optimizer.step()
    saved = {key: value for key, value in copies(state_tensors(optimizer)).items() if not key.endswith(".step")}
    load_state_tensors(optimizer, settings, saved)
    assert all(torch.equal(state_tensors(optimizer)[key], value) for key, value in saved.items())
    optimizer.step()
    assert float(state_tensors(optimizer)["0.step"]) == 1


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
    settings, tensors = settings_of("adam"), parameters()
    optimizer = build_optimizer(settings, tensors)
    give_gradients(tensors, 5)
    optimizer.step()
    before = copies(state_tensors(optimizer))
    with pytest.raises(ValueError, match=message):
        load_state_tensors(optimizer, settings, saved)
    assert state_tensors(optimizer).keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in state_tensors(optimizer).items())


def test_a_loaded_state_replaces_the_previous_one():
    settings, tensors, others = settings_of("adam"), parameters(), parameters()
    optimizer, other = build_optimizer(settings, tensors), build_optimizer(settings, others)
    for step in range(5):
        give_gradients(tensors, step)
        optimizer.step()
    give_gradients(others, 1)
    other.step()
    saved = copies(state_tensors(other))
    assert {key.split(".")[0] for key in saved} == {"0", "1", "3"}
    load_state_tensors(optimizer, settings, saved)
    assert state_tensors(optimizer).keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in state_tensors(optimizer).items())


@pytest.mark.parametrize("name", ENTRIES)
def test_loading_keeps_the_learning_rate(name):
    settings, tensors = settings_of(name), parameters()
    optimizer = build_optimizer(settings, tensors)
    set_learning_rate(optimizer, 0.5)
    load_state_tensors(optimizer, settings, {})
    assert learning_rate(optimizer) == 0.5
    give_gradients(tensors, 5)
    optimizer.step()
    assert len(state_tensors(optimizer)) == 4 * len(ENTRIES[name])


@pytest.mark.parametrize("name", ENTRIES)
def test_shapes_of_the_state(name):
    assert state_shapes(settings_of(name)) == {entry: entry != "step" for entry in ENTRIES[name]}
    without = {"sgd": {}, "rmsprop": {"step": False, "square_avg": True}}
    assert state_shapes(settings_of(name, 0.0)) == without.get(name, state_shapes(settings_of(name)))


def test_a_step_without_gradients_changes_nothing():
    tensors = parameters()
    optimizer = build_optimizer(settings_of("sgd"), tensors)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors, parameters(), strict=True))
    assert state_tensors(optimizer) == {}


def test_warm_up_and_plateau_set_the_learning_rate():
    """Three batches an epoch; the rate rises for 4 steps, then is halved where torch's scheduler halves it."""
    coach = tiny_coach(
        tiny_settings(
            "training.epochs=8", "optimizer.learning_rate=0.1", "optimizer.warmup_steps=4", "training.batch_size=3",
            "training.scheduler.name=reduceLR", "training.scheduler.factor=0.5", "training.scheduler.patience=1",
            "training.scheduler.minimum=0.0",
        )
    )  # fmt: skip
    dev = [row for row in (row for record in coach.train() for row in record.rows) if row["split"] == "dev"]
    assert [row["step"] for row in dev] == list(range(3, 25, 3))
    reference = torch.optim.SGD([torch.zeros(1)], 0.1)
    plateau = ReduceLROnPlateau(reference, factor=0.5, patience=1, threshold=0.0)
    expected = [0.1 * 3 / 4]
    for row in dev[1:]:
        expected.append(reference.param_groups[0]["lr"])
        plateau.step(row["nll"])
    assert [row["lr"] for row in dev] == expected
    assert len(set(expected)) > 2
