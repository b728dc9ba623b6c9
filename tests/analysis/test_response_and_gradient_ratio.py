"""Response curves over a grid of weights, and encoder gradient ratios of arms."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from joyful.analysis import gradient_ratio
from joyful.analysis.convergence import choose_target, times_to_target
from joyful.analysis.curves import curves
from joyful.analysis.response import COLUMNS, response, weight_factors
from joyful.analysis.sweep import read_sweep
from tests.support.analysis import Truth, simulate_sweep, write_run

WEIGHTS = (0.1, 0.01, 0.05)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    arms = [
        Truth({"loss": loss, "weights.encoder_loss_weight": weight}, tau=3 - 10 * weight, ratio=weight)
        for loss in ("mse", "smoothl1")
        for weight in WEIGHTS
    ]
    simulate_sweep(folder, arms, seeds=range(1, 4), epochs=6, evaluations_per_epoch=2, calibration=())
    return folder


def test_a_grid_has_a_curve_for_each_loss(grid: Path) -> None:
    sweep = read_sweep(grid)
    assert weight_factors(sweep) == ("weights.encoder_loss_weight",)
    frame = response(sweep)
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 2 * 3 * 3
    f1 = frame[(frame["line"] == "mse") & (frame["measure"] == "f1")]
    assert f1["weight"].tolist() == sorted(WEIGHTS)
    assert f1["arm"].tolist() == ["mse 0.01", "mse 0.05", "mse 0.1"]
    best = 100 * curves(sweep).max(axis=1).loc["mse 0.01"]
    expected = stats.ttest_1samp(best, 0).confidence_interval()
    assert f1.iloc[0][["estimate", "low", "high"]].tolist() == pytest.approx([best.mean(), *expected])
    base = 100 * curves(sweep).max(axis=1).loc["mse 0.05"]
    paired = stats.ttest_rel(best, base).confidence_interval()
    assert f1.iloc[0][["gain", "gain_low", "gain_high"]].tolist() == pytest.approx([(best - base).mean(), *paired])
    assert f1.iloc[1][["gain", "gain_low", "gain_high"]].isna().all()  # the baseline itself


def test_speed_is_a_geometric_mean_with_its_censored_share(grid: Path) -> None:
    sweep = read_sweep(grid)
    target = choose_target(sweep)
    assert target is not None
    times = times_to_target(sweep, target).loc["smoothl1 0.01"]
    frame = response(sweep, target)
    row = frame[(frame["arm"] == "smoothl1 0.01") & (frame["measure"] == "speed")].iloc[0]
    assert row["estimate"] == pytest.approx(stats.gmean(times["epochs"]))
    assert row["low"] <= row["estimate"] <= row["high"]
    assert row["censored"] == pytest.approx(1 - times["reached"].mean())
    assert frame.loc[frame["measure"] == "f1", "censored"].isna().all()


def test_two_weights_do_not_form_a_grid(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=(1, 2), epochs=3)
    sweep = read_sweep(tmp_path)
    assert weight_factors(sweep) == ()
    assert list(response(sweep).columns) == list(COLUMNS)
    assert response(sweep).empty


def test_the_other_factors_are_fixed_on_a_line(tmp_path: Path) -> None:
    """Three arms differ in one weight only. A fourth arm also differs in another weight and is not on their line."""
    pairs = [(0.01, 0.2), (0.03, 0.2), (0.05, 0.2), (0.05, 0.5)]
    arms = [Truth({"weights.encoder_loss_weight": e, "weights.cl_loss_weight": c}) for e, c in pairs]
    simulate_sweep(tmp_path, arms, seeds=(1,), epochs=3, calibration=())
    frame = response(read_sweep(tmp_path))
    assert set(frame["line"]) == {"weights.cl_loss_weight=0.2"}
    assert set(frame["weight"]) == {0.01, 0.03, 0.05}
    assert frame[["low", "high"]].isna().all(axis=None)  # one seed


def test_gradient_ratio_per_arm(grid: Path) -> None:
    sweep = read_sweep(grid)
    table = gradient_ratio.per_arm(sweep)
    assert table["arm"].tolist() == [arm.name for arm in sweep.arms]
    assert table["is_baseline"].tolist() == [True] + [False] * 5
    assert (table["n"] == 3).all()
    weights = [arm.settings["weights.encoder_loss_weight"] for arm in sweep.arms]
    assert table["ratio"].tolist() == pytest.approx(weights, rel=0.1)  # the simulated ratio with a jitter of 10 %
    rows = sweep.frame[sweep.frame["arm"] == "mse 0.01"]
    rows = rows[rows["split"].eq("train") | (rows["split"].eq("dev") & (rows["epoch"] % 1 > 0))]
    medians = rows.groupby("seed")["encoder_gradient_ratio"].median()
    row = table.set_index("arm").loc["mse 0.01"]
    assert row["ratio"] == pytest.approx(stats.gmean(medians))
    interval = stats.ttest_1samp(np.log(medians), 0).confidence_interval()
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx(tuple(np.exp(interval)))


def test_gradient_ratio_over_training(grid: Path) -> None:
    frame = gradient_ratio.over_training(read_sweep(grid))
    first = frame[frame["arm"] == "mse 0.05"]
    assert first["x"].tolist() == [e / 2 for e in range(1, 13)]
    assert (frame["ratio_low"] <= frame["ratio"]).all()
    assert frame["cosine"].between(-1, 1).all()


def test_runs_without_the_ratio(tmp_path: Path) -> None:
    columns = {"step": [1, 1], "epoch": [1.0, 1.0], "split": ["train", "dev"], "nll": [1.0, 1.0]}
    write_run(tmp_path / "0", columns, {"training.epochs": 1})
    sweep = read_sweep(tmp_path)
    assert gradient_ratio.over_training(sweep).empty
    assert gradient_ratio.per_arm(sweep).empty
    columns |= {"encoder_gradient_ratio": [0.0, math.nan], "encoder_gradient_cosine": [0.5, math.nan]}
    write_run(tmp_path / "0", columns, {"training.epochs": 1})
    assert gradient_ratio.per_arm(read_sweep(tmp_path)).empty  # a ratio of 0 has no logarithm
