"""The report of a sweep: one page to show, the same in Markdown, the verdicts as CSV and every table as Parquet.

    python -m joyful.analysis.report SWEEP_FOLDER [--claims FILE] [--baseline "loss=mse weights=baseline"] [--target dev_f1=0.62]

The same sweep gives the same bytes: random numbers come from a fixed seed, and no time, machine or path goes in.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from joyful.analysis.claims import BASIC_OPTIMIZATION, read_claims
from joyful.analysis.convergence import parse_target
from joyful.analysis.findings import Findings, find
from joyful.analysis.page import html, markdown, summary
from joyful.analysis.page.parts import Page, clean
from joyful.analysis.page.sections import sections
from joyful.analysis.sweep import REPORT_COLUMNS, read_sweep
from joyful.results import InputError, ResultsError, ResultsWarning, write_bytes

#: Seed of bootstrap and Monte Carlo tests.
SEED = 0


def build(
    folder: Path, claims: Path = BASIC_OPTIMIZATION, baseline: str | None = None, target: str | None = None
) -> tuple[Findings, Page]:
    """Read a sweep and compute its report.

    baseline: overrides as on the command line, in one text. target: such as "dev_f1=0.62".
    Raises InputError for bad input: no such folder, no runs, an unknown baseline, a broken claims file, a bad target.
    """
    try:
        overrides = None if baseline is None else shlex.split(baseline)
    except ValueError as error:
        raise InputError(f"--baseline {baseline!r}: {error}; write it as on the command line of run.py") from None
    read = read_claims(claims)
    wanted = None if target is None else parse_target(target)
    timed = sorted({metric.of for claim in read for metric in claim.metrics if metric.speaks_of == "speed"})
    if wanted is not None and timed and wanted.metric not in timed:
        raise InputError(
            f"--target {target}: the claims speak of the time to a dev {', '.join(timed)}, not {wanted.metric}; give a target "
            "of that, or a claims file (--claims) that speaks of this"
        )
    columns = [*REPORT_COLUMNS, *(metric.of for claim in read for metric in claim.metrics)]
    if wanted is not None:
        columns.append(wanted.metric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # damaged runs are named on the page
        sweep = read_sweep(folder, list(dict.fromkeys(columns)), overrides)
    if sweep.runs.empty and sweep.left_out.empty and sweep.study is None:
        raise InputError(
            f"{folder}: expected the folder of a sweep, but there is no run (run.json) in or below it; give the folder that "
            "python run.py -m wrote (multirun/NAME)"
        )
    if wanted is not None and len(sweep.frame):
        dev = sweep.frame.loc[sweep.frame["split"] == "dev", wanted.metric]
        if dev.isna().all():
            raise InputError(f"--target {target}: no run has a dev value of {wanted.metric!r}; try dev_f1=VALUE")
    findings = find(sweep, read, wanted, rng=np.random.default_rng(SEED))
    return findings, make_page(findings)


def make_page(findings: Findings) -> Page:
    """The page of these findings."""
    sweep = findings.sweep
    return Page(
        title=summary.title(sweep),
        source=clean(sweep.path.resolve().name),
        compared=summary.compared(findings),
        counts=summary.counts(findings.verdicts),
        groups=summary.groups(findings),
        unseen=summary.unseen(findings),
        sizes=summary.sizes(findings),
        notes=tuple(clean(note) for note in sweep.notes),
        sections=sections(findings),
    )


def write(findings: Findings, page: Page, out: Path) -> Path:
    """Write the report into `out`, every file whole or not at all, the page last; returns the path of the page.

    Raises ResultsError when the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            error.errno, f"{out} cannot be made: {error.strerror}; choose another folder by --out"
        ) from None
    for name, table in findings.tables.items():
        write_bytes(out / f"{name}.parquet", parquet(table))
    write_bytes(out / "verdicts.csv", findings.verdict_table.to_csv(index=False, lineterminator="\n").encode())
    write_bytes(out / "report.md", markdown.render(page).encode())
    write_bytes(out / "index.html", html.render(page).encode())
    return out / "index.html"


def parquet(table: pd.DataFrame) -> bytes:
    """A table as Parquet bytes, a function of the table alone. Columns of mixed kinds become text."""
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
    """Make a report and print where it is; returns the exit code: 0 done, 1 the disk refused, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m joyful.analysis.report",
        description="Compare the arms of a sweep in pairs and write the report: index.html, report.md, verdicts.csv and the "
        "tables as Parquet.",
        epilog="Exit codes: 0 done, 1 the disk refused, 2 bad input.",
    )
    parser.add_argument(
        "sweep", metavar="SWEEP_FOLDER", type=Path, help="folder with runs in or below it (multirun/NAME)"
    )
    parser.add_argument("--claims", metavar="FILE", type=Path, default=BASIC_OPTIMIZATION,
                        help="claims to judge, YAML (default: the five of the basic optimisation)")  # fmt: skip
    parser.add_argument(
        "--baseline", metavar="OVERRIDES", help='the baseline arm, as on the command line: "loss=mse weights=baseline"'
    )
    parser.add_argument("--target", metavar="dev_f1=VALUE", help="target of the convergence speed, a fraction (default: 95 %% of "
                        "what the calibration runs reach)")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where to write (default: SWEEP_FOLDER/report)")
    parsed = parser.parse_args(arguments)
    try:
        findings, page = build(parsed.sweep, parsed.claims, parsed.baseline, parsed.target)
        path = write(findings, page, parsed.out if parsed.out is not None else parsed.sweep / "report")
    except (InputError, ResultsError) as error:
        print(f"joyful.analysis.report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"{page.title}: {', '.join(f'{n} {word}' for word, n in page.counts.items()) or 'nothing to judge'}")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
