"""The verdict on one claim: supported, contradicted, inconclusive or not testable, with its effect and sample sizes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from joyful.analysis import statistics
from joyful.analysis.claims_file import Claim
from joyful.analysis.measures import Metric, SecondaryMeasure
from joyful.analysis.rules import FIXED, Rule
from joyful.analysis.scales import Scale
from joyful.analysis.statistics import UNKNOWN, Estimate

VERDICTS = ("supported", "contradicted", "inconclusive", "not testable")

#: Fewest pairs, or runs of each arm, that are judged. A sign-flip test of five pairs cannot reach 0.05.
MINIMUM_PAIRS = 6


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim and metric, for one arm against the baseline.

    Effects are in the unit of the claim. They are positive in the claimed direction: a loss that falls by 12 % has the
    effect 12 under a claim of a decrease. A number that could not be computed is NaN, and a count is None. An infinite limit
    of an interval means that the data do not bound the effect on this side.

    Attributes:
        claim: The claim.
        metric: The metric.
        arm: Name of the arm.
        baseline: Name of the baseline arm.
        differences: `low` and `high` of the difference d of each pair with a value, on the scale of the claim, indexed by
            seed. They are equal unless d is the log ratio of two times, which are known to the evaluations only. Empty
            for an unpaired design.
        runs: Number of runs of the arm and of the baseline with a value.
        mean: The mean of d with its 95 % interval, which decides the verdict. UNKNOWN without pairs, and for arms that
            cannot be compared.
        rule: Where the interval comes from: FIXED if the number of pairs was fixed before the first run, or ANY_SIZE.
        family: The mean of d with the interval of all testable verdicts of a call of `judge` together: the Bonferroni
            interval, at the confidence 1 - 0.05 / their number. UNKNOWN under FIXED, where `p_holm` serves.
        reason: Why the claim cannot be tested, or "".
        p_zero: P-value of the two-sided test of no difference. Under ANY_SIZE it holds at every number of pairs at once.
        p_lower_edge: P-value of the two-sided test of an effect equal to the lower edge of the claim. For equivalence the
            larger one of both edges.
        p_holm: `p_zero` after Holm's adjustment over all testable verdicts of the same call of `judge`.
        bootstrap: The mean effect with its BCa bootstrap interval, or None with fewer than 20 pairs and for times.
        better: Probability that the arm is better than the baseline, with its interval, or None without pairs.
        secondary: Secondary measures, which are reported but not judged.
        note: Further information for the reader, such as pairs that were left out.
        task: The task of the runs, or "" if the sweep has one task.
    """

    claim: Claim
    metric: Metric
    arm: str
    baseline: str
    differences: pd.DataFrame
    runs: tuple[int, int] = (0, 0)
    mean: Estimate = UNKNOWN
    rule: Rule = FIXED
    family: Estimate = UNKNOWN
    reason: str = ""
    p_zero: float = math.nan
    p_lower_edge: float = math.nan
    p_holm: float = math.nan
    bootstrap: Estimate | None = None
    better: Estimate | None = None
    secondary: tuple[SecondaryMeasure, ...] = field(default=())
    note: str = ""
    task: str = ""

    @property
    def subject(self) -> str:
        """The arm, with the task if there are several: "smoothl1 0.03" or "smoothl1 0.03 on meld"."""
        return f"{self.arm} on {self.task}" if self.task else self.arm

    @property
    def n_pairs(self) -> int:
        """Number of pairs with a value."""
        return len(self.differences)

    @functools.cached_property
    def effect(self) -> Estimate:
        """The mean effect with its interval."""
        return self.mean.map(self.scale.effect)

    @functools.cached_property
    def family_effect(self) -> Estimate:
        """The mean effect with the interval of `family`."""
        return self.family.map(self.scale.effect)

    @property
    def estimate(self) -> float:
        """The mean effect."""
        return self.effect.estimate

    @property
    def low(self) -> float:
        """Lower limit of the interval of the mean effect."""
        return self.effect.low

    @property
    def high(self) -> float:
        """Upper limit of the interval of the mean effect."""
        return self.effect.high

    @property
    def direction(self) -> str:
        """The claimed direction, "increase" or "decrease"."""
        return self.claim.direction_of(self.metric)

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        return "not testable" if self.reason else self._decision[0]

    @property
    def detail(self) -> str:
        """The reason for the verdict, or ""."""
        return self.reason or self._decision[1]

    @functools.cached_property
    def pairs(self) -> pd.Series:
        """Effect of each pair, indexed by seed. Empty if the effect is unknown.

        It is the effect of the middle of the interval of d, or of its finite end.
        """
        low, high = (self._known[name].to_numpy(dtype=float) for name in ("low", "high"))
        with np.errstate(invalid="ignore"):
            middle = np.where(np.isinf(low), high, np.where(np.isinf(high), low, (low + high) / 2))
        return pd.Series(middle, index=self._known.index, dtype=float).map(self.scale.effect)

    @property
    def pair_limits(self) -> pd.DataFrame:
        """The interval in which the effect of each pair lies, as `low` and `high`, indexed by seed."""
        return self._known.map(self.scale.effect)

    @property
    def minimum_detectable(self) -> float:
        """The smallest effect that this many pairs detect with 80 % power. Infinite if the interval is not bounded.

        It follows from the width of the interval, so it includes what the evaluation grid hides.
        """
        return self.scale.effect(statistics.minimum_detectable(self.mean, self._size, rule=self.rule))

    @functools.cached_property
    def pairs_needed(self) -> int | None:
        """Pairs needed for "supported" with 80 % power.

        The true effect is taken as the middle of a claimed range, and as 0 for equivalence and non-inferiority. None for a
        claim without an upper edge, for an unpaired design, and where more pairs would not help: the interval is not
        bounded, or the evaluations hide every difference between the pairs.
        """
        claim, scale = self.claim, self.scale
        if not self.n_pairs or not math.isfinite(self.minimum_detectable):
            return None
        if self._known["low"].max() < self._known["high"].min():  # The interval is as wide as the grid
            return None
        lower = scale.difference(claim.lower)
        if claim.kind in ("within", "no_worse_than"):
            distance, power = -lower, 0.8 if claim.kind == "no_worse_than" else 0.9  # Two sides, each with 0.9
        elif math.isfinite(claim.upper):
            distance, power = (scale.difference(claim.upper) - lower) / 2, 0.8
        else:
            return None
        sd = statistics.standard_deviation(self.mean, self.n_pairs, self.rule)
        pairs = statistics.pairs_needed(sd, distance, power, self.rule)
        return None if pairs is None else max(MINIMUM_PAIRS, pairs)

    @property
    def scale(self) -> Scale:
        """The scale of the differences."""
        return self.metric.scale(self.claim.unit, self.direction)

    @property
    def _size(self) -> int:
        """The number of independent differences: pairs, or for an unpaired design the degrees of freedom plus 1."""
        return self.n_pairs or max(sum(self.runs) - 1, 0)

    @property
    def _decision(self) -> tuple[str, str]:
        return decide(self.low, self.high, self.claim.lower, self.claim.upper, self.claim.kind)

    @property
    def _known(self) -> pd.DataFrame:
        """The differences. None for arms that cannot be compared, because their effects would be quoted."""
        return self.differences.iloc[:0] if math.isnan(self.estimate) else self.differences


