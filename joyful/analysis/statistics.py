"""Paired intervals, tests and power. Arrays in, numbers out; a generator is passed in where one is needed.

d: the differences of n pairs, in any unit. NaN in d is a pair without a value: it is dropped and n counts what is left.
Infinite differences are refused (InputError): a mean of them says nothing.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from joyful.results import InputError

#: From so many pairs on the BCa bootstrap is shown; below it covers too little (84 % at n = 5, 89 % at n = 10).
BOOTSTRAP_FROM = 20

#: Up to so many pairs every sign pattern is enumerated (2^20, about a million); above, patterns are drawn.
EXACT_UP_TO = 20

#: No search for a number of pairs goes beyond this.
MAXIMUM_PAIRS = 1_000_000

Differences = npt.ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, in one unit."""

    estimate: float
    low: float
    high: float


def paired_t(d: Differences, confidence: float = 0.95) -> Estimate:
    """mean(d) ± t_{n-1, (1+c)/2} · sd(d) / √n, the interval that decides; in the unit of d.

    One pair: low and high are NaN; none: all three are. Equal differences: an interval of width 0.
    Source: Student (1908), Biometrika 6(1).
    """
    d = _finite(d)
    n = len(d)
    if n < 2:
        return Estimate(float(d[0]) if n else math.nan, math.nan, math.nan)
    mean, half = float(d.mean()), _t_quantile(n - 1, confidence) * float(d.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def bca(d: Differences, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999) -> Estimate | None:
    """mean(d) with its bias-corrected and accelerated bootstrap interval; in the unit of d.

    None below BOOTSTRAP_FROM pairs, where the interval is too short to be shown. Equal differences: width 0 (SciPy's
    would be NaN there). Source: Efron (1987), JASA 82(397); computed by scipy.stats.bootstrap.
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
    """Two-sided sign-flip p-value of "the differences are symmetric about `centre`", 0 to 1.

    With e = d - centre: the share of the 2^n sign patterns g with |Σ g e| >= |Σ e|; exact up to EXACT_UP_TO pairs, above
    (1 + hits) / (1 + draws) over random patterns. Sums equal but for rounding count as equal. NaN without a pair. The
    smallest possible value is 2 / 2^n: 0.031 at n = 6, and no n below 6 can reach 0.05.
    Source: Fisher (1935), The Design of Experiments, section 21.
    """
    e = _finite(d) - centre
    n = len(e)
    if n == 0:
        return math.nan
    # the margin is for rounding alone: sums of the same numbers in another order
    observed = abs(float(e.sum())) - 1e-12 * max(1.0, float(np.abs(e).sum()))
    if n <= EXACT_UP_TO:
        sums = e[:1]  # the first sign is fixed: patterns come in pairs of equal |sum|
        for value in e[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= observed))
    hits, left = 0, draws
    while left:
        block = min(left, 2_000_000 // n + 1)
        signs = rng.integers(0, 2, size=(block, n), dtype=np.int8) * 2 - 1
        hits += int(np.count_nonzero(np.abs(signs @ e) >= observed))
        left -= block
    return (1 + hits) / (1 + draws)


def holm(p: npt.ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given; NaN is no member of the family and stays NaN.

    p_(i) adjusted = max over j <= i of min(1, (m - j + 1) p_(j)). Source: Holm (1979), Scand. J. Stat. 6(2); computed by
    statsmodels.
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    if known.any():
        adjusted[known] = multipletests(values[known], method="holm")[1]
    return adjusted


def proportion(hits: float, n: int, confidence: float = 0.95) -> Estimate:
    """hits / n with Wilson's score interval, 0 to 1; NaN where n is 0. Source: Wilson (1927), JASA 22(158)."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
    return Estimate(hits / n, max(0.0, float(low)), min(1.0, float(high)))


def probability_better(d: Differences, confidence: float = 0.95) -> Estimate:
    """P(A > B): the share of pairs with d > 0, ties as half a pair, with Wilson's interval; 0 to 1.

    Over pairs, not over all combinations of runs: the two runs of a pair share their seed. NaN without a pair.
    """
    d = _finite(d)
    return proportion(float(np.count_nonzero(d > 0) + np.count_nonzero(d == 0) / 2), len(d), confidence)


def minimum_detectable(d: Differences, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true |mean difference| that n pairs tell from zero with this power; in the unit of d.

    The δ with P(|T| > t_{n-1, 1-α/2}) = power, T noncentral t with n - 1 degrees of freedom and noncentrality
    δ √n / sd(d). Takes sd(d) for the truth, which few pairs know only roughly. NaN below 2 pairs.
    Source: Cohen (1988), Statistical Power Analysis, chapter 2.
    """
    d = _finite(d)
    n = len(d)
    return math.nan if n < 2 else float(d.std(ddof=1)) * _detectable(n, power, alpha) / math.sqrt(n)


def pairs_needed(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest pairs whose t interval lies on the effect's side of zero with this power, if `effect` is the truth.

    The smallest n >= 2 with P(T > t_{n-1, 1-α/2}) >= power, T noncentral t with n - 1 degrees of freedom and
    noncentrality |effect| √n / sd. sd of the differences and effect in one unit. None where sd or effect is NaN, effect
    is 0, or MAXIMUM_PAIRS are too few.
    """
    if not (math.isfinite(sd) and math.isfinite(effect)) or effect == 0:
        return None
    ratio = abs(effect) / sd if sd > 0 else math.inf
    low, high = 1, 2  # too few (a t interval needs two), and a candidate
    while _power(high, ratio, alpha) < power:
        low, high = high, high * 2
        if low > MAXIMUM_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, ratio, alpha) >= power else (middle, high)
    return high if high <= MAXIMUM_PAIRS else None


def _finite(d: Differences) -> np.ndarray:
    values = np.asarray(d, dtype=float)
    values = values[~np.isnan(values)]
    if not np.isfinite(values).all():
        raise InputError("a paired difference is infinite: one run of the pair has the value 0 or an overflow")
    return values


@functools.cache
def _t_quantile(df: int, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, df))


@functools.cache
def _detectable(n: int, power: float, alpha: float) -> float:
    """The noncentrality at which a two-sided t test of n pairs has this power."""
    quantile = _t_quantile(n - 1, 1 - alpha)

    def reached(noncentrality: float) -> float:
        other_side = float(stats.nct.cdf(-quantile, n - 1, noncentrality))
        # SciPy 1.17 gives NaN for some tails that are nought to every digit (df 1, noncentrality 8)
        return _upper_tail(quantile, n, noncentrality) + (0.0 if math.isnan(other_side) else other_side)

    low, high = 0.0, 1.0
    while reached(high) < power:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return high


def _power(n: int, ratio: float, alpha: float) -> float:
    if math.isinf(ratio):
        return 1.0
    return _upper_tail(_t_quantile(n - 1, 1 - alpha), n, ratio * math.sqrt(n))


def _upper_tail(quantile: float, n: int, noncentrality: float) -> float:
    """P(T > quantile) of the noncentral t with n - 1 degrees of freedom."""
    with warnings.catch_warnings():  # far out SciPy's series warns and gives NaN, where the answer is 0 or 1
        warnings.simplefilter("ignore")
        value = float(stats.nct.sf(quantile, n - 1, noncentrality))
    return value if not math.isnan(value) else float(noncentrality > quantile)
