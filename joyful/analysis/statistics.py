"""Confidence intervals, tests and power for paired differences, and intervals for one arm and for two unpaired arms.

In every function `d` holds the differences of the pairs, in any unit. NaN marks a pair without a value. Such pairs are
dropped, and n is the number of pairs that remain. An infinite difference raises InputError because the mean is
undefined. Functions that draw random numbers take a generator.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from joyful.analysis.rules import FIXED, Rule
from joyful.results import InputError

#: Fewest pairs for the BCa bootstrap. With fewer pairs its coverage is too low (84 % at n = 5, 89 % at n = 10).
BOOTSTRAP_FROM = 20

#: Largest number of pairs for which `sign_flip` enumerates all sign patterns (2^20, about a million).
EXACT_UP_TO = 20

#: Upper limit of the search in `pairs_needed`.
MAXIMUM_PAIRS = 1_000_000

Differences = npt.ArrayLike


@dataclass(frozen=True)
class Estimate:
    """An estimate and its confidence interval.

    Attributes:
        estimate: The point estimate.
        low: Lower limit of the interval, in the unit of the estimate.
        high: Upper limit of the interval, in the unit of the estimate.
    """

    estimate: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Estimate:
        """Return the estimate and its limits on another scale, by an increasing function."""
        return Estimate(function(self.estimate), function(self.low), function(self.high))


#: The estimate where there is none.
UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def paired_t(d: Differences, rule: Rule = FIXED) -> Estimate:
    """Return the mean of paired differences with its interval.

    The interval is mean(d) ± q · sd(d) / √n, where q is the quantile of the rule at n - 1 degrees of freedom. Verdicts on
    claims are based on this interval.

    Args:
        d: Differences of the pairs.
        rule: Whether the number of pairs was fixed (the t interval) or not (the t confidence sequence).

    Returns:
        The estimate in the unit of `d`. With one pair `low` and `high` are NaN; without pairs all three values are NaN.
        The interval has width 0 if all differences are equal, and is not bounded where the quantile is infinite.

    Raises:
        InputError: If a difference is infinite.

    Source:
        See `joyful.analysis.rules`.

    Example:
        >>> interval = paired_t([1.0, 2.0, 3.0])
        >>> round(interval.estimate, 2), round(interval.low, 2), round(interval.high, 2)
        (2.0, -0.48, 4.48)
    """
    d = _finite(d)
    n = len(d)
    if n < 2:
        return Estimate(float(d[0]) if n else math.nan, math.nan, math.nan)
    mean, quantile = float(d.mean()), _quantile(rule, n - 1)
    half = math.inf if math.isinf(quantile) else quantile * float(d.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def paired_t_p(d: Differences, centre: float = 0.0, rule: Rule = FIXED) -> float:
    """Return the p-value of the two-sided test that the mean of paired differences is `centre`.

    Args:
        d: Differences of the pairs.
        centre: The mean under the null hypothesis, in the unit of `d`.
        rule: As in `paired_t`. The interval of `paired_t` excludes the centre exactly if the p-value is below 1 - confidence.

    Returns:
        The p-value, from 0 to 1, or NaN with fewer than two pairs.

    Raises:
        InputError: If a difference is infinite.

    Source:
        See `joyful.analysis.rules`.
    """
    d = _finite(d) - centre
    if len(d) < 2:
        return math.nan
    sd, mean = float(d.std(ddof=1)), abs(float(d.mean()))
    t = mean / sd * math.sqrt(len(d)) if sd > 0 else math.inf if mean > 0 else 0.0
    return float(rule.p(t, len(d) - 1))


def mean_t(values: npt.ArrayLike) -> Estimate:
    """Return the mean of the runs of one arm with its t interval.

    Args:
        values: One value for each run, in any unit. NaN marks a run without a value and is dropped.

    Returns:
        The estimate, as of `paired_t`.

    Raises:
        InputError: If a value is infinite.

    Source:
        Student (1908), Biometrika 6(1).
    """
    return paired_t(_finite(values, "values", "a value"))


def welch(new: npt.ArrayLike, base: npt.ArrayLike, rule: Rule = FIXED) -> Estimate:
    """Return the difference of the means of two unpaired arms, new minus base, with Welch's interval.

    Args:
        new: One value for each run of the new arm, in any unit. NaN marks a run without a value and is dropped.
        base: The values of the baseline, in the same unit.
        rule: Whether the number of runs was fixed or not, see `paired_t`.

    Returns:
        The estimate in the unit of the values. With one value in an arm `low` and `high` are NaN. Without values in an arm
        all three are NaN. The interval has width 0 if the values of each arm are equal.

    Raises:
        InputError: If a value is infinite.

    Source:
        Welch (1947), Biometrika 34(1-2), with the degrees of freedom of `scipy.stats.ttest_ind`.

    Example:
        >>> interval = welch([1.0, 2.0, 4.0], [0.0, 1.0, 1.5, 0.5])
        >>> round(interval.estimate, 2), round(interval.low, 2), round(interval.high, 2)
        (1.58, -1.74, 4.9)
    """
    x, y = (_finite(values, "values", "a value") for values in (new, base))
    if not (len(x) and len(y)):
        return UNKNOWN
    difference = float(x.mean() - y.mean())
    if min(len(x), len(y)) < 2:
        return Estimate(difference, math.nan, math.nan)
    if np.ptp(x) == 0 and np.ptp(y) == 0:
        return Estimate(difference, difference, difference)
    test = stats.ttest_ind(x, y, equal_var=False)
    half = float(rule.quantile(test.df)) * math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    return Estimate(difference, difference - half, difference + half)


def welch_p(new: npt.ArrayLike, base: npt.ArrayLike, centre: float = 0.0, rule: Rule = FIXED) -> float:
    """Return the p-value of the two-sided test that the means of two unpaired arms differ by `centre`.

    Args:
        new: As in `welch`.
        base: As in `welch`.
        centre: Difference of the means under the null hypothesis.
        rule: As in `welch`.

    Returns:
        The p-value, from 0 to 1, or NaN with fewer than two values in an arm.

    Source:
        As of `welch`.
    """
    x, y = (_finite(values, "values", "a value") for values in (new, base))
    if min(len(x), len(y)) < 2:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # equal values give an infinite or no statistic
        test = stats.ttest_ind(x - centre, y, equal_var=False)
    return float(rule.p(abs(test.statistic), test.df))


def spread_warning(new: npt.ArrayLike, base: npt.ArrayLike, level: float = 0.05, *, paired: bool = True) -> str:
    """Return a warning if two arms differ in spread, and "" otherwise.

    If the arms have the same distribution apart from a shift, the differences are symmetric, whatever the skewness of the
    noise. If they differ in spread, skewness of the noise remains in the differences, and the t interval covers less than
    stated: 93 % with 10 pairs and gamma(2) noise that is three times larger in one arm. The test is that of Pitman and
    Morgan with ranks: Spearman's correlation of new + base with new - base is 0 if the spreads are equal. For arms without
    pairs, whose difference of means is misled in the same way, it is that of Brown and Forsythe. Rates of warnings in pairs
    at the level 0.05, in %, for independent arms (20,000 samples; standard deviations 1:1 unless stated):

        pairs                6   10   15   20   30
        normal               6    5    5    5    5
        t, 3 df              9    9    9    8    8
        gamma(2)             7    7    7    7    7
        gamma(2), 2:1       20   34   50   63   81
        gamma(2), 3:1       39   66   85   95   99
        normal, 3:1         43   77   94   99  100

    The test does not see whether the noise is skewed: normal noise with unequal spreads, for which the interval is right,
    gives warnings too. The skewness of the differences is no substitute. With gamma(2) noise, 3:1 and 10 pairs it is
    significant in 18 % of the samples. The interval misses the mean in 3 % of these and in 7 % of the others, because the
    samples without a value from the long tail are those that mislead.

    Args:
        new: Values of the new arm, on the scale on which differences are taken (for times, their logarithms).
        base: Values of the baseline, with the same pairs in the same order. A pair with NaN is dropped.
        level: Level of the test, between 0 and 1.
        paired: Whether the values form pairs. If not, single values that are NaN are dropped.

    Returns:
        A sentence, or "". It is "" with fewer than 6 pairs, or values of an arm.

    Raises:
        InputError: If a value is infinite.

    Source:
        Pitman (1939) and Morgan (1939), Biometrika 31(1-2); with ranks: McCulloch (1987), Commun. Stat. Theory Methods
        16(5). Brown and Forsythe (1974), JASA 69(346). Computed by `scipy.stats.spearmanr` and `scipy.stats.levene`.

    Example:
        >>> print(spread_warning([3.0, -6.0, 9.0, 0.5, -3.0, 8.0, -5.0], [1.0, 2.0, 1.5, 0.5, 1.0, 2.0, 1.0]))
        the arms differ in spread (standard deviations 6 and 0.57, p = 1.5e-05);
        with skewed noise the interval covers less than stated
    """
    x, y = np.asarray(new, dtype=float), np.asarray(base, dtype=float)
    if paired:
        known = ~(np.isnan(x) | np.isnan(y))
        x, y = x[known], y[known]
    x, y = (_finite(values, "values", "a value") for values in (x, y))
    if min(len(x), len(y)) < 6 or (np.ptp(x) == 0 and np.ptp(y) == 0):
        return ""
    if paired and (np.ptp(x - y) == 0 or np.ptp(x + y) == 0):
        return ""
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # Equal distances to the medians give p = 0, or NaN if they are 0
        p = float(stats.spearmanr(x + y, x - y).pvalue if paired else stats.levene(x, y, center="median").pvalue)
    if not p < level:
        return ""
    spreads = f"standard deviations {x.std(ddof=1):.2g} and {y.std(ddof=1):.2g}, p = {p:.2g}"
    return f"the arms differ in spread ({spreads}); with skewed noise the interval covers less than stated"


def bca(d: Differences, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999) -> Estimate | None:
    """Return the mean of paired differences with its bias-corrected and accelerated (BCa) bootstrap interval.

    Args:
        d: Differences of the pairs.
        rng: Generator for the bootstrap resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples.

    Returns:
        The estimate in the unit of `d`, or None with fewer than BOOTSTRAP_FROM pairs. If all differences are equal, the
        interval has width 0 (`scipy.stats.bootstrap` returns NaN in this case).

    Raises:
        InputError: If a difference is infinite.

    Source:
        Efron (1987), JASA 82(397). Computed by `scipy.stats.bootstrap`.
    """
    d = _finite(d)
    if len(d) < BOOTSTRAP_FROM:
        return None
    mean = float(d.mean())
    if np.ptp(d) == 0:
        return Estimate(mean, mean, mean)
    result = stats.bootstrap(
        (d,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", vectorized=True, rng=rng,
        batch=1_000_000 // len(d) + 1,
    )  # fmt: skip
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def sign_flip(d: Differences, centre: float = 0.0, *, rng: np.random.Generator, draws: int = 99_999) -> float:
    """Return the two-sided p-value of the sign-flip test that the differences are symmetric about `centre`.

    With e = d - centre, the p-value is the share of the 2^n sign patterns g for which |Σ g e| >= |Σ e|. It is exact up
    to EXACT_UP_TO pairs. Above that it is (1 + hits) / (1 + draws) over random patterns. Sums that differ by rounding
    error only count as equal. The smallest possible exact value is 2 / 2^n, which is 0.031 for n = 6. With fewer than 6
    pairs the test cannot reach 0.05.

    Args:
        d: Differences of the pairs.
        centre: Centre of symmetry under the null hypothesis, in the unit of `d`.
        rng: Generator for the random patterns. It is used only above EXACT_UP_TO pairs.
        draws: Number of random patterns.

    Returns:
        The p-value, from 0 to 1, or NaN without pairs.

    Raises:
        InputError: If a difference is infinite.

    Source:
        Fisher (1935), The Design of Experiments, section 21.

    Example:
        >>> sign_flip([1.0, 2.0, 3.0], rng=np.random.default_rng(0))
        0.25
    """
    e = _finite(d) - centre
    n = len(e)
    if n == 0:
        return math.nan
    # The margin absorbs rounding: the same numbers are added in different orders.
    observed = abs(float(e.sum())) - 1e-12 * max(1.0, float(np.abs(e).sum()))
    if n <= EXACT_UP_TO:
        sums = e[:1]  # The first sign is fixed because g and -g give the same |sum|.
        for value in e[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= observed))
    hits, remaining = 0, draws
    while remaining:
        block = min(remaining, 2_000_000 // n + 1)
        positive = np.unpackbits(np.frombuffer(rng.bytes(-(-block * n // 8)), dtype=np.uint8))[: block * n].reshape(
            block, n
        )
        sums = 2 * (positive.astype(float) @ e) - e.sum()
        hits += int(np.count_nonzero(np.abs(sums) >= observed))
        remaining -= block
    return (1 + hits) / (1 + draws)


def holm(p: npt.ArrayLike) -> np.ndarray:
    """Return p-values adjusted by Holm's step-down method.

    For m sorted p-values, the i-th adjusted value is the maximum over j <= i of min(1, (m - j + 1) p_(j)).

    Args:
        p: P-values from 0 to 1, in any order. NaN values are not counted in the family.

    Returns:
        The adjusted p-values in the order of `p`. NaN stays NaN.

    Source:
        Holm (1979), Scand. J. Stat. 6(2). Computed by statsmodels.

    Example:
        >>> [round(float(value), 2) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    if known.any():
        adjusted[known] = multipletests(values[known], method="holm")[1]
    return adjusted


def proportion(hits: float, n: int, confidence: float = 0.95) -> Estimate:
    """Return the proportion hits / n with Wilson's score interval.

    Args:
        hits: Number of successes. It may be fractional.
        n: Number of trials.
        confidence: Confidence level, between 0 and 1.

    Returns:
        The estimate, from 0 to 1. All values are NaN if `n` is 0.

    Source:
        Wilson (1927), JASA 22(158). Computed by statsmodels.
    """
    if n == 0:
        return UNKNOWN
    low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
    return Estimate(hits / n, max(0.0, float(low)), min(1.0, float(high)))


def probability_better(d: Differences, confidence: float = 0.95) -> Estimate:
    """Return the share of pairs with a positive difference, with Wilson's interval.

    A tie counts as half a pair. Each run is compared only with the other run of its pair, because these two share a
    seed.

    Args:
        d: Differences of the pairs.
        confidence: Confidence level, between 0 and 1.

    Returns:
        The estimate of P(A > B), from 0 to 1. All values are NaN without pairs.

    Raises:
        InputError: If a difference is infinite.
    """
    d = _finite(d)
    return proportion(float(np.count_nonzero(d > 0) + np.count_nonzero(d == 0) / 2), len(d), confidence)


def standard_deviation(interval: Estimate, n: int, rule: Rule = FIXED) -> float:
    """Return the standard deviation of n differences whose mean has this interval of `paired_t`.

    For another interval, this is the standard deviation with which that of `paired_t` would be as wide.

    Args:
        interval: The mean of the differences with its interval.
        n: Number of differences.
        rule: The rule of the interval.

    Returns:
        The standard deviation in the unit of the interval, infinite if a limit is, or NaN with fewer than two differences.

    Example:
        >>> round(standard_deviation(paired_t([1.0, 2.0, 3.0]), 3), 6)
        1.0
    """
    if n < 2 or math.isnan(interval.high - interval.low):
        return math.nan if n < 2 or not math.isinf(interval.low) else math.inf
    return (interval.high - interval.low) / 2 / _quantile(rule, n - 1) * math.sqrt(n)


def minimum_detectable(interval: Estimate, n: int, power: float = 0.8, rule: Rule = FIXED) -> float:
    """Return the smallest true mean difference that pairs with this interval detect with the given power.

    This is the δ > 0 for which P(|T| > q) = power, where T has a noncentral t distribution with n - 1 degrees of freedom
    and noncentrality δ √n / sd, and q is the quantile of the rule. The standard deviation comes from the width of the
    interval (see `standard_deviation`) and is used in place of the true one, so the result is rough when there are few pairs.

    Args:
        interval: The mean of the differences with its interval.
        n: Number of pairs.
        power: Power of the test, between 0 and 1.
        rule: The rule of the interval.

    Returns:
        The difference in the unit of the interval, infinite if a limit is, or NaN with fewer than 2 pairs.

    Source:
        Cohen (1988), Statistical Power Analysis, chapter 2.
    """
    sd = math.nan if n < 2 else standard_deviation(interval, n, rule)
    return sd if not math.isfinite(sd) else sd * _detectable(n, power, rule) / math.sqrt(n)


def pairs_needed(sd: float, effect: float, power: float = 0.8, rule: Rule = FIXED) -> int | None:
    """Return the number of pairs whose interval excludes zero on the side of the effect with the given power.

    The number is the smallest n >= 2 for which P(T >= q) >= power, where T has a noncentral t distribution with n - 1
    degrees of freedom and noncentrality |effect| √n / sd, and q is the quantile of the rule.

    Args:
        sd: Standard deviation of the differences.
        effect: True mean difference, in the unit of `sd`.
        power: Power of the test, between 0 and 1.
        rule: The rule of the interval.

    Returns:
        The number of pairs. None if `sd` or `effect` is not finite, if `effect` is 0, or if more than MAXIMUM_PAIRS
        pairs are needed.

    Example:
        >>> pairs_needed(sd=1.0, effect=1.0)
        10
    """
    if not (math.isfinite(sd) and math.isfinite(effect)) or effect == 0:
        return None
    ratio = abs(effect) / sd if sd > 0 else math.inf
    low, high = 1, 2  # low is always too few pairs: a t interval needs two.
    while power_of_paired_t(high, ratio, rule) < power:
        low, high = high, high * 2
        if low > MAXIMUM_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of_paired_t(middle, ratio, rule) >= power else (middle, high)
    return high if high <= MAXIMUM_PAIRS else None


def _finite(d: Differences, name: str = "differences", item: str = "a paired difference") -> np.ndarray:
    values = np.asarray(d, dtype=float)
    values = values[~np.isnan(values)]
    if not np.isfinite(values).all():
        expected = f"finite values or NaN, but {item} is infinite"
        raise InputError(f"{name}: expected {expected}; use NaN to drop {'a pair' if 'paired' in item else 'it'}")
    return values


@functools.cache
def _quantile(rule: Rule, freedom: int) -> float:
    return float(rule.quantile(freedom))


@functools.cache
def _detectable(n: int, power: float, rule: Rule) -> float:
    """Return the noncentrality at which the interval of n pairs excludes zero with this power."""
    quantile = _quantile(rule, n - 1)

    def power_at(noncentrality: float) -> float:
        lower_tail = float(stats.nct.cdf(-quantile, n - 1, noncentrality))
        # SciPy 1.17 returns NaN for some tails that are 0 to machine precision (df 1, noncentrality 8).
        return _upper_tail(quantile, n, noncentrality) + (0.0 if math.isnan(lower_tail) else lower_tail)

    low, high = 0.0, 1.0
    while power_at(high) < power:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high


def power_of_paired_t(n: int, ratio: float, rule: Rule = FIXED) -> float:
    """Return the power of the t test of n differences, to find that their mean is above 0.

    Args:
        n: Number of differences.
        ratio: True mean divided by the standard deviation of the differences.
        rule: The rule of the test.

    Source:
        The noncentral t distribution, see Lehmann and Romano (2005), Testing Statistical Hypotheses, section 5.2.

    Example:
        >>> round(power_of_paired_t(10, 1.0), 3)
        0.803
    """
    quantile = _quantile(rule, n - 1)
    if math.isinf(quantile) or math.isinf(ratio):
        return float(math.isfinite(quantile))
    return _upper_tail(quantile, n, ratio * math.sqrt(n))


def _upper_tail(quantile: float, n: int, noncentrality: float) -> float:
    """Return P(T > quantile) of the noncentral t distribution with n - 1 degrees of freedom."""
    with warnings.catch_warnings():  # For extreme arguments SciPy warns and returns NaN where the answer is 0 or 1.
        warnings.simplefilter("ignore")
        value = float(stats.nct.sf(quantile, n - 1, noncentrality))
    return value if not math.isnan(value) else float(noncentrality > quantile)
