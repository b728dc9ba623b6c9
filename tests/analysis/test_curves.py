"""Curves as matrices: NaN, areas and bands, against values computed by hand and SciPy."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from joyful.analysis.curves import area, at_epoch, band, best_epoch, best_so_far, curves, final, shared_spans, spans
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError
from tests.support.analysis import simulate_sweep

NAN = math.nan


def frame(rows: list[list[float]], epochs: list[float], arms: list[str] | None = None) -> pd.DataFrame:
    arms = arms or ["a"] * len(rows)
    index = pd.MultiIndex.from_tuples([(arm, number) for number, arm in enumerate(arms)], names=["arm", "seed"])
    return pd.DataFrame(rows, index=index, columns=pd.Index(epochs, name="epoch"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sweep")
    simulate_sweep(path, seeds=(1, 2), epochs=3, evaluations_per_epoch=2)
    return path


def test_curves_hold_the_values_of_the_histories(folder: Path) -> None:
    sweep = read_sweep(folder)
    dev = curves(sweep)
    assert list(dev.columns) == [0.5, 1, 1.5, 2, 2.5, 3]
    assert list(dev.index) == [("mse 0.05", 1), ("mse 0.05", 2), ("smoothl1 0.03", 1), ("smoothl1 0.03", 2)]
    rows = sweep.frame.query("arm == 'smoothl1 0.03' and seed == 2 and split == 'dev'")
    assert dev.loc[("smoothl1 0.03", 2)].tolist() == rows["f1_weighted"].tolist()
    assert list(curves(sweep, whole_epochs=True).columns) == [1, 2, 3]
    assert list(curves(sweep, "nll", "train").columns) == [1, 2, 3]
    assert list(curves(sweep, role="calibration").index.get_level_values("seed")) == [9000, 9001, 9002]
    with pytest.raises(InputError, match="read without the column 'lr'"):
        curves(sweep, "lr")


def test_no_runs_give_no_curves(tmp_path: Path) -> None:
    dev = curves(read_sweep(tmp_path))
    assert dev.empty
    assert dev.index.names == ["arm", "seed"]
    assert band(dev).empty
    assert final(dev).empty


def test_best_so_far_skips_missing_values() -> None:
    rows = frame([[NAN, 0.2, 0.1, NAN, 0.3]], [1, 2, 3, 4, 5])
    assert best_so_far(rows).iloc[0].tolist()[1:] == [0.2, 0.2, 0.2, 0.3]
    assert math.isnan(best_so_far(rows).iloc[0, 0])
    assert best_so_far(rows, higher_is_better=False).iloc[0].tolist()[1:] == [0.2, 0.1, 0.1, 0.1]


def test_final_best_epoch_and_at_epoch() -> None:
    rows = frame([[0.1, 0.3, 0.3], [NAN, NAN, NAN], [0.5, 0.4, NAN]], [1, 2, 3])
    assert best_epoch(rows).tolist()[::2] == [2, 1]  # the first of equals
    assert math.isnan(best_epoch(rows).iloc[1])
    assert best_epoch(rows, higher_is_better=False).tolist()[::2] == [1, 2]
    assert final(rows).tolist()[0] == 0.3
    assert final(rows).isna().tolist() == [False, True, False]
    assert final(rows).tolist()[2] == 0.4  # the last value, where the run ended earlier
    other = frame([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [1, 2, 3])
    assert at_epoch(other, best_epoch(rows)).tolist()[::2] == [2, 7]
    assert math.isnan(at_epoch(other, best_epoch(rows)).iloc[1])


def test_area_by_hand() -> None:
    # trapezoids over 0.5, 1, 3: (0 + 1)/2 · 0.5 + (1 + 3)/2 · 2 = 4.25 over 2.5 epochs
    assert area(frame([[0, 1, 3]], [0.5, 1, 3])).tolist() == [pytest.approx(4.25 / 2.5)]
    assert area(frame([[2, 2, 2], [2, NAN, 2]], [1, 2, 5])).iloc[0] == 2
    assert area(frame([[2, NAN, 4]], [1, 2, 5])).tolist() == [3]  # a straight line across the gap
    assert area(frame([[2, NAN, NAN]], [1, 2, 5])).isna().all()
    assert area(frame([[2]], [1])).isna().all()


def test_curves_on_different_evaluations_share_a_span() -> None:
    rows = frame([[1, 2, 3, 4, NAN], [NAN, 2, NAN, 4, 5]], [1, 2, 3, 4, 5], ["a", "b"])
    rows.index = pd.MultiIndex.from_tuples([("a", 1), ("b", 1)], names=["arm", "seed"])
    assert spans(rows).to_numpy().tolist() == [[1, 4], [2, 5]]
    shared = shared_spans(rows)
    assert shared.to_numpy().tolist() == [[2, 4], [2, 4]]
    assert area(rows, shared).tolist() == [3, 3]
    other = pd.DataFrame([[0.0, 1.0]], columns=[1.0, 3.0])
    between = pd.DataFrame({"start": [1.5], "end": [2.5]})
    assert area(other, between).tolist() == [0.5]  # the ends lie between two evaluations
    rows.index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["arm", "seed"])
    assert shared_spans(rows).equals(spans(rows))  # not a pair
    assert shared_spans(rows, "unpaired").to_numpy().tolist() == [[2, 4], [2, 4]]


def test_a_band_of_curves_on_different_evaluations() -> None:
    x = np.linspace(0, 10, 21)
    values = np.full((2, 21), NAN)
    values[0, ::2], values[1, 1::2] = x[::2], x[1::2] + 1  # two lines, one of them 1 higher
    bands = band(frame(values.tolist(), x.tolist()))
    inside = bands[(bands["x"] > 1) & (bands["x"] < 9)]
    assert (inside["n"] == 2).all()
    assert inside["mean"].to_numpy() == pytest.approx(inside["x"].to_numpy() + 0.5)


def test_band_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[0, 1] = NAN
    bands = band(frame(values.tolist(), [1, 2, 3]))
    for column in range(3):
        known = values[~np.isnan(values[:, column]), column]
        expected = stats.ttest_1samp(known, 0).confidence_interval(0.95)
        row = bands.iloc[column]
        assert (row["mean"], row["low"], row["high"], row["n"]) == pytest.approx((known.mean(), *expected, len(known)))
    one = band(frame([[0.5]], [1]))
    assert one["mean"].tolist() == [0.5]
    assert one[["low", "high"]].isna().all(axis=None)
    two = band(frame([[1.0], [2.0], [4.0]], [1], ["b", "b", "a"]))
    assert two["arm"].tolist() == ["b", "a"]  # in the order of the matrix
    assert two["n"].tolist() == [2, 1]
