"""The mean of normal values that are known only to lie in intervals, by profile likelihood.

A time to a target is known only to the evaluations, so it lies in an interval, whose ends may be infinite. The functions take
these intervals as two arrays `low` and `high` with the values in the last axis, and work on each row separately. A value that
is NaN or unbounded on both sides says nothing. It is ignored, and n is the number of the other values of a row. Differences
between two arms are in `censored_means`.

The values are taken as independent and normal with mean δ and standard deviation σ. The profile log-likelihood of δ
is L(δ) = max over σ of Σ ln(Φ((high - δ) / σ) - Φ((low - δ) / σ)). The interval of δ holds all values for which L is at most
n/2 ln(1 + t² / (n - 1)) below its maximum, with the quantile t of Student's distribution with n - 1 degrees of freedom. For
intervals without width this is the t interval.

Source:
    Interval-censored likelihood: Turnbull (1976), JRSS B 38(3). With α = δ/σ and β = 1/σ it is log-concave (Pratt 1981, JASA
    76(373)), so for each δ there is one maximum over β, and the interval has no gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from joyful.analysis.rules import FixedSize

Array = npt.NDArray[np.float64]

#: A function from values x, one per row, and the indices of these rows, to f(x) and its slope.
_Function = Callable[[Array, npt.NDArray[np.intp]], tuple[Array, Array]]

#: Limits of β. The values are scaled so that their finite ends span 1.
_SMALLEST, _LARGEST = 1e-7, 1e9

#: Intervals that overlap by no more than this have an edge in common, but no value.
_TOUCHING = 1e-9

#: Values at this distance count as infinite, in multiples of the span of the finite ends.
_FAR = 2.0**20


def mean_interval(low: npt.ArrayLike, high: npt.ArrayLike, confidence: float = 0.95) -> tuple[Array, Array, Array]:
    """Return the maximum likelihood estimate of the mean and its interval.

    Args:
        low: Lower ends, of shape (..., values). They may be -inf.
        high: Upper ends, of the same shape and greater than `low`. They may be inf.
        confidence: Confidence level, between 0 and 1.

    Returns:
        Arrays `estimate`, `low` and `high` of shape (...). If all intervals of a row have a value in common, the maximum
        is a range, and the estimate is its middle, or its finite end. If they have only an edge in common, the estimate is
        the edge. A limit is infinite where the values do not bound the
        mean. With one value `low` and `high` are NaN, and without values all three are NaN.

    Example:
        >>> edges = [0.0, 0.1, 0.2, 0.4]
        >>> [round(float(x), 3) for x in mean_interval(edges, [x + 1e-6 for x in edges])]
        [0.175, -0.097, 0.447]
        >>> [round(float(x), 3) for x in mean_interval([0.1] * 8, [np.inf] * 8)]
        [0.1, 0.1, inf]
    """
    rows = Rows(low, high)
    drop = rows.drop(FixedSize(confidence).quantile(rows.n - 1))
    return rows.shaped(rows.estimate), rows.shaped(rows.limit(drop, -1.0)), rows.shaped(rows.limit(drop, 1.0))


class Rows:
    """Rows of intervals, scaled so that the finite ends of a row span 1."""

    def __init__(self, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        lower, upper = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        self._shape = lower.shape[:-1]
        size = (math.prod(self._shape), lower.shape[-1])
        lower, upper = lower.reshape(size), upper.reshape(size)
        unknown = np.isnan(lower) | np.isnan(upper) | (np.isinf(lower) & np.isinf(upper))
        lower, upper = np.where(unknown, -np.inf, lower), np.where(unknown, np.inf, upper)
        self.n = (~unknown).sum(axis=1)
        ends = np.concatenate([lower, upper], axis=1)
        first = np.where(np.isfinite(ends), ends, np.inf).min(axis=1, initial=np.inf)
        last = np.where(np.isfinite(ends), ends, -np.inf).max(axis=1, initial=-np.inf)
        with np.errstate(invalid="ignore"):
            span = last - first
        self.scale = np.where(span > 0, span, np.where((self.n > 0) & (first != 0), np.abs(first), 1.0))
        self._low, self._high = lower / self.scale[:, None], upper / self.scale[:, None]
        self._log_beta = np.zeros(len(self.n))  # of the last call of `profile`, where the next one starts
        self.estimate, self.maximum = self._maximise()

    def shaped(self, values: Array) -> Array:
        """Return one value per row in the shape and unit of the caller. Values beyond _FAR are infinite."""
        return np.where(np.abs(values) >= _FAR, np.copysign(np.inf, values), values * self.scale).reshape(self._shape)

    def drop(self, t: Array) -> Array:
        """Return the fall of the profile log-likelihood at the quantile t of a row. NaN with fewer than two values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.n < 2, np.nan, self.n / 2 * np.log1p(t**2 / (self.n - 1)))

    def reach(self, t: Array, side: float) -> Array:
        """Return the distance from the estimate to the limit at the quantile t on a side, in the unit of the caller."""
        limit, estimate = (self.shaped(x).reshape(-1) for x in (self.limit(self.drop(t), side), self.estimate))
        return np.where(
            np.isinf(estimate) & (self.n >= 2), np.inf, np.abs(limit - np.where(np.isinf(estimate), 0, estimate))
        )

    def profile(self, delta: Array, rows: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
        """Return L(δ) and its first and second derivatives for one δ per row."""
        low, high = self._low[rows] - delta[:, None], self._high[rows] - delta[:, None]

        def slope(log_beta: Array, of: npt.NDArray[np.intp]) -> tuple[Array, Array]:
            terms = _Terms(log_beta, low[of], high[of])
            return terms.by_log_beta, terms.by_log_beta_twice

        smallest, largest = (np.full(len(delta), np.log(end)) for end in (_SMALLEST, _LARGEST))
        log_beta = _decreasing_root(slope, smallest, largest, self._log_beta[rows])
        self._log_beta[rows] = log_beta
        terms = _Terms(log_beta, low, high)
        with np.errstate(all="ignore"):
            curvature = terms.by_delta_twice - terms.by_both**2 / terms.by_log_beta_twice
        return terms.log_likelihood, terms.by_delta, curvature

    def _maximise(self) -> tuple[Array, Array]:
        first, last = self._low.max(axis=1, initial=-np.inf), self._high.min(axis=1, initial=np.inf)
        with np.errstate(invalid="ignore"):
            middle = np.where(np.isinf(first), last, np.where(np.isinf(last), first, (first + last) / 2))
            touching = np.abs(first - last) <= _TOUCHING
        estimate, maximum = np.where(self.n > 0, middle, np.nan), np.zeros(len(self.n))
        estimate[touching], maximum[touching] = self._touching(touching, middle[touching])
        rows = np.flatnonzero((first > last) & ~touching)  # otherwise a common value has the likelihood 1, with σ = 0

        def slope(delta: Array, of: npt.NDArray[np.intp]) -> tuple[Array, Array]:
            return self.profile(delta, rows[of])[1:]

        low = last[rows] - _distance(lambda x, of: -slope(last[rows[of]] - x, of)[0], len(rows))
        high = first[rows] + _distance(lambda x, of: slope(first[rows[of]] + x, of)[0], len(rows))
        estimate[rows] = _decreasing_root(slope, low, high)
        maximum[rows] = self.profile(estimate[rows], rows)[0]
        return estimate, maximum

    def _touching(self, rows: npt.NDArray[np.bool_], edge: Array) -> tuple[Array, Array]:
        """Return the estimate and the maximum for rows of which all intervals have only an edge in common.

        Of the intervals that end at the edge, the share p lies below. The probability of the others is at most 1. So L is
        at most the logarithm of p^(n p) (1 - p)^(n (1 - p)), and tends to this as σ goes to 0 and δ to the edge, from below
        if p > 1/2. The estimate is beside the edge, at a distance that is lost in rounding.
        """
        for ends in (self._low, self._high):
            ends[rows] = np.where(np.abs(ends[rows] - edge[:, None]) <= _TOUCHING, edge[:, None], ends[rows])
        below, above = ((ends[rows] == edge[:, None]).sum(axis=1) for ends in (self._high, self._low))
        p = below / (below + above)
        return edge - 10 * _TOUCHING * np.sign(below - above), special.xlogy(below, p) + special.xlogy(above, 1 - p)

    def limit(self, drop: Array, side: float) -> Array:
        """Return the limit of the interval below (side -1) or above (side 1) the estimate."""
        limits = np.where(self.n < 2, np.nan, side * np.inf)
        known = (self.n >= 2) & (self._bound(side) < self.maximum - drop)
        edge = self._high.min(axis=1, initial=np.inf) if side > 0 else self._low.max(axis=1, initial=-np.inf)
        ends = (self._high if side > 0 else self._low) == edge[:, None]
        # If all intervals have a range in common, L falls at its edge by ln 2 for each interval that ends there.
        jumps = known & (self.maximum == 0) & np.isfinite(edge) & (drop < ends.sum(axis=1) * np.log(2))
        limits[jumps] = edge[jumps]
        rows = np.flatnonzero(known & ~jumps)
        level, centre = (self.maximum - drop)[rows], self.estimate[rows]

        def above(distance: Array, of: npt.NDArray[np.intp]) -> tuple[Array, Array]:
            value, slope, _ = self.profile(centre[of] + side * distance, rows[of])
            return value - level[of], side * slope

        far = _distance(lambda x, of: above(x, of)[0], len(rows))
        limits[rows] = centre + side * _decreasing_root(above, np.zeros(len(rows)), far)
        return limits

    def _bound(self, side: float) -> Array:
        """Return the limit of L(δ) as δ goes to infinity on a side: -inf if a pair is bounded on both sides.

        Otherwise the pairs that are open on this side have the probability p and the others 1 - p, with p >= 1/2.
        """
        both = (np.isfinite(self._low) & np.isfinite(self._high)).any(axis=1)
        known, unknown = (self._high, self._low) if side < 0 else (self._low, self._high)
        open_pairs = (np.isfinite(known) & np.isinf(unknown)).sum(axis=1)
        p = np.maximum(open_pairs / np.maximum(self.n, 1), 0.5)
        value = special.xlogy(open_pairs, p) + special.xlogy(self.n - open_pairs, 1 - p)
        return np.where(both, -np.inf, value)


class _Terms:
    """The log-likelihood Σ ln(Φ(β high) - Φ(β low)) of each row, and its derivatives in δ and ln β.

    Args:
        log_beta: ln β of each row.
        low: Lower ends minus δ, of shape (rows, pairs).
        high: Upper ends minus δ, of shape (rows, pairs).
    """

    def __init__(self, log_beta: Array, low: Array, high: Array) -> None:
        beta = np.exp(log_beta)
        a, b = beta[:, None] * low, beta[:, None] * high
        swap = a > 0  # differences of Φ are exact in the lower tail
        lower, upper = np.where(swap, -b, a), np.where(swap, -a, b)
        with np.errstate(all="ignore"):
            log_upper = special.log_ndtr(upper)
            log_p = np.maximum(log_upper + np.log(-np.expm1(special.log_ndtr(lower) - log_upper)), -1e300)
            # The normal density at each end, divided by the probability. Infinite ends contribute nothing.
            at_a, at_b = (np.exp(-(x**2) / 2 - 0.5 * np.log(2 * np.pi) - log_p) for x in (a, b))
            a, b = (np.where(np.isfinite(x), x, 0.0) for x in (a, b))
            of_delta, of_beta = at_b - at_a, b * at_b - a * at_a
            self.log_likelihood = log_p.sum(axis=1)
            self.by_delta = -beta * of_delta.sum(axis=1)
            self.by_log_beta = of_beta.sum(axis=1)
            self.by_delta_twice = -(beta**2) * (of_beta + of_delta**2).sum(axis=1)
            # A pair adds at least this much to the second derivative in β, multiplied by β². For large β, cancellation
            # would otherwise give values that are too low by orders of magnitude, and steps that end the search.
            least = -1 - np.maximum(a**2, b**2)
            by_beta_twice = -(b**3 * at_b - a**3 * at_a) - of_beta**2
            self.by_log_beta_twice = (of_beta + np.maximum(by_beta_twice, least)).sum(axis=1)
            self.by_both = self.by_delta + beta * (b**2 * at_b - a**2 * at_a + of_delta * of_beta).sum(axis=1)


def _distance(function: Callable[[Array, npt.NDArray[np.intp]], Array], rows: int) -> Array:
    """Return a distance per row, doubled from 0 and 0.5 on until the function is not positive or 2 * _FAR is reached."""
    x, active = np.zeros(rows), np.arange(rows)
    while len(active) and x.max() < 2 * _FAR:
        active = active[function(x[active], active) > 0]
        x[active] = np.maximum(2 * x[active], 0.5)
    return x


def _decreasing_root(function: _Function, low: Array, high: Array, start: Array | None = None) -> Array:
    """Return the x at which a function of one value per row changes from positive to negative.

    Newton steps are taken where they stay inside the bracket and are not longer than the step before. Elsewhere the
    bracket is halved. A function without a
    change of sign gives an end of the bracket.
    """
    low, high = low.copy(), high.copy()
    x = (low + high) / 2 if start is None else np.clip(start, low, high)
    active, last = np.arange(len(x)), np.full(len(x), np.inf)
    for _ in range(100):
        if not len(active):
            break
        value, slope = function(x[active], active)
        low[active] = np.where(value > 0, x[active], low[active])
        high[active] = np.where(value > 0, high[active], x[active])
        with np.errstate(all="ignore"):
            new = x[active] - value / slope
        middle = (low[active] + high[active]) / 2
        short = np.abs(new - x[active]) <= last[active]
        new = np.where((new > low[active]) & (new < high[active]) & short, new, middle)
        last[active] = np.abs(new - x[active])
        done = np.abs(new - x[active]) <= 1e-11 * np.maximum(np.abs(new), 1.0)
        x[active] = new
        active = active[~done]
    return x
