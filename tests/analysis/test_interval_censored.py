"""The interval of a mean of values known only to lie in intervals: by brute force, SciPy and lifelines, and by its coverage."""

import math

import numpy as np
import pytest
from lifelines import LogNormalFitter
from scipy import stats
from scipy.special import log_ndtr

from joyful.analysis.interval_censored import mean_interval, mean_p, two_sample_interval, two_sample_p
from joyful.analysis.statistics import paired_t

INF = np.inf


def drawn(seed, n=12, width=0.4, open_right=0.0, open_left=0.0):
    """Draw normal values with mean 0.2 and standard deviation 0.2, each somewhere in an interval."""
    rng = np.random.default_rng(seed)
    values, widths = rng.normal(0.2, 0.2, n), rng.uniform(width / 10, width, n)
    low = values - widths * rng.uniform(size=n)
    high = np.where(rng.uniform(size=n) < open_right, INF, low + widths)
    return np.where(rng.uniform(size=n) < open_left, -INF, low), high


def brute_force(low, high, delta):
    """Return the profile log-likelihood as the maximum over a fine grid of 1/σ."""
    a, b = (np.exp(np.linspace(-14, 18, 8_001))[:, None] * (ends - delta) for ends in (low, high))
    swap = a > 0
    lower, upper = np.where(swap, -b, a), np.where(swap, -a, b)
    with np.errstate(all="ignore"):
        return (log_ndtr(upper) + np.log(-np.expm1(log_ndtr(lower) - log_ndtr(upper)))).sum(axis=1).max()


CASES = {
    "narrow": drawn(0, width=0.02),
    "wide": drawn(1, width=0.8),
    "six pairs": drawn(2, n=6),
    "half open above": drawn(3, open_right=0.5),
    "open on both sides": drawn(4, n=20, open_right=0.3, open_left=0.3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_limits_are_where_the_profile_has_fallen_by_the_quantile(case):
    low, high = case
    estimate, lower, upper = (float(x) for x in mean_interval(low, high))
    known = np.isfinite(low) | np.isfinite(high)
    n, low, high = known.sum(), low[known], high[known]
    drop = n / 2 * math.log(1 + stats.t.ppf(0.975, n - 1) ** 2 / (n - 1))
    top = brute_force(low, high, estimate)
    assert all(brute_force(low, high, x) <= top + 1e-6 for x in np.linspace(-1, 2, 21))
    assert lower < estimate < upper
    for limit in (lower, upper):
        assert brute_force(low, high, limit) == pytest.approx(top - drop, abs=1e-5)
        assert mean_p(low, high, limit) == pytest.approx(0.05, abs=1e-8)


@pytest.mark.parametrize("n", [2, 6, 12, 30])
def test_intervals_without_width_give_the_t_interval(n):
    d = np.random.default_rng(n).normal(0.1, 0.2, n)
    expected, test = paired_t(d), stats.ttest_1samp(d, 0.05)
    estimate, low, high = mean_interval(d - 1e-7, d + 1e-7)
    assert (estimate, low, high) == pytest.approx((expected.estimate, expected.low, expected.high), abs=1e-6)
    assert mean_p(d - 1e-7, d + 1e-7, 0.05) == pytest.approx(test.pvalue, abs=1e-6)


@pytest.mark.parametrize("case", ["wide", "half open above", "open on both sides"])
def test_the_estimate_is_that_of_lifelines(case):
    """lifelines 0.30 fits the log-normal distribution to interval-censored times, here exp(d)."""
    low, high = CASES[case]
    known = np.isfinite(low) | np.isfinite(high)
    fitter = LogNormalFitter().fit_interval_censoring(np.exp(low[known]), np.exp(high[known]))
    assert mean_interval(low, high)[0] == pytest.approx(fitter.mu_, abs=1e-4)


def test_rows_are_independent_and_unknown_pairs_are_ignored():
    low, high = CASES["open on both sides"]
    both = mean_interval(np.stack([low, low + 1]), np.stack([high, high + 1]))
    alone = [float(x) for x in mean_interval(low, high)]
    for rows, one in zip(both, alone, strict=True):
        assert rows == pytest.approx([one, one + 1], abs=1e-9)
    more = np.append(low, [math.nan, -INF]), np.append(high, [1.0, INF])
    assert mean_interval(*more) == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([-0.5] * 12, [0.5] * 12, (0.0, -0.5, 0.5)),  # all values may be equal to any common one, and to no other
        ([0.1] * 12, [INF] * 12, (0.1, 0.1, INF)),
        ([-INF] * 12, [0.1] * 12, (0.1, -INF, 0.1)),
        ([-INF] * 12, [INF] * 12, (math.nan, math.nan, math.nan)),
        ([0.2], [0.4], (0.3, math.nan, math.nan)),
        ([], [], (math.nan, math.nan, math.nan)),
    ],
)
def test_limits_that_the_pairs_do_not_bound(low, high, expected):
    assert mean_interval(low, high) == pytest.approx(expected, nan_ok=True, abs=1e-8)


