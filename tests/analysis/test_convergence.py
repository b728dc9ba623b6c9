"""Targets, censored times, reach rates and Kaplan-Meier curves, against cases computed by hand and lifelines 0.30."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.convergence import (
    Target,
    choose_target,
    kaplan_meier,
    parse_target,
    reach_rate,
    times_to_target,
    way,
)
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError
from tests.support.analysis import simulate_sweep, write_run


def run(
    folder: Path, dev: list[float], *, loss: str = "mse", seed: int = 1, role: str = "comparison", **options
) -> None:
    """Write a run with these dev weighted F1 values at the ends of its epochs."""
    epochs = [float(e + 1) for e in range(len(dev))]
    columns = {"step": [int(e) for e in epochs], "epoch": epochs, "split": ["dev"] * len(dev), "f1_weighted": dev}
    write_run(folder, columns, {"loss": loss, "role": role, "training.epochs": len(dev)}, seed=seed, **options)


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("dev_f1=0.62", "f1_weighted", 0.62),
        ("dev_f1 = 62%", "f1_weighted", 0.62),
        ("dev_f1_macro=0.4", "f1_macro", 0.4),
        ("dev_nll=1.25", "nll", 1.25),
        ("dev_bleu=31.5", "bleu", 31.5),
        ("dev_wer=12.5", "wer", 12.5),
    ],
)
def test_targets(text: str, metric: str, value: float) -> None:
    target = parse_target(text, {"bleu": "higher", "wer": "lower"})
    assert (target.metric, target.value) == (metric, pytest.approx(value))
    assert target.higher_is_better == (metric not in ("nll", "wer"))
    assert target.source.startswith("given: dev_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1=0.62", "expected dev_f1=0.62"),
        ("test_f1=0.62", "a target refers to the dev split"),
        ("dev_f1", "expected dev_f1=0.62"),
        ("dev_f1=62", "expected a fraction such as 0.62, got '62'"),
        ("dev_f1=0", "expected a fraction"),
        ("dev_f1=high", "expected a fraction"),
        ("dev_nll=nan", "expected a number"),
        ("dev_=1", "expected dev_f1=0.62"),
        ("dev_wer=12.5", "wer: expected to know whether higher or lower values are better; .* --better wer=lower"),
    ],
)
def test_targets_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_target(text)


def test_the_target_lies_at_95_percent_of_the_way_of_the_calibration_runs(tmp_path: Path) -> None:
    for seed, last in ((9000, 0.5), (9001, 0.7), (9002, 0.6)):
        run(tmp_path / str(seed), [0.9, last + 0.01, last - 0.01, last], seed=seed, role="calibration")
    run(tmp_path / "1", [0.1, 0.2, 0.2, 0.2])
    sweep = read_sweep(tmp_path)
    target = choose_target(sweep)
    assert target is not None
    assert target.value == pytest.approx(
        0.95 * 0.6
    )  # from 0 to the mean of the last three values; the best is not used
    assert (
        target.source == "95 % of the way from 0.0000 to 0.6000 of dev f1_weighted, the medians of 3 calibration runs"
    )
    assert target.problem == ""
    explicit = choose_target(sweep, "dev_f1=0.4")
    assert explicit is not None
    assert explicit.value == 0.4
    assert choose_target(sweep, target) is target
    assert choose_target(sweep, metric="nll") is None  # not measured


def test_without_calibration_runs_the_target_comes_from_the_baseline(tmp_path: Path) -> None:
    run(tmp_path / "1", [0.1, 0.4, 0.4, 0.4])
    run(tmp_path / "2", [0.1, 0.8, 0.8, 0.8], loss="smoothl1")
    target = choose_target(read_sweep(tmp_path, baseline=["loss=mse"]))
    assert target is not None
    assert target.value == pytest.approx(0.38)
    assert "no calibration runs" in target.source
    assert choose_target(read_sweep(tmp_path / "1")) is not None
    (tmp_path / "empty").mkdir()
    assert choose_target(read_sweep(tmp_path / "empty")) is None


@pytest.mark.parametrize(
    ("epochs", "values", "column", "better", "expected"),
    [
        ([1, 2, 3, 4], [2.0, 1.0, 1.0, 1.0], "nll", "", 1.05),  # from the first value down
        ([0, 1, 2, 3, 4], [3.0, 2.0, 1.0, 1.0, 1.0], "nll", "", 1.1),  # from the value before training
        ([1, 2, 3, 4], [-10.0, -8.0, -8.0, -8.0], "reward", "higher", -8.1),  # negative values
        ([1, 2, 3, 4], [-10.0, -12.0, -12.0, -12.0], "cost", "lower", -11.9),
        ([1, 2, 3, 4], [0.4, 0.6, 0.6, 0.6], "accuracy", "", 0.57),  # from 0 for scores
        ([0, 1, 2, 3, 4], [0.2, 0.4, 0.6, 0.6, 0.6], "accuracy", "", 0.58),
    ],
)
def test_the_way_from_start_to_end(tmp_path: Path, epochs, values, column: str, better: str, expected: float) -> None:
    columns = {"step": epochs, "epoch": [float(e) for e in epochs], "split": ["dev"] * len(epochs), column: values}
    write_run(tmp_path / "1", columns, {"training.epochs": 4, "role": "calibration"}, seed=9000)
    sweep = read_sweep(tmp_path, [column])
    target = choose_target(sweep, None, column, better)
    assert target is not None
    assert target.value == pytest.approx(expected)
    assert target.problem == ""
    course = way(sweep, column, better)
    assert course is not None
    assert [course.target(share).value for share in (0.0, 1.0)] == pytest.approx([course.start, course.end])


def test_a_target_that_says_nothing(tmp_path: Path) -> None:
    run(tmp_path / "1", [0.2, 0.64, 0.56, 0.6], seed=9000, role="calibration")  # 0.03 to the target
    noisy = choose_target(read_sweep(tmp_path))
    assert noisy is not None
    assert (
        "lies within the noise of the last values of 1 calibration runs (0.6 with a spread of 0.085)" in noisy.problem
    )
    columns = {"step": [1, 2], "epoch": [1.0, 2.0], "split": ["dev"] * 2, "nll": [1.0, 1.4]}
    write_run(tmp_path / "2" / "1", columns, {"training.epochs": 2, "role": "calibration"}, seed=9000)
    worse = choose_target(read_sweep(tmp_path / "2"), metric="nll")
    assert worse is not None
    assert worse.problem == "dev nll does not improve in 1 calibration runs (1 to 1.2)"


def test_times_are_the_first_evaluation_at_the_target_and_censored_at_the_budget(tmp_path: Path) -> None:
    run(tmp_path / "1", [0.1, 0.6, 0.2, 0.7], seed=1)
    run(tmp_path / "2", [0.1, 0.2, 0.2, 0.6], seed=2)  # at the target in the last epoch: reached
    run(tmp_path / "3", [0.1, 0.2, 0.3, 0.59], seed=3)
    run(tmp_path / "4", [math.nan, math.nan, math.nan, math.nan], seed=4)
    run(tmp_path / "5", [math.nan, 0.1, math.nan, 0.9], seed=5, seconds_per_epoch=None)
    times = times_to_target(read_sweep(tmp_path), Target("f1_weighted", 0.6, "")).droplevel("arm")
    assert times["epochs"].to_dict() == pytest.approx({1: 2, 2: 4, 3: 4, 4: math.nan, 5: 4}, nan_ok=True)
    assert times["after"].to_dict() == pytest.approx({1: 1, 2: 3, 3: 4, 4: math.nan, 5: 2}, nan_ok=True)  # 5: a gap
    assert times["reached"].to_dict() == {1: True, 2: True, 3: False, 4: False, 5: True}
    assert times["by"].to_dict() == pytest.approx({1: 2, 2: 4, 3: math.inf, 4: math.nan, 5: 4}, nan_ok=True)
    assert times["seconds"].to_dict() == pytest.approx({1: 4, 2: 8, 3: 8, 4: math.nan, 5: math.nan}, nan_ok=True)
    falling = times_to_target(read_sweep(tmp_path), Target("nll", 0.6, ""))
    assert falling["epochs"].isna().all()


def test_a_time_lies_after_the_evaluation_before_or_after_the_start(tmp_path: Path) -> None:
    run(tmp_path / "1", [0.7, 0.6, 0.5, 0.5], seed=1)
    run(tmp_path / "2", [0.1, 0.2, math.nan, math.nan], seed=2)
    times = times_to_target(read_sweep(tmp_path), Target("f1_weighted", 0.6, "")).droplevel("arm")
    assert times["after"].to_dict() == {1: 0, 2: 2}
    assert times["epochs"].to_dict() == {1: 1, 2: 2}  # 2: the last evaluation with a value


def test_a_target_that_is_reached_before_training(tmp_path: Path) -> None:
    columns = {"step": [0, 1, 2], "epoch": [0.0, 1.0, 2.0], "split": ["dev"] * 3, "f1_weighted": [0.7, 0.7, 0.7]}
    write_run(tmp_path / "1", columns, {"training.epochs": 2})
    times = times_to_target(read_sweep(tmp_path), Target("f1_weighted", 0.6, "")).iloc[0]
    assert (times["after"], times["by"], times["epochs"], times["reached"]) == (0, 1, 1, True)


def test_a_damaged_timing_file_counts_as_missing(tmp_path: Path) -> None:
    run(tmp_path / "1", [0.1, 0.6])
    (tmp_path / "1" / "timing.parquet").write_bytes(b"PAR1")
    times = times_to_target(read_sweep(tmp_path), Target("f1_weighted", 0.6, ""))
    assert times["reached"].tolist() == [True]
    assert times["seconds"].isna().all()


def test_seconds_are_summed_over_folds(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=(1,), epochs=4, evaluations_per_epoch=1, calibration=(), folds=(0, 1, 2))
    times = times_to_target(read_sweep(tmp_path), Target("f1_weighted", 0.3, ""))
    assert (times["seconds"] == 3 * 2 * times["epochs"]).all()


def frame(epochs: list[float], reached: list[bool], arm: str = "a") -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(arm, i) for i in range(len(epochs))], names=["arm", "seed"])
    return pd.DataFrame({"epochs": epochs, "reached": reached}, index=index)


def test_reach_rate() -> None:
    times = pd.concat([frame([1, 2, 5, math.nan], [True, True, False, False]), frame([5, 5], [False, False], "b")])
    rates = reach_rate(times)
    assert rates.loc["a", ["n", "reached"]].tolist() == [3, 2]
    assert rates.loc["a", "rate"] == pytest.approx(2 / 3)
    assert rates.loc["b", "rate"] == rates.loc["b", "low"] == 0
    assert rates.loc["b", "high"] == pytest.approx(1.959964**2 / (2 + 1.959964**2), rel=1e-6)  # Wilson, by hand
    assert reach_rate(times.iloc[:0]).empty


def test_kaplan_meier_by_hand() -> None:
    # Of four runs, the second is censored and the others reach the target: S = 3/4, 3/4, 3/4 · 1/2, 0.
    curve = kaplan_meier(frame([1, 2, 3, 4], [True, False, True, True]))
    assert curve["x"].tolist() == [0, 1, 2, 3, 4]
    assert curve["reached"].tolist() == pytest.approx([0, 1 / 4, 1 / 4, 5 / 8, 1])
    assert curve["at_risk"].tolist() == [4, 4, 3, 2, 1]
    assert curve["censored"].tolist() == [0, 0, 1, 0, 0]
    # At epoch 1 Greenwood's sum is 1 / (4 · 3). The interval is log(-log S) ± z √sum / |log S|.
    log = math.log(0.75)
    half = 1.959964 * math.sqrt(1 / 12) / abs(log)
    bounds = [1 - 0.75 ** math.exp(sign * half) for sign in (-1, 1)]
    assert curve.loc[1, ["low", "high"]].tolist() == pytest.approx(bounds, rel=1e-5)
    assert curve.loc[[0], ["low", "high"]].isna().all(axis=None)


def test_without_censoring_kaplan_meier_is_the_share_that_has_reached() -> None:
    epochs = np.random.default_rng(0).integers(1, 9, 30).astype(float)
    curve = kaplan_meier(frame(epochs.tolist(), [True] * 30))
    expected = [(epochs <= epoch).mean() for epoch in curve["x"]]
    assert curve["reached"].tolist() == pytest.approx(expected)


def test_kaplan_meier_of_runs_that_never_reach_it() -> None:
    curve = kaplan_meier(frame([5, 5, 5], [False, False, False]))
    assert curve["reached"].tolist() == [0, 0]
    assert curve[["low", "high"]].isna().all(axis=None)
    assert kaplan_meier(frame([], [])).empty
