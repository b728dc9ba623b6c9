"""The Markdown tables of the study: verdicts, arms, scores, gradient ratios and confirmations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from joyful.analysis.claims import Claim, Verdict
from joyful.analysis.findings import Findings, compute_findings
from joyful.analysis.formatting import NONE, interval, metric, number, percent, quantity, three_digits
from joyful.analysis.page.markdown import escape, table
from joyful.analysis.sweep import Arm, Sweep
from joyful.results import InputError

#: The arms of a confirmation, in the order of its sweep. The candidates of MELD, EmoryNLP and MOSI include a moving
#: average. The last arm has the weights of the embedded data, for which there were two confirmations (study/PLAN.md).
CONFIRMED = (
    "tuned baseline",
    "weights alone",
    "weights alone averaged",
    "candidate",
    "averaging alone",
    "carried over, averaged",
)
CONFIRMED_FIRST = ("tuned baseline", "weights alone", "candidate", "candidate averaged", "averaging alone")
CONFIRMED_SECOND = ("tuned baseline", "weights alone averaged", "candidate averaged, lower rate")

#: MELD's tuned baseline and candidate with and without the warm-up, which only the search of the baseline selected.
WARMUP = (
    "tuned baseline, no warm-up",
    "tuned baseline",
    "no warm-up, averaged",
    "candidate",
    "candidate with warm-up",
    "candidate without unimodal heads",
)

#: MSE at 0.05 with the default learning rate, with averaging, and with both averaging and the tuned rate; and
#: tuned_synthetic.
FAIR = ("default rate", "default rate, averaged", "tuned rate, averaged", "tuned_synthetic")


@dataclass(frozen=True)
class Part:
    """One archive of the study.

    Attributes:
        name: Name of its file, without suffix.
        title: Name in the tables.
        note: Whether it has the two arms of the note.
        arms: Names of its arms in the order of the sweep; empty: loss and weight name them.
        confirms: Whether it compares tuned settings with the tuned baseline, its first arm, on fresh seeds.
        performance: Whether it is about the performance of joyful. Such a part has a block in docs/PERFORMANCE.md and
            no line in the tables of the study.
        fair: Whether it belongs to the second plan (study/FAIR_PLAN.md), which has claims and tables of its own.
    """

    name: str
    title: str
    note: bool = True
    arms: tuple[str, ...] = ()
    confirms: bool = False
    performance: bool = False
    fair: bool = False

    @property
    def explains(self) -> bool:
        """Whether it is one of `fair/parts_*`, which explain and decide nothing."""
        return self.name.startswith("fair_parts_")


def _confirmation(name: str, title: str, arms: tuple[str, ...] = CONFIRMED) -> Part:
    return Part(f"confirm_{name}", title, note=False, arms=arms, confirms=True)


#: The arms of the second plan's sweeps, in their order.
FAIR_NOTE = ("default", "the note", "averaged", "contrast 0.025", "contrast 0.025, averaged")
FAIR_CONFIRM = ("tuned baseline", "default", "default, averaged", "tuned, contrast 0.025", "candidate")

#: Dataset -> the arms of its sweep `fair/parts_*`: the candidate, and the candidate without one of its settings.
FAIR_WITHOUT: dict[str, tuple[str, ...]] = {
    "synthetic": (
        "candidate", "learning rate", "warm-up", "encoder weight", "contrast weight", "gate weight", "MSE", "NLL", "no average",
    ),
    "meld": ("candidate", "learning rate", "encoder weight", "contrast weight", "gate weight", "NLL", "no average"),
    "emorynlp": (
        "candidate", "learning rate", "warm-up", "encoder weight", "contrast weight", "gate weight", "fixed weighting",
        "unimodal heads", "no average",
    ),
    "mosi": (
        "candidate", "learning rate", "warm-up", "batch", "encoder weight", "contrast weight", "gate weight", "fixed weighting",
        "no average",
    ),
}  # fmt: skip

#: Dataset -> its title.
DATASETS = {"synthetic": "Synthetic", "meld": "MELD", "emorynlp": "EmoryNLP", "mosi": "MOSI"}


def _fair(kind: str, arms: Mapping[str, tuple[str, ...]]) -> list[Part]:
    return [
        Part(f"fair_{kind}_{name}", title, note=False, arms=arms[name], fair=True)
        for name, title in DATASETS.items()
        if name in arms
    ]


#: Parts in the order of the tables. Those without an archive are left out.
PARTS = (
    Part("synthetic", "Synthetic"),
    Part("meld", "MELD"),
    Part("emorynlp", "EmoryNLP"),
    Part("mosi", "MOSI"),
    Part("reference", "Synthetic, reference size"),
    Part("synthetic_legacy", "Synthetic, legacy_sum"),
    Part("meld_legacy", "MELD, legacy_sum"),
    Part("synthetic_force", "Synthetic, equal force", note=False),
    Part("meld_warmup", "MELD, warm-up", note=False, arms=WARMUP),
    _confirmation("synthetic", "Synthetic, confirmation", CONFIRMED_FIRST),
    _confirmation("synthetic_second", "Synthetic, second confirmation", CONFIRMED_SECOND),
    _confirmation("meld", "MELD, confirmation"),
    _confirmation("emorynlp", "EmoryNLP, confirmation"),
    _confirmation("mosi", "MOSI, confirmation"),
    Part("fair_synthetic", "Synthetic, fair baseline", note=False, arms=FAIR),
    *_fair("note", dict.fromkeys(DATASETS, FAIR_NOTE)),
    *_fair("confirm", dict.fromkeys(DATASETS, FAIR_CONFIRM) | {"mosi": (*FAIR_CONFIRM, "tuned_mosi")}),
    Part(
        "fair_confirm_synthetic_second",
        "Synthetic, second",
        note=False,
        arms=("tuned baseline", "candidate, NLL"),
        fair=True,
    ),
    *_fair("parts", FAIR_WITHOUT),
    Part("precision", "Synthetic, bfloat16", note=False, arms=("float32", "bfloat16"), performance=True),
)

#: Claims in the order of the tables, with the metric of each verdict. A claim of several metrics has several lines.
MEASURES = (
    ("convergence_speed", "epochs to the target"),
    ("convergence_stability", "spread of dev F1"),
    ("training_stability", "spread of train NLL"),
    ("training_loss", "final train NLL"),
    ("training_loss", "final train reconstruction MSE"),
    ("training_loss", "final train reconstruction MAE"),
    ("training_loss", "final train total loss"),
    ("f1", "best dev F1"),
)

Studies = dict[Part, Findings]


def plan_name(arm: Arm) -> str:
    """Return the name of an arm in study/PLAN.md, for example "MSE 0.05", "full plan" or "no reconstruction"."""
    weight = arm.config.get("weights.encoder_loss_weight")
    if arm.config.get("weighting.name") == "adaptive":
        return "full plan"
    if weight == 0:
        return "no reconstruction"
    loss = {"mse": "MSE", "smoothl1": "SmoothL1"}.get(
        str(arm.config.get("loss.name")), str(arm.config.get("loss.name"))
    )
    return f"{loss} {weight:g}"


def note_arm(findings: Findings) -> str:
    """Return the name of the note's arm: SmoothL1 with encoder weight 0.03.

    Raises:
        InputError: If there is no such arm.
    """
    for arm in findings.sweep.others:
        weight = arm.config.get("weights.encoder_loss_weight")
        if arm.config.get("loss.name") == "smoothl1" and weight == 0.03:
            return arm.name
    raise InputError(f"{findings.sweep.path.name}: expected an arm with SmoothL1 and encoder weight 0.03, got none")


def verdicts_of(findings: Findings, arm: str) -> dict[tuple[str, str], Verdict]:
    """Return the verdicts of an arm by claim and metric, named as in MEASURES."""
    names = {
        "epochs to the target of dev f1_weighted": "epochs to the target",
        "epoch-to-epoch spread of dev f1_weighted": "spread of dev F1",
        "epoch-to-epoch spread of train nll": "spread of train NLL",
        "best dev f1_weighted": "best dev F1",
    }
    return {
        (v.claim.name, names.get(v.metric.label, metric(v.metric.label))): v for v in findings.verdicts if v.arm == arm
    }


def verdict_table(studies: Studies) -> str:
    """Return the verdicts on the note's claims: a line for each claim and metric, and a column for each part."""
    parts = [part for part in studies if part.note]
    rows = []
    for claim, measure in MEASURES:
        cells, claimed = [], ""
        for part in parts:
            verdict = verdicts_of(studies[part], note_arm(studies[part])).get((claim, measure))
            cells.append(_cell(verdict))
            if verdict is not None:
                claimed = _claimed(verdict)
        rows.append([f"{claim.replace('_', ' ')}: {measure}", claimed, *cells])
    return table(["claim: measure", "claimed", *(part.title for part in parts)], rows)


