"""Judge the claims of a claims file on a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from joyful.analysis import measures, statistics
from joyful.analysis.arms import Arm
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, parse_claims, read_claims
from joyful.analysis.convergence import LADDER, Target, choose_target, way
from joyful.analysis.curves import curves
from joyful.analysis.designs import Comparison, over_all_tasks
from joyful.analysis.formatting import listing
from joyful.analysis.lines import ALL_TASKS, ClaimLine, never_measured
from joyful.analysis.measures import Metric, SecondaryMeasure, secondary_measures, select_arm
from joyful.analysis.registration import rule_of
from joyful.analysis.rules import FIXED, AnySize, Rule
from joyful.analysis.statistics import UNKNOWN
from joyful.analysis.sweep import Sweep, of_task
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
    found = [
        line
        for arm in sweep.others
        for claim in claims
        for metric in claim.metrics
        for line in judge_line(sweep, arm, claim, metric, explicit, rng)
    ]
    return _of_family(found)


def judge_line(
    sweep: Sweep,
    arm: Arm,
    claim: Claim,
    metric: Metric,
    target: Target | None,
    rng: np.random.Generator | None,
    rule: Rule | None = None,
) -> list[tuple[Verdict, Comparison]]:
    """Judge one metric of a claim for one arm.

    Args:
        sweep: The sweep.
        arm: The arm.
        claim: The claim.
        metric: The metric.
        target: A target in place of the default, or None.
        rng: Generator for the bootstrap and the Monte Carlo tests. None leaves out what needs it.
        rule: The decision rule. None stands for the one that follows from the designs that the sweep registered.

    Returns:
        The verdict and the comparison on which it is based. With several tasks, those on each task are followed by those on
        ALL_TASKS together. `Verdict.p_holm` and `Verdict.family` are not set.
    """
    why = ""
    if rule is None:
        rule, why = rule_of(sweep, arm, claim, metric, target is not None)
    line = ClaimLine(sweep, arm, claim, metric, target, rule)
    judged = [_judge_one(line, line.deciding((task,)), task, rng) for task in sweep.tasks or ("",)]
    if sweep.tasks:
        part = line.deciding(sweep.tasks)
        comparisons = [comparison for _, comparison in judged]
        if rule != FIXED:
            comparisons = [line.compare(of_task(part, task), rng) for task in sweep.tasks]
        judged.append(_judge_all_tasks(line, comparisons, rng))
    return [(replace(verdict, note=f"{verdict.note} {why}".strip()), comparison) for verdict, comparison in judged]


def _of_family(found: Sequence[tuple[Verdict, Comparison]]) -> list[Verdict]:
    """Return the verdicts with the p-values and the intervals that hold for all of them together."""
    testable = [verdict.verdict != "not testable" for verdict, _ in found]
    adjusted = statistics.holm([v.p_zero if known else math.nan for (v, _), known in zip(found, testable, strict=True)])
    verdicts = []
    for (verdict, comparison), p, known in zip(found, adjusted, testable, strict=True):
        family = UNKNOWN
        if known and verdict.rule != FIXED:
            family = comparison.interval(AnySize(1 - 0.05 / sum(testable)))
        verdicts.append(replace(verdict, p_holm=float(p), family=family))
    return verdicts


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the verdicts as a table with one row each.

    The columns are VERDICT_COLUMNS. They are followed by `arm` if the verdicts are on several arms, by `task` if they are on
    several tasks, by `n_runs` and `n_baseline_runs` in an unpaired design, and, if the confidence sequence decides any of them,
    by `rule` and the interval of all claims together (`Verdict.family`), `family_low` and `family_high`.
    """
    several = len({verdict.arm for verdict in verdicts}) > 1
    with_tasks, unpaired = any(v.task for v in verdicts), any(sum(v.runs) and not v.n_pairs for v in verdicts)
    columns = [*VERDICT_COLUMNS, *(["arm"] if several else []), *(["task"] if with_tasks else [])]
    rows = [(v.claim.name, v.metric.label, *(getattr(v, name) for name in columns[2:])) for v in verdicts]
    table = pd.DataFrame(rows, columns=columns)
    if unpaired:
        table = table.assign(n_runs=[v.runs[0] for v in verdicts], n_baseline_runs=[v.runs[1] for v in verdicts])
    if any(verdict.rule != FIXED for verdict in verdicts):
        table = table.assign(
            rule=[verdict.rule.name for verdict in verdicts],
            family_low=[verdict.family_effect.low for verdict in verdicts],
            family_high=[verdict.family_effect.high for verdict in verdicts],
        )
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