def test_many_open_pairs_against_one_leave_the_upper_limit_open():
    estimate, low, high = mean_interval([-INF, *[0.1] * 11], [0.0, *[INF] * 11])
    assert 0.1 < low < 0.3
    assert estimate == high == INF


@pytest.mark.parametrize("counts", [(5, 1), (4, 2), (3, 3), (2, 4), (1, 5), (9, 3)])
def test_values_in_two_neighbouring_cells_of_a_grid(counts):
    """All intervals have only an edge in common. The likelihood is highest as σ goes to 0 and the mean to the edge."""
    low, high = (np.log(np.repeat(ends, counts)) for ends in ([3, 4], [4, 5]))
    n = sum(counts)
    top = sum(k * math.log(k / n) for k in counts)
    drop = n / 2 * math.log(1 + stats.t.ppf(0.975, n - 1) ** 2 / (n - 1))
    estimate, lower, upper = (float(x) for x in mean_interval(low, high))
    assert estimate == pytest.approx(math.log(4), abs=1e-7)
    assert max(brute_force(low, high, x) for x in np.linspace(1.2, 1.5, 61)) <= top + 1e-6
    assert lower < estimate < upper
    for limit in (lower, upper):
        assert brute_force(low, high, limit) == pytest.approx(top - drop, abs=1e-4)
        assert mean_p(low, high, limit) == pytest.approx(0.05, abs=1e-8)
    mirrored = mean_interval(-high, -low)
    assert mirrored == pytest.approx((-estimate, -upper, -lower), abs=1e-7)


def test_one_value_in_a_neighbouring_cell_leaves_the_edge_as_a_limit():
    """With 11 values below the edge, no mean above it has a likelihood of more than 2^-12, which is too low."""
    low, high = (np.repeat(ends, (11, 1)) for ends in ([3.0, 4.0], [4.0, 5.0]))
    estimate, lower, upper = (float(x) for x in mean_interval(low, high))
    assert (estimate, upper) == pytest.approx((4, 4), abs=1e-6)
    top = 11 * math.log(11 / 12) + math.log(1 / 12)
    assert brute_force(low, high, lower) == pytest.approx(
        top - 6 * math.log(1 + stats.t.ppf(0.975, 11) ** 2 / 11), abs=1e-4
    )
    assert brute_force(low, high, 3.99) == pytest.approx(top, abs=1e-4)
    assert mean_p(low, high, 4.001) < 0.05 < mean_p(low, high, 3.99)


def test_the_unit_does_not_matter():
    low, high = CASES["half open above"]
    for factor in (1e-6, 1e6):
        for scaled, value in zip(mean_interval(low * factor, high * factor), mean_interval(low, high), strict=True):
            assert scaled == pytest.approx(value * factor, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.05, 0.25, 1.0, 2.0])
