"""Decision rules: how many standard errors a limit of an interval lies from its estimate.

`FixedSize` gives the usual t interval, which holds if the number of pairs was fixed before anyone looked at results.
`AnySize` gives the t confidence sequence, which holds at every number of pairs at once. So pairs may be added after a look.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule(ABC):
    """The distance of a limit from an estimate in standard errors, and its inverse.

    Attributes:
        confidence: Confidence level, between 0 and 1.
    """

    confidence: float = 0.95

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for tables and messages."""

    @abstractmethod
    def quantile(self, freedom: npt.ArrayLike) -> Array:
        """Return the distance for these degrees of freedom (n - 1 for n values). It may be infinite."""

    @abstractmethod
    def p(self, t: npt.ArrayLike, freedom: npt.ArrayLike) -> Array:
        """Return the two-sided p-value of a distance: 1 - confidence of the rule with this quantile."""


@dataclass(frozen=True)
class FixedSize(Rule):
    """The rule for a number of values that was fixed before the first look: Student's t distribution.

    Attributes:
        confidence: Confidence level, between 0 and 1.

    Source:
        Student (1908), Biometrika 6(1).
    """

    @property
    def name(self) -> str:
        """See `Rule.name`."""
        return "t interval"

    def quantile(self, freedom: npt.ArrayLike) -> Array:
        """See `Rule.quantile`."""
        return np.asarray(stats.t.ppf((1 + self.confidence) / 2, freedom))

    def p(self, t: npt.ArrayLike, freedom: npt.ArrayLike) -> Array:
        """See `Rule.p`."""
        return np.asarray(2 * stats.t.sf(t, freedom))


@dataclass(frozen=True)
class AnySize(Rule):
    """The rule for a number of values that is not fixed: the t confidence sequence.

    With α = 1 - confidence and r = (α² / (1 + ng))^(1/n), the interval of n values is

        mean ± sd · √((n - 1) / n · (1 - r) / (r - 1 / (1 + ng))),

    infinite while r <= 1 / (1 + ng). All intervals for n = 2, 3, ... hold the mean at once with this confidence, so any
    rule for stopping keeps the level. The p-value at a number of pairs is 1 / E, with the e-value

        E = (1 + ng)^(-1/2) · ((1 + t² / (n - 1)) / (1 + t² / ((n - 1)(1 + ng))))^(n/2).

    Attributes:
        confidence: Confidence level, between 0 and 1.
        g: Prior variance of the effect in squared standard deviations. Larger values make the intervals narrower for large
            n and wider for small n.

    Source:
        Lai (1976), Annals of Statistics 4(2); Wang and Ramdas (2023), Anytime-valid t-tests and confidence sequences for
        Gaussian means with unknown variance, arXiv 2310.03722.

    Example:
        >>> [round(float(AnySize().quantile(n - 1)), 2) for n in (4, 6, 12, 60)]
        [inf, 5.45, 3.68, 3.32]
    """

    g: float = 1.0

    @property
    def name(self) -> str:
        """See `Rule.name`."""
        return "confidence sequence"

    def quantile(self, freedom: npt.ArrayLike) -> Array:
        """See `Rule.quantile`."""
        n = np.asarray(freedom, dtype=float) + 1
        with np.errstate(divide="ignore", invalid="ignore"):
            r = ((1 - self.confidence) ** 2 / (1 + n * self.g)) ** (1 / n)
            least = 1 / (1 + n * self.g)
            return np.where(r > least, np.sqrt((n - 1) * (1 - r) / (r - least)), np.where(np.isnan(r), np.nan, np.inf))

    def p(self, t: npt.ArrayLike, freedom: npt.ArrayLike) -> Array:
        """See `Rule.p`."""
        nu = np.asarray(freedom, dtype=float)
        n, square = nu + 1, np.square(np.asarray(t, dtype=float))
        growth = 1 + n * self.g
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(np.isinf(square), growth, (nu + square) / (nu + square / growth))
            return np.asarray(np.minimum(1.0, np.sqrt(growth) * ratio ** (-n / 2)))


#: The rules at 95 %.
FIXED, ANY_SIZE = FixedSize(), AnySize()
