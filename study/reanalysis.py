"""The speeds of the study as they were registered, beside those under the corrected measure.

The study first took the time to a target as the evaluation at which the best dev F1 reaches it, and the target as
TARGET_SHARE of the last dev F1 of the calibration runs. study/registered.csv has every speed that was published in this way.
The corrected measure knows a time only to lie between two evaluations, and its target lies at TARGET_SHARE of the way from the
start of training to its end. All other measures of the study are the same in both.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from joyful.analysis import measures, statistics
from joyful.analysis.claims import Claim, decide
from joyful.analysis.convergence import TARGET_SHARE, Target
from joyful.analysis.curves import curves
from joyful.analysis.formatting import interval, number, percent, quantity
from joyful.analysis.page.markdown import escape, table
from joyful.analysis.scales import Scale
from joyful.analysis.statistics import Estimate
from joyful.analysis.sweep import Sweep
from joyful.results import InputError
from study.tables import Studies, as_baseline, note_arm

REGISTERED = Path(__file__).with_name("registered.csv")

#: Targets of the sensitivity table, as shares of the best dev F1 of the baseline's calibration runs.
SHARES = (0.90, 0.925, 0.95, 0.98)

_UNIT = "percent"


@dataclass(frozen=True)
class Registered:
    """A published speed.

    Attributes:
        part: Name of the archive.
        arm: The arm.
        baseline: The arm that it is compared with.
        effect: The effect in per cent with its 95 % interval.
        target: Dev weighted F1 in per cent.
        detectable: The smallest effect in per cent that was said to be detectable with 80 % power; None where none was
            published.
    """

    part: str
    arm: str
    baseline: str
    effect: Estimate
    target: float
    detectable: float | None


def read_registered(path: Path = REGISTERED) -> list[Registered]:
    """Return the published speeds."""
    with path.open(newline="") as file:
        return [
            Registered(
                row["part"], row["arm"], row["baseline"],
                Estimate(float(row["estimate"]), float(row["low"]), float(row["high"])),
                float(row["target"]), float(row["detectable"]) if row["detectable"] else None,
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def speed_claim(claims: Sequence[Claim]) -> Claim:
    """Return the claim on the convergence speed."""
    return next(claim for claim in claims if claim.name == "convergence_speed")


def _scale(speed: Claim) -> Scale:
    metric = speed.metrics[0]
    return metric.scale(speed.unit, speed.direction_of(metric))


def speeds(sweep: Sweep, speed: Claim, targets: Sequence[Target]) -> list[dict[str, Estimate]]:
    """Return the speed of each arm against the baseline in per cent, with its 95 % interval, for each target."""
    metric = speed.metrics[0]
    means = measures.time_means(sweep, metric, speed.direction_of(metric), tuple(targets))
    return [{arm: mean.map(_scale(speed).effect) for arm, mean in of_arms.items()} for of_arms in means]


def share_of_best(sweep: Sweep, share: float) -> Target:
    """Return a share of the best dev weighted F1 of a calibration run, the median over these runs."""
    return Target("f1_weighted", share * float(np.median(np.nanmax(_calibration(sweep), axis=1))), "")


def registered_target(sweep: Sweep) -> Target:
    """Return the target as registered: TARGET_SHARE of the median last dev weighted F1 of the calibration runs."""
    last = [row[np.isfinite(row)][-1] for row in _calibration(sweep)]
    return Target("f1_weighted", TARGET_SHARE * float(np.median(last)), "")


def _calibration(sweep: Sweep) -> np.ndarray:
    """Return the dev weighted F1 of the baseline's calibration runs, a row per run.

    Raises:
        InputError: If there are none.
    """
    matrix = curves(sweep, "f1_weighted", role="calibration")
    rows = matrix[matrix.index.get_level_values("arm") == sweep.arms[0].name].to_numpy(dtype=float)
    if not len(rows):
        raise InputError(f"{sweep.path.name}: expected calibration runs of the baseline, got none")
    return rows


def conclusion(effect: Estimate, speed: Claim) -> str:
    """Return the verdict on the claimed speed, and whether the interval excludes 0."""
    direction = "faster" if effect.low > 0 else "slower" if effect.high < 0 else "no difference established"
    return f"{decide(effect.low, effect.high, speed.lower, speed.upper)[0]}, {direction}"


def reanalysis_table(studies: Studies, claims: Sequence[Claim], registered: Sequence[Registered]) -> str:
    """Return every registered speed beside the corrected one, with the conclusions that changed and why.

    The column "times corrected" keeps the registered target. So a conclusion that changes there changes because of the times,
    and one that changes only in the next column because of the target.

    Raises:
        InputError: If the registered target cannot be reproduced from an archive.
    """
    speed, rows = speed_claim(claims), []
    for part, baseline in dict.fromkeys((line.part, line.baseline) for line in registered):
        lines = [line for line in registered if (line.part, line.baseline) == (part, baseline)]
        found = next(((known, findings) for known, findings in studies.items() if known.name == part), None)
        if found is None:
            continue
        sweep, first, corrected = found[1].sweep, registered_target(found[1].sweep), found[1].target
        if abs(100 * first.value - lines[0].target) > 0.051:
            raise InputError(
                f"{part}: expected the registered target {lines[0].target} %, got {100 * first.value:.2f} %"
            )
        assert corrected is not None
        with_times, with_both = speeds(as_baseline(sweep, baseline), speed, [first, corrected])
        for line in lines:
            effects = [line.effect, with_times[line.arm], with_both[line.arm]]
            comparison = [found[0].title, escape(line.arm), escape(baseline)]
            rows.append([*comparison, *map(_text, effects), _change(effects, speed)])
    return table(
        ["data", "arm", "against", "as registered", "times corrected", "target corrected too", "conclusion"], rows
    )


def _change(found: Sequence[Estimate], speed: Claim) -> str:
    was, with_times, now = (conclusion(effect, speed) for effect in found)
    if was == now:
        return now
    return f"{was} → **{now}**, because of the {'times' if with_times == now else 'target'}"


def _text(effect: Estimate) -> str:
    return f"{number(effect.estimate, 1, signed=True)} ({interval(effect.low, effect.high, _UNIT, 1)})"


def targets_table(studies: Studies, claims: Sequence[Claim]) -> str:
    """Return the speed of the note's settings for other targets, and the most that the evaluation grid can hide."""
    speed, rows = speed_claim(claims), []
    for part, findings in studies.items():
        if not part.note:
            continue
        arm, sweep = note_arm(findings), findings.sweep
        targets = [share_of_best(sweep, share) for share in SHARES]
        cells = []
        for target, of_arms in zip(targets, speeds(sweep, speed, targets), strict=True):
            verdict = decide(of_arms[arm].low, of_arms[arm].high, speed.lower, speed.upper)[0]
            cells.append(f"{verdict}<br>{_text(of_arms[arm])}<br>{_at_worst(worst_case(sweep, arm, speed, target))}")
        rows.append([part.title, *cells])
    return table(["data", *(f"{percent(share, 1)} of the best" for share in SHARES)], rows)


