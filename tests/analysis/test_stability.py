"""The spread against hand-computed values and pandas' rolling median; drawdowns; intervals of standard deviations."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.stability import across_seeds, drawdowns, spread_of_rows, spreads, usual_steps

NAN = math.nan


def frame(rows: list[list[float]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([("a", number) for number in range(len(rows))], names=["arm", "seed"])
    return pd.DataFrame(rows, index=index, columns=[float(e + 1) for e in range(len(rows[0]))])


def spread(curve: Sequence[float] | np.ndarray) -> float:
    return spread_of_rows([curve])[0]


def test_spread_by_hand() -> None:
    # E = 7 epochs have the differences 9, 1, 2, 4, 1, 3. A fifth of six rounds down to 1, so 9 is dropped.
    # The centred medians of 1, 2, 4, 1, 3 are 2 (1 2 4), 1.5 (1 2 4 1), 2 (all), 2.5 (2 4 1 3), 3 (4 1 3).
    # The residuals -1, 0.5, 2, -1.5, 0 have mean 0 and sum of squares 7.5, so s = sqrt(7.5 / 4).
    curve = np.cumsum([0, 9, 1, 2, 4, 1, 3])
    assert spread(curve) == pytest.approx(math.sqrt(7.5 / 4))


@pytest.mark.parametrize("epochs", [4, 5, 6, 11, 20, 21, 100])
def test_spread_is_pandas_rolling_median(epochs: int) -> None:
    curve = np.random.default_rng(epochs).normal(size=epochs)
    differences = pd.Series(np.diff(curve)).iloc[(epochs - 1) // 5 :]
    trend = differences.rolling(5, center=True, min_periods=1).median()
    assert spread(curve) == pytest.approx((differences - trend).std())


def test_a_smooth_curve_has_hardly_any_spread() -> None:
    epochs = np.arange(1, 21)
    assert spread(0.02 * epochs) == pytest.approx(0, abs=1e-15)
    noise = 0.01 * np.random.default_rng(0).standard_normal((400, 20))
    without_trend = spread_of_rows(noise).mean()
    # Differences of independent noise of 0.01 have standard deviation 0.01 √2. A median of five changes it little.
    assert without_trend == pytest.approx(0.01 * math.sqrt(2), rel=0.1)
    assert spread_of_rows(noise + 0.03 * epochs).mean() == pytest.approx(without_trend)


def test_spread_without_enough_epochs_or_with_nan() -> None:
    assert math.isnan(spread([0.1, 0.2]))
    assert not math.isnan(spread([0.1, 0.2, 0.1]))
    assert math.isnan(spread([]))
    assert math.isnan(spread([0.1, math.inf, 0.2, 0.3, 0.2, 0.3]))


def test_changes_across_a_gap_are_passed_over() -> None:
    curve = [0.1, 0.5, NAN, 0.2, 0.3, 0.1]
    changes = [0.4, 0.1, -0.2]  # not the one from 0.5 to 0.2
    assert spread(curve) == pytest.approx(np.std([x - np.median(changes) for x in changes], ddof=1))
    rows = spreads(frame([[0.1, NAN, 0.2, NAN], [0.1, 0.3, 0.2, 0.3]]))
    assert rows.isna().tolist() == [True, False]  # one change remains
    assert usual_steps(frame([[0.1, NAN, 0.2, NAN], [0.1, 0.3, 0.2, 0.3]])).tolist() == [2, 1]


def test_scale_of_the_spread() -> None:
    curve = np.random.default_rng(1).normal(size=15)
    assert spread(3 * curve + 5) == pytest.approx(3 * spread(curve))


def test_drawdown_by_hand() -> None:
    curves = frame([[0.2, 0.5, 0.3, 0.6, 0.55], [0.1, 0.2, 0.3, 0.4, 0.5], [NAN, 0.5, NAN, 0.1, NAN]])
    assert drawdowns(curves).tolist() == pytest.approx([0.2, 0.0, 0.4])
    losses = frame([[3, 1, 2, 0.5, 0.75]])
    assert drawdowns(losses, higher_is_better=False).tolist() == [1]
    assert drawdowns(frame([[NAN, NAN]])).isna().all()


def test_standard_deviation_over_seeds() -> None:
    # 1, 2, 3 has sd 1. The quantiles 0.975 and 0.025 of chi² with 2 degrees of freedom are 7.37776 and 0.0506356.
    table = across_seeds(frame([[1], [2], [3]]).iloc[:, 0])
    assert table.loc["a"].to_dict() == pytest.approx(
        {"n": 3, "mean": 2, "sd": 1, "low": math.sqrt(2 / 7.37776), "high": math.sqrt(2 / 0.0506356)}, rel=1e-5
    )
    few = across_seeds(frame([[1], [NAN]]).iloc[:, 0]).loc["a"]
    assert few["n"] == 1
    assert math.isnan(few["sd"])


def test_the_interval_of_a_standard_deviation_covers() -> None:
    values = np.random.default_rng(3).normal(0, 2, 1000 * 8)
    index = pd.MultiIndex.from_product([range(1000), range(8)], names=["arm", "seed"])
    table = across_seeds(pd.Series(values, index=index))
    covered = ((table["low"] <= 2) & (table["high"] >= 2)).mean()
    assert covered == pytest.approx(0.95, abs=0.025)