def _judge_one(line: ClaimLine, sweep: Sweep, task: str, rng: np.random.Generator | None) -> tuple[Verdict, Comparison]:
    """Return the verdict for a sweep with one task, and the comparison on which it is based."""
    arm, metric = line.arm, line.metric
    comparison = line.compare(sweep, rng)
    target = measures.target_of(sweep, metric, line.target)
    incomparable = line.incomparable(sweep)
    notes = [comparison.note, _gaps(sweep, arm, metric), _more_evaluations(sweep, arm, metric)]
    note = "" if incomparable or never_measured(sweep, metric) else " ".join(text for text in notes if text)
    verdict = _verdict(line, replace(comparison, note=note), task)
    verdict = replace(verdict, secondary=secondary_measures(sweep, arm, metric, target))
    if incomparable:  # its numbers would be quoted
        verdict = replace(verdict, mean=UNKNOWN, p_zero=math.nan, p_lower_edge=math.nan, bootstrap=None, better=None)
    return verdict, comparison


def _verdict(line: ClaimLine, found: Comparison, task: str) -> Verdict:
    claim, metric = line.claim, line.metric
    scale, mean = metric.scale(claim.unit, line.direction), found.interval(line.rule)
    edges = [scale.difference(claim.lower), *([scale.difference(claim.upper)] if claim.kind == "within" else [])]
    known = not math.isnan(mean.estimate)
    return Verdict(
        claim, metric, line.arm.name, line.sweep.arms[0].name, found.differences,
        (len(found.samples[0].dropna()), len(found.samples[1].dropna())),
        mean=mean,
        rule=line.rule,
        reason=found.reason,
        p_zero=found.p(0.0) if known else math.nan,
        p_lower_edge=max(map(found.p, edges)) if known else math.nan,
        bootstrap=None if found.bootstrap is None else found.bootstrap.map(scale.effect),
        better=found.better,
        note=found.note,
        task=task,
    )  # fmt: skip


def _judge_all_tasks(
    line: ClaimLine, of_tasks: Sequence[Comparison], rng: np.random.Generator | None
) -> tuple[Verdict, Comparison]:
    """Return the verdict on all tasks together, and the comparison on which it is based."""
    claim, metric, sweep = line.claim, line.metric, line.sweep
    names = [task for task, comparison in zip(sweep.tasks, of_tasks, strict=True) if comparison.reason]
    if names:
        none = of_tasks[0].differences.iloc[:0]
        reason = f"not testable on {listing(names)}; see the verdict on each task"
        verdict = Verdict(
            claim, metric, line.arm.name, sweep.arms[0].name, none, rule=line.rule, reason=reason, task=ALL_TASKS
        )
        return verdict, of_tasks[0]
    found, published = over_all_tasks(of_tasks, sweep.design, rng, line.rule)
    verdict = _verdict(line, found, ALL_TASKS)
    if published is None:
        return verdict, found
    scale = metric.scale(claim.unit, line.direction)
    secondary = tuple(
        SecondaryMeasure.of_pairs(name, claim.unit, estimate.map(scale.effect))
        for name, estimate in (
            ("mean of the effect over tasks, with the bootstrap interval of rliable", published.mean),
            ("interquartile mean of the effect over the pairs of all tasks", published.interquartile_mean),
        )
    )
    return replace(verdict, secondary=secondary), found


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
