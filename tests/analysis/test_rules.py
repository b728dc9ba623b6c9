"""The decision rules: the t interval for a fixed number of pairs, and the t confidence sequence."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from joyful.analysis.censored_means import paired_interval, paired_p
from joyful.analysis.rules import ANY_SIZE, FIXED, AnySize, FixedSize
from joyful.analysis.statistics import minimum_detectable, paired_t, paired_t_p, pairs_needed, welch, welch_p


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def bayes_factor(values, g):
    """The e-value from its definition: the mean is N(0, g sd²), and the density of the standard deviation is 1 / sd."""
    n, mean, squares = len(values), values.mean(), ((values - values.mean()) ** 2).sum()

    def evidence(variance_of_mean):
        def density(log_sd):
            sd = math.exp(log_sd)
            spread = sd * math.sqrt(1 / n + variance_of_mean)
            return stats.norm.pdf(mean, 0, spread) * sd ** (1 - n) * math.exp(-squares / (2 * sd**2))

        centre = math.log(values.std())
        return integrate.quad(density, centre - 4, centre + 6, limit=500)[0]

    return evidence(g) / evidence(0.0)


@pytest.mark.parametrize("g", [0.25, 1.0, 4.0])
def test_the_p_value_of_the_sequence_is_the_inverse_of_the_bayes_factor(g, rng):
    for n in (5, 9, 30):
        values = rng.normal(0.6, 1.0, n)
        t = values.mean() / values.std(ddof=1) * math.sqrt(n)
        assert float(AnySize(g=g).p(t, n - 1)) == pytest.approx(min(1, 1 / bayes_factor(values, g)), rel=1e-6)


@pytest.mark.parametrize("rule", [FixedSize(0.9), FIXED, AnySize(0.9), ANY_SIZE, AnySize(0.99), AnySize(g=0.5)])
@pytest.mark.parametrize("n", [8, 20, 60, 1000])
def test_the_p_value_at_the_quantile_is_the_level(rule, n):
    assert float(rule.p(rule.quantile(n - 1), n - 1)) == pytest.approx(1 - rule.confidence)


def test_the_sequence_has_the_half_width_of_the_paper():
    n, alpha = 13, 0.05
    d = np.linspace(-1, 2, n)
    r = (alpha**2 / (1 + n)) ** (1 / n)
    half = d.std(ddof=1) * math.sqrt((n - 1) / n * (1 - r) / (r - 1 / (1 + n)))
    found = paired_t(d, ANY_SIZE)
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_pairs_leave_the_sequence_unbounded(n):
    exact = np.linspace(0.9, 1.1, n)
    censored = (exact, exact + 0.1)
    assert paired_t(exact, ANY_SIZE).low == -math.inf
    assert paired_t(np.ones(n), ANY_SIZE).high == math.inf
    assert [float(x) for x in paired_interval(censored, (exact - 1, exact - 0.9), ANY_SIZE)[1:]] == [
        -math.inf,
        math.inf,
    ]
    assert paired_t_p(exact, 0.0, ANY_SIZE) > 0.05


def test_the_sequence_holds_the_mean_at_all_sizes_at_once_and_the_interval_does_not(rng):
    d = rng.standard_normal((4000, 60))
    missed = {FIXED: np.zeros(4000, dtype=bool), ANY_SIZE: np.zeros(4000, dtype=bool)}
    for n in range(6, 61):
        t = np.abs(d[:, :n].mean(axis=1)) / d[:, :n].std(axis=1, ddof=1) * math.sqrt(n)
        for rule in missed:
            missed[rule] |= t > rule.quantile(n - 1)
    assert 1 - missed[ANY_SIZE].mean() >= 0.95
    assert 1 - missed[FIXED].mean() == pytest.approx(0.72, abs=0.03)  # what looking after each pair costs


@pytest.mark.parametrize("rule", [FIXED, ANY_SIZE, AnySize(0.99)])
def test_times_without_width_have_the_interval_and_the_p_value_of_exact_values(rule, rng):
    new, base = rng.normal(1, 1, 12), rng.normal(0, 1, 12)
    ends = [(x, x + 1e-9) for x in (new, base)]
    found, expected = paired_interval(*ends, rule), paired_t(new - base, rule)
    assert [float(x) for x in found] == pytest.approx([expected.estimate, expected.low, expected.high], abs=1e-5)
    assert float(paired_p(*ends, 0.2, rule)) == pytest.approx(paired_t_p(new - base, 0.2, rule), abs=1e-5)


@pytest.mark.parametrize("rule", [FIXED, ANY_SIZE, AnySize(0.99)])
def test_an_interval_excludes_what_its_test_rejects(rule, rng):
    d, x, y = rng.normal(0.5, 1, 10), rng.normal(0.5, 1, 10), rng.normal(0, 2, 14)
    for centre in (paired_t(d, rule).low, paired_t(d, rule).high):
        assert paired_t_p(d, centre, rule) == pytest.approx(1 - rule.confidence)
    for centre in (welch(x, y, rule).low, welch(x, y, rule).high):
        assert welch_p(x, y, centre, rule) == pytest.approx(1 - rule.confidence)


def test_equal_pairs_are_certain_and_one_pair_says_nothing():
    assert paired_t_p(np.ones(8), 0.0, ANY_SIZE) < 0.05
    assert paired_t_p(np.ones(8), 1.0, ANY_SIZE) == 1.0
    assert math.isnan(paired_t_p([1.0], 0.0, ANY_SIZE))
    assert math.isnan(welch_p([1.0], [1.0, 2.0]))


def test_the_sequence_needs_more_pairs_and_detects_less(rng):
    d = rng.normal(0, 1, 12)
    assert minimum_detectable(paired_t(d, ANY_SIZE), 12, rule=ANY_SIZE) > minimum_detectable(paired_t(d), 12)
    fixed, sequential = pairs_needed(1.0, 1.0), pairs_needed(1.0, 1.0, rule=ANY_SIZE)
    power = stats.nct.sf(float(ANY_SIZE.quantile(sequential - 1)), sequential - 1, math.sqrt(sequential))
    before = stats.nct.sf(float(ANY_SIZE.quantile(sequential - 2)), sequential - 2, math.sqrt(sequential - 1))
    assert fixed < sequential
    assert before < 0.8 <= power
