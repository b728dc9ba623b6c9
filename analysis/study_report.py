"""The study's report: every table and figure of docs/CONVERGENCE_ANALYSIS.md from the archives in analysis/study/, untrained.

    python -m analysis.study_report [--out FOLDER] [--check]

Each archive is unpacked and reported as any sweep is (`analysis.report`); what stands between a pair of comments
`<!-- study: NAME -->` and `<!-- end of study: NAME -->` in the document is written anew, the figures beside it in docs/images/,
and the verdicts in README.md and README.zh.md.
--check writes nothing and says what would change.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis import archive, report
from analysis.claims import Verdict
from analysis.findings import Findings
from analysis.page.markdown import escape
from analysis.plots import Plot, forest, learning_curves
from analysis.sweep import Arm
from analysis.words import NONE, interval, metric, number, percent, quantity, small
from joyful.results import InputError, ResultsError, write_bytes

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = ROOT / "analysis/study"
CLAIMS = ARCHIVES / "claims.yaml"
DOCUMENT = ROOT / "docs/CONVERGENCE_ANALYSIS.md"
IMAGES = ROOT / "docs/images"

#: Documents that show the verdicts alone.
FRONT = (ROOT / "README.md", ROOT / "README.zh.md")


@dataclass(frozen=True)
class Part:
    """One archive of the study. name: of its file. title: as the tables name it. note: whether it has the note's two arms."""

    name: str
    title: str
    note: bool = True


#: In the order of the tables; an archive that is not there yet is left out.
PARTS = (
    Part("synthetic", "Synthetic"),
    Part("meld", "MELD"),
    Part("emorynlp", "EmoryNLP"),
    Part("mosi", "MOSI"),
    Part("reference", "Synthetic, reference size"),
    Part("synthetic_legacy", "Synthetic, legacy_sum"),
    Part("meld_legacy", "MELD, legacy_sum"),
)

#: Claims in the order of the tables, with the metric that decides each (a claim of several metrics has a line for each).
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


def read(folder: Path) -> Studies:
    """The findings of every archive that is there. folder: where they are unpacked, kept until the pages are made."""
    found: Studies = {}
    for part in PARTS:
        file = ARCHIVES / f"{part.name}.parquet"
        if file.is_file():
            archive.unpack(file, folder / part.name)
            found[part] = named(report.build(folder / part.name, CLAIMS)[0])
    if not found:
        raise InputError(
            f"{ARCHIVES}: expected archives of the study's sweeps, found none; python -m analysis.archive pack writes them"
        )
    return found


