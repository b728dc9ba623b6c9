"""The report of a sweep: an HTML page, the same in Markdown, the verdicts as CSV, all tables as Parquet, and a manifest.

    joyful report SWEEP_FOLDER [--claims FILE] [--baseline "loss=mse weights=baseline"] [--target dev_f1=0.62] ...

A report is reproducible byte for byte. Random numbers come from a fixed seed, and the files hold no date, host name or
absolute path.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_numeric_dtype

from joyful import trackers
from joyful.analysis import gate, manifest
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, Claim, find_claims, parse_claims, read_content
from joyful.analysis.columns import BETTER, known_direction
from joyful.analysis.convergence import parse_target
from joyful.analysis.findings import Findings, compute_findings
from joyful.analysis.measures import MEASURES
from joyful.analysis.page import facts, grid, html, markdown, run, search, summary
from joyful.analysis.page.answer import answer
from joyful.analysis.page.labels import labelled
from joyful.analysis.page.parts import Page, clean
from joyful.analysis.page.sections import arm_order, sections
from joyful.analysis.page.words import headline
from joyful.analysis.plots.style import MOST_LINES
from joyful.analysis.provenance import provenance
from joyful.analysis.sweep import DESIGNS, REPORT_COLUMNS, read_sweep
from joyful.messages import CommandParser
from joyful.results import InputError, ResultsError, ResultsWarning, plain, read_runs, write_bytes, write_json
from joyful.results.design import digest, read_designs
from joyful.results.schema import HISTORY_COLUMNS

#: Maximum number of columns of another program whose curves are drawn without a claim on them.
MOST_OTHERS = 12

#: The files of a report that the trackers of its runs get.
TRACKED = ("index.html", "report.md", "verdicts.csv")

#: Seed of the bootstrap and the Monte Carlo tests.
SEED = 0


def build(
    folder: Path,
    claims: Path | None = None,
    baseline: str | None = None,
    target: str | None = None,
    *,
    better: Sequence[str] = (),
    x: str | None = None,
    design: str = "paired",
    task: str | None = None,
    compare: tuple[str, str] | None = None,
    require: Sequence[str] = (),
) -> tuple[Findings, Page]:
    """Read a sweep and compute its report.

    Args:
        folder: Folder with runs in it or below it.
        claims: Claims file. None stands for the claims that the sweep registered, or else those of the basic optimisation.
        baseline: Overrides that the baseline arm must match, such as "loss=mse weights=baseline".
        target: Target of the convergence speed, such as "dev_f1=0.62".
        better: Directions of columns, such as "wer=lower".
        x: See `joyful.analysis.sweep.read_sweep`.
        design: See `joyful.analysis.sweep.read_sweep`.
        task: See `joyful.analysis.sweep.read_sweep`.
        compare: See `joyful.analysis.sweep.read_sweep`.
        require: Claims to judge too, see `joyful.analysis.gate.requirements`. They are `Findings.required`.

    Returns:
        The results and the page.

    Raises:
        InputError: If the folder holds no runs, the claims file is invalid, the baseline matches no arm or several
            arms, the arms cannot be compared, or another argument is invalid.
    """
    try:
        overrides = None if baseline is None else shlex.split(baseline)
    except ValueError as error:
        raise InputError(f"--baseline {baseline!r}: {error}; write it as on the command line of run.py") from None
    directions = _directions(better)
    content, parsed_claims = _claims(folder, claims, directions)
    directions |= {m.of: m.better for claim in parsed_claims for m in claim.metrics if m.better}
    parsed_claims, required = gate.joined(parsed_claims, gate.requirements(require, directions))
    directions |= {m.of: m.better for claim in required for m in claim.metrics if m.better}
    parsed_target = None if target is None else parse_target(target, directions)
    metrics = [metric for claim in parsed_claims for metric in claim.metrics]
    timed = sorted({metric.of for metric in metrics if metric.to_target})
    if parsed_target is not None and timed and parsed_target.metric not in timed:
        expected = f"a target of dev {', '.join(timed)} for the claims on speed, got {parsed_target.metric}"
        hint = "change the target, or set --claims to a file with claims on it"
        raise InputError(f"--target {target}: expected {expected}; {hint}")
    columns = [*REPORT_COLUMNS, *(metric.of for metric in metrics)]
    columns += [] if parsed_target is None else [parsed_target.metric]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # The page lists damaged runs.
        sweep = read_sweep(
            folder, list(dict.fromkeys(columns)), overrides, x=x, design=design, task=task, compare=compare
        )
        if claims is None and unmeasured_columns(sweep.frame, columns):  # the runs of another program
            columns = [*columns, *other_columns(folder, columns)]
            sweep = read_sweep(folder, columns, overrides, x=x, design=design, task=task, compare=compare)
    if sweep.runs.empty and sweep.left_out.empty and sweep.study is None:
        hint = "use the folder that python run.py -m wrote (multirun/NAME)"
        raise InputError(f"{folder}: expected the folder of a sweep, got a folder without runs (run.json); {hint}")
    if parsed_target is not None and len(sweep.frame):
        dev = sweep.frame.loc[sweep.frame["split"] == "dev", parsed_target.metric]
        if dev.isna().all():
            raise InputError(f"--target {target}: no run has a dev value of {parsed_target.metric!r}; try dev_f1=VALUE")
    findings = compute_findings(sweep, parsed_claims, parsed_target, rng=np.random.default_rng(SEED))
    arguments = {
        "claims": json.dumps(plain(content)) if claims is None else claims.read_text("utf-8"), "baseline": baseline,
        "target": target, "better": list(better), "x": x, "design": design, "task": task, "compare": compare,
        "require": gate.self_contained(require),
    }  # fmt: skip
    findings = replace(findings, required=tuple(required), claims_digest=digest(content), arguments=arguments)
    return findings, make_page(findings)


def _claims(folder: Path, claims: Path | None, better: Mapping[str, str]) -> tuple[dict[str, Any], list[Claim]]:
    """Return the claims of a file, or those that the sweep registered, or those of the basic optimisation."""
    designs = read_designs(folder) if claims is None and folder.is_dir() else ()
    if designs and designs[-1].claims is not None:
        return designs[-1].claims, parse_claims(designs[-1].claims, better)
    return read_content(BASIC_OPTIMIZATION if claims is None else claims, better)


def _directions(better: Sequence[str]) -> dict[str, str]:
    """Return column -> "higher" or "lower" from texts such as "wer=lower"."""
    directions = {}
    for text in better:
        column, _, direction = text.partition("=")
        known = known_direction(column)
        if not column or direction not in BETTER or (known and known != direction):
            expected = f"{column}={known}" if known else "COLUMN=lower or COLUMN=higher"
            raise InputError(f"--better: expected {expected}, got {text!r}")
        directions[column] = direction
    return directions


def make_page(findings: Findings) -> Page:
    """Return the page that shows the results: of pairs, a search, a grid or one run."""
    origin = provenance(findings.sweep)
    shown = labelled(findings)
    page = Page(
        title=summary.title(shown.sweep),
        headline=headline(shown) or summary.title(shown.sweep),
        source=clean(findings.sweep.path.resolve().name),
        facts=facts.facts(shown.sweep, origin),
        command=clean(origin["command"]),
        place=clean(origin["place"]),
        options=clean(facts.options(findings)),
        counts=summary.counts(shown.verdicts),
    )
    if len(findings.sweep.runs) == 1:
        one = run.read(findings.sweep.path, str(findings.sweep.runs["run"].iloc[0]))
        return replace(page, title=(title := run.headline(one)), headline=title, counts={}, sections=run.sections(one))
    if search.is_search(findings):
        title = search.headline(findings)
        return replace(page, title=title, headline=title, counts={}, sections=search.sections(findings))
    if grid.is_grid(findings.sweep):
        title = grid.headline(shown)
        page = replace(page, title=title, headline=title, counts={})
    elif summary.no_claim_applies(shown.verdicts):
        page = replace(page, counts={})
    else:
        page = replace(page, answer=answer(shown))
    arms = tuple(arm_order(shown)[:MOST_LINES])
    return replace(page, unseen=summary.unseen(shown), arms=arms, sections=sections(shown))


def unmeasured_columns(frame: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Return whether no run has a value in any of the columns, apart from times."""
    known = [name for name in columns if name in frame and name != "seconds"]
    return bool(len(frame)) and bool(frame[known].isna().all(axis=None))


