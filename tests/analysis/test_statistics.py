"""Paired intervals, tests and power, against SciPy 1.17, statsmodels 0.15 and values computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from joyful.analysis.rules import FixedSize
from joyful.analysis.statistics import (
    Estimate,
    bca,
    holm,
    mean_t,
    minimum_detectable,
    paired_t,
    pairs_needed,
    probability_better,
    proportion,
    sign_flip,
    spread_warning,
    standard_deviation,
    welch,
)
from joyful.results import InputError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_paired_t_is_scipys(rng) -> None:
    d = rng.normal(0.5, 1, 12)
    ours, theirs = paired_t(d), stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.estimate == pytest.approx(d.mean())
    a, b = rng.normal(size=8), rng.normal(size=8)
    related = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert paired_t(a - b, FixedSize(0.9)).low == pytest.approx(related.low)


def test_paired_t_by_hand() -> None:
    # mean 2, sd 1, n = 3: t(2, 0.975) = 4.302653, half width 4.302653 / sqrt 3 = 2.484138
    assert vars(paired_t([1, 2, 3])) == pytest.approx({"estimate": 2, "low": -0.484138, "high": 4.484138}, abs=1e-6)


def test_few_equal_and_missing_pairs() -> None:
    assert all(math.isnan(x) for x in vars(paired_t([])).values())
    one = paired_t([0.5])
    assert one.estimate == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert vars(paired_t([2.0] * 7)) == {"estimate": 2.0, "low": 2.0, "high": 2.0}
    assert paired_t([1, math.nan, 2, 3]) == paired_t([1, 2, 3])
    with pytest.raises(InputError, match="a paired difference is infinite"):
        paired_t([1.0, math.inf])


def test_bca_is_scipys_and_starts_at_twenty_pairs(rng) -> None:
    d = rng.gamma(2, size=25)
    ours = bca(d, np.random.default_rng(1), resamples=999)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(1))
    assert ours is not None
    assert (ours.low, ours.high) == tuple(theirs.confidence_interval)
    assert bca(d[:19], rng) is None
    assert bca([*d[:19], math.nan], rng) is None


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_bca_of_constant_differences_is_the_constant(rng) -> None:
    d = np.full(20, 0.25)
    with pytest.warns(stats.DegenerateDataWarning):
        theirs = stats.bootstrap((d,), np.mean, n_resamples=99, method="BCa", rng=rng).confidence_interval
    assert math.isnan(theirs.low)
    assert vars(bca(d, rng)) == {"estimate": 0.25, "low": 0.25, "high": 0.25}


@pytest.mark.parametrize("n", [2, 5, 6, 9, 13])
def test_sign_flip_is_scipys_permutation_test(n: int, rng) -> None:
    d = rng.normal(0.4, 1, n)
    theirs = stats.permutation_test(
        (d, np.zeros(n)), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=2**14,
        vectorized=True,
    )  # fmt: skip
    assert sign_flip(d, rng=rng) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sign_flip_by_hand(rng) -> None:
    # The patterns of (1, 2, 3) have sums ±6, ±4, ±2, ±0, so |sum| >= 6 in 2 of 8.
    assert sign_flip([1, 2, 3], rng=rng) == 0.25
    # About 2, the differences (-1, 0, 1) sum to 0, and every |sum| is at least 0.
    assert sign_flip([1, 2, 3], 2.0, rng=rng) == 1.0
    assert sign_flip([1] * 6, rng=rng) == 2 / 64
    assert sign_flip([0.0] * 6, rng=rng) == 1.0
    assert math.isnan(sign_flip([math.nan], rng=rng))
    # 0.1 + 0.2 and 0.3 differ in the last bit but must count as equal.
    assert sign_flip([0.1, 0.2, -0.3], rng=rng) == 1.0


def test_monte_carlo_agrees_with_enumeration(rng, monkeypatch) -> None:
    d = rng.normal(0.35, 1, 16)
    exact = sign_flip(d, rng=rng)
    monkeypatch.setattr("joyful.analysis.statistics.EXACT_UP_TO", 10)
    drawn = sign_flip(d, rng=np.random.default_rng(2), draws=200_000)
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 200_000))
    assert drawn == sign_flip(d, rng=np.random.default_rng(2), draws=200_000)
    assert sign_flip(np.full(25, 1.0), rng=rng, draws=99) == 1 / 100  # never 0


def test_sign_flip_keeps_its_level(rng) -> None:
    """Under symmetry at most 5 % of p-values are at most 0.05 (exactly 0.047 at n = 7, where |sum| has 64 patterns)."""
    p = np.array([sign_flip(rng.laplace(size=7), rng=rng) for _ in range(4000)])
    assert np.mean(p <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean(p <= 0.05) > 0.03


def test_holm_by_hand() -> None:
    # The sorted values 0.01, 0.03, 0.04 times 3, 2, 1 give 0.03, 0.06, max(0.06, 0.04). NaN is not counted.
    assert holm([0.01, math.nan, 0.04, 0.03])[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]).tolist() == []
    assert np.isnan(holm([math.nan])).all()
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_wilson_by_hand() -> None:
    # z = 1.959964 and 8 of 10: the centre is (0.8 + z²/20) / (1 + z²/10) = 0.716740, the half width 0.226584.
    share = proportion(8, 10)
    assert (share.estimate, share.low, share.high) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    assert math.isnan(proportion(0, 0).low)
    assert proportion(0, 5).low == 0.0
    assert proportion(5, 5).high == 1.0


def test_probability_better_counts_ties_as_half() -> None:
    better = probability_better([1, 2, -1, 0, math.nan])
    assert better.estimate == 2.5 / 4
    assert 0 < better.low < better.estimate < better.high < 1
    assert math.isnan(probability_better([]).estimate)


@pytest.mark.parametrize("n", [2, 3, 6, 10, 30])
def test_minimum_detectable_is_statsmodels(n: int, rng) -> None:
    d = rng.normal(0, 0.7, n)
    expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided") * d.std(ddof=1)
    assert minimum_detectable(paired_t(d), n) == pytest.approx(expected, rel=1e-4)
    assert standard_deviation(paired_t(d), n) == pytest.approx(d.std(ddof=1))


def test_minimum_detectable_of_few_or_equal_pairs() -> None:
    assert math.isnan(minimum_detectable(paired_t([1.0]), 1))
    assert minimum_detectable(paired_t([1.0, 1.0, 1.0]), 3) == 0.0


@pytest.mark.parametrize(("low", "high"), [(-math.inf, 1.0), (0.5, math.inf), (-math.inf, math.inf)])
def test_an_interval_without_a_limit_detects_nothing(low: float, high: float) -> None:
    assert math.isinf(standard_deviation(Estimate(0.7, low, high), 8))
    assert math.isinf(minimum_detectable(Estimate(0.7, low, high), 8))


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 1.0, 2.0])
def test_pairs_needed_is_statsmodels(ratio: float) -> None:
    exact = TTestPower().solve_power(effect_size=ratio, alpha=0.025, power=0.8, alternative="larger")
    assert pairs_needed(2.0, 2.0 * ratio) == math.ceil(exact)
    assert pairs_needed(2.0, -2.0 * ratio) == math.ceil(exact)


def test_pairs_needed_for_extreme_arguments() -> None:
    assert pairs_needed(1, 0) is None
    assert pairs_needed(math.nan, 1) is None
    assert pairs_needed(1, math.nan) is None
    assert pairs_needed(1, 1e-5) is None
    assert pairs_needed(0, 0.1) == 2
    assert pairs_needed(1, 1e6) == 2


def test_power_agrees_with_the_interval(rng) -> None:
    """Pairs with the minimum detectable effect give an interval that excludes zero in about 80 % of sweeps."""
    n = 9
    example = np.array([-1.0, 1.0] * 4 + [0.0])
    unit = minimum_detectable(paired_t(example), n) / example.std(ddof=1)
    hits = [abs(i.estimate) > i.high - i.estimate for i in map(paired_t, rng.normal(unit, 1, (3000, n)))]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


# --- one arm, unpaired arms, unequal spreads


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 12), (30, 10)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_welch_is_statsmodels(n, m, confidence, rng) -> None:
    x, y = rng.normal(1, 1, n), rng.normal(0, 3, m)
    theirs = CompareMeans(DescrStatsW(x), DescrStatsW(y)).tconfint_diff(alpha=1 - confidence, usevar="unequal")
    ours = welch(x, [*y, math.nan], FixedSize(confidence))
    assert (ours.low, ours.high) == pytest.approx(theirs, rel=1e-9)
    assert ours.estimate == pytest.approx(x.mean() - y.mean())


def test_welch_and_mean_t_of_few_values() -> None:
    assert vars(welch([3.0, 3.0], [1.0, 1.0])) == {"estimate": 2.0, "low": 2.0, "high": 2.0}
    one = welch([3.0], [1.0, 2.0])
    assert one.estimate == 1.5
    assert math.isnan(one.low)
    assert math.isnan(welch([], [1.0, 2.0]).estimate)
    assert mean_t([1, 2, math.nan, 3]) == paired_t([1, 2, 3])
    for function in (lambda: welch([1.0, math.inf], [1.0, 2.0]), lambda: mean_t([math.inf])):
        with pytest.raises(InputError, match="a value is infinite"):
            function()


def test_spread_warning_is_a_rank_test_of_the_spreads(rng) -> None:
    """Fewer than 6 pairs, equal arms and a shift give none. It does not depend on which arm is wider."""
    base = rng.normal(size=15)
    wide = 4 * rng.normal(size=15)
    assert "differ in spread" in spread_warning(wide, base)
    assert "differ in spread" in spread_warning(base, wide + 100)
    assert spread_warning(wide[:5], base[:5]) == spread_warning(base, base) == spread_warning(base + 1, base) == ""
    r = stats.pearsonr(stats.rankdata(wide + base), stats.rankdata(wide - base)).statistic
    p = 2 * stats.t.sf(abs(r) * math.sqrt(13 / (1 - r**2)), 13)
    assert spread_warning(wide, base, level=p * 1.001)
    assert not spread_warning(wide, base, level=p * 0.999)
    with pytest.raises(InputError, match="a value is infinite"):
        spread_warning([math.inf] * 6, base[:6])


def test_spread_warning_of_arms_without_pairs_is_brown_and_forsythes(rng) -> None:
    base, wide = rng.normal(size=10), 4 * rng.normal(size=14)
    assert "differ in spread" in spread_warning([*wide, math.nan], base, paired=False)
    assert spread_warning(wide[:5], base, paired=False) == spread_warning(base, base + 1, paired=False) == ""
    p = stats.f_oneway(*(np.abs(x - np.median(x)) for x in (wide, base))).pvalue
    assert spread_warning(wide, base, level=p * 1.001, paired=False)
    assert not spread_warning(wide, base, level=p * 0.999, paired=False)
    two, one = [0.0, 0.0, 0.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert "p = 0" in spread_warning(two, one, paired=False)
    assert spread_warning(two, two, paired=False) == spread_warning([0.0] * 6 + [1.0], [0.0] * 7, paired=False) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "ratio", "least", "most"),
    [("normal", 1, 0.03, 0.08), ("gamma", 1, 0.04, 0.10), ("gamma", 3, 0.60, 0.72), ("normal", 3, 0.71, 0.83)],
)
def test_spread_warnings_are_as_frequent_as_the_docstring_says(noise, ratio, least, most, rng) -> None:
    draw = rng.standard_normal if noise == "normal" else lambda size: (rng.gamma(2, size=size) - 2) / math.sqrt(2)
    arms = zip(ratio * draw((1000, 10)), draw((1000, 10)), strict=True)
    assert least <= np.mean([bool(spread_warning(new, base)) for new, base in arms]) <= most
