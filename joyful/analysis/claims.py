"""The verdict on each claim: supported, contradicted, inconclusive or not testable, with all that stands beside it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from joyful.analysis import measures
from joyful.analysis.arms import Arm, covers, format_setting, unlike
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, Metric, parse_claims, read_claims
from joyful.analysis.convergence import Target, choose_target
from joyful.analysis.measures import of_arm
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

#: Columns of verdicts.csv, in this order.
VERDICT_COLUMNS = (
    "claim", "metric", "n_pairs", "estimate", "low", "high", "verdict", "detail", "p_zero", "p_lower_edge", "p_holm",
    "minimum_detectable", "pairs_needed",
)  # fmt: skip

#: Fewer pairs than this are not testable: no sign-flip test of five can reach 0.05.
FEWEST_PAIRS = 6

#: Beginnings of columns -> what their unit depends on.
_UNITS = {
    "loss_total": ("loss", "weights", "weighting", "classification"),
    "loss_encoder": ("loss",),
    "loss_classification": ("classification",),
    "share_": ("loss", "weights", "weighting", "classification"),
}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim and metric for one arm against the baseline.

    Effects (estimate, low, high, minimum_detectable, bootstrap, `pairs`, the claim's lower and upper) are in the claim's
    unit (per cent or points) and positive in the claimed direction: a reduction of 12 % under a claim of "-10 to -20 %"
    is 12. NaN (counts: None): could not be computed.

    metric: its words. arm, baseline: names. verdict: one of VERDICTS. detail: "" or why, in words. note: what else the
    reader must know. n_pairs: pairs with a value. low, high: the unadjusted 95 % paired t interval, which decides.
    p_zero, p_lower_edge: two-sided sign-flip tests of no difference and of the claim's lower edge. p_holm: p_zero
    adjusted over every testable verdict of the same `judge`. minimum_detectable: the smallest effect that this many
    pairs could have shown with 80 % power. pairs_needed: pairs for "supported" with 80 % power if the truth is the
    middle of the claimed range. pairs_to_see: pairs to tell the claim's lower edge from zero with 80 % power.
    pairs: seed -> effect of that pair. bootstrap: BCa interval, None below 20 pairs. better: P(arm better than baseline)
    with its interval. secondary: measures that are shown and not judged.
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
    pairs_to_see: int | None = None
    pairs: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    bootstrap: tuple[float, float] | None = None
    better: Estimate | None = None
    secondary: tuple[SecondaryMeasure, ...] = ()
    note: str = ""


def decide(low: float, high: float, lower: float, upper: float) -> tuple[str, str]:
    """(verdict, detail) on a claim of `lower` to `upper` from the interval of the effect, all in one unit.

    supported: low >= lower ("more than claimed" if low > upper). contradicted: high < lower ("reversed" if high < 0,
    "real but smaller" if low > 0). Otherwise inconclusive, and whether zero lies outside of the interval.
    NaN in the interval: not testable.
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
    """A verdict for every claim, metric and arm against the baseline, in this order: arm, claim, metric.

    target: as `convergence.choose_target` takes it, for times of its column. rng: for bootstrap and Monte Carlo tests.
    p_holm is over all testable verdicts of the answer: several arms are one family.
    Raises InputError where the sweep was read without a column that a claim needs.
    """
    if sweep.baseline is None:
        return []
    given = choose_target(sweep, target) if target is not None else None

    @functools.cache
    def target_of(column: str) -> Target | None:
        return given if given is not None and given.metric == column else choose_target(sweep, None, column)

    @functools.cache
    def measured(metric: Metric) -> tuple[pd.Series, pd.Series]:
        require(sweep, metric.of)
        wanted = target_of(metric.of) if metric.speaks_of == "speed" else None
        return measures.values(sweep, metric, wanted), measures.censored(sweep, metric, wanted)

    verdicts = []
    for arm in sweep.others:
        for claim in claims:
            for metric in claim.metrics:
                one = _judge_one(sweep, arm, claim, metric, *measured(metric), rng)
                secondary = secondary_measures(
                    sweep, arm, metric, target_of(metric.of) if metric.speaks_of == "speed" else None
                )
                verdicts.append(replace(one, secondary=secondary))
    adjusted = holm([v.p_zero if v.verdict != "not testable" else math.nan for v in verdicts])
    return [replace(verdict, p_holm=float(p)) for verdict, p in zip(verdicts, adjusted, strict=True)]


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """VERDICT_COLUMNS, a row per verdict; with several arms against the baseline, `arm` is one more column, the last."""
    rows = [{**vars(verdict), "claim": verdict.claim.name} for verdict in verdicts]
    several = len({verdict.arm for verdict in verdicts}) > 1
    table = pd.DataFrame(rows, columns=[*VERDICT_COLUMNS, *(["arm"] if several else [])])
    return table.astype({"n_pairs": "int64", "pairs_needed": "Int64"})


