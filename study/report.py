"""The study's report: every table and figure of study/RESULTS.md from the archives in study/archives/, without training.

    python -m study.report [--out FOLDER] [--check]

Each archive is unpacked and reported as any sweep is (`joyful.analysis.report`); what stands between a pair of comments
`<!-- study: NAME -->` and `<!-- end of study: NAME -->` in the document is written anew, the figures beside it in study/images/,
a summary in README.md and README.zh.md, and the comparison of float32 with bfloat16 in docs/PERFORMANCE.md.
--check writes nothing and says what would change.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from joyful.analysis import report
from joyful.analysis.claims import read_claims
from joyful.analysis.findings import Findings
from joyful.analysis.plots import Plot, forest, learning_curves
from joyful.results import InputError, ResultsError, write_bytes
from study import archive
from study.searches import searches_table
from study.tables import (
    FAIR_COMPARISONS,
    PARTS,
    Part,
    Studies,
    arms_table,
    confirmation_table,
    fair_table,
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
DOCUMENT = ROOT / "study/RESULTS.md"
IMAGES = ROOT / "study/images"

#: Where a part stands that is about speed.
PERFORMANCE = ROOT / "docs/PERFORMANCE.md"

#: Documents that show a summary of the verdicts.
FRONT = (ROOT / "README.md", ROOT / "README.zh.md")


def read(folder: Path) -> Studies:
    """The findings of every archive that is there. folder: where they are unpacked, kept until the pages are made."""
    found: Studies = {}
    for part in PARTS:
        file = ARCHIVES / f"{part.name}.parquet"
        if file.is_file():
            archive.unpack(file, folder / part.name)
            found[part] = named(report.build(folder / part.name, CLAIMS)[0], part)
    if not found:
        raise InputError(
            f"{ARCHIVES}: expected archives of the study's sweeps, found none; python -m study.archive pack writes them"
        )
    return found


def named(findings: Findings, part: Part) -> Findings:
    """The same findings, with the names that the plan gives its arms: a report names every setting that differs, which is long.

    Raises InputError where the sweep has other arms than the part.
    """
    names = {arm.name: plan_name(arm) for arm in findings.sweep.arms}
    if part.arms:
        if len(names) != len(part.arms):
            raise InputError(f"{part.name}: expected the arms {', '.join(part.arms)}, found {', '.join(names)}")
        names = dict(zip(names, part.arms, strict=True))

    def of_plan(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(arm=table["arm"].map(lambda name: names.get(name, name))) if "arm" in table else table

    arms = tuple(replace(arm, name=names[arm.name]) for arm in findings.sweep.arms)
    sweep = replace(findings.sweep, arms=arms, frame=of_plan(findings.sweep.frame), runs=of_plan(findings.sweep.runs))
    verdicts = [replace(v, arm=names[v.arm], baseline=names[v.baseline]) for v in findings.verdicts]
    tables = {name: of_plan(table) for name, table in findings.tables.items()}
    return replace(findings, sweep=sweep, verdicts=verdicts, tables=tables)


def plots_of(part: Part, findings: Findings) -> list[Plot]:
    """The figures of a part: dev F1 over training and, where the note's claims are the question, its arms beside two of them."""
    band = findings.band("f1_weighted", "dev")
    arms = [arm.name for arm in findings.sweep.arms]
    target = findings.target.value if findings.target is not None else None
    name = part.name.replace("_", "-")
    plots = [
        learning_curves(
            band, arms, name=f"{name}-curves", quantity="dev weighted F1", scale=100, unit="%", target=target
        )
    ]
    for claim in () if part.performance else ("convergence_speed", "convergence_stability"):
        chosen = [v for v in findings.verdicts if v.claim.name == claim]
        if chosen:
            plots.append(forest(chosen, f"{name}-{claim.replace('_', '-')}", arms))
    return plots


def blocks(studies: Studies) -> dict[str, str]:
    """Name -> Markdown of each part of the study's document that is made by this program."""
    studies = {part: findings for part, findings in studies.items() if not part.performance}
    made: dict[str, str] = {
        "verdicts": verdict_table(studies),
        "scores": scores_table(studies),
        "gradient_ratio": gradient_ratio_table(studies),
        "sizes": sizes_table(studies),
    }
    if any(part.confirms for part in studies):
        made["confirmation"] = confirmation_table(studies)
    if any(part.name in FAIR_COMPARISONS for part in studies):
        made["fair"] = fair_table(studies, read_claims(CLAIMS))
    return made | {part.name: block(part, findings) for part, findings in studies.items()}


def block(part: Part, findings: Findings, images: str = "images") -> str:
    """A part's own Markdown: its arms, where the table of the note's verdicts does not have them all, and its figures.

    images: their folder, seen from the document.
    """
    lines = [arms_table(findings)] if len(findings.sweep.arms) > 2 or not part.note else []
    lines += [f"![{plot.title}: {plot.finding}]({images}/{plot.name}.png)" for plot in plots_of(part, findings)]
    return "\n\n".join(lines)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the study's report; returns the exit code: 0 done, 1 the disk refused or --check found a difference, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m study.report",
        description="Write the tables and figures of study/RESULTS.md anew from study/archives/, without training.",
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
            searches = searches_table(ARCHIVES, Path(temporary))
            made |= {"searches": searches} if searches else {}
            summary = {"summary": summary_table(studies)}
            speed = {
                part.name: block(part, findings, "../study/images")
                for part, findings in studies.items()
                if part.performance
            }
            texts = {DOCUMENT: put(DOCUMENT, made), PERFORMANCE: put(PERFORMANCE, speed)}
            texts |= {path: put(path, summary) for path in FRONT}
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
        print(f"study.report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"{DOCUMENT.name}: {', '.join(part.title for part in studies)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
