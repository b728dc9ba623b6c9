"""Verdicts on claims (supported, contradicted, inconclusive, not testable), with effects, tests and sample sizes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from joyful.analysis import measures, statistics
from joyful.analysis.arms import Arm, covers, differing_names, format_setting
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, parse_claims, read_claims
from joyful.analysis.columns import unit_depends_on
from joyful.analysis.convergence import Target, choose_target
from joyful.analysis.measures import Metric, Scale, SecondaryMeasure, secondary_measures, select_arm
from joyful.analysis.statistics import UNKNOWN, Estimate
from joyful.analysis.sweep import Sweep, require

__all__ = [
    "BASIC_OPTIMIZATION", "VERDICTS", "VERDICT_COLUMNS", "Claim", "Metric", "Verdict", "decide", "judge", "parse_claims",
    "read_claims", "secondary_table", "verdict_table",
]  # fmt: skip

VERDICTS = ("supported", "contradicted", "inconclusive", "not testable")

#: Columns of verdicts.csv, in order.
VERDICT_COLUMNS = (
    "claim", "metric", "n_pairs", "estimate", "low", "high", "verdict", "detail", "p_zero", "p_lower_edge", "p_holm",
    "minimum_detectable", "pairs_needed",
)  # fmt: skip

#: Fewest pairs that are judged. A sign-flip test of five pairs cannot reach 0.05.
MINIMUM_PAIRS = 6


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim and metric, for one arm against the baseline.

    Effects are in the unit of the claim (per cent or points). They are positive in the claimed direction: a loss that
    falls by 12 % has the effect 12 under a claim of a decrease. A number that could not be computed is NaN, and a count
    is None.

    Attributes:
        claim: The claim.
        metric: The metric.
        arm: Name of the arm.
        baseline: Name of the baseline arm.
        differences: The difference d of each pair with a value, on the scale of the claim, indexed by seed.
        effect: The mean effect with its unadjusted 95 % paired t interval, which decides the verdict. NaN without pairs,
            and for arms that cannot be compared.
        reason: Why the claim cannot be tested, or "".
        p_zero: P-value of the two-sided sign-flip test of no difference.
        p_lower_edge: P-value of the two-sided sign-flip test of an effect equal to the lower edge of the claim.
        p_holm: `p_zero` after Holm's adjustment over all testable verdicts of the same call of `judge`.
        bootstrap: The mean effect with its BCa bootstrap interval, or None with fewer than 20 pairs.
        secondary: Secondary measures, which are reported but not judged.
        note: Further information for the reader, such as pairs that were left out.
    """

    claim: Claim
    metric: Metric
    arm: str
    baseline: str
    differences: pd.Series
    effect: Estimate = UNKNOWN
    reason: str = ""
    p_zero: float = math.nan
    p_lower_edge: float = math.nan
    p_holm: float = math.nan
    bootstrap: Estimate | None = None
    secondary: tuple[SecondaryMeasure, ...] = field(default=())
    note: str = ""

    @property
    def n_pairs(self) -> int:
        """Number of pairs with a value."""
        return len(self.differences)

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
    def verdict(self) -> str:
        """One of VERDICTS."""
        return "not testable" if self.reason else self._decision[0]

    @property
    def detail(self) -> str:
        """The reason for the verdict, or ""."""
        return self.reason or self._decision[1]

    @functools.cached_property
    def pairs(self) -> pd.Series:
        """Effect of each pair, indexed by seed. Empty if the effect is unknown."""
        return self._known.map(self.scale.effect)

    @property
    def better(self) -> Estimate | None:
        """Probability that the arm is better than the baseline, with its interval, or None without pairs."""
        return statistics.probability_better(self._known) if len(self._known) else None

    @property
    def minimum_detectable(self) -> float:
        """The smallest effect that this many pairs detect with 80 % power."""
        return self.scale.effect(statistics.minimum_detectable(self._known))

    @functools.cached_property
    def pairs_needed(self) -> int | None:
        """Pairs needed for "supported" with 80 % power if the true effect is the middle of the claimed range."""
        if not math.isfinite(self.claim.upper):
            return None
        edge, upper = self.scale.difference(self.claim.lower), self.scale.difference(self.claim.upper)
        return self._pairs_for((upper - edge) / 2)

    @functools.cached_property
    def pairs_to_detect(self) -> int | None:
        """Pairs needed to distinguish the lower edge of the claim from zero with 80 % power."""
        return self._pairs_for(self.scale.difference(self.claim.lower))

    @property
    def scale(self) -> Scale:
        """The scale of the differences."""
        return self.metric.scale(self.claim.unit, self.claim.direction)

    @property
    def _decision(self) -> tuple[str, str]:
        return decide(self.low, self.high, self.claim.lower, self.claim.upper)

    @property
    def _known(self) -> pd.Series:
        """The differences. None for arms that cannot be compared, because their effects would be quoted."""
        return self.differences.iloc[:0] if math.isnan(self.estimate) else self.differences

    def _pairs_for(self, difference: float) -> int | None:
        pairs = statistics.pairs_needed(float(self._known.std(ddof=1)), difference)
        return None if pairs is None else max(MINIMUM_PAIRS, pairs)


