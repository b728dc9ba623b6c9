"""Judge the claims of a claims file on a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from joyful.analysis import measures, statistics
from joyful.analysis.arms import Arm, covers, differing_names, format_setting
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, parse_claims, read_claims
from joyful.analysis.columns import unit_depends_on
from joyful.analysis.convergence import LADDER, Target, choose_target, way
from joyful.analysis.curves import curves
from joyful.analysis.designs import Comparison, compare, over_all_tasks
from joyful.analysis.formatting import listing
from joyful.analysis.measures import Metric, SecondaryMeasure, secondary_measures, select_arm
from joyful.analysis.statistics import UNKNOWN
from joyful.analysis.sweep import Sweep, of_task, require
from joyful.analysis.verdict import VERDICTS, Verdict, decide

__all__ = [
    "BASIC_OPTIMIZATION", "VERDICTS", "VERDICT_COLUMNS", "Claim", "Metric", "Verdict", "decide", "judge", "parse_claims",
    "read_claims", "secondary_table", "verdict_table",
]  # fmt: skip

#: Columns of verdicts.csv, in order. Further columns follow: the arm, the task and the numbers of runs, where they differ.
VERDICT_COLUMNS = (
    "claim", "metric", "n_pairs", "estimate", "low", "high", "verdict", "detail", "p_zero", "p_lower_edge", "p_holm",
    "minimum_detectable", "pairs_needed",
)  # fmt: skip

#: Name of all tasks together.
ALL_TASKS = "all tasks"


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
        The verdicts, ordered by arm, then claim, then metric, then task. With several tasks, the verdict on ALL_TASKS
        together follows those on each. The list is empty if the sweep has fewer than two arms.

    Raises:
        InputError: If the sweep was read without a column that a claim needs, or `target` is not a valid target.
    """
    if sweep.baseline is None:
        return []
    explicit = choose_target(sweep, target) if target is not None else None
    parts = {task: of_task(sweep, task) for task in sweep.tasks} or {"": sweep}

    verdicts: list[Verdict] = []
    for arm in sweep.others:
        for claim in claims:
            for metric in claim.metrics:
                judged = [
                    _judge_one(runs, arm, claim, metric, measures.target_of(runs, metric, explicit), rng, task)
                    for task, runs in parts.items()
                ]
                verdicts += [verdict for verdict, _ in judged]
                if sweep.tasks:
                    verdicts.append(_judge_all_tasks(sweep, arm, claim, metric, judged, rng))
    adjusted = statistics.holm([v.p_zero if v.verdict != "not testable" else math.nan for v in verdicts])
    return [replace(verdict, p_holm=float(p)) for verdict, p in zip(verdicts, adjusted, strict=True)]


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the verdicts as a table with one row each.

    The columns are VERDICT_COLUMNS. They are followed by `arm` if the verdicts are on several arms, by `task` if they are on
    several tasks, and by `n_runs` and `n_baseline_runs` in an unpaired design.
    """
    several = len({verdict.arm for verdict in verdicts}) > 1
    with_tasks, unpaired = any(v.task for v in verdicts), any(sum(v.runs) and not v.n_pairs for v in verdicts)
    columns = [*VERDICT_COLUMNS, *(["arm"] if several else []), *(["task"] if with_tasks else [])]
    rows = [(v.claim.name, v.metric.label, *(getattr(v, name) for name in columns[2:])) for v in verdicts]
    table = pd.DataFrame(rows, columns=columns)
    if unpaired:
        table = table.assign(n_runs=[v.runs[0] for v in verdicts], n_baseline_runs=[v.runs[1] for v in verdicts])
    return table.astype({"n_pairs": "int64", "pairs_needed": "Int64"})


def secondary_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the secondary measures of the verdicts as a table with one row each.

    The columns are `claim`, `metric`, `arm`, `name`, `unit`, `estimate`, `low`, `high` and `whose`. The last is "pairs"
    for a change between paired runs, and otherwise the name of the arm that the value belongs to. With several tasks there is
    a column `task`.
    """
    rows = [
        (v.claim.name, v.metric.label, v.arm, v.task, m.name, m.unit, m.estimate, m.low, m.high, m.arm or "pairs")
        for v in verdicts
        for m in v.secondary
    ]
    columns = ["claim", "metric", "arm", "task", "name", "unit", "estimate", "low", "high", "whose"]
    table = pd.DataFrame(rows, columns=columns)
    return table if any(v.task for v in verdicts) else table.drop(columns="task")