def secondary_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """What stands beside the verdicts: `claim`, `metric`, `arm`, `name`, `unit`, `estimate`, `low`, `high`, `whose`
    ("pairs" for a paired change, else the arm that the value belongs to)."""
    rows = [
        {"claim": v.claim.name, "metric": v.metric, "arm": v.arm, "name": b.name, "unit": b.unit}
        | {"estimate": b.estimate, "low": b.low, "high": b.high, "whose": "pairs" if b.paired else b.arm}
        for v in verdicts
        for b in v.secondary
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
    all_d = measures.pair_differences(of_arm(values, arm), of_arm(values, base), claim, metric)
    d = all_d.dropna()
    why = _not_comparable(sweep, arm, claim) or _units_differ(arm, base, metric)
    shares = {a.name: of_arm(censored, a).reindex(d.index).mean() for a in (arm, base)}
    why_not = why or _too_little(len(d), shares)
    to_unit = functools.partial(measures.effect, claim=claim, metric=metric)
    verdict = Verdict(
        claim, metric.label, arm.name, base.name, len(d), math.nan, math.nan, math.nan, "not testable", why_not,
        math.nan, math.nan, math.nan, math.nan, None, note=_missing(len(all_d), len(d), claim),
    )  # fmt: skip
    if why or d.empty:  # other units or another question: a number would be quoted
        return verdict
    interval, edge = paired_t(d), measures.difference(claim.lower, claim, metric)
    low, high = to_unit(interval.low), to_unit(interval.high)
    word, detail = ("not testable", why_not) if why_not else decide(low, high, claim.lower, claim.upper)
    spread = float(d.std(ddof=1)) if len(d) > 1 else math.nan
    room = measures.difference(claim.upper, claim, metric) - edge if math.isfinite(claim.upper) else math.nan
    boot = bca(d, rng)
    return replace(
        verdict,
        estimate=to_unit(interval.estimate),
        low=low,
        high=high,
        verdict=word,
        detail=detail,
        p_zero=sign_flip(d, rng=rng),
        p_lower_edge=sign_flip(d, edge, rng=rng),
        minimum_detectable=to_unit(minimum_detectable(d)),
        pairs_needed=_at_least_fewest(pairs_needed(spread, room / 2)),
        pairs_to_see=_at_least_fewest(pairs_needed(spread, edge)),
        pairs=d.map(to_unit),
        bootstrap=(to_unit(boot.low), to_unit(boot.high)) if boot else None,
        better=probability_better(d),
    )


def _not_comparable(sweep: Sweep, arm: Arm, claim: Claim) -> str:
    """What the arm differs in beyond the claim's factors, in words; "" where the claim is about these arms."""
    assert sweep.baseline is not None
    base = sweep.baseline
    known = {name for a in (arm, base) for name in (*a.config, *a.choices)}
    if not claim.factors or not any(covers(factor, name) for factor in claim.factors for name in known):
        return ""  # runs of another program do not record these settings
    more = [name for name in unlike(arm, base) if not any(covers(factor, name) for factor in claim.factors)]
    listed = ", ".join(
        f"{name} ({format_setting(name, arm)}, baseline {format_setting(name, base)})" for name in more[:4]
    )
    return f"the claim is about {' and '.join(claim.factors)}, and the arms differ in {listed} too" if more else ""


def _units_differ(arm: Arm, base: Arm, metric: Metric) -> str:
    depends = next((on for start, on in _UNITS.items() if metric.of.startswith(start)), ())
    names = [name for name in unlike(arm, base) if any(covers(group, name) for group in depends)]
    if not names:
        return ""
    losses = {format_setting("loss", arm), format_setting("loss", base)} | {
        format_setting("loss.name", arm),
        format_setting("loss.name", base),
    }
    half = ": SmoothL1 is half of MSE near zero" if {"mse", "smoothl1"} <= losses else ""
    listed = ", ".join(f"{name} {format_setting(name, arm)} against {format_setting(name, base)}" for name in names[:4])
    return f"units differ{half} ({listed}), so this compares units, not training"


def _too_little(pairs: int, censored: dict[str, float]) -> str:
    if pairs < FEWEST_PAIRS:
        return f"{pairs} pair{'' if pairs == 1 else 's'}, at least {FEWEST_PAIRS} are needed"
    over = [f"{share * pairs:.0f} of {pairs} of '{name}'" for name, share in censored.items() if share > 0.5]
    return f"over half of the times are censored at the budget: {', '.join(over)}" if over else ""


def _missing(all_pairs: int, pairs: int, claim: Claim) -> str:
    if all_pairs == pairs:
        return ""
    of = "a positive value" if claim.unit == "percent" else "a value"
    return f"{all_pairs - pairs} of {all_pairs} pairs have not {of} in both runs and are left out."


def _at_least_fewest(pairs: int | None) -> int | None:
    return None if pairs is None else max(FEWEST_PAIRS, pairs)
