"""The Coach: reproducibility of runs, pairs and resumed runs, and correctness of the recorded values."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from joyful.losses.weights import LossWeightConfig
from joyful.randomness import Draws
from joyful.records import COMPONENTS, InputError
from joyful.training import checkpoints
from joyful.training.batching import epoch_order
from joyful.training.coach import TrainingFailedError
from tests.support.host_reads import NoHostReads
from tests.support.runs import tiny_coach, tiny_settings


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(coach) -> list[dict]:
    return [row for record in coach.train() for row in record.rows]


VARIANTS = {
    "default": (),
    "transformer": ("model.context=transformer",),
    "lstm": ("model.context=lstm", "model.context_layers=2"),
    "auto fusion": ("fusion=auto",),
    "bf16": ("training.precision=bf16",),
    "adaptive": ("weighting=adaptive", "loss=weighted_mse", "classification=focal"),
    "gradient_balanced": ("weighting=gradient_balanced", "weighting.every=2"),
    "normalised": ("weighting=normalised", "weighting.normalisation=minmax"),
    "averaged": ("training.moving_average=0.9", "optimizer=adamw", "optimizer.warmup_steps=3"),
    "sgd": ("optimizer=sgd", "training.evaluations_per_epoch=2"),
    "full": ("training.train_metrics=full", "training.evaluations_per_epoch=2"),
    "rmsprop": ("optimizer=rmsprop", "classification.class_weight=inverse"),
    "ulgm": ("fusion.use_ulgm=true", "fusion.ulgm_delay_epochs=1"),
    "legacy": ("loss.encoder_reduction=legacy_sum", "loss=smoothl1"),
}


#: Variants that another one stands for in `make test`, where runs are resumed.
OTHERS = ("lstm", "normalised", "sgd", "rmsprop", "ulgm", "legacy", "gradient_balanced")
OTHER = pytest.mark.soak("takes 2 s; test_records_are_complete_and_consistent trains it")
RESUMED = [pytest.param(value, marks=OTHER if name in OTHERS else (), id=name) for name, value in VARIANTS.items()]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", RESUMED)
def test_the_same_run_twice_and_resumed_gives_the_same_rows(overrides, tmp_path):
    settings = tiny_settings(*overrides)
    once = rows_of(tiny_coach(settings))
    first = tiny_coach(settings)
    rows = []
    for record in first.train():
        rows += record.rows
        if record.epoch == 1.0:
            checkpoints.write(tmp_path, "last", first.step, first.state_dict())
        if record.epoch == 2.0:
            break  # before the checkpoint of epoch 2, as after a kill
    saved = checkpoints.read(tmp_path, "last")
    assert saved is not None
    second = tiny_coach(settings)
    second.load_state_dict(saved)
    assert second.epoch == 1
    resumed = [row for row in rows if row["epoch"] <= 1] + rows_of(second)
    assert repr(resumed) == repr(once)  # repr, so that NaN equals NaN and floats are compared exactly


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_records_are_complete_and_consistent(overrides):
    settings = tiny_settings(*overrides)
    rows = rows_of(tiny_coach(settings))
    per_epoch = settings.training.evaluations_per_epoch
    assert [row["split"] for row in rows].count("dev") == 3 * per_epoch
    assert [row["split"] for row in rows].count("train") == 3
    full = settings.training.train_metrics == "full"
    for row in rows:
        if full or row["split"] == "train":
            assert row["loss_total"] == pytest.approx(
                sum(row[f"weight_{c}"] * row[f"loss_{c}"] for c in COMPONENTS), rel=1e-6
            )
            assert sum(row[f"share_{c}"] for c in COMPONENTS) == pytest.approx(1.0)
        else:
            assert "loss_contrastive" not in row
            assert "loss_total" not in row
        assert ("encoder_gradient_ratio" in row) == (
            row["split"] == "train" or (full and row["split"] == "dev" and row["epoch"] % 1 > 0)
        )
        for name in ("accuracy", "f1_weighted", "f1_macro"):
            assert 0 <= row[name] <= 1
        for name in ("nll", "recon_mse", "recon_mae", "loss_encoder"):
            assert row[name] > 0
        if row["split"] == "train":
            assert row["epoch"] == int(row["epoch"])
            for group in ("fusion", "context", "graph", "classifier", "total"):
                assert row[f"grad_norm_{group}"] > 0
            assert row["encoder_gradient_ratio"] > 0
            assert -1 <= row["encoder_gradient_cosine"] <= 1


def test_recorded_weights_are_the_configured_ones_for_a_fixed_weighting():
    settings = tiny_settings(
        "weights.encoder_loss_weight=0.5", "weights.cl_loss_weight=0.0", "training.train_metrics=full"
    )
    for row in rows_of(tiny_coach(settings)):
        assert (row["weight_classification"], row["weight_encoder"], row["weight_contrastive"]) == (1.0, 0.5, 0.0)
        assert row["share_contrastive"] == 0.0
        assert row["loss_contrastive"] > 0  # measured, although it is not trained


def test_running_metrics_change_nothing_else_of_dev_and_test():
    """The scheduler that watches the total loss of dev gets it in both cases."""
    for watch in ("dev_nll", "dev_total"):
        full, running = (
            rows_of(tiny_coach(tiny_settings(f"training.train_metrics={kind}", f"training.scheduler.watch={watch}")))
            for kind in ("full", "running")
        )
        for one, other in zip(full, running, strict=True):
            if one.pop("split") != "train":
                absent = {"loss_contrastive", "loss_total", *(f"share_{c}" for c in COMPONENTS)}
                assert one.keys() - other.keys() == (absent if watch == "dev_nll" else set())
                other.pop("split")
                assert other == pytest.approx({name: one[name] for name in other}, rel=1e-5)


@pytest.mark.slow
def test_training_lowers_the_losses():
    settings = tiny_settings(
        "training.epochs=30", "model.dropout=0.0", "weights.encoder_loss_weight=1.0", "optimizer.learning_rate=0.01",
        "training.scheduler.name=none",
    )  # fmt: skip
    rows = rows_of(tiny_coach(settings))
    train = [row for row in rows if row["split"] == "train"]
    assert train[-1]["nll"] < 0.7 * train[0]["nll"]
    assert train[-1]["recon_mse"] < train[0]["recon_mse"]


@pytest.mark.slow
def test_a_pair_shares_weights_batches_and_masks():
    baseline = tiny_coach(tiny_settings("loss=mse", "weights.encoder_loss_weight=0.05"))
    new = tiny_coach(tiny_settings("loss=smoothl1", "weights.encoder_loss_weight=0.03"))
    other_fusion = tiny_coach(tiny_settings("fusion=auto"))
    for (name, a), (other, b) in zip(baseline.model.state_dict().items(), new.model.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    shared = set(baseline.model.state_dict()) & set(other_fusion.model.state_dict())
    assert any(name.startswith("context") for name in shared)
    for name in shared:
        assert torch.equal(baseline.model.state_dict()[name], other_fusion.model.state_dict()[name]), name
    # With weight 0 of the reconstruction, the two arms are the same run: random numbers do not depend on the loss.
    off = [
        rows_of(tiny_coach(tiny_settings(f"loss={loss}", "weights.encoder_loss_weight=0.0")))
        for loss in ("mse", "smoothl1")
    ]
    for a, b in zip(*off, strict=True):
        assert (a["nll"], a["f1_weighted"], a["recon_mse"]) == (b["nll"], b["f1_weighted"], b["recon_mse"])


def test_another_seed_is_another_run():
    a, b = (rows_of(tiny_coach(tiny_settings(f"seed={seed}")))[-1]["nll"] for seed in (1, 2))
    assert a != b


def test_global_generators_are_not_used():
    first = rows_of(tiny_coach(tiny_settings()))
    torch.manual_seed(999)
    np.random.seed(999)
    assert repr(rows_of(tiny_coach(tiny_settings()))) == repr(first)


def test_each_epoch_has_its_own_permutation():
    orders = [np.concatenate(epoch_order(10, 3, seed=1, epoch=epoch)) for epoch in (1, 2)]
    assert [len(part) for part in epoch_order(10, 3, seed=1, epoch=1)] == [3, 3, 3, 1]
    for order in orders:
        assert sorted(order) == list(range(10))
    assert list(orders[0]) != list(orders[1])


def test_the_gradient_ratio_is_that_of_two_plain_backward_passes():
    settings = tiny_settings("weights.encoder_loss_weight=0.4")
    coach = tiny_coach(settings)
    row = coach.train_epoch(1)[0].rows[0]
    coach.model.eval()
    output = coach.model(coach._probe)
    gradients = []
    for loss in (
        output.fusion.encoder_losses.mean() * 0.4,
        torch.nn.functional.cross_entropy(output.logits, coach._probe.labels),
    ):
        coach.model.zero_grad()
        loss.backward(retain_graph=True)
        gradients.append(torch.cat([p.grad.flatten() for p in coach.model.fusion.shared_parameters()]))
    encoder, classification = gradients
    assert row["encoder_gradient_ratio"] == pytest.approx(float(encoder.norm() / classification.norm()), rel=1e-4)
    cosine = float(encoder @ classification / encoder.norm() / classification.norm())
    assert row["encoder_gradient_cosine"] == pytest.approx(cosine, abs=1e-4)


def test_clipping_bounds_the_gradient():
    coach = tiny_coach(tiny_settings("training.max_grad_norm=0.01", "optimizer=sgd", "optimizer.momentum=0.0",
                                     "optimizer.learning_rate=1.0", "optimizer.weight_decay=0.0"))  # fmt: skip
    before = [p.detach().clone() for p in coach.model.parameters()]
    order = epoch_order(len(coach.splits["train"]), 2, coach.settings.seed, 1)
    coach._train_step(coach.splits["train"].batch(order[0]), 1, None, {})
    moved = math.sqrt(
        sum(float((p.detach() - b).square().sum()) for p, b in zip(coach.model.parameters(), before, strict=True))
    )
    assert moved == pytest.approx(0.01, rel=1e-3)  # with learning rate 1 the step equals the clipped gradient


def test_early_stopping_counts_epochs_without_a_better_dev_score():
    coach = tiny_coach(
        tiny_settings("training.early_stopping=2", "training.epochs=50", "optimizer.learning_rate=0.000001")
    )
    rows = [row for row in rows_of(coach) if row["split"] == "dev"]
    best = max(range(len(rows)), key=lambda i: rows[i]["f1_weighted"])
    assert len(rows) == best + 1 + 2
    assert coach.finished


@pytest.mark.slow
def test_the_scheduler_watches_dev_nll_by_default_and_the_total_on_request():
    for watch, column in (("dev_nll", "nll"), ("dev_total", "loss_total")):
        coach = tiny_coach(tiny_settings(f"training.scheduler.watch={watch}"))
        rows_of(coach)
        assert coach._plateau.best == min(
            row[column] for row in rows_of(tiny_coach(coach.settings)) if row["split"] == "dev"
        )


def test_the_best_checkpoint_holds_what_was_evaluated(tmp_path):
    settings = tiny_settings("training.moving_average=0.9", "training.evaluations_per_epoch=2")
    coach, rows = tiny_coach(settings), []
    for record in coach.train():
        rows += record.rows
        if record.improved:
            checkpoints.write(tmp_path, "best", coach.step, coach.best_state_dict())
    best = max((row for row in rows if row["split"] == "dev"), key=lambda row: row["f1_weighted"])
    saved = checkpoints.read(tmp_path, "best")
    assert saved.state["best"]["f1_weighted"] == best["f1_weighted"] == coach.best["f1_weighted"]
    fresh = tiny_coach(settings)
    fresh.model.load_state_dict({k.removeprefix("model."): v for k, v in saved.tensors.items()})
    accumulator = fresh._run("dev")
    row = accumulator.row(accumulator.values(LossWeightConfig().component_weights()).tolist())
    assert (row["f1_weighted"], row["nll"]) == (best["f1_weighted"], best["nll"])


def test_a_loss_that_is_not_finite_names_epoch_component_and_remedy():
    coach = tiny_coach(tiny_settings("optimizer=sgd", "optimizer.learning_rate=10", "training.max_grad_norm=0",
                                     "weights.encoder_loss_weight=1000000", "training.epochs=20"))  # fmt: skip
    with pytest.raises(
        TrainingFailedError, match=r"epoch \d+: .* expected a finite number: lower optimizer.learning_rate"
    ):
        rows_of(coach)


def test_more_evaluations_than_batches_are_refused():
    with pytest.raises(InputError, match=r"training.evaluations_per_epoch: expected at most 4 .* got 9"):
        tiny_coach(tiny_settings("training.evaluations_per_epoch=9"))


def test_epochs_come_in_order():
    coach = tiny_coach(tiny_settings())
    assert isinstance(coach.loss_weight_config, LossWeightConfig)
    with pytest.raises(ValueError, match="expected 1"):
        coach.train_epoch(2)


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_the_training_step_reads_nothing_on_the_host(overrides):
    # CUDA uses the exact softmax, because the interpolated one chooses its nodes on the host. Recurrent contexts are
    # left out, because packing reads the lengths, which are on the host on every device.
    settings = tiny_settings(*overrides, "fusion.intermodal=exact", "model.context=transformer")
    if settings.training.precision == "bf16":
        pytest.skip("autocast on the CPU differs from CUDA")
    coach = tiny_coach(settings)
    order = epoch_order(len(coach.splits["train"]), 2, settings.seed, 1)
    coach._train_step(coach.splits["train"].batch(order[0]), 1, None, {})
    batch = coach.splits["train"].batch(order[1])
    with NoHostReads():
        coach._train_step(batch, 3, None, {})


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    coach = tiny_coach(tiny_settings())
    checkpoints.write(tmp_path, "last", coach.step, coach.state_dict())
    tensors = max(tmp_path.glob("last-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        checkpoints.read(tmp_path, "last")
    tensors.unlink()
    with pytest.raises(InputError, match="damaged"):
        checkpoints.read(tmp_path, "last")
    assert checkpoints.read(tmp_path, "none") is None


def test_views_and_dropout_draw_apart():
    draws = Draws(1, 2, 3)
    a, b = draws.bits16((64,), "x", "cpu"), draws.bits16((64,), "x", "cpu", "augmentation")
    assert not torch.equal(a, b)
