"""Every step and evaluation on the meta device, under the rules of CUDA: none waits for the device or mixes devices."""

import itertools

import pytest
import torch

from joyful.config import check
from joyful.data.loading import load
from joyful.model import joyful as model_module
from joyful.model.kernels import intermodal, recurrence
from joyful.training import coach as coach_module
from joyful.training import evaluation
from joyful.training.experiment import build_coach, prepare_torch
from tests.support import deterministic
from tests.support.meta_device import META, OnMeta
from tests.support.runs import compose_plain
from tests.support.setting_choices import (
    CHOICES,
    at_random,
    dataset_of,
    default,
    one_at_a_time,
    pairs_of,
    pairwise,
    settings_of,
)


def train(settings, data):
    """Train all epochs on the meta device. Return the rules with what they counted."""
    with OnMeta() as rules:
        coach = build_coach(settings, data, META)
        rules.training = True
        records = list(coach.train())
        coach.state_dict()
    assert rules.reads == len(records), "an evaluation reads the device once"
    assert rules.copies > 0
    return rules


def train_all(combinations):
    """Train each combination, and print the counts. Return all operations."""
    operations = set()
    for combination in combinations:
        settings = settings_of(combination)
        try:
            operations |= train(settings, dataset_of(combination, settings)).operations
        except Exception as error:
            error.add_note(f"the combination: {combination}")
            raise
    print(f"on the meta device: {len(combinations)} configurations, {len(operations)} distinct operations")
    return operations


def check_deterministic(operations):
    """Check that each operation has a deterministic kernel on CUDA, as far as torch documents it."""
    found = {name.removeprefix("aten::") for name in operations & deterministic.without_deterministic_kernel()}
    assert found <= set(deterministic.ALLOWED)


@pytest.mark.slow
def test_every_pair_of_choices_trains_and_evaluates_without_waiting():
    operations = train_all([default(), *pairwise()])
    assert len(operations) > 120
    check_deterministic(operations)
    assert {f"aten::{name}" for name in deterministic.ALLOWED} <= operations


@pytest.mark.soak("takes half a minute; the test of pairs has each choice several times")
@pytest.mark.parametrize("setting", CHOICES)
def test_every_choice_alone_trains_and_evaluates_without_waiting(setting):
    check_deterministic(train_all(one_at_a_time(setting)))


@pytest.mark.soak("takes two minutes; the test of pairs has each pair of these choices")
@pytest.mark.parametrize("seed", range(4))
def test_random_combinations_train_and_evaluate_without_waiting(seed):
    check_deterministic(train_all(at_random(50, seed)))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["small", "reference"])
def test_both_sizes_train_and_evaluate_without_waiting(model):
    few = ("data.synthetic.dialogues={train: 3, dev: 1, test: 1}", "training.batch_size=2", "training.epochs=1")
    settings = check(compose_plain([f"model={model}", *few])[0])
    check_deterministic(train(settings, load(settings.data, settings.modality_names)).operations)


@pytest.mark.slow
def test_the_combinations_have_every_pair():
    covered = set().union(*map(pairs_of, pairwise()))
    names = itertools.combinations(CHOICES, 2)
    assert covered == {frozenset([(a, x), (b, y)]) for a, b in names for x in CHOICES[a] for y in CHOICES[b]}


def test_the_list_of_operations_is_that_of_the_installed_torch():
    """If it fails after an update of torch, add the new names to tests/support/deterministic.py."""
    assert set(deterministic.OPERATIONS) == deterministic.documented()
    names = deterministic.without_deterministic_kernel()
    missing = {name for name in names if not hasattr(torch.ops.aten, name.removeprefix("aten::"))}
    assert missing == set()


