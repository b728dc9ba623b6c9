"""The sections of the page. A section without content is omitted."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from joyful.analysis import plots, registration
from joyful.analysis.claims import Verdict
from joyful.analysis.claims_file import SPLITS
from joyful.analysis.columns import is_score, units
from joyful.analysis.convergence import TARGET_SHARE, Target
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import NONE, count, heading, listing, metric, number, percent
from joyful.analysis.page import grid, tables
from joyful.analysis.page.parts import Ladder, Section, Table, clean
from joyful.analysis.page.summary import compared, level, no_claim_applies, source
from joyful.analysis.page.words import change
from joyful.analysis.plots.losses import LABELS
from joyful.analysis.plots.style import MOST_LINES, Plot
from joyful.analysis.statistics import Estimate

#: (column, split) of the curves that are always drawn -> name of the figure.
_CURVES = {
    ("f1_weighted", "dev"): "dev-f1", ("nll", "dev"): "dev-nll", ("nll", "train"): "train-nll",
    ("recon_mse", "train"): "train-recon-mse",
}  # fmt: skip

#: Maximum number of remarks on verdicts. The table of verdicts has all.
_MOST_NOTES = 6

#: Maximum number of arms with a figure of loss shares.
_MOST_SHARES = 4


def sections(findings: Findings) -> tuple[Section, ...]:
    """Return the sections that have content, in the order in which readers ask."""
    arms = drawn_arms(findings)
    ordered = arm_order(findings)
    if grid.is_grid(findings.sweep):
        return tuple(section for section in _of_grid(findings, arms, ordered) if section is not None)
    built = (
        _compared(findings),
        _verdicts(findings),
        *(section for task, of in findings.of_tasks.items() for section in _on_task(task, of, arms, ordered)),
        *([] if findings.of_tasks else _of_runs(findings, arms, ordered)),
        _effects(findings, ordered),
        _profiles(findings, arms),
        _left_out(findings),
        _method(findings),
    )
    return tuple(section for section in built if section is not None)


def arm_order(findings: Findings) -> list[str]:
    """Return all arms in the order of their colours: those that are drawn as curves, and then the others."""
    return list(dict.fromkeys([*drawn_arms(findings), *(arm.name for arm in findings.sweep.arms)]))


def _of_grid(findings: Findings, arms: list[str], ordered: list[str]) -> list[Section | None]:
    """Return the sections on settings that were not repeated, for which nothing is judged."""
    return [
        _compared(findings),
        _of_plots("surface", "Settings against score", (), grid.surface(findings)),
        _response(findings),
        _curves(findings, arms),
        _losses(findings, arms),
        _gradient_ratio(findings, arms, ordered),
        _left_out(findings),
    ]


def _of_runs(findings: Findings, arms: list[str], ordered: list[str]) -> list[Section | None]:
    """Return the sections on the runs of one task."""
    return [
        _curves(findings, arms),
        _speed(findings, arms),
        _stability(findings, ordered),
        *(
            [Section("surface", "Settings against score", plots=tuple(found))]
            if (found := grid.surface(findings))
            else []
        ),
        _response(findings),
        _losses(findings, arms),
        _gradient_ratio(findings, arms, ordered),
    ]


def _on_task(task: str, findings: Findings, arms: list[str], ordered: list[str]) -> list[Section]:
    """Return the sections on the runs of one of several tasks, with the task in their titles and identifiers."""
    suffix = re.sub("[^a-z0-9]+", "-", task.lower()).strip("-")
    found = [*_of_runs(findings, arms, ordered), _arms(findings)]
    return [
        replace(
            section, key=f"{section.key}-{suffix}", title=f"{section.title}: {clean(task)}",
            plots=tuple(replace(plot, name=f"{plot.name}-{suffix}") for plot in section.plots),
            tables=tuple(replace(table, name=f"{table.name}-{suffix}") for table in section.tables),
            folded=tuple(replace(table, name=f"{table.name}-{suffix}") for table in section.folded),
        )
        for section in found if section is not None
    ]  # fmt: skip


def _profiles(findings: Findings, arms: list[str]) -> Section | None:
    frame = findings.tables["profiles"]
    drawn = [
        plots.performance_profiles(
            frame[frame["metric"] == label], arms, name=f"profile-{number}", quantity=metric(str(label)),
            relative=bool(findings.of_tasks),
        )
        for number, label in enumerate(dict.fromkeys(frame["metric"]), start=1)
    ]  # fmt: skip
    over = ", averaged over tasks" if findings.of_tasks else ""
    text = (
        f"The share of runs whose value is above each threshold{over}, with pointwise 95 % bootstrap bands. A curve that lies "
        "above another everywhere shows higher values in all parts of the distribution.",
    )
    return _of_plots("profiles", "Profiles", text, drawn, closed=True)


def drawn_arms(findings: Findings) -> list[str]:
    """Return the arms that are drawn as curves.

    These are all arms, or the baseline and the arms with the best mean dev F1 if there are more than MOST_LINES.
    """
    sweep = findings.sweep
    names = [arm.name for arm in sweep.arms]
    if len(names) <= MOST_LINES:
        return names
    scores = findings.tables["scores"]
    if "dev_f1" not in scores:
        return names[:MOST_LINES]
    mean = scores.groupby("arm", observed=True)["dev_f1"].mean().to_dict()
    known = {name: -value for name, value in mean.items() if not math.isnan(value)}
    best = sorted(names[1:], key=lambda name: known.get(name, math.inf))[: MOST_LINES - 1]
    return [names[0], *(name for name in names[1:] if name in best)]


def _of_plots(
    key: str,
    title: str,
    text: tuple[str, ...],
    drawn: Sequence[Plot],
    folded: tuple[Table, ...] = (),
    closed: bool = False,
) -> Section | None:
    return Section(key, title, text, tuple(drawn), folded=folded, closed=closed) if drawn else None


def _compared(findings: Findings) -> Section:
    sweep = findings.sweep
    notes = [clean(note) for note in (registration.sentence(sweep), *sweep.notes)] if sweep.others else []
    text = " ".join(compared(findings)), *([" ".join(notes)] if notes else [])
    arms = None if findings.of_tasks else _arms(findings)
    return Section(
        "compared", "What was compared", text,
        tables=arms.tables if arms else (), folded=arms.folded if arms else (),
    )  # fmt: skip


def _verdicts(findings: Findings) -> Section | None:
    if not findings.verdicts or no_claim_applies(findings.verdicts):
        return None
    text = (
        "The verdict depends only on the 95 % confidence interval of the mean effect. A claim is supported if the whole interval "
        "lies at or above the lower edge of the claimed range, contradicted if it lies below this edge, and inconclusive "
        "otherwise.",
    )
    folded = [tables.verdicts(findings), tables.pairs(findings), tables.secondary(findings)]
    return Section("verdicts", "Verdicts", (*text, *_notes(findings)), folded=tuple(t for t in folded if t is not None))


def _notes(findings: Findings) -> list[str]:
    """Return the remarks on verdicts, each with the claims that it is about."""
    about: dict[str, list[str]] = {}
    for verdict in findings.verdicts:
        reason = verdict.detail if verdict.verdict == "not testable" else ""
        for text in filter(None, (reason, verdict.note)):
            name = (
                f"{verdict.metric.split} {verdict.metric.of}" if len(verdict.claim.metrics) > 1 else verdict.claim.name
            )
            about.setdefault(clean(text), []).append(heading(metric(name)))
    remarks = [
        f"{listing(list(dict.fromkeys(names)), 8)}: {metric(text[:1].upper() + text[1:].rstrip('.'))}."
        for text, names in about.items()
    ]
    more = len(remarks) - _MOST_NOTES
    return remarks[:_MOST_NOTES] + (
        [f"{count(more, 'more remark is', 'more remarks are')} in the table."] if more > 0 else []
    )


def _effects(findings: Findings, arms: list[str]) -> Section | None:
    many = len(findings.sweep.others) > 1
    panels: dict[tuple[str, str], list[Verdict]] = {}  # By claim, and by metric if there are several arms
    for verdict in findings.verdicts:
        panels.setdefault((verdict.claim.name, verdict.metric.label if many else ""), []).append(verdict)
    drawn = [
        plots.forest(verdicts, f"effect-{number}", arms, findings.sweep.unit)
        for number, verdicts in enumerate(panels.values(), start=1)
        if any(math.isfinite(verdict.estimate) for verdict in verdicts)
    ]
    text = (
        "Small marks are the effects of the pairs. The diamond is the mean effect with its 95 % confidence "
        "interval. The shaded band is the claimed range. The grey bar around zero covers effects below the minimum "
        "detectable effect (80 % power).",
    )
    return _of_plots("effects", "Each pair", text, drawn, closed=True)


def _curves(findings: Findings, arms: list[str]) -> Section | None:
    drawn = []
    of_claims = [(verdict.metric.of, verdict.metric.split) for verdict in findings.verdicts]
    others = [(column, split) for column in findings.other_columns for split in SPLITS]
    for column, split in dict.fromkeys([*_CURVES, *of_claims, *others]):
        band = findings.band(column, split)
        if not len(band):
            continue
        scale, unit = units(column)
        line = (
            findings.target.value
            if findings.target is not None and (column, split) == (findings.target.metric, "dev")
            else None
        )
        drawn.append(
            plots.learning_curves(
                band, arms, name=_CURVES.get((column, split), f"{split}-{column}".replace("_", "-")),
                quantity=f"{split} {metric(column)}", scale=scale, unit=unit, target=line, x=findings.sweep.x,
            )
        )  # fmt: skip
    differences = [] if grid.is_grid(findings.sweep) else _differences(findings, arms)
    paired = " The differences of pairs show whether arms differ; overlapping bands do not." * bool(differences)
    text = (f"Mean over seeds with a pointwise 95 % t interval.{paired}{_drawn(findings, arms)}",)
    return _of_plots("curves", "Learning curves", text, [*drawn, *differences])


def _differences(findings: Findings, arms: list[str]) -> list[Plot]:
    """Return the figures of the paired differences over training."""
    frame = findings.tables["differences"]
    drawn = []
    for column, split in dict.fromkeys(zip(frame["metric"], frame["split"], strict=True)):
        band = frame[(frame["metric"] == column) & (frame["split"] == split)]
        scale, unit = (100.0, "points") if is_score(column) else (1.0, "")
        drawn.append(
            plots.paired_differences(
                band, arms, name=f"difference-{split}-{column}".replace("_", "-"), quantity=f"{split} {metric(column)}",
                scale=scale, unit=unit, x=findings.sweep.x,
            )
        )  # fmt: skip
    return drawn


def _speed(findings: Findings, arms: list[str]) -> Section | None:
    survival, reach, target = findings.tables["survival"], findings.tables["reach"], findings.target
    if target is None or survival.empty:
        return None
    target_text = level(target)
    sweep = findings.sweep
    plot = plots.time_to_target(
        survival, reach.set_index("arm"), arms, name="time-to-target", target=target_text, end=sweep.lengths[1], x=sweep.x,
        unit=sweep.unit,
    )  # fmt: skip
    text = (
        f"Kaplan-Meier estimate of the share of runs that have reached the target by each {sweep.x}, with 95 % bands. "
        f"The target is {target_text}: {source(target)}. A run that does not reach the target is censored at its "
        f"last evaluation (+). {_resolution(findings)}".strip(),
    )
    shown = tuple(table for table in (tables.reach(findings), tables.ladder(findings)) if table is not None)
    judged = _judged_gains(findings)
    return Section("speed", "Time to target", text, (plot, *_gains(judged, arms)), folded=shown, ladder=_ladder(judged))


def _judged_gains(findings: Findings) -> tuple[Verdict, pd.DataFrame] | None:
    """Return a verdict on the first claim on a time, and the gains at other targets of the arms that can be compared."""
    frame = findings.tables["ladder"]
    for claim, label in dict.fromkeys(zip(frame["claim"], frame["metric"], strict=True)):
        of_claim = [v for v in findings.verdicts if (v.claim.name, v.metric.label) == (claim, label)]
        arms = [v.arm for v in of_claim if math.isfinite(v.estimate)]
        rows = frame[(frame["claim"] == claim) & (frame["metric"] == label) & frame["arm"].isin(arms)]
        if len(rows):
            return of_claim[0], rows
    return None


def _gains(judged: tuple[Verdict, pd.DataFrame] | None, arms: list[str]) -> list[Plot]:
    """Return the figure of the gain at each target."""
    if judged is None:
        return []
    verdict, rows = judged
    return [plots.gains_by_target(rows, arms, unit=verdict.claim.unit, chosen=TARGET_SHARE)]


def _ladder(judged: tuple[Verdict, pd.DataFrame] | None) -> Ladder | None:
    """Return the gains at each target in words."""
    if judged is None:
        return None
    verdict, frame = judged
    targets, gains = [], []
    for share, rows in frame.groupby("share", sort=True):
        goal = Target(verdict.metric.of, float(rows["target"].iloc[0]), "", verdict.metric.better)
        targets.append(f"{percent(float(str(share)), 0)} of the way, {level(goal)}:")
        gains.append(tuple(_gain(verdict, row) for row in rows.to_dict("records")))
    shares = sorted(frame["share"].unique())
    return Ladder(tuple(targets), tuple(gains), min(range(len(shares)), key=lambda i: abs(shares[i] - TARGET_SHARE)))


def _gain(verdict: Verdict, row: dict[Any, Any]) -> str:
    """Return the gain of an arm at a target in words."""
    effect = Estimate(row["estimate"], row["low"], row["high"])
    text = change(verdict.claim, verdict.metric, effect)
    reached = f"reached by {row['reached']} runs and {row['reached_baseline']} of the baseline"
    return f"{row['arm']}: {'not known' if text == NONE else text}; {reached}."


def _resolution(findings: Findings) -> str:
    """Return how exactly the times are known, and what makes them more exact."""
    scores = findings.tables["scores"]
    times = scores[scores["reached"].astype(bool) & (scores["epochs_to_target"] > 0)]
    if times.empty:
        return ""
    step = times["epochs_to_target"] - times["not_before"]
    share = 100 * float((step / times["epochs_to_target"]).median())
    first = int((times["not_before"] == 0).sum())
    at_once = f" {count(first, 'run')} of {len(times)} reached it at the first evaluation." if first else ""
    return (
        f"A time is known only to the step between two evaluations: {number(float(step.median()), 2)} {findings.sweep.unit} in "
        f"the median, {number(share, 0)} % of the time.{at_once} More evaluations make it more exact, and so does a later "
        "target."
    )


def _stability(findings: Findings, arms: list[str]) -> Section | None:
    scores = findings.tables["scores"]
    drawn = []
    for column, name, title, axis, scale in (
        ("f1_spread", "spread-f1", "Epoch-to-epoch spread of dev F1 (points)", "points per epoch", 100.0),
        ("nll_spread", "spread-nll", "Epoch-to-epoch spread of train NLL (nats)", "nats per epoch", 1.0),
        ("f1_drawdown", "drawdown-f1", "Largest drawdown of dev F1 (points)", "points", 100.0),
    ):
        if column in scores and scores[column].notna().any():
            values = scores.set_index(["arm", "seed"])[column] * scale
            geometric = column != "f1_drawdown"
            drawn.append(plots.strips(values, arms, name=name, title=title, axis=axis, geometric=geometric))
    text = (
        "The spread of a curve is the standard deviation of its epoch-to-epoch changes after subtraction of their "
        "centred 5-epoch median. The first fifth of training is excluded. The drawdown is the largest fall below "
        "the best value so far. Smaller values mean a more stable curve. With two arms, lines connect the runs of a "
        "pair.",
    )
    return _of_plots("stability", "Stability", text, drawn)


def _losses(findings: Findings, arms: list[str]) -> Section | None:
    parts = {part: findings.band(f"loss_{part}", "train") for part in LABELS}
    drawn = [
        plots.learning_curves(
            band, arms, name=f"loss-{part}".replace("_", "-"), quantity=f"train {LABELS[part]} loss", x=findings.sweep.x
        )
        for part, band in parts.items()
        if len(band)
    ]
    bands = {part: findings.band(f"share_{part}", "train") for part in LABELS}
    bands = {part: band for part, band in bands.items() if len(band)}
    with_shares = enumerate(arms[:_MOST_SHARES] if bands else [], start=1)
    drawn += [plots.shares(bands, arm, f"shares-{number}", findings.sweep.x) for number, arm in with_shares]
    text = (
        "Each component of the training loss before weighting, and its share of the weighted total. Reconstruction "
        "losses of different kinds have different units (SmoothL1 is half of MSE near zero). Compare such arms by "
        "the reconstruction MSE under Learning curves, not by their reconstruction loss or total loss.",
    )
    return _of_plots("losses", "Losses", text, drawn, closed=True)


def _gradient_ratio(findings: Findings, arms: list[str], ordered: list[str]) -> Section | None:
    over, places = findings.tables["gradient_ratio"], findings.tables["arm_gradient_ratio"]
    drawn = [plots.arms_by_ratio(places, ordered)] if len(places) else []
    if len(over):
        drawn += [
            plots.ratio_over_training(over, arms, findings.sweep.x),
            plots.cosine_over_training(over, arms, findings.sweep.x),
        ]
    text = (
        "The norm of the weighted reconstruction gradient divided by the norm of the classification gradient. Both "
        "gradients are with respect to the shared fusion parameters, on one fixed training batch. The ratio makes "
        "all losses and weights comparable: at 0.01 the reconstruction gradient is a hundredth of the "
        "classification gradient. The cosine is 1 if the two gradients have the same direction, 0 if they are "
        "orthogonal and −1 if they have opposite directions.",
    )
    folded = (tables.gradient_ratios(findings),)
    return _of_plots("encoder-gradient-ratio", "Encoder gradient ratio", text, drawn, folded, closed=True)


def _response(findings: Findings) -> Section | None:
    response = findings.tables["response"]
    drawn = [
        plots.response_curve(response, str(factor), str(measure))
        for factor in dict.fromkeys(response["factor"])
        for measure in dict.fromkeys(response.loc[response["factor"] == factor, "measure"])
    ]
    text = (
        "Mean over seeds with its 95 % t interval for each value of the weight; epochs to target and spreads are "
        "geometric means. Hollow marks: more than half of the runs did not reach the target, so the mean time is a "
        "lower bound.",
    )
    return _of_plots("response", "Response to the weight", text, drawn, (tables.response(findings),))


def _arms(findings: Findings) -> Section | None:
    if not findings.sweep.arms:
        return None
    text = ("Test scores are those of the best dev epoch. They are not used for any decision.",)
    folded = tuple(
        table for table in (tables.means(findings), tables.scores(findings)) if table is not None and table.rows
    )
    return Section("arms", "Arms", text, tables=(tables.arms(findings),), folded=folded)


def _left_out(findings: Findings) -> Section | None:
    left_out = findings.sweep.left_out
    if left_out.empty:
        return None
    text = (
        f"{len(left_out)} of {count(len(findings.sweep.runs), 'run')} could not be used, for the reasons in the "
        "table. A run is used only if it is complete and its files are intact. A pair needs both of its runs.",
    )
    return Section("left-out", "Runs left out", text, tables=(tables.left_out(findings),))


def _method(findings: Findings) -> Section:
    text = (
        "Pairs: A pair is two runs with the same seed, one of each arm. joyful gives both runs the same initial "
        "weights, batches and dropout masks, so most of the variation between seeds cancels. Calibration runs set "
        "the target and are not compared. No choice is made on the test split.",
        "Convergence speed: T is the time until the best dev score so far reaches the target. It is known to lie between two "
        "evaluations, or after the last one. The gain is exp(δ) − 1, where δ is the mean of ln(T baseline / T arm) over "
        "pairs. The mean of ln T of each arm and its limits come from the likelihood of a normal distribution that is "
        "known only to these intervals. With many evaluations the interval of δ is the paired t interval.",
        "Stability: The spread s of a curve is the standard deviation of its epoch-to-epoch changes, minus their "
        "centred 5-epoch median, without the first fifth of training. The reduction is 1 − exp(mean over pairs of "
        "ln(s arm / s baseline)). Convergence stability uses dev F1, training stability uses train NLL.",
        "Training loss and F1: The training loss is the final train NLL and the final reconstruction errors, whose "
        "units are the same in every arm. F1 is the dev weighted F1 at the best dev epoch, in points.",
        "Verdicts: The interval is the unadjusted 95 % paired t interval, or the likelihood interval of a time. It holds if the "
        "claims and the number of pairs were fixed before the first run. Otherwise it is the t confidence sequence, which holds "
        "at every number of pairs at once (Lai 1976; Wang and Ramdas 2023). A claim is "
        "supported if the lower limit is at or above the lower edge of the claimed range, contradicted if the upper limit "
        "is below this edge, and otherwise inconclusive. A claim of equivalence is supported if the whole interval lies "
        "inside the margin, and a claim that something is no worse if it lies above the margin. A claim is not testable "
        "with fewer than 6 pairs, if the units of the arms differ, if the arms differ in a setting that the claim does "
        "not cover, or if the evaluations do not bound the effect.",
        "Tests: The p-values are those of two-sided sign-flip tests of no effect and of an effect equal to the "
        "lower edge of the claimed range, and of likelihood ratio tests for times. p (Holm) is the p-value of no effect, "
        "adjusted over all testable claims. The minimum detectable effect is the smallest true effect that this many pairs "
        "detect with 80 % power. The bands of the Kaplan-Meier curves are Greenwood's log-log intervals.",
        "Files: The folder of this page contains verdicts.csv and one Parquet file per table. All formulas are in "
        "docs/CONVERGENCE_ANALYSIS.md.",
    )
    return Section("method", "Methods", text, closed=True)


def _drawn(findings: Findings, arms: Sequence[str]) -> str:
    drawn, others = len(arms) - 1, len(findings.sweep.others)
    text = f" The figures show the baseline and the {drawn} of {others} other arms with the best dev F1."
    return text if drawn < others else ""