def worst_case(sweep: Sweep, arm: str, speed: Claim, target: Target) -> float:
    """Return the upper end of the interval of the speed in per cent if the grid hides as much as it can.

    Every time of the arm is then that of the evaluation before it reaches the target, and every time of the baseline that
    of the evaluation at which it does. The interval is that of exact times. Infinite if an arm reaches the target at its first
    evaluation, or the baseline does not reach it.
    """
    times, baseline = (_bounds_of(sweep, name, speed, target) for name in (arm, sweep.arms[0].name))
    largest = _scale(speed).bounds(times, baseline)["high"]
    if np.isinf(largest).any():
        return math.inf
    return statistics.paired_t(largest).map(_scale(speed).effect).high


def _bounds_of(sweep: Sweep, arm: str, speed: Claim, target: Target | None) -> pd.DataFrame:
    """Return the times between which each seed of an arm reaches the target."""
    chosen = next(known for known in sweep.arms if known.name == arm)
    return measures.select_arm(measures.bounds(sweep, speed.metrics[0], target), chosen)


def _at_worst(high: float) -> str:
    return "no limit at worst" if math.isinf(high) else f"at worst up to {quantity(high, _UNIT, 1)}"


def power_table(studies: Studies, claims: Sequence[Claim], registered: Sequence[Registered]) -> str:
    """Return the smallest detectable speed as registered, the power that it had, and the smallest one in fact."""
    speed, rows = speed_claim(claims), []
    metric, scale = speed.metrics[0], _scale(speed)
    said = {line.part: line for line in registered if line.detectable is not None}
    for part, findings in studies.items():
        if part.name not in said:
            continue
        line, sweep = said[part.name], findings.sweep
        assert line.detectable is not None
        mean = measures.time_means(sweep, metric, speed.direction_of(metric), (findings.target,))[0][line.arm]
        pairs = len(_bounds_of(sweep, line.arm, speed, findings.target).dropna())
        ratio = scale.difference(line.detectable) / statistics.standard_deviation(mean, pairs)
        had = statistics.power_of_paired_t(pairs, ratio)
        true = scale.effect(statistics.minimum_detectable(mean, pairs))
        percents = [quantity(effect, _UNIT, 1) for effect in (line.detectable, true)]
        rows.append([part.title, str(pairs), percents[0], percent(had, 0), percents[1]])
    return table(["data", "pairs", "registered as detectable", "power for it", "detectable in fact"], rows)
