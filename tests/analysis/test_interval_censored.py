"""The interval of a mean of values known only to lie in intervals: by brute force, SciPy and lifelines, and by its coverage."""

import math

import numpy as np
import pytest
from lifelines import LogNormalFitter
from scipy import stats
from scipy.special import log_ndtr

from joyful.analysis.interval_censored import mean_interval
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


@pytest.mark.parametrize("n", [2, 6, 12, 30])
def test_intervals_without_width_give_the_t_interval(n):
    d = np.random.default_rng(n).normal(0.1, 0.2, n)
    expected = paired_t(d)
    estimate, low, high = mean_interval(d - 1e-7, d + 1e-7)
    assert (estimate, low, high) == pytest.approx((expected.estimate, expected.low, expected.high), abs=1e-6)


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


def test_the_unit_does_not_matter():
    low, high = CASES["half open above"]
    for factor in (1e-6, 1e6):
        for scaled, value in zip(mean_interval(low * factor, high * factor), mean_interval(low, high), strict=True):
            assert scaled == pytest.approx(value * factor, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.05, 0.25, 1.0, 2.0])
@pytest.mark.soak("simulates coverage")
def test_the_interval_covers_the_mean_on_a_grid(step):
    """1,000 samples of 12 pairs of times of about 4 epochs, of which only the evaluations around them are known."""
    rng = np.random.default_rng(7)
    times = 4 * np.exp(rng.normal(0, 0.15 / math.sqrt(2), (2, 1000, 12)) - np.array([0.0, 0.2])[:, None, None])
    by = np.ceil(times / step) * step
    with np.errstate(divide="ignore"):
        (base_after, new_after), (base_by, new_by) = np.log(by - step + 1e-12), np.log(by)
    _, low, high = mean_interval(base_after - new_by, base_by - new_after)
    assert np.mean((low <= 0.2) & (high >= 0.2)) >= 0.93
