"""Verdicts on claims (supported, contradicted, inconclusive, not testable), with effects, tests and sample sizes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from joyful.analysis import measures
from joyful.analysis.arms import Arm, covers, differing_names, format_setting
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, Metric, parse_claims, read_claims
from joyful.analysis.convergence import Target, choose_target
from joyful.analysis.measures import select_arm
from joyful.analysis.secondary_measures import SecondaryMeasure, secondary_measures
from joyful.analysis.statistics import (
    Estimate,
    bca,
    holm,
    minimum_detectable,
    paired_t,
    pairs_needed,
    probability_better,
    sign_flip,
)
from joyful.analysis.sweep import Sweep, require

__all__ = [
    "BASIC_OPTIMIZATION",
    "VERDICTS",
    "VERDICT_COLUMNS",
    "Claim",
    "Metric",
    "SecondaryMeasure",
    "Verdict",
    "decide",
    "judge",
    "parse_claims",
    "read_claims",
    "secondary_table",
    "verdict_table",
]  # fmt: skip

VERDICTS = ("supported", "contradicted", "inconclusive", "not testable")

#: Columns of verdicts.csv, in order.
VERDICT_COLUMNS = (
    "claim", "metric", "n_pairs", "estimate", "low", "high", "verdict", "detail", "p_zero", "p_lower_edge", "p_holm",
    "minimum_detectable", "pairs_needed",
)  # fmt: skip

#: Fewest pairs that are judged. A sign-flip test of five pairs cannot reach 0.05.
MINIMUM_PAIRS = 6

#: Prefix of a column -> the groups and settings that its unit depends on.
_UNITS = {
    "loss_total": ("loss", "weights", "weighting", "classification"),
    "loss_encoder": ("loss",),
    "loss_classification": ("classification",),
    "share_": ("loss", "weights", "weighting", "classification"),
}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim and metric, for one arm against the baseline.

    Effects (`estimate`, `low`, `high`, `minimum_detectable`, `bootstrap` and `pairs`) are in the unit of the claim (per
    cent or points). They are positive in the claimed direction: a loss that falls by 12 % has the effect 12 under a
    claim of a decrease. A number that could not be computed is NaN, and a count is None.

    Attributes:
        claim: The claim.
        metric: Label of the metric, such as "final train nll".
        arm: Name of the arm.
        baseline: Name of the baseline arm.
        n_pairs: Number of pairs with a value.
        estimate: The mean effect.
        low: Lower limit of the unadjusted 95 % paired t interval, which decides the verdict.
        high: Upper limit of that interval.
        verdict: One of VERDICTS.
        detail: The reason for the verdict, or "".
        p_zero: P-value of the two-sided sign-flip test of no difference.
        p_lower_edge: P-value of the two-sided sign-flip test of an effect equal to the lower edge of the claim.
        p_holm: `p_zero` after Holm's adjustment over all testable verdicts of the same call of `judge`.
        minimum_detectable: The smallest effect that this many pairs detect with 80 % power.
        pairs_needed: Pairs needed for the verdict "supported" with 80 % power if the true effect is the middle of the
            claimed range.
        pairs_to_detect: Pairs needed to distinguish the lower edge of the claim from zero with 80 % power.
        pairs: Effect of each pair, indexed by seed.
        bootstrap: Limits of the BCa bootstrap interval, or None with fewer than 20 pairs.
        better: Probability that the arm is better than the baseline, with its interval.
        secondary: Secondary measures, which are reported but not judged.
        note: Further information for the reader, such as pairs that were left out.
    """

    claim: Claim
    metric: str
    arm: str
    baseline: str
    n_pairs: int
    estimate: float
    low: float
    high: float
    verdict: str
    detail: str
    p_zero: float
    p_lower_edge: float
    p_holm: float
    minimum_detectable: float
    pairs_needed: int | None
    pairs_to_detect: int | None = None
    pairs: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    bootstrap: tuple[float, float] | None = None
    better: Estimate | None = None
    secondary: tuple[SecondaryMeasure, ...] = ()
    note: str = ""


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

    @functools.cache
    def measured(metric: Metric) -> tuple[pd.Series, pd.Series]:
        require(sweep, metric.of)
        metric_target = target_of(metric.of) if metric.kind == "speed" else None
        return measures.values(sweep, metric, metric_target), measures.censored(sweep, metric, metric_target)

    verdicts = []
    for arm in sweep.others:
        for claim in claims:
            for metric in claim.metrics:
                verdict = _judge_one(sweep, arm, claim, metric, *measured(metric), rng)
                secondary = secondary_measures(
                    sweep, arm, metric, target_of(metric.of) if metric.kind == "speed" else None
                )
                verdicts.append(replace(verdict, secondary=secondary))
    adjusted = holm([v.p_zero if v.verdict != "not testable" else math.nan for v in verdicts])
    return [replace(verdict, p_holm=float(p)) for verdict, p in zip(verdicts, adjusted, strict=True)]


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the verdicts as a table with one row each.

    The columns are VERDICT_COLUMNS. If the verdicts are on several arms, `arm` is an additional last column.
    """
    rows = [{**vars(verdict), "claim": verdict.claim.name} for verdict in verdicts]
    several = len({verdict.arm for verdict in verdicts}) > 1
    table = pd.DataFrame(rows, columns=[*VERDICT_COLUMNS, *(["arm"] if several else [])])
    return table.astype({"n_pairs": "int64", "pairs_needed": "Int64"})


def secondary_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the secondary measures of the verdicts as a table with one row each.

    The columns are `claim`, `metric`, `arm`, `name`, `unit`, `estimate`, `low`, `high` and `whose`. The last is "pairs"
    for a change between paired runs, and otherwise the name of the arm that the value belongs to.
    """
    rows = [
        {"claim": v.claim.name, "metric": v.metric, "arm": v.arm, "name": m.name, "unit": m.unit}
        | {"estimate": m.estimate, "low": m.low, "high": m.high, "whose": "pairs" if m.paired else m.arm}
        for v in verdicts
        for m in v.secondary
    ]
    return pd.DataFrame(rows, columns=["claim", "metric", "arm", "name", "unit", "estimate", "low", "high", "whose"])