def decide(low: float, high: float, lower: float, upper: float, kind: str = "between") -> tuple[str, str]:
    """Return the verdict on a claim, given the confidence interval of the effect.

    All arguments are in one unit and positive in the claimed direction. A claim names a range of effects:

    ============= ============================ ==================================================
    kind          range                        claim
    ============= ============================ ==================================================
    between       lower and above              the effect is between lower and upper, or larger
    at_least      lower and above              the effect is at least lower
    within        from lower to upper          equivalence: the effect is smaller than a margin
    no_worse_than lower and above (lower < 0)  non-inferiority: a loss is smaller than a margin
    ============= ============================ ==================================================

    - "supported" if the interval lies in the range. The detail is "more than claimed" if low > upper.
    - "contradicted" if the interval lies outside the range. The detail is "reversed" if high < 0, "real but smaller" if
      low > 0, and "smaller than claimed, direction not established" otherwise. For a margin it is "worse by more than the
      margin", "below the margin" or "above the margin".
    - "inconclusive" otherwise. The detail states whether the interval excludes zero.
    - "not testable" if a limit of the interval is NaN or both are infinite.

    Args:
        low: Lower limit of the interval of the effect.
        high: Upper limit of the interval of the effect.
        lower: Lower edge of the claimed range.
        upper: Upper edge of the claimed range. It may be infinite.
        kind: One of `joyful.analysis.claims_file.KINDS`.

    Returns:
        The verdict, one of VERDICTS, and its detail, which may be "".

    Example:
        >>> decide(12, 18, lower=10, upper=20)
        ('supported', '')
        >>> decide(1, 9, lower=10, upper=20)
        ('contradicted', 'real but smaller')
        >>> decide(5, 15, lower=10, upper=20)
        ('inconclusive', 'direction established')
        >>> decide(-2, 1, lower=-3, upper=3, kind="within")
        ('supported', '')
    """
    if math.isnan(low) or math.isnan(high) or (math.isinf(low) and math.isinf(high)):
        return "not testable", "there is no interval"
    if low >= lower and (kind != "within" or high <= upper):
        return "supported", "more than claimed" if kind != "within" and low > upper else ""
    if high < lower:
        if kind in ("within", "no_worse_than"):
            return "contradicted", "worse by more than the margin" if kind == "no_worse_than" else "below the margin"
        smaller = "real but smaller" if low > 0 else "smaller than claimed, direction not established"
        return "contradicted", "reversed" if high < 0 else smaller
    if kind == "within" and low > upper:
        return "contradicted", "above the margin"
    return "inconclusive", f"direction {'established' if low > 0 or high < 0 else 'not established'}"
