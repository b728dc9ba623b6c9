"""What the equality of drawn runs says of all runs."""

from __future__ import annotations

import math

from scipy import stats


def most_false(drawn: int, runs: int, confidence: float = 0.95) -> int:
    """Return the largest number of false runs with which a draw without a false run is not yet unlikely.

    If M of N runs are false, k runs that are drawn without replacement hold none of them with the probability
    C(N - M, k) / C(N, k). The result is the largest M with a probability above 1 - confidence. So if all drawn runs are equal,
    at most M runs are false, with this confidence. For large N, the share of false runs is below 1 - (1 - confidence)^(1/k).

    Args:
        drawn: Number k of runs that were drawn, none of them false.
        runs: Number N of runs.
        confidence: Confidence, between 0 and 1.

    Example:
        >>> most_false(29, 300), most_false(300, 300)
        (28, 0)
    """
    low, high = 0, runs - drawn + 1  # with `high` false runs, one of them is drawn for certain
    while high - low > 1:
        middle = (low + high) // 2
        if stats.hypergeom.pmf(0, runs, middle, drawn) > 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def statement(drawn: int, runs: int, confidence: float = 0.95) -> str:
    """Return what follows if all drawn runs are right, such as "under 10 % of the 300 runs are false, at 95 % confidence".

    Args:
        drawn: Number of runs that were drawn.
        runs: Number of runs.
        confidence: Confidence, between 0 and 1.

    Example:
        >>> statement(29, 300)
        'under 9.7 % of the 300 runs are false, at 95 % confidence'
        >>> statement(3, 3)
        'none of the 3 runs is false'
    """
    most, level = most_false(drawn, runs, confidence), f", at {100 * confidence:g} % confidence"
    if most == 0:
        return f"none of the {runs} runs is false{level if drawn < runs else ''}"
    share = 100 * (most + 1) / runs
    digits = 10 ** (1 - math.floor(math.log10(share)))  # two digits, rounded up
    return f"under {math.ceil(share * digits - 1e-9) / digits:g} % of the {runs} runs are false{level}"
