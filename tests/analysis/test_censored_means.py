"""Differences of means known only to intervals: against SciPy, by the limits of each arm, and by coverage under censoring."""

import math

import numpy as np
import pytest
from scipy import stats

from joyful.analysis.censored_means import (
    mean_over_tasks,
    p_over_tasks,
    paired_interval,
    paired_p,
    two_sample_interval,
    two_sample_p,
)
from joyful.analysis.interval_censored import mean_interval
from joyful.analysis.rules import FixedSize
from joyful.analysis.statistics import paired_t
from tests.analysis.test_interval_censored import drawn

INF = np.inf

LEVEL = pytest.mark.soak("another level of the same formulas")


def narrow(values):
    return values - 1e-7, values + 1e-7


def common_range(low, high):
    """Return half the width of the range that all intervals share."""
    return max(0.0, np.min(high) - np.max(low)) / 2


def distance(ends, n, t, side):
    """Return the distance to a one-sample limit at the quantile t, less half the common range."""
    mean, *limits = mean_interval(*ends, confidence=1 - 2 * stats.t.sf(t, n - 1))
    return abs(limits[(side + 1) // 2] - mean) - common_range(*ends)


SAMPLES = {
    "narrow, unequal numbers": (drawn(10, n=8, width=0.02), drawn(11, n=20, width=0.02)),
    "wide": (drawn(12, width=0.8), drawn(13, width=0.8)),
    "half open above": (drawn(14, open_right=0.5), drawn(15, open_right=0.2)),
    "a fifth open above": (drawn(19, n=20, open_right=0.2), drawn(20, n=20, open_right=0.2)),
    "one cell against values": ((np.full(12, 0.1), np.full(12, 0.3)), drawn(18, width=0.02)),
    "values against one cell": (drawn(18, width=0.02), (np.full(12, 0.1), np.full(12, 0.3))),
    "open on both sides": (drawn(16, n=20, open_right=0.3, open_left=0.3), drawn(17)),
}
PAIRS = {name: sample for name, sample in SAMPLES.items() if len(sample[0][0]) == len(sample[1][0])}


# --- pairs


@pytest.mark.parametrize("n", [2, 3, 6, 12, 30])
def test_pairs_without_width_give_the_paired_t_interval(n):
    rng = np.random.default_rng(n)
    base = rng.normal(0.1, 0.2, n)
    new = base + rng.normal(0.3, 0.1, n)
    expected = paired_t(new - base)
    ends = narrow(new), narrow(base)
    assert paired_interval(*ends) == pytest.approx((expected.estimate, expected.low, expected.high), abs=2e-6)
    assert paired_p(*ends, 0.25) == pytest.approx(stats.ttest_1samp(new - base, 0.25).pvalue, abs=2e-6)
    exact = paired_interval((new, new), (base, base))
    assert exact == pytest.approx((expected.estimate, expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_limits_of_pairs_combine_those_of_the_arms(pairs):
    new, base = pairs
    n = len(new[0])
    a, b = ((low + high) / 2 for low, high in pairs)
    both = np.isfinite(a) & np.isfinite(b)
    r = (
        np.corrcoef(a[both], b[both])[0, 1] * both.mean()
        if both.sum() >= 6 and np.ptp(a[both]) * np.ptp(b[both])
        else 0
    )
    estimate, low, high = paired_interval(*pairs)
    assert estimate == pytest.approx(mean_interval(*new)[0] - mean_interval(*base)[0], abs=1e-9)
    t, common = stats.t.ppf(0.975, n - 1), common_range(*new) + common_range(*base)
    for side, limit in ((-1, low), (1, high)):
        x, y = distance(new, n, t, side), distance(base, n, t, -side)
        assert abs(limit - estimate) == pytest.approx(common + math.sqrt(x**2 + y**2 - 2 * r * x * y), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("confidence", [pytest.param(0.8, marks=LEVEL), 0.95, pytest.param(0.99, marks=LEVEL)])
def test_the_p_value_of_pairs_at_a_limit_is_the_level(pairs, confidence):
    for limit in paired_interval(*pairs, FixedSize(confidence))[1:]:
        assert paired_p(*pairs, float(limit)) == pytest.approx(1 - confidence, abs=1e-7)


@pytest.mark.slow
def test_arms_that_stay_in_one_cell_differ_by_anything_that_the_cells_allow():
    """The means lie anywhere in (4, 5] and (3, 4], so their difference lies between 0 and 2."""
    new, base = ((np.full(10, low), np.full(10, low + 1.0)) for low in (4.0, 3.0))
    for interval, p in ((paired_interval, paired_p), (two_sample_interval, two_sample_p)):
        assert interval(new, base) == pytest.approx((1, 0, 2), abs=1e-6)
        assert p(new, base, 1.99) > 0.05 > p(new, base, 2.01)


def test_a_pair_without_a_value_is_dropped_from_both_arms():
    new, base = PAIRS["wide"]
    more = [tuple(np.append(end, value) for end in ends) for ends, value in ((new, math.nan), (base, 5.0))]
    assert np.array(paired_interval(*more)) == pytest.approx(np.array(paired_interval(new, base)))
    assert all(math.isnan(x) for x in paired_interval(*((ends[0][:1], ends[1][:1]) for ends in (new, base)))[1:])


def correlated_times(rng, shape, censored):
    """Return the ends of ln T of two arms with a true difference of 0.2, of which a share lies beyond the budget."""
    noise = math.sqrt(0.5) * (rng.standard_normal((1, *shape)) + rng.standard_normal((2, *shape)))
    times = 4 * np.exp(0.15 * noise + np.array([0.0, 0.2])[:, None, None])
    budget = np.ceil(np.quantile(times, 1 - censored) * 4) / 4
    by = np.ceil(times * 4) / 4
    beyond = by > budget
    return [
        (np.log(np.where(b, budget, x - 0.25)), np.where(b, INF, np.log(x))) for x, b in zip(by, beyond, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.soak("simulates coverage for 4 s")
def test_censoring_does_not_bias_the_interval():
    """500 samples of 30 pairs, half of whose runs are censored.

    The differences of the pairs as a sample of their own mislead: how far a difference is known depends on its value.
    """
    base, new = correlated_times(np.random.default_rng(5), (500, 30), 0.5)
    _, low, high = paired_interval(new, base)
    assert np.mean((low <= 0.2) & (high >= 0.2)) >= 0.93
    for missed in (low > 0.2, high < 0.2):
        assert np.mean(missed) <= 0.05
    d = new[0] - base[1], new[1] - base[0]
    _, low, high = mean_interval(
        *(np.where(np.isnan(end), sign * INF, end) for end, sign in zip(d, (-1, 1), strict=True))
    )
    assert np.mean((low <= 0.2) & (high >= 0.2)) <= 0.91


# --- several tasks


@pytest.mark.parametrize("paired", [True, False])
def test_exact_values_of_tasks_give_the_interval_of_the_stratified_mean(paired):
    rng = np.random.default_rng(3)
    tasks = [(rng.normal(0.3, 0.1 * k, 5 + k), rng.normal(0.0, 0.2, 5 + k)) for k in (1, 2, 4)]
    samples = [[a - b] for a, b in tasks] if paired else tasks
    variances = [x.var(ddof=1) / len(x) for sample in samples for x in sample]
    lengths = [len(x) for sample in samples for x in sample]
    freedom = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in zip(variances, lengths, strict=True))
    mean, error = np.mean([a.mean() - b.mean() for a, b in tasks]), math.sqrt(sum(variances)) / 3
    half = stats.t.ppf(0.975, freedom) * error
    ends = [[(x, x) for x in arm] for arm in zip(*tasks, strict=True)]
    assert mean_over_tasks(*ends, paired=paired) == pytest.approx((mean, mean - half, mean + half), abs=1e-12)
    p = p_over_tasks(*ends, paired=paired, centre=0.2)
    assert p == pytest.approx(2 * stats.t.sf(abs(mean - 0.2) / error, freedom), abs=1e-9)
    assert p_over_tasks(*ends, paired=paired, centre=mean + half) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize("paired", [True, False])
def test_one_task_gives_the_interval_of_the_task(paired):
    new, base = PAIRS["half open above"]
    alone = (paired_interval if paired else two_sample_interval)(new, base)
    assert np.array(mean_over_tasks([new], [base], paired=paired)) == pytest.approx(np.array(alone))
    three = mean_over_tasks([new] * 3, [base] * 3, paired=paired)
    assert three[0] == pytest.approx(alone[0])
    assert three[2] - three[0] < 0.62 * (alone[2] - alone[0])  # 1 / √3, and a smaller quantile t


# --- two samples


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "ratio"), [(2, 2, 1), (3, 9, 3), (12, 12, 1 / 3), (12, 30, 5), (30, 12, 1)])
@pytest.mark.parametrize("confidence", [pytest.param(0.5, marks=LEVEL), 0.95, pytest.param(0.99, marks=LEVEL)])
def test_two_samples_without_width_give_welchs_interval(n, m, ratio, confidence):
    rng = np.random.default_rng(n)
    new, base = rng.normal(0.4, 0.2 * ratio, n), rng.normal(0.1, 0.2, m)
    test = stats.ttest_ind(new, base, equal_var=False)
    sample = narrow(new), narrow(base)
    expected = (new.mean() - base.mean(), *test.confidence_interval(confidence))
    assert two_sample_interval(*sample, FixedSize(confidence)) == pytest.approx(expected, abs=2e-6)
    assert two_sample_p(*sample) == pytest.approx(test.pvalue, abs=2e-6)
    shifted = stats.ttest_ind(new - 0.2, base, equal_var=False)
    assert two_sample_p(*sample, 0.2) == pytest.approx(shifted.pvalue, abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("confidence", [pytest.param(0.8, marks=LEVEL), 0.95, pytest.param(0.99, marks=LEVEL)])
def test_the_p_value_at_a_limit_is_the_level(sample, confidence):
    for limit in two_sample_interval(*sample, FixedSize(confidence))[1:]:
        assert two_sample_p(*sample, float(limit)) == pytest.approx(1 - confidence, abs=1e-7)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_limits_combine_those_of_the_samples(sample):
    """With the quantile t for which a limit was computed, found again from the one-sample intervals."""
    new, base = sample
    n, m = ((np.isfinite(low) | np.isfinite(high)).sum() for low, high in sample)
    estimate, lower, upper = two_sample_interval(*sample)
    assert estimate == pytest.approx(mean_interval(*new)[0] - mean_interval(*base)[0], abs=1e-9)
    for side, limit in ((-1, lower), (1, upper)):
        a, b = distance(new, n, 1.0, side), distance(base, m, 1.0, -side)
        t = stats.t.ppf(0.975, (a**2 + b**2) ** 2 / (a**4 / (n - 1) + b**4 / (m - 1)))
        expected = common_range(*new) + common_range(*base)
        expected += math.hypot(distance(new, n, t, side), distance(base, m, t, -side))
        assert abs(limit - estimate) == pytest.approx(expected, abs=1e-6)


def test_exchanging_the_samples_turns_the_difference_round():
    new, base = SAMPLES["half open above"]
    estimate, low, high = two_sample_interval(new, base)
    assert two_sample_interval(base, new) == pytest.approx((-estimate, -high, -low))


def test_rows_of_two_samples_are_independent():
    sample = SAMPLES["open on both sides"]
    stacked = [tuple(np.stack([end, end + shift]) for end in ends) for ends, shift in zip(sample, (1, 0), strict=True)]
    for row, one in zip(two_sample_interval(*stacked), two_sample_interval(*sample), strict=True):
        assert row == pytest.approx([float(one), float(one) + 1], abs=1e-8)
    stacked = [tuple(np.stack([end, end]) for end in ends) for ends in sample]
    assert two_sample_p(*stacked, 0.1) == pytest.approx([float(two_sample_p(*sample, 0.1))] * 2, abs=1e-8)


#: The p-value where the likelihood ratio of 12 half-open values, 2^-12, limits t: t² = 11 (2² - 1), with 3 degrees of freedom.
SIGN = 2 * stats.t.sf(math.sqrt(33), 3)
EXACT = [0.0, 0.1, 0.2, 0.4], [1e-7, 0.1 + 1e-7, 0.2 + 1e-7, 0.4 + 1e-7]


@pytest.mark.slow
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
    assert two_sample_interval(new, base) == pytest.approx(expected, nan_ok=True, abs=1e-3)
    assert two_sample_p(new, base) == pytest.approx(p, nan_ok=True, abs=1e-5)


def times_on_a_grid(rng, means, sds, runs, step, censored, samples):
    """Return the ends of normal ln T of two arms that are read at a step. A share of the second is beyond the budget."""
    last = np.ceil(np.exp(means[1] + sds[1] * stats.norm.ppf(1 - censored)) / step) * step
    ends = []
    for mean, sd, n in zip(means, sds, runs, strict=True):
        by = np.ceil(np.exp(rng.normal(mean, sd, (samples, n))) / step) * step
        beyond = by > last
        with np.errstate(divide="ignore"):
            ends += [(np.log(np.where(beyond, last, by - step)), np.where(beyond, INF, np.log(by)))]
    return ends


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "ratio"), [((12, 12), 1.0), ((12, 30), 3.0), ((12, 30), 1 / 3)])
@pytest.mark.parametrize(("step", "censored"), [(0.05, 0.0), (0.25, 0.5), (1.0, 0.25)])
@pytest.mark.soak("simulates coverage")
def test_the_interval_covers_the_difference_on_a_grid(runs, ratio, step, censored):
    """500 samples of times of about 4 epochs. The standard error of a coverage of 95 % is 1 point."""
    means, sds = (math.log(4) - 0.2, math.log(4)), (0.15 * ratio, 0.15)
    ends = times_on_a_grid(np.random.default_rng(7), means, sds, runs, step, censored, 500)
    _, low, high = two_sample_interval(*ends)
    assert np.mean((low <= -0.2) & (high >= -0.2)) >= 0.92
    for missed in (low > -0.2, high < -0.2):
        assert np.mean(missed) <= 0.05
