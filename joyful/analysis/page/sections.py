"""The chapters of the page, each from the findings alone; a chapter without anything to show is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from joyful.analysis import plots
from joyful.analysis.claims import Verdict
from joyful.analysis.findings import COMPONENTS, Findings
from joyful.analysis.formatting import count
from joyful.analysis.page import tables
from joyful.analysis.page.parts import Section, clean
from joyful.analysis.page.summary import level, source
from joyful.analysis.plots import losses, study
from joyful.analysis.plots.style import MOST_LINES

#: Arms that get a panel of shares each.
_MOST_SHARES = 4


def sections(findings: Findings) -> tuple[Section, ...]:
    """Every chapter that has something to show, in the order of the page."""
    arms = drawn_arms(findings)
    ordered = [*arms, *(arm.name for arm in findings.sweep.arms if arm.name not in arms)]  # colours by place
    built = (
        _verdicts(findings),
        _effects(findings, ordered),
        _curves(findings, arms),
        _speed(findings, arms),
        _stability(findings, ordered),
        _losses(findings, arms),
        _felt(findings, arms, ordered),
        _response(findings),
        _study(findings),
        _arms(findings),
        _left_out(findings),
        _method(findings),
    )
    return tuple(section for section in built if section is not None)


def drawn_arms(findings: Findings) -> list[str]:
    """The arms that curves show: all, or the baseline and those with the best dev F1, as many as can be told apart."""
    sweep = findings.sweep
    names = [arm.name for arm in sweep.arms]
    if len(names) <= MOST_LINES:
        return names
    scores = findings.tables["scores"]
    if "dev_f1" not in scores:
        return names[:MOST_LINES]
    mean = scores.groupby("arm", observed=True)["dev_f1"].mean().to_dict()
    best = sorted(names[1:], key=lambda name: -_sortable(mean.get(name, math.nan)))[: MOST_LINES - 1]
    return [names[0], *(name for name in names[1:] if name in best)]


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _verdicts(findings: Findings) -> Section | None:
    if not findings.verdicts:
        return None
    text = (
        "An effect is positive where it goes the way the claim says. The verdict follows from the 95 % interval alone: "
        "supported where all of it lies at or above the lower edge of the claim, contradicted where all of it lies below; "
        "the p-values stand beside it.",
    )
    folded = [tables.pairs(findings), tables.secondary(findings)]
    return Section(
        "verdicts",
        "Verdicts",
        text,
        tables=(tables.verdicts(findings),),
        folded=tuple(t for t in folded if t is not None),
    )


def _effects(findings: Findings, arms: list[str]) -> Section | None:
    many = len(findings.sweep.others) > 1
    panels: dict[tuple[str, str], list[Verdict]] = {}  # one arm: a panel for each claim; many: for each of its metrics
    for verdict in findings.verdicts:
        panels.setdefault((verdict.claim.name, verdict.metric if many else ""), []).append(verdict)
    drawn = [
        plots.forest(verdicts, f"effect-{number}", arms)
        for number, verdicts in enumerate(panels.values(), start=1)
        if any(math.isfinite(verdict.estimate) for verdict in verdicts)
    ]
    if not drawn:
        return None
    text = (
        "Small marks are pairs, the diamond is their mean with its 95 % interval. The shaded band is the claimed range; the "
        "grey bar around zero holds the effects that this many pairs could not have been expected to show (80 % power).",
    )
    return Section("effects", "Paired differences", text, tuple(drawn))


def _curves(findings: Findings, arms: list[str]) -> Section | None:
    target = findings.target
    drawn = []
    band = findings.band("f1_weighted", "dev")
    if len(band):
        height = target.value if target is not None and target.metric == "f1_weighted" else None
        drawn.append(
            plots.learning_curves(
                band, arms, name="dev-f1", quantity="dev weighted F1", scale=100, unit="%", target=height
            )
        )
    for column, split, words in (
        ("nll", "dev", "dev NLL"),
        ("nll", "train", "train NLL"),
        ("recon_mse", "train", "train reconstruction MSE"),
    ):
        band = findings.band(column, split)
        if len(band):
            unit = "nats" if column == "nll" else ""
            drawn.append(
                plots.learning_curves(band, arms, name=f"{split}-{column}".replace("_", "-"), quantity=words, unit=unit)
            )
    if not drawn:
        return None
    text = (
        "Mean over seeds with its pointwise 95 % t interval."
        f"{' Bands that overlap do not mean that arms are equal: the pairs decide, above.' * bool(findings.verdicts)}"
        f"{_drawn(findings, arms)}",
    )
    return Section("curves", "Learning curves", text, tuple(drawn))


def _speed(findings: Findings, arms: list[str]) -> Section | None:
    survival, reach, target = findings.tables["survival"], findings.tables["reach"], findings.target
    if target is None or survival.empty:
        return None
    words = level(target)
    plot = plots.time_to_target(
        survival, reach.set_index("arm"), arms, name="time-to-target", target=words, budget=findings.sweep.budget
    )
    text = (
        f"Target: {words} ({source(target)}). A run that never reached it is censored at its budget (+), not dropped.",
    )
    return Section("speed", "Time to target", text, (plot,), (tables.reach(findings),))


def _stability(findings: Findings, arms: list[str]) -> Section | None:
    scores = findings.tables["scores"]
    drawn = []
    for column, name, title, axis, scale in (
        ("f1_spread", "spread-f1", "Spread of dev F1 from epoch to epoch (points)", "points per epoch", 100.0),
        ("nll_spread", "spread-nll", "Spread of train NLL from epoch to epoch (nats)", "nats per epoch", 1.0),
        ("f1_drawdown", "drawdown-f1", "Largest drawdown of dev F1 (points)", "points", 100.0),
    ):
        if column in scores and scores[column].notna().any():
            values = scores.set_index(["arm", "seed"])[column] * scale
            geometric = column != "f1_drawdown"
            drawn.append(plots.strips(values, arms, name=name, title=title, axis=axis, geometric=geometric))
    if not drawn:
        return None
    text = (
        "Spread: the standard deviation of the epoch-to-epoch changes of a curve beside its own 5-epoch median, the first "
        "fifth of training left out. Less is steadier. With two arms, lines join the runs of a pair.",
    )
    return Section("stability", "Stability", text, tuple(drawn))


def _losses(findings: Findings, arms: list[str]) -> Section | None:
    drawn = [
        plots.component(findings.band(f"loss_{part}", "train"), arms, part)
        for part in COMPONENTS
        if len(findings.band(f"loss_{part}", "train"))
    ]
    bands = {part: findings.band(f"share_{part}", "train") for part in COMPONENTS}
    bands = {part: band for part, band in bands.items() if len(band)}
    if bands:
        drawn += [
            losses.shares(bands, arm, f"shares-{number_}") for number_, arm in enumerate(arms[:_MOST_SHARES], start=1)
        ]
    if not drawn:
        return None
    text = (
        "Each part of the trained loss before its weight, and its share of the weighted total. Arms with different "
        "reconstruction losses train different units (SmoothL1 is half of MSE near zero), so their reconstruction losses and "
        "totals cannot be compared here: that is what the reconstruction MSE above is for.",
    )
    return Section("losses", "Loss components and shares", text, tuple(drawn))


def _felt(findings: Findings, arms: list[str], ordered: list[str]) -> Section | None:
    over, places = findings.tables["gradient_ratio"], findings.tables["arm_gradient_ratio"]
    if over.empty and places.empty:
        return None
    drawn = []
    if len(places):
        drawn.append(plots.arms_by_ratio(places, ordered))
    if len(over):
        drawn += [plots.ratio_over_training(over, arms), plots.cosine_over_training(over, arms)]
    text = (
        "The weighted reconstruction gradient divided by the classification gradient, on the parameters that both move, taken "
        "on one fixed training batch: 0.01 says that the reconstruction pulls with a hundredth of the force. It puts every "
        "loss and weight on one axis. The cosine says whether both pull the same way (1), across (0) or against each other (−1).",
    )
    return Section(
        "gradient-ratio", "Encoder gradient ratio", text, tuple(drawn), folded=(tables.gradient_ratios(findings),)
    )


def _response(findings: Findings) -> Section | None:
    response = findings.tables["response"]
    if response.empty:
        return None
    drawn = [
        plots.response_curve(response, str(factor), str(measure))
        for factor in dict.fromkeys(response["factor"])
        for measure in dict.fromkeys(response.loc[response["factor"] == factor, "measure"])
    ]
    text = (
        "What changes with the weight, per loss: mean over seeds with its 95 % t interval. Hollow marks: over half of the "
        "runs never reached the target, so the time is a lower bound.",
    )
    return Section("response", "Response to the weight", text, tuple(drawn), folded=(tables.response(findings),))


def _study(findings: Findings) -> Section | None:
    found = findings.study
    if found is None:
        return None
    drawn = []
    if len(found.trials):
        drawn.append(study.history(found.trials, "best dev weighted F1", found.maximise))
    if len(found.importances):
        drawn.append(study.importances(found.importances))
    text = [f"Study {clean(found.name)}."] if found.name else []
    if drawn:
        text.append(
            "A search looks for a good setting; its trials share no seeds on purpose, so nothing here compares arms. "
            "Importances are PED-ANOVA's over completed trials."
        )
    if found.note:
        text.append(clean(found.note))
    folded = (tables.trials(findings),) if len(found.trials) else ()
    return Section("study", "The search (Optuna)", tuple(text), tuple(drawn), folded=folded)


def _arms(findings: Findings) -> Section | None:
    if not findings.sweep.arms:
        return None
    text = ("What the arms are, and what came out. Test scores are read at the best dev epoch and decide nothing.",)
    return Section("arms", "Arms", text, tables=(tables.arms(findings),), folded=(tables.scores(findings),))


def _left_out(findings: Findings) -> Section:
    left_out = findings.sweep.left_out
    if left_out.empty:
        return Section("left-out", "Runs left out", ("Every run of the sweep was used.",))
    text = (
        f"{count(len(left_out), 'run')} of {len(findings.sweep.runs)} could not be used: a run counts only when it is "
        "complete and its files are what was written. A pair needs both of its runs.",
    )
    return Section("left-out", "Runs left out", text, tables=(tables.left_out(findings),))


def _method(findings: Findings) -> Section:
    text = (
        "Pairs: two runs, one of each arm, with the same seed; joyful gives them the same initial weights, batches and "
        "dropout masks, so most of the luck cancels. Calibration runs set the target and are never compared. Nothing is "
        "chosen on the test split.",
        "Convergence speed: epochs T until the best-so-far dev score reaches the target; gain = exp(mean over pairs of "
        "ln(T baseline / T arm)) − 1; a run that never reaches it counts with T = its budget.",
        "Stability: the spread s of a curve is the standard deviation of its epoch-to-epoch changes after the first fifth of "
        "training, less their centred 5-epoch median; reduction = 1 − exp(mean over pairs of ln(s arm / s baseline)). "
        "Convergence stability takes dev F1, training stability the train NLL.",
        "Training loss: the final train NLL and reconstruction errors, which mean the same in every arm. F1: points of dev "
        "weighted F1 at the best dev epoch.",
        "Interval: 95 % paired t, unadjusted. Supported: its lower end reaches the claim's lower edge. Contradicted: its upper "
        "end stays below that edge. Otherwise inconclusive; not testable below 6 pairs, where units differ, or where over half "
        "of the times of an arm are censored.",
        "p-values: exact sign-flip tests of no difference and of the claim's lower edge; Holm adjusts the first over all "
        "claims. Smallest effect: what this many pairs show with 80 % power. Kaplan-Meier bands are log-log Greenwood's. "
        "Beside this page: verdicts.csv, and a Parquet file for each table. All formulas: docs/CONVERGENCE_ANALYSIS.md.",
    )
    return Section("method", "How the numbers are made", text)


def _drawn(findings: Findings, arms: Sequence[str]) -> str:
    total = len(findings.sweep.arms)
    return f" Drawn are the baseline and the {len(arms) - 1} of {total - 1} arms with the best dev F1." * (
        len(arms) < total
    )