def decide(low: float, high: float, lower: float, upper: float) -> tuple[str, str]:
    """Return the verdict on a claimed range, given the confidence interval of the effect.

    All arguments are in one unit and positive in the claimed direction.

    - "supported" if low >= lower. The detail is "more than claimed" if low > upper.
    - "contradicted" if high < lower. The detail is "reversed" if high < 0, "real but smaller" if low > 0, and
      "smaller than claimed, direction not established" otherwise.
    - "inconclusive" otherwise. The detail states whether the interval excludes zero.
    - "not testable" if a limit of the interval is NaN.

    Args:
        low: Lower limit of the interval of the effect.
        high: Upper limit of the interval of the effect.
        lower: Lower edge of the claimed range.
        upper: Upper edge of the claimed range. It may be infinite.

    Returns:
        The verdict, one of VERDICTS, and its detail, which may be "".

    Example:
        >>> decide(12, 18, lower=10, upper=20)
        ('supported', '')
        >>> decide(1, 9, lower=10, upper=20)
        ('contradicted', 'real but smaller')
        >>> decide(5, 15, lower=10, upper=20)
        ('inconclusive', 'direction established')
    """
    if math.isnan(low) or math.isnan(high):
        return "not testable", "there is no interval"
    if low >= lower:
        return "supported", "more than claimed" if low > upper else ""
    if high < lower:
        smaller = "real but smaller" if low > 0 else "smaller than claimed, direction not established"
        return "contradicted", "reversed" if high < 0 else smaller
    return "inconclusive", f"direction {'established' if low > 0 or high < 0 else 'not established'}"


def judge(
    sweep: Sweep, claims: Sequence[Claim], target: str | Target | None = None, *, rng: np.random.Generator
) -> list[Verdict]:
    """Judge every claim and metric for every arm against the baseline.

    `Verdict.p_holm` is adjusted over all testable verdicts that are returned: several arms form one family.

    Args:
        sweep: The sweep.
        claims: The claims to judge.
        target: Target of the convergence speed, as in `convergence.choose_target`. It applies to times to a target of
            its own column. Other columns use their default target.
        rng: Generator for the bootstrap and the Monte Carlo tests.

    Returns:
        The verdicts, ordered by arm, then claim, then metric. The list is empty if the sweep has fewer than two arms.

    Raises:
        InputError: If the sweep was read without a column that a claim needs, or `target` is not a valid target.
    """
    if sweep.baseline is None:
        return []
    explicit = choose_target(sweep, target) if target is not None else None

    @functools.cache
    def target_of(column: str) -> Target | None:
        return explicit if explicit is not None and explicit.metric == column else choose_target(sweep, None, column)

    verdicts = [
        _judge_one(sweep, arm, claim, metric, target_of(metric.of) if metric.to_target else None, rng)
        for arm in sweep.others
        for claim in claims
        for metric in claim.metrics
    ]
    adjusted = statistics.holm([v.p_zero if v.verdict != "not testable" else math.nan for v in verdicts])
    return [replace(verdict, p_holm=float(p)) for verdict, p in zip(verdicts, adjusted, strict=True)]


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the verdicts as a table with one row each.

    The columns are VERDICT_COLUMNS. If the verdicts are on several arms, `arm` is an additional last column.
    """
    several = len({verdict.arm for verdict in verdicts}) > 1
    columns = [*VERDICT_COLUMNS, *(["arm"] if several else [])]
    rows = [(v.claim.name, v.metric.label, *(getattr(v, name) for name in columns[2:])) for v in verdicts]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"n_pairs": "int64", "pairs_needed": "Int64"})


def secondary_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the secondary measures of the verdicts as a table with one row each.

    The columns are `claim`, `metric`, `arm`, `name`, `unit`, `estimate`, `low`, `high` and `whose`. The last is "pairs"
    for a change between paired runs, and otherwise the name of the arm that the value belongs to.
    """
    rows = [
        (v.claim.name, v.metric.label, v.arm, m.name, m.unit, m.estimate, m.low, m.high, m.arm or "pairs")
        for v in verdicts
        for m in v.secondary
    ]
    return pd.DataFrame(rows, columns=["claim", "metric", "arm", "name", "unit", "estimate", "low", "high", "whose"])


