"""Statistics over tasks, against rliable 1.2.0 (tests/fixtures/rliable), SciPy and values computed by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from joyful.analysis.statistics import Estimate, paired_t
from joyful.analysis.tasks import (
    difference_over_tasks,
    interquartile_mean,
    over_tasks,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from joyful.results import InputError

RLIABLE = json.loads((Path(__file__).parents[1] / "fixtures/rliable/rliable.json").read_text())
CASES = RLIABLE["cases"]

#: Largest distance of limits from those of rliable, in widths of the interval. The Monte Carlo error of a difference of
#: two 2.5 % percentiles of 5,000 resamples is about 0.014 widths.
MONTE_CARLO = 0.05


@pytest.fixture(params=CASES)
def case(request):
    found = CASES[request.param]
    return {**found, "new": np.array(found["new"]), "base": np.array(found["base"])}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def check_limits(estimates, theirs):
    """Compare limits with those of each seed of rliable. Discrete statistics may differ by a step as well."""
    low, high = np.array([[e.low, e.high] for e in estimates]).T
    for their_low, their_high in theirs:
        width = np.maximum(np.array(their_high) - their_low, 1e-12)
        assert np.all(np.abs(low - their_low) <= MONTE_CARLO * width)
        assert np.all(np.abs(high - their_high) <= MONTE_CARLO * width)


def test_mean_and_interquartile_mean_are_those_of_rliable(case, rng):
    result = over_tasks(case["new"], rng, resamples=5000)
    ours = [result.mean, result.interquartile_mean]
    assert [e.estimate for e in ours] == pytest.approx(case["mean and interquartile mean"], rel=1e-12)
    assert interquartile_mean(case["new"]) == pytest.approx(case["mean and interquartile mean"][1], rel=1e-12)
    check_limits(ours, case["intervals"]["mean and interquartile mean"])


def test_the_probability_of_improvement_is_that_of_rliable(case, rng):
    result = probability_of_improvement(case["new"], case["base"], rng, resamples=5000)
    assert result.overall.estimate == pytest.approx(case["probability of improvement"], rel=1e-12)
    check_limits([result.overall], case["intervals"]["probability of improvement"])
    for task, estimate in enumerate(result.tasks):
        x, y = case["new"][:, task], case["base"][:, task]
        u = stats.mannwhitneyu(x, y).statistic
        assert estimate.estimate == pytest.approx(u / (len(x) * len(y)), rel=1e-12)
        assert estimate.low <= estimate.estimate <= estimate.high


def test_the_profile_is_that_of_rliable(case, rng):
    result = performance_profile(case["new"], RLIABLE["thresholds"], rng, resamples=5000)
    assert result.share.tolist() == pytest.approx(case["profile"], rel=1e-12, abs=1e-15)
    step = 1 / case["new"].size
    for their_low, their_high in case["intervals"]["profile"]:
        assert np.all(np.abs(result.low - their_low) <= step + 1e-9)
        assert np.all(np.abs(result.high - their_high) <= step + 1e-9)


def test_iqm_is_scipys_trimmed_mean(rng):
    values = rng.gamma(1, size=(7, 5))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=None), rel=1e-12)
    assert interquartile_mean(list(values.T)) == interquartile_mean(values)


def test_tasks_with_different_numbers_of_runs_by_hand(rng):
    tasks = [[1.0, 3.0], [10.0, 20.0, 30.0, math.nan], [6.0]]
    result = over_tasks(tasks, rng)
    assert result.mean.estimate == pytest.approx((2 + 20 + 6) / 3)
    assert result.interquartile_mean.estimate == pytest.approx((3 + 6 + 10 + 20) / 4)  # one of six dropped at each end
    assert performance_profile(tasks, [2.0, 15.0], rng).share.tolist() == pytest.approx([2.5 / 3, 2 / 9])
    padded = np.array([[1.0, 10.0, 6.0], [3.0, 20.0, np.nan], [np.nan, 30.0, np.nan]])
    same = np.random.default_rng(0)
    assert over_tasks(padded, same) == result


def test_runs_are_drawn_within_their_task(rng):
    """The values of a task are equal, so a bootstrap within tasks has no spread. Drawing over all tasks would have."""
    result = over_tasks([[1.0] * 5, [2.0] * 3, [9.0] * 4], rng)
    assert result.mean == Estimate(4.0, 4.0, 4.0)
    profile = performance_profile([[1.0] * 5, [2.0] * 3], [1.5], rng)
    assert (profile.low, profile.share, profile.high) == (0.5, 0.5, 0.5)


def test_the_interval_of_one_task_is_scipys_percentile_bootstrap(rng):
    d = rng.normal(0.3, 1, 30)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    ours = over_tasks([d], rng, resamples=20_000).mean
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.03 * width)
    narrower = over_tasks([d], rng, confidence=0.5).mean
    assert ours.low < narrower.low < ours.estimate < narrower.high < ours.high


def test_pairs_are_drawn_for_differences_and_runs_for_unpaired_arms(rng):
    """With a strong correlation of the arms the paired interval is far narrower. Both have the same mean."""
    base = rng.normal(0, 1, (20, 4))
    new = base + rng.normal(0.2, 0.1, (20, 4))
    paired, unpaired = over_tasks(new - base, rng).mean, difference_over_tasks(new, base, rng).mean
    assert unpaired.estimate == pytest.approx(paired.estimate)
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)
    expected = 2 * 1.96 * math.sqrt(sum(x[:, k].var() / 20 for x in (new, base) for k in range(4)) / 16)
    assert unpaired.high - unpaired.low == pytest.approx(expected, rel=0.1)


def test_infinite_scores_have_ranks_but_no_mean(rng):
    never = [[math.inf, 1.0]], [[math.inf, 2.0]]
    assert probability_of_improvement(*never, rng).overall.estimate == (0.5 + 1 + 0 + 0) / 4
    with pytest.raises(InputError, match="a value is infinite"):
        over_tasks(never[0], rng)


def test_missing_tasks_are_errors(rng):
    with pytest.raises(InputError, match="task 1"):
        over_tasks([[1.0], [math.nan]], rng)
    with pytest.raises(InputError, match="no tasks"):
        over_tasks([], rng)
    for function in (difference_over_tasks, probability_of_improvement):
        with pytest.raises(InputError, match="1 and 2"):
            function([[1.0]], [[1.0], [2.0]], rng)


def test_any_statistic_can_be_drawn(rng):
    def median(tasks):
        return np.median([task.mean(axis=-1) for task in tasks], axis=0)

    scores = rng.normal(size=(10, 5))
    result = stratified_bootstrap(median, scores, rng=rng)
    assert result.estimate == pytest.approx(np.median(scores.mean(axis=0)))
    assert result.low < result.estimate < result.high


@pytest.mark.slow
@pytest.mark.soak("simulates coverage")
def test_the_intervals_cover_as_the_module_says(rng):
    """1,500 samples of 6 tasks of normal values with 10 runs each: about 93 %."""
    results = [over_tasks(rng.normal(size=(10, 6)), rng, resamples=500) for _ in range(1500)]
    for intervals in ([r.mean for r in results], [r.interquartile_mean for r in results]):
        assert 0.91 <= np.mean([e.low <= 0 <= e.high for e in intervals]) <= 0.95


def test_with_many_runs_the_interval_of_one_task_is_near_the_t_interval(rng):
    d = rng.normal(0, 1, 200)
    ours, theirs = over_tasks([d], rng).mean, paired_t(d)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
