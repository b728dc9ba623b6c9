"""Scales: from the values of a pair to a difference d, and from d to an effect in the unit of a claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.statistics import Estimate, paired_t

Array = npt.NDArray[np.float64]

#: Function from the values of the arm and of the baseline to d.
Pair = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Scale:
    """How the two values of a pair become a difference d, and how d becomes an effect in the unit of a claim.

    d is averaged over pairs. It is positive if the pair changes in the claimed direction, and the effect increases with
    d, so the limits of an interval of d can be converted one by one.

    Attributes:
        pair: Function from the values of the arm and of the baseline to d.
        effect: Function from d, or a mean of d, to the effect in the unit of the claim.
        difference: The inverse of `effect`.
        limit: Exclusive upper limit of an effect.
    """

    pair: Pair
    effect: Callable[[float], float]
    difference: Callable[[float], float]
    limit: float = math.inf

    def differences(self, new: pd.Series, base: pd.Series) -> pd.Series:
        """Return d of each pair.

        Args:
            new: Values of the arm, indexed by seed.
            base: Values of the baseline, indexed by seed.

        Returns:
            The differences, indexed by the seeds in both series in ascending order. NaN if a value is missing or not finite
            or, for a ratio, not positive.

        Example:
            >>> speed = gain(base_over_new)
            >>> epochs, baseline_epochs = pd.Series({1: 4.0, 2: 5.0}), pd.Series({1: 5.0, 2: 6.0})
            >>> [round(speed.effect(d), 2) for d in speed.differences(epochs, baseline_epochs)]
            [25.0, 20.0]
        """
        seeds, (a, b) = _aligned(new, base)
        return pd.Series(finite(self.pair(a, b)), index=seeds, dtype=float)

    def bounds(self, new: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
        """Return the interval in which d of each pair lies, if each value is known to lie in an interval.

        Args:
            new: `low` and `high` of the values of the arm, indexed by seed. They may be 0 and infinite.
            base: `low` and `high` of the values of the baseline, indexed by seed.

        Returns:
            `low` and `high` of the differences, indexed as in `differences`. They may be infinite. NaN if a value is missing.

        Example:
            >>> speed = gain(base_over_new)
            >>> new, base = (pd.DataFrame({"low": [a], "high": [b]}) for a, b in ((1.0, 2.0), (3.0, np.inf)))
            >>> [round(speed.effect(d), 6) for d in speed.bounds(new, base).loc[0]]
            [50.0, inf]
        """
        seeds, (a_low, b_high) = _aligned(new["low"], base["high"])
        _, (a_high, b_low) = _aligned(new["high"], base["low"])
        ends = np.stack([self.pair(a_low, b_high), self.pair(a_high, b_low)])
        return pd.DataFrame({"low": ends.min(axis=0), "high": ends.max(axis=0)}, index=seeds)

    def of_arm(self, values: Array) -> Array:
        """Return the values of one arm on the axis on which d is a difference: d = of_arm(new) - of_arm(base).

        NaN where d would be NaN.
        """
        return self.pair(values, np.ones(1)) - self.pair(np.ones(1), np.ones(1))

    def of_arm_bounds(self, values: pd.DataFrame) -> pd.DataFrame:
        """Return the intervals of the values of one arm on the axis of d. `values` has `low` and `high`."""
        ends = np.stack([self.of_arm(values[name].to_numpy(dtype=float)) for name in ("low", "high")])
        return pd.DataFrame({"low": ends.min(axis=0), "high": ends.max(axis=0)}, index=values.index)

    def mean_effect(self, new: pd.Series, base: pd.Series) -> Estimate:
        """Return the effect of the mean of d over the pairs with its 95 % t interval. See `differences`."""
        return paired_t(self.differences(new, base)).map(self.effect)


def _aligned(new: pd.Series, base: pd.Series) -> tuple[list[int], tuple[Array, Array]]:
    seeds = sorted(set(new.index) & set(base.index))
    return seeds, (new.reindex(seeds).to_numpy(dtype=float), base.reindex(seeds).to_numpy(dtype=float))


def finite(d: Array) -> Array:
    """Return d with NaN in place of infinite values."""
    return np.where(np.isfinite(d), d, np.nan)


def new_over_base(new: Array, base: Array) -> Array:
    """Return d = ln(new / base). Infinite where one of them is 0 or infinite, and NaN where a value is negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.log(np.asarray(new / base, dtype=float))
    return np.where((new >= 0) & (base >= 0), ratio, np.nan)


def base_over_new(new: Array, base: Array) -> Array:
    """Return d = ln(base / new). Infinite where one of them is 0 or infinite, and NaN where a value is negative."""
    return -new_over_base(new, base)


def new_minus_base(new: Array, base: Array) -> Array:
    """Return d = new - base."""
    return new - base


def base_minus_new(new: Array, base: Array) -> Array:
    """Return d = base - new."""
    return base - new


def gain(pair: Pair) -> Scale:
    """Return the scale of a quantity that grows: its gain is 100 (exp(d) - 1) per cent."""
    return Scale(
        pair, _unless_infinite(lambda d: 100 * math.expm1(min(d, 700.0))), lambda effect: math.log1p(effect / 100)
    )


def reduction(pair: Pair) -> Scale:
    """Return the scale of a quantity that shrinks: its reduction is 100 (1 - exp(-d)) per cent, which is below 100."""
    effect = _unless_infinite(lambda d: -100 * math.expm1(min(-d, 700.0)))
    return Scale(pair, effect, lambda effect: -math.log1p(-effect / 100), 100.0)


def points(pair: Pair) -> Scale:
    """Return the scale of a difference of fractions in points: the effect is 100 d."""
    return Scale(pair, lambda d: 100 * d, lambda effect: effect / 100)


def absolute(pair: Pair) -> Scale:
    """Return the scale of a difference in the unit of the column: the effect is d."""
    return Scale(pair, float, float)


def _unless_infinite(effect: Callable[[float], float]) -> Callable[[float], float]:
    """Return the function, which gives an infinite d unchanged: an effect that is not bounded."""
    return lambda d: d if math.isinf(d) else effect(d)