def _judge_one(
    sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, target: Target | None, rng: np.random.Generator
) -> Verdict:
    require(sweep, metric.of)
    base, scale = sweep.arms[0], metric.scale(claim.unit, claim.direction)
    values, censored = measures.values(sweep, metric, target), measures.censored(sweep, metric, target)
    new, old = select_arm(values, arm), select_arm(values, base)
    differences = scale.differences(new, old)
    d = differences.dropna()
    incomparable = _not_comparable(base, arm, claim) or _units_differ(base, arm, metric)
    shares = {a.name: select_arm(censored, a).reindex(d.index).mean() for a in (arm, base)}
    verdict = Verdict(
        claim, metric, arm.name, base.name, d,
        reason=incomparable or _insufficient(len(d), shares),
        secondary=secondary_measures(sweep, arm, metric, target),
        note=_missing_note(pd.concat({"new": new, "old": old}, axis=1).reindex(differences.index), len(d)),
    )  # fmt: skip
    if incomparable or d.empty:
        return verdict
    bootstrap = statistics.bca(d, rng)
    return replace(
        verdict,
        effect=statistics.paired_t(d).map(scale.effect),
        bootstrap=bootstrap.map(scale.effect) if bootstrap is not None else None,
        p_zero=statistics.sign_flip(d, rng=rng),
        p_lower_edge=statistics.sign_flip(d, scale.difference(claim.lower), rng=rng),
    )


def _not_comparable(base: Arm, arm: Arm, claim: Claim) -> str:
    """Return the reason why the claim does not apply to this pair of arms, or "" if it does.

    A claim applies only if the arms differ in no setting beyond its factors.
    """
    known = {name for a in (arm, base) for name in (*a.config, *a.choices)}
    if not claim.factors or not any(covers(factor, name) for factor in claim.factors for name in known):
        return ""  # Runs of another program do not record the factors.
    others = [name for name in differing_names(arm, base) if not any(covers(factor, name) for factor in claim.factors)]
    values = [f"{name} ({format_setting(name, arm)}, baseline {format_setting(name, base)})" for name in others[:4]]
    listed = ", ".join(values)
    return f"the claim is about {' and '.join(claim.factors)}, and the arms differ in {listed} too" if others else ""


def _units_differ(base: Arm, arm: Arm, metric: Metric) -> str:
    """Return the reason why the metric has different units in the two arms, or "" if the units agree."""
    groups = unit_depends_on(metric.of)
    names = [name for name in differing_names(arm, base) if any(covers(group, name) for group in groups)]
    if not names:
        return ""
    losses = {format_setting(name, a) for name in ("loss", "loss.name") for a in (arm, base)}
    half = ": SmoothL1 is half of MSE near zero" if {"mse", "smoothl1"} <= losses else ""
    listed = ", ".join(f"{name} {format_setting(name, arm)} against {format_setting(name, base)}" for name in names[:4])
    return f"units differ{half} ({listed}), so this compares units, not training"


def _insufficient(pairs: int, censored: dict[str, float]) -> str:
    """Return the reason why the data do not suffice for a verdict, or ""; `censored` maps arms to shares of runs."""
    if pairs < MINIMUM_PAIRS:
        return f"{pairs} pair{'' if pairs == 1 else 's'}, at least {MINIMUM_PAIRS} are needed"
    arms = [f"{share * pairs:.0f} of {pairs} of '{name}'" for name, share in censored.items() if share > 0.5]
    return f"over half of the times are censored at the budget: {', '.join(arms)}" if arms else ""


def _missing_note(pairs: pd.DataFrame, known: int) -> str:
    """Return how many pairs are left out and why, or "". `pairs` has the two values of each pair; `known` have a difference."""
    without = int(pairs.isna().any(axis=1).sum())
    reasons = {
        "one of their runs has no value": without,
        "a change in per cent needs positive values": len(pairs) - known - without,
    }
    parts = [f"{n} of {len(pairs)} pairs are left out because {reason}" for reason, n in reasons.items() if n]
    return f"{'; '.join(parts)}." if parts else ""