#: The main comparisons, which are the columns of the summary.
MAIN = ("synthetic", "meld", "emorynlp", "mosi")


def summary_table(studies: Studies) -> str:
    """Return the summary: a line for each claim of the note, by its first metric, and a column for each dataset."""
    parts = [part for part in studies if part.name in MAIN]
    rows = []
    for claim, measure in (MEASURES[index] for index in (0, 1, 2, 3, -1)):
        verdicts = [verdicts_of(studies[part], note_arm(studies[part])).get((claim, measure)) for part in parts]
        claimed = next((_claimed(verdict) for verdict in verdicts if verdict is not None), NONE)
        cells = [f"{verdict.verdict}: {effect_text(verdict)}" if verdict is not None else NONE for verdict in verdicts]
        rows.append([measure, claimed, *cells])
    return table(["measure", "claimed", *(part.title for part in parts)], rows)


def arms_table(findings: Findings) -> str:
    """Return the arms of a part with their encoder gradient ratios and their effects against the baseline."""
    ratios = findings.tables["arm_gradient_ratio"].set_index("arm")
    columns = [
        "arm",
        "gradient ratio",
        "speed",
        "steadier dev F1",
        "steadier train NLL",
        "train NLL lower",
        "dev F1, points",
        "test F1, points",
    ]
    chosen = [MEASURES[index] for index in (0, 1, 2, 3, -1)]
    rows = []
    for arm in findings.sweep.arms:
        ratio = three_digits(ratios["ratio"].get(arm.name)) if arm.name in ratios.index else _no_ratio(arm)
        if arm.is_baseline:
            rows.append([escape(arm.name), ratio, *["baseline"] * 6])
            continue
        known = verdicts_of(findings, arm.name)
        effects = [effect_text(known.get(key)) for key in chosen]
        rows.append([escape(arm.name), ratio, *effects, _test(known.get(MEASURES[-1]))])
    return table(columns, rows)


