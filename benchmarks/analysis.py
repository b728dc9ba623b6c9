"""Benchmark of reading a large sweep for its report: 10,000 runs of 100 epochs, seconds and peak memory.

    python -m benchmarks.analysis [--runs 10000] [--epochs 100] [--folder FOLDER] [--json FILE]

The runs are generated (about a minute) in a temporary folder, or in FOLDER, which is reused if it holds runs already.
Each measurement runs in a separate process, because peak memory is a property of a process. The files are in the page
cache, since they were just written. The output has one line per figure: name, value, unit and ratio to a named
reference.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, against, figure, parser, report
from benchmarks.measuring import peak_memory_gib, run_module

#: Limits for reading the sweep on two cores.
MAXIMUM_SECONDS, MAXIMUM_GIB = 15.0, 2.0

#: Number of settings added to those of tests.support.analysis, so that run.json has as many as a real one (about 90).
FURTHER_SETTINGS = 55


def generate(folder: Path, runs: int, epochs: int) -> None:
    """Write simulated runs: a grid of two losses and four weights with shared seeds and a separate history per run."""
    import numpy as np

    from tests.support.analysis import Truth, history, write_run

    grid = [
        Truth({"loss": loss, "weights.encoder_loss_weight": weight})
        for loss in ("mse", "smoothl1")
        for weight in (0.01, 0.03, 0.05, 0.1)
    ]
    filling = {f"model.further_{number}": number for number in range(FURTHER_SETTINGS)}
    for number in range(runs):
        truth, seed = grid[number % len(grid)], number // len(grid)
        columns = history(truth, epochs, 1, np.random.default_rng([seed, 1]), np.random.default_rng([number, 2]))
        overrides = {**truth.overrides, **filling, "training.epochs": epochs}
        write_run(folder / str(number), columns, overrides, seed=seed, seconds_per_epoch=None)


def measure(folder: Path, what: str) -> dict[str, float]:
    """Read `folder` in this process, and return wall seconds, processor seconds, peak memory in GiB and rows.

    Args:
        folder: The sweep.
        what: "report" reads it as a report does, and "bytes" only reads and hashes every file, which is a lower bound.
    """
    from joyful.analysis.sweep import read_sweep

    wall, processor = time.perf_counter(), time.process_time()
    if what == "bytes":
        rows = sum(_digest(path) for path in folder.iterdir())
    else:
        sweep = read_sweep(folder)
        rows = len(sweep.frame)
        assert sweep.left_out.empty
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"seconds": wall, "processor_seconds": processor, "gib": peak_memory_gib(), "rows": rows}


def figures(folder: Path, rows: int) -> list[Figure]:
    """Return the figures of reading `folder`. rows: the number of rows that were generated."""
    measured = {
        what: run_module("benchmarks.analysis", ["--measure", what, "--folder", os.fspath(folder.absolute())])
        for what in ("report", "bytes")
    }
    opened, floor = measured["report"], measured["bytes"]
    seconds = figure("open", opened["seconds"], "s", MAXIMUM_SECONDS, f"the limit of {MAXIMUM_SECONDS:g} s")
    return [
        seconds,
        figure("open, peak memory", opened["gib"], "GiB", MAXIMUM_GIB, f"the limit of {MAXIMUM_GIB:g} GiB"),
        against("open, processor time", opened["processor_seconds"], seconds),
        against("read and digest the bytes alone", floor["seconds"], seconds),
        figure("rows", opened["rows"], "rows", rows, "runs x epochs x splits"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the runs, measure, and print the figures. Exit with code 1 if a limit is exceeded."""
    command_line = parser("analysis", __doc__)
    command_line.add_argument("--runs", type=int, default=10_000)
    command_line.add_argument("--epochs", type=int, default=100)
    command_line.add_argument("--folder", type=Path, help="where to generate and keep the runs")
    command_line.add_argument("--measure", choices=("report", "bytes"), help=SUPPRESS)
    options = command_line.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="joyful_benchmark_") as temporary:
        folder = options.folder or Path(temporary)
        if not (folder.is_dir() and any(folder.iterdir())):
            generate(folder, options.runs, options.epochs)
        shown = figures(folder, 3 * options.runs * options.epochs)
    about = {"runs": options.runs, "epochs": options.epochs}
    report(f"{options.runs} runs of {options.epochs} epochs", shown, about, options.json)
    if max(one.ratio for one in shown[:2]) > 1:
        sys.exit(1)


def _digest(folder: Path) -> int:
    for name in ("run.json", "history.parquet"):
        hashlib.sha256((folder / name).read_bytes()).digest()
    return 1


if __name__ == "__main__":
    main()