def ladder(sweep: Sweep, claims: Sequence[Claim]) -> pd.DataFrame:
    """Return the effect of each arm on each time to a target, for targets at the shares LADDER of the way.

    It shows whether a verdict on speed depends on the target.

    Returns:
        A tidy table: `claim`, `metric`, `arm`, `share` (of the way, from 0 to 1), `target` (its value), `estimate`, `low`,
        `high` (the effect in the unit of the claim and its 95 % interval), `reached` and `reached_baseline` (numbers of runs).
    """
    rows = []
    for claim in claims:
        for metric in claim.metrics:
            course = way(sweep, metric.of, metric.better) if metric.to_target else None
            if course is None:
                continue
            direction, targets = claim.direction_of(metric), tuple(course.target(share) for share in LADDER)
            scale, means = metric.scale(claim.unit, direction), measures.time_means(sweep, metric, direction, targets)
            for share, target, of_arms in zip(LADDER, targets, means, strict=True):
                reached = np.isfinite(measures.bounds(sweep, metric, target)["high"]).groupby(level="arm").sum()
                for arm in sweep.others:
                    counts = (int(reached.get(name, 0)) for name in (arm.name, sweep.arms[0].name))
                    effect = vars(of_arms[arm.name].map(scale.effect)).values()
                    rows.append((claim.name, metric.label, arm.name, share, target.value, *effect, *counts))
    columns = ["claim", "metric", "arm", "share", "target", "estimate", "low", "high", "reached", "reached_baseline"]
    return pd.DataFrame(rows, columns=columns)


def _judge_one(
    sweep: Sweep,
    arm: Arm,
    claim: Claim,
    metric: Metric,
    target: Target | None,
    rng: np.random.Generator,
    task: str = "",
) -> tuple[Verdict, Comparison]:
    """Return the verdict on one metric and arm, for a sweep with one task, and the comparison on which it is based."""
    require(sweep, metric.of)
    direction = claim.direction_of(metric)
    comparison = compare(sweep, arm, metric, claim.unit, direction, target, rng)
    incomparable = _not_comparable(sweep.arms[0], arm, claim) or _units_differ(sweep.arms[0], arm, metric)
    incomparable = incomparable or _not_fractions(sweep, claim, metric)
    unmeasured = _never_measured(sweep, metric)
    reason = incomparable or unmeasured or (target.problem if target is not None else "")
    notes = [comparison.note, _gaps(sweep, arm, metric), _more_evaluations(sweep, arm, metric)]
    note = "" if unmeasured or incomparable else " ".join(text for text in notes if text)
    comparison = replace(comparison, reason=reason or comparison.reason, note=note)
    verdict = _verdict(sweep, arm, claim, metric, comparison, rng, task)
    verdict = replace(verdict, secondary=secondary_measures(sweep, arm, metric, target))
    if incomparable:  # its numbers would be quoted
        verdict = replace(verdict, mean=UNKNOWN, p_zero=math.nan, p_lower_edge=math.nan, bootstrap=None, better=None)
    return verdict, comparison


