"""Verdicts and secondary measures on simulated sweeps whose true effects are known."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from joyful.analysis.claims import VERDICT_COLUMNS, decide, judge, read_claims, secondary_table, verdict_table
from joyful.analysis.curves import curves
from joyful.analysis.measures import Metric, censored, values
from joyful.analysis.statistics import holm, minimum_detectable, paired_t, pairs_needed
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError
from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep, write_run

SPEED, STABILITY, _, LOSS, F1 = read_claims()


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# The four verdicts for a claim of 10 to 20.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (10, 15, ("supported", "")),
        (12, 30, ("supported", "")),
        (20, 30, ("supported", "")),
        (21, 30, ("supported", "more than claimed")),
        (1, 9.9, ("contradicted", "real but smaller")),
        (-5, -1, ("contradicted", "reversed")),
        (-5, 5, ("contradicted", "smaller than claimed, direction not established")),
        (5, 15, ("inconclusive", "direction established")),
        (9.9, 30, ("inconclusive", "direction established")),
        (-5, 10, ("inconclusive", "direction not established")),
        (math.nan, math.nan, ("not testable", "there is no interval")),
    ],
)
def test_the_four_verdicts(low: float, high: float, expected: tuple[str, str]) -> None:
    assert decide(low, high, 10, 20) == expected


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("within", -2, 1, ("supported", "")),
        ("within", 0.5, 2.9, ("supported", "")),
        ("within", -2, 4, ("inconclusive", "direction not established")),
        ("within", 4, 5, ("contradicted", "above the margin")),
        ("within", -5, -4, ("contradicted", "below the margin")),
        ("within", 2, math.inf, ("inconclusive", "direction established")),
        ("no_worse_than", -2, 10, ("supported", "")),
        ("no_worse_than", -2, math.inf, ("supported", "")),
        ("no_worse_than", -4, 1, ("inconclusive", "direction not established")),
        ("no_worse_than", -9, -4, ("contradicted", "worse by more than the margin")),
        ("no_worse_than", -math.inf, math.inf, ("not testable", "there is no interval")),
        ("at_least", 4, 9, ("supported", "")),
        ("at_least", 1, 2, ("contradicted", "real but smaller")),
    ],
)
def test_verdicts_of_other_kinds(kind: str, low: float, high: float, expected: tuple[str, str]) -> None:
    """A margin of 3, and a claim of 3 or more."""
    lower, upper = {"within": (-3, 3), "no_worse_than": (-3, math.inf), "at_least": (3, math.inf)}[kind]
    assert decide(low, high, lower, upper, kind) == expected


# Verdicts on sweeps


@pytest.fixture(scope="module")
def note(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("note")
    simulate_sweep(folder, seeds=range(1, 9), epochs=15)
    return folder


@pytest.mark.slow
def test_verdicts_of_the_notes_arms(note: Path) -> None:
    sweep = read_sweep(note)
    verdicts = judge(sweep, read_claims(), rng=rng())
    table = verdict_table(verdicts)
    assert tuple(table.columns) == VERDICT_COLUMNS
    assert table["claim"].tolist() == [
        "convergence_speed", "convergence_stability", "training_stability", *["training_loss"] * 4, "f1",
    ]  # fmt: skip
    assert (table["n_pairs"] == 8).all()
    assert set(table["verdict"]) <= {"supported", "contradicted", "inconclusive", "not testable"}
    known = table["estimate"].notna()
    assert ((table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"]))[known].all()
    # The train NLL of the second arm tends to 0.85 times that of the first, so "10 to 20 % lower" holds. Its MAE tends
    # to √0.85 times, so the claim does not hold.
    by_metric = table.set_index("metric")
    assert by_metric.loc["final train nll", ["verdict", "detail"]].tolist() == ["supported", ""]
    assert by_metric.loc["final train nll", "estimate"] == pytest.approx(15, abs=2)
    assert by_metric.loc["final train recon_mae", ["verdict", "detail"]].tolist() == [
        "contradicted",
        "real but smaller",
    ]
    testable = table[table["verdict"] != "not testable"]
    assert testable["p_holm"].tolist() == pytest.approx(holm(testable["p_zero"]).tolist())


def test_the_decision_is_scipys_paired_t(note: Path) -> None:
    sweep = read_sweep(note)
    (verdict,) = judge(sweep, [F1], rng=rng())
    best = curves(sweep).max(axis=1)
    new, base = best.loc["smoothl1 0.03"], best.loc["mse 0.05"]
    expected = stats.ttest_rel(100 * new, 100 * base).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx(tuple(expected))
    assert verdict.pairs.to_dict() == pytest.approx((100 * (new - base)).to_dict())
    assert verdict.bootstrap is None  # 8 pairs: too few
    assert verdict.better is not None
    assert verdict.better.estimate == ((new > base).sum()) / 8


def test_the_trained_total_is_not_testable_and_the_reason_is_the_unit(note: Path) -> None:
    row = verdict_table(judge(read_sweep(note), [LOSS], rng=rng())).set_index("metric").loc["final train loss_total"]
    assert row["verdict"] == "not testable"
    assert "SmoothL1 is half of MSE near zero" in row["detail"]
    assert "weights.encoder_loss_weight 0.03 against 0.05" in row["detail"]
    assert row[["estimate", "low", "high", "p_zero", "p_holm", "minimum_detectable"]].isna().all()


def test_the_trained_total_of_arms_with_equal_losses_is_testable(tmp_path: Path) -> None:
    arms = [Truth({"optimizer.learning_rate": lr}) for lr in (0.001, 0.002)]
    simulate_sweep(tmp_path, arms, seeds=range(6), epochs=6)
    free = replace(LOSS, factors=())
    table = verdict_table(judge(read_sweep(tmp_path), [free], rng=rng())).set_index("metric")
    assert table.loc["final train loss_total", "verdict"] == "contradicted"
    assert abs(table.loc["final train loss_total", "estimate"]) < 2


def test_a_claim_does_not_apply_to_arms_that_differ_in_other_settings(tmp_path: Path) -> None:
    arms = [NOTE_ARMS[0], replace(NOTE_ARMS[1], overrides={**NOTE_ARMS[1].overrides, "optimizer.learning_rate": 0.01})]
    simulate_sweep(tmp_path, arms, seeds=range(6), epochs=5)
    verdicts = judge(read_sweep(tmp_path), read_claims(), rng=rng())
    assert {verdict.verdict for verdict in verdicts} == {"not testable"}
    assert verdicts[0].detail == (
        "the claim is about loss and weights.encoder_loss_weight, and the arms differ in optimizer.learning_rate (0.01, "
        "baseline 0.001) too"
    )


def test_runs_that_do_not_record_the_claims_factors_are_judged(tmp_path: Path) -> None:
    """Curves of another trainer record only the names of the arms."""
    simulate_sweep(tmp_path, seeds=range(6), epochs=5, calibration=())
    for path in tmp_path.glob("*/run.json"):
        info = json.loads(path.read_text())
        path.write_text(
            json.dumps(info | {"choices": {"arm": info["choices"]["loss"]}, "config": {"seed": info["seed"]}})
        )
    sweep = read_sweep(tmp_path)
    assert [arm.name for arm in sweep.arms] == ["mse", "smoothl1"]
    assert "not testable" not in {v.verdict for v in judge(sweep, read_claims(), rng=rng())}


def test_fewer_than_six_pairs(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=range(1, 6), epochs=5)
    for verdict in judge(read_sweep(tmp_path), [SPEED, F1], rng=rng()):
        assert (verdict.verdict, verdict.detail) == ("not testable", "5 pairs, at least 6 are needed")
        assert verdict.n_pairs == 5
        assert not math.isnan(verdict.estimate)
        assert math.isnan(verdict.p_holm)


def dev_run(folder: Path, loss: str, seed: int, dev: list[float], role: str = "comparison") -> None:
    epochs = [float(e + 1) for e in range(len(dev))]
    columns = {"step": [int(e) for e in epochs], "epoch": epochs, "split": ["dev"] * len(dev), "f1_weighted": dev}
    write_run(folder, columns, {"loss": loss, "role": role, "training.epochs": len(dev)}, seed=seed)


def test_pairs_of_which_one_run_does_not_reach_the_target(tmp_path: Path) -> None:
    for seed in range(6):
        dev_run(tmp_path / f"a{seed}", "mse", seed, [0.1, 0.2, 0.3, 0.4 if seed < 3 else 0.6])
        dev_run(tmp_path / f"b{seed}", "smoothl1", seed, [0.1, 0.6, 0.2, 0.2])
    sweep = read_sweep(tmp_path, columns=["f1_weighted", "nll"])
    (one,) = judge(sweep, [SPEED], "dev_f1=0.5", rng=rng())
    # T lies in (1, 2] in the new arm, and in (3, 4] or beyond 4 in the baseline.
    assert np.exp(one.differences).round(6).to_numpy().tolist() == [[2, math.inf]] * 3 + [[1.5, 4]] * 3
    assert one.pairs.tolist() == pytest.approx([100] * 3 + [100 * (6**0.5 - 1)] * 3)
    assert one.verdict == "supported"
    assert one.note == "In 3 of 6 pairs the difference is bounded on one side only."
    rates = {b.arm: b.estimate for b in one.secondary if b.name == "runs that reach the target"}
    assert rates == pytest.approx({"mse": 50, "smoothl1": 100})


def test_times_that_evaluations_do_not_tell_apart(tmp_path: Path) -> None:
    """The new arm is twice as fast, and both reach the target before the first evaluation."""
    for seed in range(6):
        dev_run(tmp_path / f"a{seed}", "mse", seed, [0.6, 0.6, 0.6])
        dev_run(tmp_path / f"b{seed}", "smoothl1", seed, [0.6, 0.6, 0.6])
    (one,) = judge(read_sweep(tmp_path, columns=["f1_weighted", "nll"]), [SPEED], "dev_f1=0.5", rng=rng())
    assert (one.verdict, one.n_pairs) == ("not testable", 0)
    assert one.detail == (
        "in 6 of 6 pairs both runs reach the target at their first evaluation, or neither reaches it; evaluate more often, "
        "train longer or move the target"
    )
    assert one.minimum_detectable is not None
    assert math.isnan(one.minimum_detectable)


def test_a_speed_that_only_a_fine_grid_shows(tmp_path: Path) -> None:
    """Twice as fast: supported with twenty evaluations an epoch, not testable with one, never contradicted."""
    verdicts = {}
    for evaluations in (1, 20):
        arms = [Truth(NOTE_ARMS[i].overrides, tau=tau, jitter=0.002) for i, tau in enumerate((0.27, 0.135))]
        folder = tmp_path / str(evaluations)
        simulate_sweep(folder, arms, seeds=range(12), epochs=5, evaluations_per_epoch=evaluations)
        (verdicts[evaluations],) = judge(read_sweep(folder), [SPEED], rng=rng())
    assert verdicts[1].verdict == "not testable"
    assert verdicts[20].verdict == "supported"
    assert verdicts[20].low < 100 < verdicts[20].high


def test_an_interval_without_a_limit_bears_no_word(tmp_path: Path) -> None:
    for seed in range(6):  # The baseline reaches the target in the last evaluation or later, the new arm never.
        dev_run(tmp_path / f"a{seed}", "mse", seed, [0.1, 0.2, 0.3, 0.6])
        dev_run(tmp_path / f"b{seed}", "smoothl1", seed, [0.1, 0.2, 0.3, 0.4])
    (one,) = judge(read_sweep(tmp_path, columns=["f1_weighted", "nll"]), [SPEED], "dev_f1=0.5", rng=rng())
    assert math.isinf(one.low)
    assert (one.verdict, one.detail) == ("contradicted", "smaller than claimed, direction not established")
    assert one.high == pytest.approx(0, abs=1e-6)
    assert math.isinf(one.minimum_detectable)
    assert one.pairs_needed is None


def test_pairs_without_a_value_are_reported(tmp_path: Path) -> None:
    for seed in range(7):
        dev_run(tmp_path / f"a{seed}", "mse", seed, [0.1, 0.2, 0.1, 0.3])
        values = {0: [0.2] * 4, 1: [0.1, math.nan, 0.15, 0.3]}.get(seed, [0.1, 0.2, 0.15, 0.3])
        dev_run(tmp_path / f"b{seed}", "smoothl1", seed, values)
    (one,) = judge(read_sweep(tmp_path, columns=["f1_weighted", "nll"]), [STABILITY], rng=rng())
    assert one.n_pairs == 5
    assert one.note == (
        "1 of 7 pairs are left out because one of their runs has no finite value; "
        "1 of 7 pairs are left out because a change in per cent needs positive values."
    )


def test_a_metric_that_was_never_measured_is_not_testable(tmp_path: Path) -> None:
    for seed in range(6):
        for loss in ("mse", "smoothl1"):
            dev_run(tmp_path / f"{loss}{seed}", loss, seed, [0.1, 0.2])
    sweep = read_sweep(tmp_path)
    table = verdict_table(judge(sweep, [LOSS], rng=rng()))
    assert set(table["verdict"]) == {"not testable"}
    assert table.loc[0, "detail"] == "no run has a train value of nll"
    with pytest.raises(InputError, match="read without the column 'recon_mse'"):
        judge(read_sweep(tmp_path, columns=["nll"]), [LOSS], rng=rng())


@pytest.mark.slow
def test_several_arms_are_one_family(tmp_path: Path) -> None:
    arms = [Truth({"loss": "mse", "weights.encoder_loss_weight": w}) for w in (0.05, 0.01, 0.1)]
    simulate_sweep(tmp_path, arms, seeds=range(6), epochs=20)
    verdicts = judge(read_sweep(tmp_path), [SPEED, F1], rng=rng())
    table = verdict_table(verdicts)
    assert list(table.columns) == [*VERDICT_COLUMNS, "arm"]
    assert table["arm"].tolist() == ["encoder 0.01"] * 2 + ["encoder 0.1"] * 2
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p_zero"]).tolist())


def test_one_arm_or_none_has_nothing_to_judge(tmp_path: Path) -> None:
    assert judge(read_sweep(tmp_path), read_claims(), rng=rng()) == []
    dev_run(tmp_path / "a", "mse", 1, [0.1, 0.2])
    assert judge(read_sweep(tmp_path), read_claims(), rng=rng()) == []
    empty = verdict_table([])
    assert tuple(empty.columns) == VERDICT_COLUMNS
    assert len(secondary_table([])) == 0


@pytest.mark.slow
def test_the_bootstrap_starts_at_twenty_pairs_and_is_reproducible(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=range(21), epochs=4, evaluations_per_epoch=1)
    sweep = read_sweep(tmp_path)
    first, second = (judge(sweep, [F1], rng=rng())[0] for _ in range(2))
    assert first.bootstrap is not None
    assert first.bootstrap == second.bootstrap
    assert first.p_zero == second.p_zero  # With 21 pairs, sign patterns are drawn at random.
    assert first.bootstrap.low < first.estimate == first.bootstrap.estimate < first.bootstrap.high


@pytest.mark.slow
def test_what_the_pairs_could_have_shown(note: Path) -> None:
    """minimum_detectable refers to zero, and pairs_needed to the verdict "supported"."""
    sweep = read_sweep(note)
    (verdict,) = judge(sweep, [F1], rng=rng())
    sd = verdict.differences["low"].std(ddof=1)
    assert verdict.minimum_detectable == pytest.approx(
        100 * minimum_detectable(paired_t(verdict.differences["low"]), 8)
    )
    assert verdict.pairs_needed == pairs_needed(sd, 0.005)  # half a point from the edge to the middle
    (unbounded,) = judge(sweep, [replace(F1, upper=math.inf, kind="at_least")], rng=rng())
    assert unbounded.pairs_needed is None
    margin = replace(F1, lower=-2.0, upper=math.inf, direction="", kind="no_worse_than")
    (no_worse,) = judge(sweep, [margin], rng=rng())
    assert no_worse.pairs_needed == max(6, pairs_needed(sd, 0.02) or 0)


def test_the_smallest_effect_includes_the_grid(tmp_path: Path) -> None:
    """With few evaluations the same runs show less."""
    smallest = {}
    for evaluations in (1, 8):
        folder = tmp_path / str(evaluations)
        arms = [replace(arm, luck=0.02) for arm in NOTE_ARMS]
        simulate_sweep(folder, arms, seeds=range(10), epochs=12, evaluations_per_epoch=evaluations, calibration=())
        (verdict,) = judge(read_sweep(folder), [SPEED], "dev_f1=0.5", rng=rng())
        smallest[evaluations] = verdict.minimum_detectable
    assert smallest[1] > 1.2 * smallest[8]


def test_secondary_measures(note: Path) -> None:
    sweep = read_sweep(note)
    table = secondary_table(judge(sweep, read_claims(), rng=rng()))
    names = table.groupby("claim", sort=False)["name"].unique().map(list).to_dict()
    assert names == {
        "convergence_speed": [
            "runs that reach the target", "speed in wall seconds to the target", "best dev nll, lower",
            "area under dev f1_weighted, higher",
        ],
        "convergence_stability": [
            "largest drawdown of dev f1_weighted, smaller", "standard deviation over seeds of best dev f1_weighted",
        ],
        "training_stability": [
            "largest drawdown of train nll", "standard deviation over seeds of final train nll",
        ],
        "f1": ["test f1_weighted at the best dev epoch"],
    }  # fmt: skip
    test = table.set_index("name").loc["test f1_weighted at the best dev epoch"]
    at = values(sweep, Metric("at_best_dev", "test", "f1_weighted"))
    assert test["estimate"] == pytest.approx(100 * (at.loc["smoothl1 0.03"] - at.loc["mse 0.05"]).mean())
    assert (table["low"] <= table["estimate"]).all()


@pytest.mark.slow
def test_the_target_may_be_of_another_column(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=range(6), epochs=8)
    sweep = read_sweep(tmp_path)
    metric = Metric("time_to_target", "dev", "accuracy")
    by_accuracy = replace(SPEED, metrics=(metric,))
    explicit = judge(sweep, [by_accuracy], "dev_accuracy=0.3", rng=rng())[0]
    other = judge(sweep, [by_accuracy], "dev_f1=0.3", rng=rng())[0]  # A target of F1 does not apply to accuracy.
    default = judge(sweep, [by_accuracy], rng=rng())[0]
    assert other.pairs.to_dict() == default.pairs.to_dict() != explicit.pairs.to_dict()
    assert censored(sweep, metric, None).all()