def confirmation_table(studies: Studies) -> str:
    """Return the tuned settings against the tuned baseline on fresh seeds, and whether each passes the plan's rule."""
    rows = []
    for part, findings in studies.items():
        if not part.confirms:
            continue
        runs = findings.sweep.runs
        seeds = runs.loc[runs["used"] & (runs["role"] == "comparison"), "seed"]
        compared = f"{seeds.min()} to {seeds.max()}"
        for arm in [arm.name for arm in findings.sweep.others]:
            known = verdicts_of(findings, arm)
            speed, spread, f1 = (known.get(MEASURES[index]) for index in (0, 1, -1))
            effects = [effect_text(verdict) for verdict in (speed, spread, f1)]
            works = "**yes**" if works_by_plan(speed, spread, f1) else "no"
            rows.append([part.title.partition(",")[0], compared, arm, *effects, _test(f1), works])
    columns = [
        "data",
        "seeds",
        "setting",
        "faster to the target",
        "steadier dev F1",
        "dev F1, points",
        "test F1, points",
        "passes the rule",
    ]
    return table(columns, rows)


#: Part -> the preset, its arm, and baselines that may use the same learning rate, warm-up and averaging.
FAIR_COMPARISONS = {
    "fair_synthetic": ("tuned_synthetic", "tuned_synthetic", FAIR[:3]),
    "meld_warmup": ("tuned_meld", "candidate", ("tuned baseline, no warm-up", "no warm-up, averaged")),
}


def fair_table(studies: Studies, claims: Sequence[Claim]) -> str:
    """Return the presets against fairer baselines: with a better learning rate, without warm-up, or with averaging."""
    rows = []
    for part, findings in studies.items():
        if part.name not in FAIR_COMPARISONS:
            continue
        preset, name, baselines = FAIR_COMPARISONS[part.name]
        for baseline in baselines:
            known = verdicts_of(against(findings, baseline, claims), name)
            speed, spread, f1 = (known.get(MEASURES[index]) for index in (0, 1, -1))
            effects = [effect_text(verdict) for verdict in (speed, spread, f1)]
            pairs = str(speed.n_pairs) if speed is not None else NONE
            rows.append([part.title.partition(",")[0], preset, baseline, pairs, *effects, _test(f1)])
    columns = [
        "data",
        "setting",
        "against",
        "pairs",
        "faster to the target",
        "steadier dev F1",
        "dev F1, points",
        "test F1, points",
    ]
    return table(columns, rows)