def _verdict(
    sweep: Sweep, arm: Arm, claim: Claim, metric: Metric, found: Comparison, rng: np.random.Generator, task: str
) -> Verdict:
    scale = metric.scale(claim.unit, claim.direction_of(metric))
    edges = [scale.difference(claim.lower), *([scale.difference(claim.upper)] if claim.kind == "within" else [])]
    known = not math.isnan(found.mean.estimate)
    return Verdict(
        claim, metric, arm.name, sweep.arms[0].name, found.differences,
        (len(found.samples[0].dropna()), len(found.samples[1].dropna())),
        mean=found.mean,
        reason=found.reason,
        p_zero=found.p(0.0) if known else math.nan,
        p_lower_edge=max(map(found.p, edges)) if known else math.nan,
        bootstrap=None if found.bootstrap is None else found.bootstrap.map(scale.effect),
        better=found.better,
        note=found.note,
        task=task,
    )  # fmt: skip


def _judge_all_tasks(
    sweep: Sweep,
    arm: Arm,
    claim: Claim,
    metric: Metric,
    of_tasks: Sequence[tuple[Verdict, Comparison]],
    rng: np.random.Generator,
) -> Verdict:
    """Return the verdict on all tasks together."""
    scale = metric.scale(claim.unit, claim.direction_of(metric))
    names = [verdict.task for verdict, _ in of_tasks if verdict.reason]
    if names:
        none = of_tasks[0][0].differences.iloc[:0]
        reason = f"not testable on {listing(names)}; see the verdict on each task"
        return Verdict(claim, metric, arm.name, sweep.arms[0].name, none, reason=reason, task=ALL_TASKS)
    found, published = over_all_tasks([comparison for _, comparison in of_tasks], sweep.design, rng)
    verdict = _verdict(sweep, arm, claim, metric, found, rng, ALL_TASKS)
    if published is None:
        return verdict
    secondary = tuple(
        SecondaryMeasure.of_pairs(name, claim.unit, estimate.map(scale.effect))
        for name, estimate in (
            ("mean of the effect over tasks, with the bootstrap interval of rliable", published.mean),
            ("interquartile mean of the effect over the pairs of all tasks", published.interquartile_mean),
        )
    )
    return replace(verdict, secondary=secondary)


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


def _not_fractions(sweep: Sweep, claim: Claim, metric: Metric) -> str:
    """Return the reason why values cannot be compared in points, or ""."""
    _, largest = measures.magnitude(sweep, metric.of, metric.split)
    if claim.unit != "points" or not largest > 1.5:
        return ""
    return f"points are hundredths of a fraction, and values reach {largest:.4g}; set unit: absolute"


def _more_evaluations(sweep: Sweep, arm: Arm, metric: Metric) -> str:
    """Return a warning if the best value of one arm is taken over more evaluations than that of the other, or ""."""
    if metric.measure not in ("best", "at_best_dev") or measures.equal_grids(sweep, metric.of, "dev"):
        return ""
    counts = curves(sweep, metric.of).notna().sum(axis=1)
    new, base = (float(select_arm(counts, a).median()) for a in (arm, sweep.arms[0]))
    if not max(new, base) > 1.1 * min(new, base):
        return ""
    return f"The runs have {new:g} and {base:g} evaluations, and the best of more noisy values is better by luck."


def _gaps(sweep: Sweep, arm: Arm, metric: Metric) -> str:
    """Return how many curves lack evaluations that most runs of their arm have, or ""."""
    if measures.equal_grids(sweep, metric.of, metric.split):
        return ""
    known = curves(sweep, metric.of, metric.split).notna()
    with_gaps = total = 0
    for of_arm in (select_arm(known, a) for a in (arm, sweep.arms[0])):
        usual = of_arm.loc[:, of_arm.mean() > 0.5].to_numpy(dtype=bool)
        before = np.logical_or.accumulate(usual, axis=1)
        after = np.logical_or.accumulate(usual[:, ::-1], axis=1)[:, ::-1]
        with_gaps += int((before & after & ~usual).any(axis=1).sum())
        total += len(usual)
    if not with_gaps:
        return ""
    return f"{with_gaps} of {total} runs lack evaluations that most runs of their arm have; these gaps are passed over."


def _never_measured(sweep: Sweep, metric: Metric) -> str:
    measured, _ = measures.magnitude(sweep, metric.of, metric.split)
    return "" if measured else f"no run has a {metric.split} value of {metric.of}"