def other_columns(folder: Path, known: Sequence[str]) -> list[str]:
    """Return at most MOST_OTHERS numeric columns of the histories besides the known ones, in the order of the first run."""
    frame = read_runs(folder).frame
    names = list(frame.columns)[list(frame.columns).index("step") :] if "step" in frame else []
    taken = {*known, *HISTORY_COLUMNS}
    return [str(name) for name in names if name not in taken and is_numeric_dtype(frame[name])][:MOST_OTHERS]


def unmeasured(findings: Findings) -> list[str]:
    """Return the columns of the claims if no run has any of them, else an empty list."""
    columns = sorted({verdict.metric.of for verdict in findings.verdicts})
    frame = findings.sweep.frame
    return columns if all(name not in frame or frame[name].isna().all() for name in columns) else []


def write(findings: Findings, page: Page, out: Path) -> Path:
    """Write the files of a report.

    Each file is written atomically, and index.html is written last. There is a manifest if `findings` has arguments.

    Args:
        findings: The results.
        page: The page.
        out: Folder for the files. It is created if necessary.

    Returns:
        The path of index.html.

    Raises:
        ResultsError: If the folder cannot be created or a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{out} cannot be created: {error.strerror}; choose another folder with --out"
        raise ResultsError(error.errno, message) from None
    files = contents(findings, page, links(findings.sweep.path, out))
    if findings.arguments is not None:
        write_json(out / manifest.MANIFEST, manifest.make(findings, files))
    for name, data in files.items():
        write_bytes(out / name, data)
    return out / "index.html"


def links(sweep: Path, out: Path) -> str | None:
    """Return the address of the sweep folder relative to a report, or None if the report does not lie directly in it."""
    return "../" if out.resolve().parent == sweep.resolve() else None


def contents(findings: Findings, page: Page, links: str | None = None) -> dict[str, bytes]:
    """Return the files of a report without the manifest, by name. index.html is the last. See `html.render` for `links`."""
    return {f"{name}.parquet": parquet(table) for name, table in findings.tables.items()} | {
        "verdicts.csv": findings.verdict_table.to_csv(index=False, lineterminator="\n").encode(),
        "report.md": markdown.render(page).encode(),
        "index.html": html.render(page, links=links).encode(),
    }


def parquet(table: pd.DataFrame) -> bytes:
    """Return a table as Parquet bytes, which depend on the table only. Columns of mixed types become text."""
    sink = io.BytesIO()
    frame = table.reset_index(drop=True).copy()
    frame.attrs = {}
    for name in frame.columns:
        if frame[name].dtype == object:
            kinds = {type(value) for value in frame[name].dropna()}
            if len(kinds) > 1 or not kinds <= {str, bool, int, float}:
                frame[name] = frame[name].map(lambda value: None if value is None or value != value else str(value))
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `joyful report`.

    Args:
        arguments: Arguments of the command line, by default those of the process.

    Returns:
        The exit code: 0 for success, 1 if the report cannot be written, 2 for invalid input. With --require, 3 if a
        requirement does not hold, else 4 if one is undecided.
    """
    listed = "\n".join(f"  {name:<18} {summary}" for name, summary in MEASURES.summaries().items())
    parser = CommandParser(
        prog="joyful report",
        description="Compare the arms of a sweep in pairs and write the report: index.html, report.md, verdicts.csv, the\n"
        "tables as Parquet, and manifest.json, which joyful audit checks.",
        epilog=f"measures of claims files (`of` is a column of the histories):\n{listed}\n\n"
        f"requirements:\n{gate.HELP}\n\n"
        "Exit codes: 0 success, and every requirement holds; 1 the report cannot be written; 2 invalid input; 3 a requirement\n"
        "does not hold; 4 none of them fails, but one is undecided.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP_FOLDER", type=Path, help="folder with runs in or below it (multirun/NAME)")
    add(
        "--claims", metavar="FILE", type=find_claims,
        help="YAML file of claims to judge (default: those that the sweep registered, else those of the basic optimisation)",
    )  # fmt: skip
    add(
        "--baseline", metavar="OVERRIDES",
        help='overrides that the baseline arm matches, such as "loss=mse weights=baseline"',
    )  # fmt: skip
    add(
        "--compare", metavar=("ARM", "BASELINE"), nargs=2,
        help="compare two arms only, by their names on the page or by overrides such as loss=mse",
    )  # fmt: skip
    add(
        "--target", metavar="dev_f1=VALUE",
        help="target of the convergence speed, a fraction (default: 95 %% of the way from the start of training to its end in "
        "the calibration runs)",
    )  # fmt: skip
    add(
        "--better", metavar="COLUMN=lower", action="append", default=[],
        help="which direction is better for a column of your own (or higher); may be given several times",
    )  # fmt: skip
    add(
        "--x",
        metavar="COLUMN",
        help="x axis: epoch, step, seconds or another column such as tokens (default: epoch or step)",
    )
    add(
        "--design", choices=DESIGNS, default="paired",
        help="paired: runs with the same seed form pairs (default); unpaired: all runs are independent",
    )  # fmt: skip
    add(
        "--task",
        metavar="SETTING",
        help="setting that holds the task, such as the dataset (default: task, if there is one)",
    )
    add(
        "--require", metavar="REQUIREMENT", action="append", default=[],
        help="a claims file, or a claim such as f1=no_worse_than:0.5, that decides the exit code; may be given several times",
    )  # fmt: skip
    add(
        "--json",
        action="store_true",
        help="print verdicts and provenance as JSON; all other lines go to standard error",
    )
    add("--out", metavar="FOLDER", type=Path, help="folder for the report (default: SWEEP_FOLDER/report)")
    parsed = parser.parse_args(arguments)
    try:
        findings, page = build(
            parsed.sweep, parsed.claims, parsed.baseline, parsed.target, better=parsed.better, x=parsed.x,
            design=parsed.design, task=parsed.task, compare=tuple(parsed.compare) if parsed.compare else None,
            require=parsed.require,
        )  # fmt: skip
        path = write(findings, page, parsed.out if parsed.out is not None else parsed.sweep / "report")
    except (InputError, ResultsError) as error:
        print(f"joyful report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    words = sys.stderr if parsed.json else sys.stdout
    counts = ", ".join(f"{n} {word}" for word, n in page.counts.items())
    print(f"{page.title}: {counts}" if counts else page.title, file=words)
    if missing := unmeasured(findings):
        print(
            f"no run has a column of these claims ({', '.join(missing)}); set --claims to a file with claims on the columns "
            "that the runs have",
            file=words,
        )
    code, lines = gate.outcome(gate.required_verdicts(findings), findings.sweep) if parsed.require else (0, [])
    print(*lines, path, sep="\n", file=words)
    if parsed.json:
        print(gate.as_json(findings, code), end="")
    files = {name: path.with_name(name) for name in TRACKED}
    trackers.attach_report(parsed.sweep, files, summary.counts(findings.verdicts))
    return code


if __name__ == "__main__":
    sys.exit(main())