def against(findings: Findings, baseline: str, claims: Sequence[Claim]) -> Findings:
    """Return the findings of a sweep against another of its arms, with the same target."""
    return compute_findings(
        as_baseline(findings.sweep, baseline), claims, findings.target, rng=np.random.default_rng(0)
    )


def as_baseline(sweep: Sweep, baseline: str) -> Sweep:
    """Return a sweep with another of its arms as the baseline."""
    arms = sorted(sweep.arms, key=lambda arm: arm.name != baseline)
    return replace(sweep, arms=tuple(replace(arm, is_baseline=arm.name == baseline) for arm in arms))


#: Claims of study/fair_claims.yaml in the order of the columns.
FAIR_CLAIMS = ("convergence_speed", "convergence_stability", "f1_gain", "f1_no_loss")


def verdicts_by_claim(findings: Findings, arm: str) -> dict[str, Verdict]:
    """Return the verdicts of an arm on the claims of study/fair_claims.yaml, which have one metric each, by claim."""
    return {v.claim.name: v for v in findings.verdicts if v.arm == arm}


def fair_verdict_table(studies: Studies) -> str:
    """Return the verdicts of parts of the second plan: a line for each arm, and a column for each claim."""
    rows = []
    for part, findings in studies.items():
        for arm in findings.sweep.others:
            known = verdicts_by_claim(findings, arm.name)
            pairs = max((v.n_pairs for v in known.values()), default=0)
            cells = [_cell(known.get(name)) for name in FAIR_CLAIMS]
            rows.append(
                [
                    part.title,
                    arm.name,
                    findings.sweep.arms[0].name,
                    str(pairs),
                    *cells,
                    "**yes**" if works(known) else "no",
                ]
            )
    columns = [
        "data",
        "arm",
        "against",
        "pairs",
        "15 % faster",
        "30 % steadier",
        "dev F1 1 point higher",
        "dev F1 less than half a point lower",
    ]
    return table([*columns, "works"], rows)


def fair_parts_table(studies: Studies) -> str:
    """Return the effect of taking one setting from the candidate of the second plan. It has no verdicts, as planned."""
    rows = []
    for part, findings in studies.items():
        for arm in findings.sweep.others:
            known = verdicts_by_claim(findings, arm.name)
            speed, spread, f1 = (known[name] for name in FAIR_CLAIMS[:3])
            effects = [effect_text(verdict) for verdict in (speed, spread, f1)]
            rows.append([part.title, arm.name, str(f1.n_pairs), *effects, _test(f1)])
    columns = ["faster to the target", "steadier dev F1", "dev F1, points", "test F1, points"]
    return table(["data", "as in the tuned baseline", "pairs", *columns], rows)


def works(known: Mapping[str, Verdict]) -> bool:
    """Return whether settings work by study/FAIR_PLAN.md: faster, steadier and no loss of F1 are all supported.

    Args:
        known: Claim of study/fair_claims.yaml -> its verdict.
    """
    needed = (FAIR_CLAIMS[0], FAIR_CLAIMS[1], FAIR_CLAIMS[3])
    return all(name in known and known[name].verdict == "supported" for name in needed)


def works_by_plan(speed: Verdict | None, spread: Verdict | None, f1: Verdict | None) -> bool:
    """Return whether a setting passes the rule of study/PLAN.md, "Settings that work".

    The setting must be at least 15 % faster, with a spread at least 30 % smaller. Both intervals must exclude 0, and
    the interval of F1 must not lie below 0.
    """
    if speed is None or spread is None or f1 is None:
        return False
    gains = speed.estimate >= 15 and speed.low > 0 and spread.estimate >= 30 and spread.low > 0
    return bool(gains and f1.high >= 0)


