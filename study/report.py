"""The report of the study: all tables and figures of study/RESULTS.md from study/archives/, without training.

    python -m study.report [--out FOLDER] [--check]

The program unpacks each archive and analyses it like any other sweep (`joyful.analysis.report`). It replaces the text
between each pair of comments `<!-- study: NAME -->` and `<!-- end of study: NAME -->` in study/RESULTS.md, writes the
figures to study/images/, and updates the summary in README.md and README.zh.md, docs/what-the-weights-do.md, and the
comparison of float32 with bfloat16 in docs/PERFORMANCE.md. With --check it writes nothing, and lists the documents
that would change.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from joyful.analysis import report
from joyful.analysis.claims import read_claims
from joyful.analysis.findings import Findings, compute_findings
from joyful.analysis.plots import Plot, forest, learning_curves
from joyful.results import InputError, ResultsError, write_bytes
from study import archive, explanation, reanalysis
from study.searches import finalists_table, searches_table
from study.tables import (
    FAIR_COMPARISONS,
    PARTS,
    Part,
    Studies,
    arms_table,
    confirmation_table,
    fair_parts_table,
    fair_table,
    fair_verdict_table,
    gradient_ratio_table,
    plan_name,
    scores_table,
    sizes_table,
    summary_table,
    verdict_table,
)

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = ROOT / "study/archives"
CLAIMS = ROOT / "study/claims.yaml"
FAIR_CLAIMS = ROOT / "study/fair_claims.yaml"
DOCUMENT = ROOT / "study/RESULTS.md"
IMAGES = ROOT / "study/images"

#: Document of the parts about performance.
PERFORMANCE = ROOT / "docs/PERFORMANCE.md"

#: Page of study.explanation.
EXPLANATION = ROOT / "docs/what-the-weights-do.md"

#: Documents with a summary of the verdicts.
FRONT = (ROOT / "README.md", ROOT / "README.zh.md")


def read(folder: Path) -> Studies:
    """Analyse every archive that exists.

    Args:
        folder: Folder to unpack the archives in. Keep it until the pages are written.

    Returns:
        Findings by part.

    Raises:
        InputError: If there is no archive.
    """
    studies: Studies = {}
    for part in PARTS:
        file = ARCHIVES / f"{part.name}.parquet"
        if file.is_file():
            archive.unpack(file, folder / part.name)
            findings = report.build(folder / part.name, FAIR_CLAIMS if part.fair else CLAIMS)[0]
            studies[part] = rename_arms(with_fixed_pairs(findings) if part.explains else findings, part)
    if not studies:
        raise InputError(
            f"{ARCHIVES}: expected archives of the study's sweeps, found none; run python -m study.archive pack"
        )
    return studies


def with_fixed_pairs(findings: Findings) -> Findings:
    """Return the findings of `fair/parts_*` with the t interval.

    The plan fixed its pairs and measures before the runs. What such a sweep registered by default are the claims of the note,
    which are about other settings than those of its arms.
    """
    claims = read_claims(FAIR_CLAIMS)
    return compute_findings(replace(findings.sweep, designs=()), claims, findings.target, rng=np.random.default_rng(0))


def rename_arms(findings: Findings, part: Part) -> Findings:
    """Return the findings with the arm names of the plan, which are shorter than the lists of differing settings.

    Raises:
        InputError: If the number of arms differs from that of the part.
    """
    names = {arm.name: plan_name(arm) for arm in findings.sweep.arms}
    if part.arms:
        if len(names) != len(part.arms):
            raise InputError(f"{part.name}: expected the arms {', '.join(part.arms)}, got {', '.join(names)}")
        names = dict(zip(names, part.arms, strict=True))

    def rename(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(arm=table["arm"].map(lambda name: names.get(name, name))) if "arm" in table else table

    arms = tuple(replace(arm, name=names[arm.name]) for arm in findings.sweep.arms)
    sweep = replace(findings.sweep, arms=arms, frame=rename(findings.sweep.frame), runs=rename(findings.sweep.runs))
    verdicts = [replace(v, arm=names[v.arm], baseline=names[v.baseline]) for v in findings.verdicts]
    tables = {name: rename(table) for name, table in findings.tables.items()}
    return replace(findings, sweep=sweep, verdicts=verdicts, tables=tables)


def plots_of(part: Part, findings: Findings) -> list[Plot]:
    """Return the plots of a part: dev F1 over training, and the effects of the arms for two of the note's claims.

    A part about performance or of the second plan has the first plot only, and `fair/parts_*` have none.
    """
    if part.explains:
        return []
    band = findings.band("f1_weighted", "dev")
    arms = [arm.name for arm in findings.sweep.arms]
    target = findings.target.value if findings.target is not None else None
    name = part.name.replace("_", "-")
    plots = [
        learning_curves(
            band, arms, name=f"{name}-curves", quantity="dev weighted F1", scale=100, unit="%", target=target
        )
    ]
    for claim in () if part.performance or part.fair else ("convergence_speed", "convergence_stability"):
        chosen = [v for v in findings.verdicts if v.claim.name == claim]
        if chosen:
            plots.append(forest(chosen, f"{name}-{claim.replace('_', '-')}", arms))
    return plots


def blocks(studies: Studies) -> dict[str, str]:
    """Return the Markdown of each generated part of study/RESULTS.md, by its name."""
    second = {part: findings for part, findings in studies.items() if part.fair}
    studies = {part: findings for part, findings in studies.items() if not part.performance and not part.fair}
    markdown: dict[str, str] = {
        "verdicts": verdict_table(studies),
        "scores": scores_table(studies),
        "gradient_ratio": gradient_ratio_table(studies),
        "sizes": sizes_table(studies),
    }
    claims, registered = read_claims(CLAIMS), reanalysis.read_registered()
    if registered:
        markdown["reanalysis"] = reanalysis.reanalysis_table(studies, claims, registered)
        markdown["targets"] = reanalysis.targets_table(studies, claims)
        markdown["power"] = reanalysis.power_table(studies, claims, registered)
    if any(part.confirms for part in studies):
        markdown["confirmation"] = confirmation_table(studies)
    if any(part.name in FAIR_COMPARISONS for part in studies):
        markdown["fair"] = fair_table(studies, claims)
    if explaining := {part: findings for part, findings in second.items() if part.explains}:
        markdown["fair_parts"] = fair_parts_table(explaining)
    for kind in ("note", "confirm"):
        chosen = {part: findings for part, findings in second.items() if part.name.startswith(f"fair_{kind}_")}
        if chosen:
            figures = [line for part, findings in chosen.items() for line in _figures(part, findings)]
            markdown[f"fair_{kind}"] = "\n\n".join([fair_verdict_table(chosen), scores_table(chosen), *figures])
    return markdown | {part.name: block(part, findings) for part, findings in studies.items()}


def block(part: Part, findings: Findings, images: str = "images") -> str:
    """Return the Markdown of a part: its figures, and a table of its arms unless the table of verdicts has them all.

    Args:
        part: The part.
        findings: Findings of the part.
        images: Folder of the figures, relative to the document.
    """
    lines = [arms_table(findings)] if len(findings.sweep.arms) > 2 or not part.note else []
    return "\n\n".join([*lines, *_figures(part, findings, images)])


def _figures(part: Part, findings: Findings, images: str = "images") -> list[str]:
    return [f"![{plot.title}: {plot.finding}]({images}/{plot.name}.png)" for plot in plots_of(part, findings)]


def insert(path: Path, markdown: dict[str, str]) -> str:
    """Return the document with each generated block in its place.

    Args:
        path: The document.
        markdown: Generated blocks by name.

    Raises:
        InputError: If the document does not have exactly one place for a block.
    """
    document = path.read_text()
    for name, text in markdown.items():
        start, end = f"<!-- study: {name} -->", f"<!-- end of study: {name} -->"
        if document.count(start) != 1 or document.count(end) != 1:
            raise InputError(
                f"{path.name}: expected one pair of {start} and {end}, got another number; add the comments"
            )
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        document = pattern.sub(lambda _, s=start, t=text, e=end: f"{s}\n{t}\n{e}", document)  # type: ignore[misc]
    return document


#: The words of the summary in Chinese, in the order in which they are replaced.
CHINESE = {
    "| measure | claimed |": "| 度量 | 说明所称 |",
    "Synthetic": "内置数据",
    "epochs to the target": "达到目标所需 epoch 数",
    "spread of dev F1": "dev F1 的波动",
    "spread of train NLL": "训练 NLL 的波动",
    "final train NLL": "最终训练 NLL",
    "best dev F1": "最佳 dev F1",
    "not testable": "无法检验",
    "contradicted": "不成立",
    "inconclusive": "未定",
    "supported": "成立",
    " points": " 点",
    " to ": " 至 ",
}


def translate(made: dict[str, str]) -> dict[str, str]:
    """Return the blocks with the words of the summary in Chinese."""
    for english, chinese in CHINESE.items():
        made = {name: text.replace(english, chinese) for name, text in made.items()}
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of the study, and return the exit code.

    The exit code is 0 if done, 1 if a file cannot be written or --check found a difference, and 2 for bad input.
    """
    parser = argparse.ArgumentParser(
        prog="python -m study.report",
        description="Write the tables and figures of study/RESULTS.md from study/archives/, without training.",
        epilog="Exit codes: 0 done, 1 cannot write a file or --check found a difference, 2 bad input.",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also write the report of every part to FOLDER")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a document is out of date")
    parsed = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            studies = read(Path(temporary))
            markdown = blocks(studies)
            for name, make in (("searches", searches_table), ("fair_finalists", finalists_table)):
                if made := make(ARCHIVES, Path(temporary)):
                    markdown[name] = made
            summary = {"summary": summary_table(studies)}
            performance = {
                part.name: block(part, findings, "../study/images")
                for part, findings in studies.items()
                if part.performance
            }
            explained, figures = explanation.blocks(studies, ARCHIVES)
            texts = {DOCUMENT: insert(DOCUMENT, markdown), PERFORMANCE: insert(PERFORMANCE, performance)}
            texts[EXPLANATION] = insert(EXPLANATION, explained)
            texts |= {path: insert(path, translate(summary) if ".zh" in path.name else summary) for path in FRONT}
            outdated = [path.name for path, text in texts.items() if path.read_text() != text]
            if parsed.check:
                print(f"{', '.join(outdated)}: out of date; run make study-report" if outdated else "up to date")
                return 1 if outdated else 0
            for path, text in texts.items():
                write_bytes(path, text.encode())
            IMAGES.mkdir(exist_ok=True)
            figures += [plot for part, findings in studies.items() for plot in plots_of(part, findings)]
            for plot in figures:
                write_bytes(IMAGES / f"{plot.name}.png", plot._repr_png_())
            for part, findings in studies.items():
                if parsed.out is not None:
                    print(report.write(findings, report.make_page(findings), parsed.out / part.name))
    except (InputError, ResultsError) as error:
        print(f"study.report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"{DOCUMENT.name}: {', '.join(part.title for part in studies)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