def _judge_one(
    sweep: Sweep,
    arm: Arm,
    claim: Claim,
    metric: Metric,
    values: pd.Series,
    censored: pd.Series,
    rng: np.random.Generator,
) -> Verdict:
    assert sweep.baseline is not None
    base = sweep.baseline
    differences = measures.pair_differences(select_arm(values, arm), select_arm(values, base), claim, metric)
    d = differences.dropna()
    incomparable = _not_comparable(sweep, arm, claim) or _units_differ(arm, base, metric)
    shares = {a.name: select_arm(censored, a).reindex(d.index).mean() for a in (arm, base)}
    reason = incomparable or _insufficient(len(d), shares)
    to_unit = functools.partial(measures.effect, claim=claim, metric=metric)
    verdict = Verdict(
        claim, metric.label, arm.name, base.name, len(d), math.nan, math.nan, math.nan, "not testable", reason,
        math.nan, math.nan, math.nan, math.nan, None, note=_missing_note(len(differences), len(d), claim),
    )  # fmt: skip
    if incomparable or d.empty:  # An estimate that is not comparable is left out, because it would be quoted.
        return verdict
    interval, edge = paired_t(d), measures.difference(claim.lower, claim, metric)
    low, high = to_unit(interval.low), to_unit(interval.high)
    name, detail = ("not testable", reason) if reason else decide(low, high, claim.lower, claim.upper)
    sd = float(d.std(ddof=1)) if len(d) > 1 else math.nan
    width = measures.difference(claim.upper, claim, metric) - edge if math.isfinite(claim.upper) else math.nan
    bootstrap = bca(d, rng)
    return replace(
        verdict,
        estimate=to_unit(interval.estimate),
        low=low,
        high=high,
        verdict=name,
        detail=detail,
        p_zero=sign_flip(d, rng=rng),
        p_lower_edge=sign_flip(d, edge, rng=rng),
        minimum_detectable=to_unit(minimum_detectable(d)),
        pairs_needed=_at_least_minimum(pairs_needed(sd, width / 2)),
        pairs_to_detect=_at_least_minimum(pairs_needed(sd, edge)),
        pairs=d.map(to_unit),
        bootstrap=(to_unit(bootstrap.low), to_unit(bootstrap.high)) if bootstrap else None,
        better=probability_better(d),
    )


def _not_comparable(sweep: Sweep, arm: Arm, claim: Claim) -> str:
    """Return the reason why the claim does not apply to this pair of arms, or "" if it does.

    A claim applies only if the arms differ in no setting beyond its factors.
    """
    assert sweep.baseline is not None
    base = sweep.baseline
    known = {name for a in (arm, base) for name in (*a.config, *a.choices)}
    if not claim.factors or not any(covers(factor, name) for factor in claim.factors for name in known):
        return ""  # Runs of another program do not record the factors.
    others = [name for name in differing_names(arm, base) if not any(covers(factor, name) for factor in claim.factors)]
    listed = ", ".join(
        f"{name} ({format_setting(name, arm)}, baseline {format_setting(name, base)})" for name in others[:4]
    )
    return f"the claim is about {' and '.join(claim.factors)}, and the arms differ in {listed} too" if others else ""


def _units_differ(arm: Arm, base: Arm, metric: Metric) -> str:
    """Return the reason why the metric has different units in the two arms, or "" if the units agree."""
    groups = next((groups for prefix, groups in _UNITS.items() if metric.of.startswith(prefix)), ())
    names = [name for name in differing_names(arm, base) if any(covers(group, name) for group in groups)]
    if not names:
        return ""
    losses = {format_setting("loss", arm), format_setting("loss", base)} | {
        format_setting("loss.name", arm),
        format_setting("loss.name", base),
    }
    half = ": SmoothL1 is half of MSE near zero" if {"mse", "smoothl1"} <= losses else ""
    listed = ", ".join(f"{name} {format_setting(name, arm)} against {format_setting(name, base)}" for name in names[:4])
    return f"units differ{half} ({listed}), so this compares units, not training"


def _insufficient(pairs: int, censored: dict[str, float]) -> str:
    """Return the reason why the data do not suffice for a verdict, or ""; `censored` maps arms to shares of runs."""
    if pairs < MINIMUM_PAIRS:
        return f"{pairs} pair{'' if pairs == 1 else 's'}, at least {MINIMUM_PAIRS} are needed"
    arms = [f"{share * pairs:.0f} of {pairs} of '{name}'" for name, share in censored.items() if share > 0.5]
    return f"over half of the times are censored at the budget: {', '.join(arms)}" if arms else ""


def _missing_note(all_pairs: int, pairs: int, claim: Claim) -> str:
    if all_pairs == pairs:
        return ""
    value = "positive value" if claim.unit == "percent" else "value"
    return f"{all_pairs - pairs} of {all_pairs} pairs are left out because one of their runs has no {value}."


def _at_least_minimum(pairs: int | None) -> int | None:
    return None if pairs is None else max(MINIMUM_PAIRS, pairs)
