"""One claim and metric for one arm: the comparison, the pairs that decide it, and why it may not be testable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from joyful.analysis import measures
from joyful.analysis.arms import Arm, covers, differing_names, format_setting
from joyful.analysis.claims_file import Claim
from joyful.analysis.columns import unit_depends_on
from joyful.analysis.convergence import Target
from joyful.analysis.designs import Comparison, compare, over_all_tasks
from joyful.analysis.measures import Metric
from joyful.analysis.registration import recorded_line
from joyful.analysis.rules import FIXED, Rule
from joyful.analysis.scales import Scale
from joyful.analysis.sweep import Sweep, of_seeds, of_task, require, with_cut_runs
from joyful.analysis.verdict import MINIMUM_PAIRS, decide
from joyful.results.design import DECIDED

#: Name of all tasks together.
ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class ClaimLine:
    """One metric of a claim for one arm, which gets one verdict.

    Attributes:
        sweep: The sweep.
        arm: The arm that is compared with the baseline.
        claim: The claim.
        metric: The metric.
        target: A target in place of the default, or None.
        rule: The decision rule.
        through: Seed of the last pair to judge. None stands for all pairs, or for those that were judged while the sweep ran.
    """

    sweep: Sweep
    arm: Arm
    claim: Claim
    metric: Metric
    target: Target | None
    rule: Rule
    through: int | None = None

    def compare(self, sweep: Sweep, rng: np.random.Generator | None) -> Comparison:
        """Compare the arm with the baseline in a sweep with one task."""
        claim, metric = self.claim, self.metric
        require(sweep, metric.of)
        target = measures.target_of(sweep, metric, self.target)
        sweep = with_cut_runs(sweep) if metric.to_target else sweep
        found = compare(sweep, self.arm, metric, claim.unit, claim.direction_of(metric), target, rng, self.rule)
        return replace(found, reason=self.problem(sweep, target) or found.reason)

    def problem(self, sweep: Sweep, target: Target | None) -> str:
        """Return why no number of pairs can decide the claim, or ""."""
        return (
            self.incomparable(sweep)
            or never_measured(sweep, self.metric)
            or (target.problem if target is not None else "")
        )

    def incomparable(self, sweep: Sweep) -> str:
        """Return why the effect would mislead, or ""."""
        base = sweep.arms[0]
        return (
            _not_comparable(base, self.arm, self.claim)
            or _units_differ(base, self.arm, self.metric)
            or _not_fractions(sweep, self.claim, self.metric)
        )

    def verdict(self, comparison: Comparison) -> tuple[str, str]:
        """Return the verdict that a comparison gives, and its detail."""
        if comparison.reason:
            return "not testable", comparison.reason
        effect = comparison.interval(self.rule).map(self.scale.effect)
        return decide(effect.low, effect.high, self.claim.lower, self.claim.upper, self.claim.kind)

    @property
    def scale(self) -> Scale:
        """The scale of the differences."""
        return self.metric.scale(self.claim.unit, self.direction)

    @property
    def direction(self) -> str:
        """The claimed direction."""
        return self.claim.direction_of(self.metric)

    def deciding(self, tasks: tuple[str, ...]) -> Sweep:
        """Return the sweep with the pairs that decide the claim, on one task or on several together.

        Under ANY_SIZE these are the fewest first pairs with a verdict, in the order of their seeds. If none decide, all
        pairs are kept. A claim that was decided while the sweep ran keeps its pairs.

        Args:
            tasks: Names of the tasks, or ("",) if the sweep has no tasks.
        """
        sweep = self.sweep
        if len(tasks) == 1 and tasks[0]:
            sweep = of_task(sweep, tasks[0])
        if self.rule == FIXED:
            return sweep
        seeds = self.seeds(sweep)
        task = ALL_TASKS if len(tasks) > 1 else tasks[0]
        recorded = recorded_line(self.sweep, self.arm, self.claim, self.metric, task, self.target is not None)
        if recorded is not None and recorded.state == DECIDED:
            return of_seeds(sweep, recorded.seeds)
        judged = self.sweep.decisions.through if recorded is not None else None
        last = judged if self.through is None else self.through
        seeds = [seed for seed in seeds if last is None or seed <= last]
        undecided = sum(judged is not None and seed <= judged for seed in seeds)  # no prefix up to here decides
        for n in range(max(MINIMUM_PAIRS, undecided + 1), len(seeds)):
            part = of_seeds(sweep, tuple(seeds[:n]))
            found, _ = self.compare_on(part, tasks)
            if self.verdict(found)[0] in ("supported", "contradicted"):
                return part
        return of_seeds(sweep, tuple(seeds))

    def compare_on(self, sweep: Sweep, tasks: tuple[str, ...]) -> tuple[Comparison, str]:
        """Compare the arms on one task or on several together, without bootstrap.

        Args:
            sweep: The sweep with the pairs to compare.
            tasks: As in `deciding`.

        Returns:
            The comparison, and why no number of pairs can decide the claim, or "".
        """
        parts = [of_task(sweep, task) if sweep.tasks else sweep for task in tasks]
        problems = [self.problem(part, measures.target_of(part, self.metric, self.target)) for part in parts]
        problem = next((text for text in problems if text), "")
        comparisons = [self.compare(part, None) for part in parts]
        if len(parts) == 1:
            return comparisons[0], problem
        if reason := next((comparison.reason for comparison in comparisons if comparison.reason), ""):
            return replace(comparisons[0], reason=reason), problem
        return over_all_tasks(comparisons, sweep.design, None, self.rule)[0], problem

    def seeds(self, sweep: Sweep) -> list[int]:
        """Return the seeds of the pairs, or of all runs in an unpaired design."""
        known = with_cut_runs(sweep) if self.metric.to_target else sweep
        if sweep.design == "paired":
            return known.pairs(self.arm)
        return sorted({*known.seeds(self.arm), *known.seeds(known.arms[0])})


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


def never_measured(sweep: Sweep, metric: Metric) -> str:
    measured, _ = measures.magnitude(sweep, metric.of, metric.split)
    return "" if measured else f"no run has a {metric.split} value of {metric.of}"
