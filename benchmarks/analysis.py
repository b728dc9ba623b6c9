"""Opening a large sweep for its report: 10,000 runs of 100 epochs, seconds and peak memory.

    python -m benchmarks.analysis [--runs 10000] [--epochs 100] [--folder FOLDER] [--json FILE]

The runs are generated (about a minute) into a temporary folder, or into FOLDER, which is used again if it is there. Each
measurement is a process of its own, so that its peak memory is its own; the files are in the page cache, as after
writing them. One line for each figure: name, value, unit, and its ratio to what.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What opening may take on two cores.
ALLOWED_SECONDS, ALLOWED_GIB = 15.0, 2.0

#: Settings beside those of analysis.testing, so that a run.json is as long as a real one's (about 90).
FURTHER_SETTINGS = 55


def generate(folder: Path, runs: int, epochs: int) -> None:
    """A grid of two losses and four weights, seeds shared; each run with a history of its own."""
    import numpy as np

    from analysis.testing import Truth, history, write_run

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
    """In this process: wall and processor seconds of one way of opening `folder`, and its peak memory in GiB.

    what: "report" (as a report opens it), "alone" (the same without helpers), "bytes" (every file read and digested,
    nothing understood: the floor).
    """
    from analysis.sweep import read_sweep
    from joyful.results import batches

    if what == "alone":
        batches.MAXIMUM_HELPERS = 0
    wall, processor = time.perf_counter(), _processor_seconds()
    if what == "bytes":
        rows = sum(_digest(path) for path in folder.iterdir())
    else:
        sweep = read_sweep(folder)
        rows = len(sweep.frame)
        assert sweep.left_out.empty
    wall, processor = time.perf_counter() - wall, _processor_seconds() - processor
    own, helper = (
        resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"seconds": wall, "processor_seconds": processor, "gib": own + helper, "rows": rows}


def figures(folder: Path, rows: int) -> list[dict[str, Any]]:
    """The figures as records of name, value, unit, ratio, to. rows: that the sweep was generated with."""
    measured = {}
    for what in ("report", "alone", "bytes"):
        command = [sys.executable, "-m", "benchmarks.analysis", "--measure", what, "--folder", os.fspath(folder)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[what] = json.loads(answer)
    report, alone, floor = measured["report"], measured["alone"], measured["bytes"]

    def figure(name: str, value: float, unit: str, other: float, to: str) -> dict[str, Any]:
        return {"name": name, "value": round(value, 3), "unit": unit, "ratio": round(value / other, 3), "to": to}

    return [
        figure("open", report["seconds"], "s", ALLOWED_SECONDS, f"the {ALLOWED_SECONDS:g} s allowed"),
        figure(
            "open, peak memory",
            report["gib"],
            "GiB",
            ALLOWED_GIB,
            f"the {ALLOWED_GIB:g} GiB allowed (helpers included)",
        ),
        figure("open, processor time", report["processor_seconds"], "s", report["seconds"], "its wall time"),
        figure("open without helpers", alone["seconds"], "s", report["seconds"], "open"),
        figure("open without helpers, peak memory", alone["gib"], "GiB", report["gib"], "open"),
        figure("read and digest the bytes alone", floor["seconds"], "s", report["seconds"], "open"),
        figure("rows", report["rows"], "rows", rows, "runs x epochs x splits"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, measure, print; exit code 1 where opening took more than is allowed."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.analysis", description=__doc__, formatter_class=formatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the runs are generated, and kept")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--measure", choices=("report", "alone", "bytes"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="joyful_benchmark_") as temporary:
        folder = options.folder or Path(temporary)
        if not (folder.is_dir() and any(folder.iterdir())):
            generate(folder, options.runs, options.epochs)
        load = os.getloadavg()[0]
        shown = figures(folder, 3 * options.runs * options.epochs)
    cores = len(os.sched_getaffinity(0))
    print(f"{options.runs} runs of {options.epochs} epochs, {cores} cores, load before {load:.1f}")
    for figure in shown:
        print(
            f"{figure['name']:<36} {figure['value']:>12,.3f} {figure['unit']:<5} {figure['ratio']:>12,.3f} of {figure['to']}"
        )
    if options.json:
        about = {"runs": options.runs, "epochs": options.epochs, "cores": cores, "load": load}
        options.json.write_text(json.dumps(about | {"figures": shown}, indent=2) + "\n")
    if max(figure["ratio"] for figure in shown[:2]) > 1:
        sys.exit(1)


def _digest(folder: Path) -> int:
    for name in ("run.json", "history.parquet"):
        hashlib.sha256((folder / name).read_bytes()).digest()
    return 1


def _processor_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


if __name__ == "__main__":
    main()