def test_the_interval_covers_the_mean_on_a_grid(step):
    """1,000 samples of 12 pairs of times of about 4 epochs, of which only the evaluations around them are known."""
    rng = np.random.default_rng(7)
    times = 4 * np.exp(rng.normal(0, 0.15 / math.sqrt(2), (2, 1000, 12)) - np.array([0.0, 0.2])[:, None, None])
    by = np.ceil(times / step) * step
    with np.errstate(divide="ignore"):
        (base_after, new_after), (base_by, new_by) = np.log(by - step + 1e-12), np.log(by)
    _, low, high = mean_interval(base_after - new_by, base_by - new_after)
    assert np.mean((low <= 0.2) & (high >= 0.2)) >= 0.93


# --- two samples

SAMPLES = {
    "narrow, unequal numbers": (*drawn(10, n=8, width=0.02), *drawn(11, n=20, width=0.02)),
    "wide": (*drawn(12, width=0.8), *drawn(13, width=0.8)),
    "half open above": (*drawn(14, open_right=0.5), *drawn(15, open_right=0.2)),
    "one cell against values": (np.full(12, 0.1), np.full(12, 0.3), *drawn(18, width=0.02)),
    "values against one cell": (*drawn(18, width=0.02), np.full(12, 0.1), np.full(12, 0.3)),
    "open on both sides": (*drawn(16, n=20, open_right=0.3, open_left=0.3), *drawn(17)),
}


