"""Means of differences between two arms, for values that are known only to lie in intervals: pairs, samples and tasks.

The values of each arm are normal with their own mean and standard deviation, and each is known to lie in an interval, whose
ends may be infinite. The mean of an arm and its limits come from the profile likelihood (`interval_censored`). With the
estimate m of each mean, and a and b as the distances from the estimates of the new arm and of the baseline to their limits
at the quantile t of a rule (`rules`), the difference m_new - m_base has its limit at the distance

    √(a² + b² - 2 r a b).

r is 0 for independent samples. For pairs it is the correlation of the two values of a pair, over the pairs in which both are
bounded on both sides, multiplied by the share of these pairs. For values without width the interval is the paired t interval,
or Welch's.

If all values of an arm may be equal, the data cannot tell where in the range of common values they lie. Half the width of
this range is then taken from a and b and added to the distance as a whole, because it is no sampling error.

The differences of the pairs do not have a likelihood of their own: how far a censored difference is known depends on the
other run of the pair, and so on the difference itself.

Source:
    Zou and Donner (2008), Statistics in Medicine 27(10) (the combination of limits, also with a correlation); Welch (1947),
    Biometrika 34; Satterthwaite (1946), Biometrics Bulletin 2(6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from joyful.analysis.interval_censored import Rows
from joyful.analysis.rules import FIXED, Rule

Array = npt.NDArray[np.float64]

#: `low` and `high` of the values of one arm, of shape (..., values). They may be infinite, and NaN marks a missing value.
Ends = tuple[npt.ArrayLike, npt.ArrayLike]

#: Fewest pairs from which a correlation is estimated.
_CORRELATION_FROM = 6

#: Quantiles of Student's distribution above this count as infinite.
_LARGEST_T = 1e6


def paired_interval(new: Ends, base: Ends, rule: Rule = FIXED) -> tuple[Array, Array, Array]:
    """Return the mean difference of pairs, new minus base, with its interval.

    Args:
        new: Ends of the values of the new arm, of shape (..., pairs).
        base: Ends of the values of the baseline, for the same pairs in the same order. A pair with NaN is dropped.
        rule: Whether the number of values was fixed or not (see `joyful.analysis.rules`).

    Returns:
        Arrays `estimate`, `low` and `high` of shape (...). A limit is infinite where the limit of an arm is infinite on that
        side. They are NaN with fewer than two pairs.

    Example:
        >>> new, base = np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.5, 1.0])
        >>> [round(float(x), 3) for x in paired_interval((new, new + 1e-7), (base, base + 1e-7))]
        [1.5, -1.786, 4.786]
    """
    return _interval([(1.0, _Pairs(new, base))], np.shape(new[0])[:-1], rule)


def paired_p(new: Ends, base: Ends, centre: float = 0.0, rule: Rule = FIXED) -> Array:
    """Return the p-value of the two-sided test that the mean difference of pairs is `centre`.

    It is below 1 - confidence exactly if the interval of `paired_interval` does not hold the centre.

    Args:
        new: As in `paired_interval`.
        base: As in `paired_interval`.
        centre: Mean difference under the null hypothesis.
        rule: As in `paired_interval`.

    Returns:
        P-values from 0 to 1, of shape (...). NaN with fewer than two pairs.
    """
    return _p([(1.0, _Pairs(new, base))], np.shape(new[0])[:-1], centre, rule)


def two_sample_interval(new: Ends, base: Ends, rule: Rule = FIXED) -> tuple[Array, Array, Array]:
    """Return the difference of the means of two independent samples, new minus base, with its interval.

    The degrees of freedom are those of Welch and Satterthwaite, computed for each side with the distances to the limits at
    t = 1 as standard errors.

    Args:
        new: Ends of the values of the new arm, of shape (..., n).
        base: Ends of the values of the baseline, of shape (..., m), with the same leading axes.
        rule: Whether the number of values was fixed or not (see `joyful.analysis.rules`).

    Returns:
        Arrays `estimate`, `low` and `high` of shape (...), as of `paired_interval`.

    Example:
        >>> new, base = np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 1.5, 0.5])
        >>> [round(float(x), 3) for x in two_sample_interval((new, new + 1e-7), (base, base + 1e-7))]
        [1.583, -1.735, 4.902]
    """
    return mean_over_tasks([new], [base], paired=False, rule=rule)


def two_sample_p(new: Ends, base: Ends, centre: float = 0.0, rule: Rule = FIXED) -> Array:
    """Return the p-value of the two-sided test that the means of two independent samples differ by `centre`.

    Args:
        new: As in `two_sample_interval`.
        base: As in `two_sample_interval`.
        centre: Difference under the null hypothesis.
        rule: As in `two_sample_interval`.

    Returns:
        P-values from 0 to 1, of shape (...). NaN with fewer than two values in a sample.
    """
    return p_over_tasks([new], [base], paired=False, centre=centre, rule=rule)


def mean_over_tasks(
    new: Sequence[Ends], base: Sequence[Ends], *, paired: bool, rule: Rule = FIXED
) -> tuple[Array, Array, Array]:
    """Return the mean over tasks of the mean difference, with its interval.

    The distances to the limits of the tasks are combined as those of independent samples. For exact values this is the t
    interval with the standard error of the stratified mean and Satterthwaite's degrees of freedom.

    Args:
        new: Ends of the values of the new arm for each task. All tasks have the same leading axes.
        base: Ends of the values of the baseline for each task.
        paired: Whether the values of a task form pairs.
        rule: Whether the number of values was fixed or not (see `joyful.analysis.rules`).

    Returns:
        Arrays `estimate`, `low` and `high` of the leading shape, in the unit of the values.

    Example:
        >>> new, base = [[0.1, 0.2, 0.3], [0.4, 0.6, 0.5]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        >>> tasks = [[(x, x) for x in arm] for arm in (new, base)]
        >>> [round(float(x), 3) for x in mean_over_tasks(*tasks, paired=True)]
        [0.35, 0.237, 0.463]
    """
    return _interval(_parts(new, base, paired), np.shape(new[0][0])[:-1], rule)


def p_over_tasks(
    new: Sequence[Ends], base: Sequence[Ends], *, paired: bool, centre: float = 0.0, rule: Rule = FIXED
) -> Array:
    """Return the p-value of the two-sided test that the mean over tasks is `centre`.

    Args:
        new: As in `mean_over_tasks`.
        base: As in `mean_over_tasks`.
        paired: As in `mean_over_tasks`.
        centre: Mean under the null hypothesis.
        rule: As in `mean_over_tasks`.

    Returns:
        P-values from 0 to 1, of the leading shape. NaN where there is no interval.
    """
    return _p(_parts(new, base, paired), np.shape(new[0][0])[:-1], centre, rule)


class _Sample:
    """The mean of the values of one arm in each row, and the distances to its limits.

    Attributes:
        n: Number of values.
        mean: The estimate.
        common: Half the width of the range of values that all intervals share, or 0.
    """

    def __init__(self, ends: Ends, dropped: npt.NDArray[np.bool_] | None = None) -> None:
        low, high = (np.asarray(end, dtype=float).reshape(-1, np.shape(end)[-1]) for end in ends)
        if dropped is not None:
            low, high = np.where(dropped, np.nan, low), np.where(dropped, np.nan, high)
        self._rows = None if np.array_equal(low, high, equal_nan=True) else Rows(low, high)
        self.n = (~np.isnan(low) & ~np.isnan(high)).sum(axis=1) if self._rows is None else self._rows.n
        if self._rows is not None:
            self.mean: Array = self._rows.shaped(self._rows.estimate)
            first, last = (
                np.where(np.isnan(low), -np.inf, low).max(axis=1),
                np.where(np.isnan(high), np.inf, high).min(axis=1),
            )
            with np.errstate(invalid="ignore"):
                width = np.where(np.isfinite(first) & np.isfinite(last), last - first, 0.0)
            self.common = np.maximum(width, 0.0) / 2
            return
        self.common = np.zeros(len(low))
        with np.errstate(divide="ignore", invalid="ignore"):
            self.mean = np.nansum(low, axis=1) / self.n
            squares = np.nansum((low - self.mean[:, None]) ** 2, axis=1)
            self._error = np.sqrt(squares / (self.n - 1) / self.n)

    def distance(self, t: Array, side: float) -> Array:
        """Return the distance to the limit at the quantile t below (side -1) or above (side 1), less `common`."""
        unbounded = np.isinf(t)
        t = np.where(unbounded, 1.0, t)
        reach = t * self._error if self._rows is None else np.maximum(self._rows.reach(t, side) - self.common, 0.0)
        return np.where(self.n < 2, np.nan, np.where(unbounded, np.inf, reach))


class _Pairs:
    """The mean difference of pairs in each row, with the attributes and the method of `_Sample`."""

    def __init__(self, new: Ends, base: Ends) -> None:
        ends = [np.asarray(end, dtype=float).reshape(-1, np.shape(end)[-1]) for end in (*new, *base)]
        dropped = np.asarray(np.isnan(ends).any(axis=0))
        self._new, self._base = _Sample((ends[0], ends[1]), dropped), _Sample((ends[2], ends[3]), dropped)
        self.n, self.common = (~dropped).sum(axis=1), self._new.common + self._base.common
        with np.errstate(invalid="ignore"):
            self.mean: Array = self._new.mean - self._base.mean
        self._correlation = _correlation((ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2, self.n)

    def distance(self, t: Array, side: float) -> Array:
        """Return the distance to the limit at the quantile t below (side -1) or above (side 1), less `common`."""
        a, b = self._new.distance(t, side), self._base.distance(t, -side)
        with np.errstate(invalid="ignore"):
            square = np.maximum(a**2 + b**2 - 2 * self._correlation * a * b, 0.0)
        return np.where(np.isinf(a) | np.isinf(b), np.inf, np.sqrt(square))


def _correlation(new: Array, base: Array, n: npt.NDArray[np.int_]) -> Array:
    """Return the correlation over the finite pairs of each row, multiplied by their share, and 0 with too few of them."""
    finite = np.isfinite(new) & np.isfinite(base)
    m = finite.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (np.where(finite, values, 0.0) for values in (new, base))
        x, y = (np.where(finite, v - (v.sum(axis=1) / m)[:, None], 0.0) for v in (x, y))
        r = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)) * m / n
    return np.where((m >= np.minimum(n, _CORRELATION_FROM)) & np.isfinite(r), r, 0.0)


_Part = tuple[float, _Sample | _Pairs]


def _parts(new: Sequence[Ends], base: Sequence[Ends], paired: bool) -> list[_Part]:
    weight = 1 / len(new)
    if paired:
        return [(weight, _Pairs(a, b)) for a, b in zip(new, base, strict=True)]
    return [*((weight, _Sample(ends)) for ends in new), *((-weight, _Sample(ends)) for ends in base)]


def _mean(parts: Sequence[_Part]) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sum([weight * part.mean for weight, part in parts], axis=0))


def _limit(parts: Sequence[_Part], t: Array, side: float) -> Array:
    """Return the limit of the weighted sum of the means below (side -1) or above (side 1) its estimate."""
    distances = [weight * part.distance(t, side * np.sign(weight)) for weight, part in parts]
    common = np.sum([abs(weight) * part.common for weight, part in parts], axis=0)
    whole = common + np.sqrt(np.sum(np.square(distances), axis=0))
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(whole), side * np.inf, _mean(parts) + side * whole)


def _freedom(parts: Sequence[_Part], side: float) -> Array:
    """Return Satterthwaite's degrees of freedom of a side: the smallest of a part where they are not defined."""
    one = np.ones(len(parts[0][1].n))
    squares = [(weight * part.distance(one, side * np.sign(weight))) ** 2 for weight, part in parts]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.sum([v**2 / (part.n - 1) for v, (_, part) in zip(squares, parts, strict=True)], axis=0)
        freedom = np.sum(squares, axis=0) ** 2 / below
    least = np.min([part.n - 1.0 for _, part in parts], axis=0)
    return np.where(np.isfinite(freedom), freedom, np.where(least > 0, least, np.nan))


def _interval(parts: Sequence[_Part], shape: tuple[int, ...], rule: Rule) -> tuple[Array, Array, Array]:
    one_part = len(parts) == 1
    low, high = (
        _limit(parts, rule.quantile(parts[0][1].n - 1.0 if one_part else _freedom(parts, side)), side)
        for side in (-1.0, 1.0)
    )  # fmt: skip
    return _mean(parts).reshape(shape), low.reshape(shape), high.reshape(shape)


def _p(parts: Sequence[_Part], shape: tuple[int, ...], centre: float, rule: Rule) -> Array:
    """Return the p-values of the quantiles t at which the centre is a limit."""
    mean = _mean(parts)
    below = centre < mean
    freedom = np.where(below, _freedom(parts, -1.0), _freedom(parts, 1.0))

    def excess(t: Array) -> Array:
        """Return how far the limit lies beyond the centre."""
        low = centre - _limit(parts, t, -1.0) if below.any() else np.nan
        high = _limit(parts, t, 1.0) - centre if not below.all() else np.nan
        return np.asarray(np.where(below, low, high))

    t = _increasing_root(excess, len(mean))
    p = rule.p(t, freedom)
    return np.where(np.isfinite(mean), p, np.where(np.isnan(mean), np.nan, 1.0)).reshape(shape)


def _increasing_root(function: Callable[[Array], Array], rows: int) -> Array:
    """Return the t at which an increasing function of one value per row becomes positive, from 0 to _LARGEST_T.

    The bracket is found by doubling, and narrowed by the Illinois method and by halving.
    """
    low, high = np.zeros(rows), np.ones(rows)
    at_low, at_high = function(low), function(high)
    while ((at_high < 0) & (high < _LARGEST_T)).any():
        short = (at_high < 0) & (high < _LARGEST_T)
        low, at_low = np.where(short, high, low), np.where(short, at_high, at_low)
        high = np.where(short, 2 * high, high)
        at_high = np.where(short, function(high), at_high)
    high = np.where(at_low >= 0, low, high)
    last, close = np.zeros(rows), 1e-9 * np.abs(at_low)
    for step in range(100):
        if (high - low <= 1e-9 * np.maximum(high, 1.0)).all():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            x = high - at_high * (high - low) / (at_high - at_low)
        x = np.where((x > low) & (x < high) & (step % 3 < 2), x, (low + high) / 2)  # halved where the function jumps
        at = function(x)
        beyond, done = at >= 0, ~(np.abs(at) > close)  # also without a value
        at_low = np.where(beyond, np.where(last > 0, at_low / 2, at_low), at)
        at_high = np.where(beyond, at, np.where(last < 0, at_high / 2, at_high))
        low, high = np.where(beyond & ~done, low, x), np.where(beyond | done, x, high)
        last = np.where(beyond, 1.0, -1.0)
    return high
