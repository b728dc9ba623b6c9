"""Paired intervals, tests, power. Arrays in, numbers out; a generator is passed in where one is needed.

d: differences of n pairs, in any unit. NaN in d: the pair is dropped and n counts what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: From so many pairs on the BCa bootstrap is shown; below it covers too little (84 % at n = 5, 89 % at n = 10).
BOOTSTRAP_FROM = 20

#: Up to so many pairs every sign pattern is enumerated (2^20, about a million); above, patterns are drawn.
EXACT_UP_TO = 20


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, in one unit."""

    estimate: float
    low: float
    high: float


def paired_t(d: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of the differences with its t interval: the decision interval."""
    raise NotImplementedError


def bca(
    d: Sequence[float] | np.ndarray, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999
) -> tuple[float, float]:
    """BCa bootstrap interval of the mean."""
    raise NotImplementedError


def sign_flip(
    d: Sequence[float] | np.ndarray, centre: float = 0.0, *, rng: np.random.Generator, draws: int = 99_999
) -> float:
    """Two-sided sign-flip (permutation) p-value of "the differences are symmetric about `centre`"."""
    raise NotImplementedError


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, in the order given."""
    raise NotImplementedError


def probability_better(d: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """P(A > B): the share of pairs with d > 0, ties as half, with Wilson's interval."""
    raise NotImplementedError


def minimum_detectable(d: Sequence[float] | np.ndarray, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest |mean difference| that n pairs tell from zero with this power."""
    raise NotImplementedError


def pairs_needed(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest pairs for which the t interval excludes zero on the side of `effect` with this power."""
    raise NotImplementedError