def sizes_table(studies: Studies) -> str:
    """Return the smallest effect that the pairs distinguish from zero, and the number of pairs that a verdict needs."""
    parts = [part for part in studies if part.note]
    rows = []
    for claim, measure in MEASURES:
        cells = []
        for part in parts:
            verdict = verdicts_of(studies[part], note_arm(studies[part])).get((claim, measure))
            if verdict is None or pd.isna(verdict.minimum_detectable):
                cells.append(NONE)
                continue
            needed = NONE if verdict.pairs_needed is None else f"{verdict.pairs_needed:,}".replace(",", " ")
            cells.append(f"{quantity(verdict.minimum_detectable, verdict.claim.unit)}; {needed} pairs")
        rows.append([f"{claim.replace('_', ' ')}: {measure}", *cells])
    return table(["claim: measure", *(part.title for part in parts)], rows)


def scores_table(studies: Studies) -> str:
    """Return the target, the share of seeds that reach it, and the scores.

    A part of the note has lines for the baseline and the note's arm. Other parts have a line for each arm.
    """
    rows = []
    for part, findings in studies.items():
        scores = findings.tables["scores"]
        arms = [arm.name for arm in findings.sweep.arms]
        for arm in [arms[0], note_arm(findings)] if part.note else arms:
            mine = scores[scores["arm"] == arm]
            target = findings.target.value if findings.target is not None else float("nan")
            rows.append(
                [
                    part.title, escape(arm), str(len(mine)), percent(target), percent(mine["reached"].mean(), 0),
                    number(mine["epochs_to_target"].median(), 2), percent(mine["dev_f1"].mean(), 2),
                    percent(mine["test_f1"].mean(), 2), number(100 * mine["f1_spread"].mean(), 2),
                ]
            )  # fmt: skip
    columns = [
        "data",
        "arm",
        "seeds",
        "target",
        "reached",
        "epochs (median)",
        "best dev F1",
        "test F1 there",
        "spread, points",
    ]
    return table(columns, rows)


def gradient_ratio_table(studies: Studies) -> str:
    """Return the encoder gradient ratio, the cosine of the gradients, and the encoder's share of the final loss."""
    rows = []
    for part, findings in studies.items():
        places = findings.tables["arm_gradient_ratio"].set_index("arm")
        curves = findings.tables["curves"]
        for arm in findings.sweep.arms:
            place = places.loc[arm.name].to_dict() if arm.name in places.index else None
            share = curves[(curves["metric"] == "share_encoder") & (curves["arm"] == arm.name)]
            last = share.sort_values("x")["mean"].iloc[-1] if len(share) else float("nan")
            ratio = (
                _no_ratio(arm)
                if place is None
                else f"{three_digits(place['ratio'])} ({three_digits(place['ratio_low'])} to {three_digits(place['ratio_high'])})"
            )
            cosine = NONE if place is None else number(place["cosine"], 2)
            rows.append([part.title, escape(arm.name), ratio, cosine, percent(last, 2)])
    columns = [
        "data",
        "arm",
        "gradient ratio, encoder to classification (95 %)",
        "cosine",
        "share of the total loss at the end",
    ]
    return table(columns, rows)


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return NONE
    if pd.isna(verdict.estimate):
        return f"**{verdict.verdict}**"
    detail = f", {verdict.detail}" if verdict.detail in ("real but smaller", "reversed", "more than claimed") else ""
    return f"**{verdict.verdict}**{detail}<br>{effect_text(verdict)}"


def effect_text(verdict: Verdict | None) -> str:
    """Format the effect of a verdict with its interval."""
    if verdict is None or pd.isna(verdict.estimate):
        return NONE
    unit = verdict.claim.unit
    digits = 2 if unit == "points" else 1
    between = interval(verdict.low, verdict.high, unit, digits)
    return f"{number(verdict.estimate, digits, signed=True)} ({between})"


def _test(verdict: Verdict | None) -> str:
    """Format the effect on test F1 at the best dev epoch, a secondary measure of the verdict on F1."""
    for secondary in verdict.secondary if verdict is not None else ():
        if "test" in secondary.name and not pd.isna(secondary.estimate):
            return (
                f"{number(secondary.estimate, 2, signed=True)} ({interval(secondary.low, secondary.high, 'points', 2)})"
            )
    return NONE


def _no_ratio(arm: Arm) -> str:
    """Return the gradient ratio of an arm without recorded values: 0 if the reconstruction has no weight."""
    return "0" if arm.config.get("weights.encoder_loss_weight") == 0 else NONE


def _claimed(verdict: Verdict) -> str:
    claim = verdict.claim
    sign = "−" if claim.direction == "decrease" else "+"
    return f"{sign}{claim.lower:g} to {quantity(claim.upper, claim.unit, 0)}"