def named(findings: Findings) -> Findings:
    """The same findings, with the names that the plan gives its arms: a report names every setting that differs, which is long."""
    names = {arm.name: plan_name(arm) for arm in findings.sweep.arms}

    def of_plan(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(arm=table["arm"].map(lambda name: names.get(name, name))) if "arm" in table else table

    arms = tuple(replace(arm, name=names[arm.name]) for arm in findings.sweep.arms)
    sweep = replace(findings.sweep, arms=arms, frame=of_plan(findings.sweep.frame), runs=of_plan(findings.sweep.runs))
    verdicts = [replace(v, arm=names[v.arm], baseline=names[v.baseline]) for v in findings.verdicts]
    tables = {name: of_plan(table) for name, table in findings.tables.items()}
    return replace(findings, sweep=sweep, verdicts=verdicts, tables=tables)


def plan_name(arm: Arm) -> str:
    """An arm as docs/STUDY.md calls it: the loss with its encoder weight, or what else it is."""
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
    """The arm of the note: SmoothL1 at encoder weight 0.03, all else as the baseline."""
    for arm in findings.sweep.others:
        weight = arm.config.get("weights.encoder_loss_weight")
        if arm.config.get("loss.name") == "smoothl1" and weight == 0.03:
            return arm.name
    raise InputError(f"{findings.sweep.path.name}: expected an arm SmoothL1 at 0.03, found none")


def verdicts_of(findings: Findings, arm: str) -> dict[tuple[str, str], Verdict]:
    """(claim, metric as in MEASURES) -> verdict."""
    words = {
        "epochs to the target of dev f1_weighted": "epochs to the target",
        "epoch-to-epoch spread of dev f1_weighted": "spread of dev F1",
        "epoch-to-epoch spread of train nll": "spread of train NLL",
        "best dev f1_weighted": "best dev F1",
    }
    return {(v.claim.name, words.get(v.metric, metric(v.metric))): v for v in findings.verdicts if v.arm == arm}


def verdict_table(studies: Studies) -> str:
    """The note's claims against what came out: a line for each claim and metric, a column for each part."""
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
    return _table(["claim: measure", "claimed", *(part.title for part in parts)], rows)


def arms_table(findings: Findings) -> str:
    """Every arm of a part against the baseline: how much its reconstruction is felt, and the effects with their intervals."""
    felt = findings.tables["places"].set_index("arm")
    columns = [
        "arm",
        "felt",
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
        ratio = small(felt["ratio"].get(arm.name)) if arm.name in felt.index else _unfelt(arm)
        if arm.is_baseline:
            rows.append([escape(arm.name), ratio, *["baseline"] * 6])
            continue
        known = verdicts_of(findings, arm.name)
        effects = [_effect(known.get(key)) for key in chosen]
        rows.append([escape(arm.name), ratio, *effects, _test(known.get(MEASURES[-1]))])
    return _table(columns, rows)


def sizes_table(studies: Studies) -> str:
    """What could not be seen: the smallest effect that the pairs tell from zero, and the pairs that a verdict would need."""
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
    return _table(["claim: measure", *(part.title for part in parts)], rows)


def scores_table(studies: Studies) -> str:
    """Where the curves end: runs, target, share that reach it, and scores of baseline and the note's arm."""
    rows = []
    for part, findings in studies.items():
        scores = findings.tables["scores"]
        for arm in [findings.sweep.arms[0].name, *([note_arm(findings)] if part.note else [])]:
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
        "reach it",
        "epochs (median)",
        "best dev F1",
        "test F1 there",
        "spread, points",
    ]
    return _table(columns, rows)


def felt_table(studies: Studies) -> str:
    """How much the reconstruction is felt, what share of the total it has, and the gradient norms at the end of training."""
    rows = []
    for part, findings in studies.items():
        places = findings.tables["places"].set_index("arm")
        curves = findings.tables["curves"]
        for arm in findings.sweep.arms:
            place = places.loc[arm.name].to_dict() if arm.name in places.index else None
            share = curves[(curves["metric"] == "share_encoder") & (curves["arm"] == arm.name)]
            last = share.sort_values("epoch")["mean"].iloc[-1] if len(share) else float("nan")
            ratio = (
                _unfelt(arm)
                if place is None
                else f"{small(place['ratio'])} ({small(place['ratio_low'])} to {small(place['ratio_high'])})"
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
    return _table(columns, rows)


def plots_of(part: Part, findings: Findings) -> list[Plot]:
    """The figures of a part: dev F1 over training, and the five claims for the note's arm."""
    band = findings.band("f1_weighted", "dev")
    arms = [arm.name for arm in findings.sweep.arms]
    target = findings.target.value if findings.target is not None else None
    name = f"study-{part.name.replace('_', '-')}"
    plots = [
        learning_curves(
            band, arms, name=f"{name}-curves", quantity="dev weighted F1", scale=100, unit="%", target=target
        )
    ]
    for claim in ("convergence_speed", "convergence_stability"):
        chosen = [v for v in findings.verdicts if v.claim.name == claim]
        if chosen:
            plots.append(forest(chosen, f"{name}-{claim.replace('_', '-')}", arms))
    return plots


def blocks(studies: Studies) -> dict[str, str]:
    """Name -> Markdown of each part of the document that is made by this program."""
    made: dict[str, str] = {
        "verdicts": verdict_table(studies),
        "scores": scores_table(studies),
        "felt": felt_table(studies),
        "sizes": sizes_table(studies),
    }
    for part, findings in studies.items():
        lines = [arms_table(findings)] if len(findings.sweep.arms) > 2 else []
        for plot in plots_of(part, findings):
            lines.append(f"![{plot.title}: {plot.finding}](images/{plot.name}.png)")
        made[part.name] = "\n\n".join(lines)
    return made


def put(path: Path, made: dict[str, str]) -> str:
    """The document with each block in its place. Raises InputError for a block that has no place."""
    document = path.read_text()
    for name, text in made.items():
        start, end = f"<!-- study: {name} -->", f"<!-- end of study: {name} -->"
        if document.count(start) != 1 or document.count(end) != 1:
            raise InputError(f"{path.name}: expected one pair of {start} and {end} for what the study makes")
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        document = pattern.sub(lambda _, s=start, t=text, e=end: f"{s}\n{t}\n{e}", document)  # type: ignore[misc]
    return document


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return NONE
    if pd.isna(verdict.estimate):
        return f"**{verdict.verdict}**"
    detail = f", {verdict.detail}" if verdict.detail in ("real but smaller", "reversed", "more than claimed") else ""
    return f"**{verdict.verdict}**{detail}<br>{_effect(verdict)}"


def _effect(verdict: Verdict | None) -> str:
    if verdict is None or pd.isna(verdict.estimate):
        return NONE
    unit = verdict.claim.unit
    digits = 2 if unit == "points" else 1
    between = interval(verdict.low, verdict.high, unit, digits)
    return f"{number(verdict.estimate, digits, signed=True)} ({between})"


def _test(verdict: Verdict | None) -> str:
    """The test F1 at the best dev epoch, as it stands beside the verdict on F1."""
    for beside in verdict.beside if verdict is not None else ():
        if "test" in beside.name and not pd.isna(beside.estimate):
            return f"{number(beside.estimate, 2, signed=True)} ({interval(beside.low, beside.high, 'points', 2)})"
    return NONE


def _unfelt(arm: Arm) -> str:
    """The gradient ratio of an arm without one: exactly 0 where the reconstruction has no weight."""
    return "0" if arm.config.get("weights.encoder_loss_weight") == 0 else NONE


def _claimed(verdict: Verdict) -> str:
    claim = verdict.claim
    sign = "−" if claim.direction == "decrease" else "+"
    return f"{sign}{claim.lower:g} to {quantity(claim.upper, claim.unit, 0)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the study's report; returns the exit code: 0 done, 1 the disk refused or --check found a difference, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.study_report",
        description="Write the tables and figures of docs/CONVERGENCE_ANALYSIS.md anew from analysis/study/, without training.",
        epilog="Exit codes: 0 done, 1 the disk refused or --check found a difference, 2 bad input.",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also write the report of every part there")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the document is not what would be made"
    )
    parsed = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            studies = read(Path(temporary))
            made = blocks(studies)
            verdicts = {"verdicts": made["verdicts"]}
            texts = {DOCUMENT: put(DOCUMENT, made), **{path: put(path, verdicts) for path in FRONT}}
            other = [path.name for path, text in texts.items() if path.read_text() != text]
            if parsed.check:
                print(
                    f"{', '.join(other)}: not what the archives give; make study-report" if other else "as it is made"
                )
                return 1 if other else 0
            for path, text in texts.items():
                write_bytes(path, text.encode())
            for part, findings in studies.items():
                for plot in plots_of(part, findings):
                    IMAGES.mkdir(exist_ok=True)
                    write_bytes(IMAGES / f"{plot.name}.png", plot._repr_png_())
                if parsed.out is not None:
                    print(report.write(findings, report.make_page(findings), parsed.out / part.name))
    except (InputError, ResultsError) as error:
        print(f"analysis.study_report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"{DOCUMENT.name}: {', '.join(part.title for part in studies)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