@pytest.mark.slow  # the first call imports the compiler
def test_fp32_on_cuda_is_not_tf32(monkeypatch):
    """By default, cuDNN's recurrent layers round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with monkeypatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        threads, deterministic_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        try:
            prepare_torch(torch.device("cuda"), threads)
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.are_deterministic_algorithms_enabled()
        finally:
            torch.use_deterministic_algorithms(deterministic_before)


# --- mistakes that the rules must find


def simple_run():
    settings = settings_of(default())
    return train(settings, dataset_of(default(), settings))


@pytest.mark.slow
def test_a_value_read_in_the_step_is_found(monkeypatch):
    """A deliberate mistake: a step that formats the gradient norm on the host."""
    clip = coach_module.clip_grads_with_norm_
    monkeypatch.setattr(
        coach_module, "clip_grads_with_norm_", lambda p, limit, norm: clip(p, limit, norm * norm.item())
    )
    with pytest.raises(AssertionError, match="_local_scalar_dense reads the device from the host"):
        simple_run()


@pytest.mark.slow
def test_a_tensor_of_the_cpu_in_a_kernel_is_found(monkeypatch):
    """A deliberate mistake: a kernel that makes a tensor without naming the device."""
    convolution = model_module.relational_convolution

    def careless(views_NH, *arguments):
        return convolution([x_NH * torch.ones(x_NH.shape[1]) for x_NH in views_NH], *arguments)

    monkeypatch.setattr(model_module, "relational_convolution", careless)
    with pytest.raises(AssertionError, match=r"mul mixes devices: .* on meta, \(8,\) on cpu"):
        simple_run()


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "match"), [(recurrence, "mixes devices"), (intermodal, "reads the device")])
def test_the_branch_of_the_cpu_is_found(kernel, match, monkeypatch):
    """The GRU has its indices on the CPU there, and the inter-modal softmax chooses its nodes by values."""
    monkeypatch.setattr(kernel, "takes_cpu_branch", lambda device: True)
    with pytest.raises(AssertionError, match=match):
        simple_run()


@pytest.mark.slow
def test_a_weight_that_is_copied_in_an_evaluation_is_found(monkeypatch):
    """Earlier versions copied the weights of the losses to the device in each evaluation."""
    monkeypatch.setattr(evaluation, "_tensor", lambda value, like: like.new_tensor(value))
    with pytest.raises(AssertionError, match="new_tensor copies values to the device"):
        simple_run()


@pytest.mark.parametrize(
    ("mistake", "match"),
    [
        (lambda x: float(x.sum()), "reads the device"),
        (lambda x: 1 if x.sum() > 0 else 0, "reads the device"),
        (lambda x: x.tolist(), "copies from the device"),
        (lambda x: x.cpu(), "copies from the device"),
        (lambda x: torch.zeros(3).copy_(x), "copies from the device"),
        (lambda x: x.nonzero(), "nonzero reads the device"),
        (lambda x: x[x > 0], "with a mask reads the device"),
        (lambda x: x.masked_fill_(x > 0, 1.0)[x > 0], "with a mask reads the device"),
        (lambda x: x.__setitem__(x > 0, torch.ones((), device=META)), "with a mask reads the device"),
        (lambda x: x.masked_select(x > 0), "reads the device"),
        (lambda x: x.unique(), "reads the device"),
        (lambda x: torch.equal(x, x), "reads the device"),
        (lambda x: torch.repeat_interleave(x, torch.ones_like(x).long()), "reads the device"),
        (lambda x: x + torch.tensor(1.0), "mixes devices"),
        (lambda x: x + torch.ones(3), "mixes devices"),
        (lambda x: torch.cat([x, torch.ones(1)]), "mixes devices"),
        (lambda x: x[torch.tensor([0, 1])], "mixes devices"),
        (lambda x: x[[0, 1]], "a list as an index"),
        (lambda x: x.new_tensor([1.0]), "new_tensor copies values"),
        (lambda x: torch.tensor(1.0, device=META), "tensor copies values"),
        (lambda x: torch.ones(3).to(x.device), "copies without non_blocking"),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), "copies ordinary memory"),
        (lambda x: torch.ones(3).pin_memory().to(x.device), "copies without non_blocking"),
        (lambda x: x.copy_(torch.ones(3)), "copies without non_blocking"),
    ],
)
def test_each_way_to_wait_is_found(mistake, match):
    with OnMeta() as rules:
        x = torch.ones(3, device=META)
        rules.training = True
        with pytest.raises(AssertionError, match=match):
            mistake(x)


@pytest.mark.parametrize("mistake", ["index", "where", "fill", "scalar", "pinned"])
def test_what_does_not_wait_is_allowed(mistake):
    allowed = {
        "index": lambda x: x[torch.zeros(2, dtype=torch.int64, device=META)],
        "where": lambda x: torch.where(x > 0, x, torch.nan),
        "fill": lambda x: x.new_full((), 0.5) * x.new_zeros(()),
        "scalar": lambda x: (x * 2.0 + 1) ** 2,
        "pinned": lambda x: torch.ones(3).pin_memory().to(META, non_blocking=True) + x,
    }
    with OnMeta() as rules:
        x = torch.ones(3, device=META)
        rules.training = True
        assert allowed[mistake](x).device == META
        assert rules.operations


def test_autocast_gives_the_types_of_the_real_one():
    def types(device):
        x = torch.ones(4, 4, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            values = [x @ x, torch.nn.functional.linear(x, x), torch.bmm(x[None], x[None]), x + x, (x @ x).tanh()]
            with torch.autocast(device, enabled=False):
                values.append(x @ x)
            values.append(torch.nn.functional.mse_loss(x @ x, x))
        return [value.dtype for value in values]

    expected = types("cpu")
    with OnMeta():
        assert types("meta") == expected