@pytest.mark.parametrize(("n", "m", "ratio"), [(2, 2, 1), (3, 9, 3), (12, 12, 1 / 3), (12, 30, 5), (30, 12, 1)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_two_samples_without_width_give_welchs_interval(n, m, ratio, confidence):
    rng = np.random.default_rng(n)
    new, base = rng.normal(0.4, 0.2 * ratio, n), rng.normal(0.1, 0.2, m)
    test = stats.ttest_ind(new, base, equal_var=False)
    sample = new - 1e-7, new + 1e-7, base - 1e-7, base + 1e-7
    expected = (new.mean() - base.mean(), *test.confidence_interval(confidence))
    assert two_sample_interval(*sample, confidence) == pytest.approx(expected, abs=2e-6)
    assert two_sample_p(*sample) == pytest.approx(test.pvalue, abs=2e-6)
    shifted = stats.ttest_ind(new - 0.2, base, equal_var=False)
    assert two_sample_p(*sample, 0.2) == pytest.approx(shifted.pvalue, abs=2e-6)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_p_value_at_a_limit_is_the_level(sample, confidence):
    for limit in two_sample_interval(*sample, confidence)[1:]:
        assert two_sample_p(*sample, float(limit)) == pytest.approx(1 - confidence, abs=1e-7)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_limits_combine_those_of_the_samples(sample):
    """With the quantile t for which a limit was computed, found again from the one-sample intervals at 1 - p."""
    new, base = sample[:2], sample[2:]
    (m1, *_), (m2, *_) = mean_interval(*new), mean_interval(*base)
    n1, n2 = ((np.isfinite(low) | np.isfinite(high)).sum() for low, high in (new, base))
    estimate, lower, upper = two_sample_interval(*sample)
    assert estimate == pytest.approx(m1 - m2, abs=1e-9)

    def one_sample(t):
        (_, l1, u1), (_, l2, u2) = (
            mean_interval(*ends, confidence=1 - 2 * stats.t.sf(t, n - 1)) for ends, n in ((new, n1), (base, n2))
        )
        return (m1 - l1, u2 - m2), (u1 - m1, m2 - l2)

    for side, limit in enumerate((lower, upper)):
        a, b = one_sample(1.0)[side]
        freedom = (a**2 + b**2) ** 2 / (a**4 / (n1 - 1) + b**4 / (n2 - 1))
        distance = math.hypot(*one_sample(stats.t.ppf(0.975, freedom))[side])
        assert abs(limit - estimate) == pytest.approx(distance, abs=1e-6)


def test_exchanging_the_samples_turns_the_difference_round():
    new_low, new_high, base_low, base_high = SAMPLES["half open above"]
    estimate, low, high = two_sample_interval(new_low, new_high, base_low, base_high)
    assert two_sample_interval(base_low, base_high, new_low, new_high) == pytest.approx((-estimate, -high, -low))


def test_rows_of_two_samples_are_independent():
    sample = SAMPLES["open on both sides"]
    rows = two_sample_interval(
        *(np.stack([ends, ends + shift]) for ends, shift in zip(sample, (1, 1, 0, 0), strict=True))
    )
    p = two_sample_p(*(np.stack([ends, ends]) for ends in sample), 0.1)
    for row, one in zip(rows, two_sample_interval(*sample), strict=True):
        assert row == pytest.approx([float(one), float(one) + 1], abs=1e-8)
    assert p == pytest.approx([float(two_sample_p(*sample, 0.1))] * 2, abs=1e-9)


#: The p-value where the likelihood ratio of 12 half-open values, 2^-12, limits t: t² = 11 (2² - 1), with 3 degrees of freedom.
SIGN = 2 * stats.t.sf(math.sqrt(33), 3)
EXACT = [0.0, 0.1, 0.2, 0.4], [1e-7, 0.1 + 1e-7, 0.2 + 1e-7, 0.4 + 1e-7]


@pytest.mark.parametrize(
    ("new", "base", "expected", "p"),
    [
        # All new values are at least 1, so σ may be 0: only the spread of the baseline counts below, and nothing bounds above.
        (([1.0] * 12, [INF] * 12), EXACT, (0.825, 0.825 - 0.272, INF), SIGN),
        (EXACT, ([1.0] * 12, [INF] * 12), (-0.825, -INF, -0.825 + 0.272), SIGN),
        (([-INF] * 12, [INF] * 12), EXACT, (math.nan, math.nan, math.nan), math.nan),
        (([0.2], [0.4]), EXACT, (0.125, math.nan, math.nan), math.nan),
        (([-INF, *[0.1] * 11], [0.0, *[INF] * 11]), EXACT, (INF, -INF, INF), 1.0),
    ],
)
def test_limits_that_two_samples_do_not_bound(new, base, expected, p):
    assert two_sample_interval(*new, *base) == pytest.approx(expected, nan_ok=True, abs=1e-3)
    assert two_sample_p(*new, *base) == pytest.approx(p, nan_ok=True, abs=1e-5)


def times_on_a_grid(rng, means, sds, runs, step, censored, samples):
    """Return the ends of normal ln T of two arms that are read at a step. A share of the second is beyond the budget."""
    last = np.ceil(np.exp(means[1] + sds[1] * stats.norm.ppf(1 - censored)) / step) * step
    ends = []
    for mean, sd, n in zip(means, sds, runs, strict=True):
        by = np.ceil(np.exp(rng.normal(mean, sd, (samples, n))) / step) * step
        beyond = by > last
        with np.errstate(divide="ignore"):
            ends += [np.log(np.where(beyond, last, by - step)), np.where(beyond, INF, np.log(by))]
    return ends


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "ratio"), [((12, 12), 1.0), ((12, 30), 3.0), ((12, 30), 1 / 3)])
@pytest.mark.parametrize(("step", "censored"), [(0.05, 0.0), (0.25, 0.5), (1.0, 0.25)])
def test_the_interval_covers_the_difference_on_a_grid(runs, ratio, step, censored):
    """500 samples of times of about 4 epochs. The standard error of a coverage of 95 % is 1 point."""
    means, sds = (math.log(4) - 0.2, math.log(4)), (0.15 * ratio, 0.15)
    ends = times_on_a_grid(np.random.default_rng(7), means, sds, runs, step, censored, 500)
    _, low, high = two_sample_interval(*ends)
    assert np.mean((low <= -0.2) & (high >= -0.2)) >= 0.92
    for missed in (low > -0.2, high < -0.2):
        assert np.mean(missed) <= 0.05
