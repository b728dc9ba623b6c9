"""Run the tests marked soak and the fault tests at their full counts, then the random ones with new seeds until time is up.

Usage: `make soak`, or `python -m tests.support.soak --minutes 30 [--seed N] [--processes 2] [arguments of pytest]`. The
program prints the seed first and the table of all rounds last. The exit code is 0 if every round passed and no outcome
was lost or wrong, otherwise 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.faults import Table, add_up, render, to_rows

ROOT = Path(__file__).resolve().parents[2]

#: Selection of the tests that only a soak runs, from all folders.
MARKED = ("-m", "soak")

#: Tests that also run in `make test`, with fewer faults or shorter, and tests that kill processes.
PLACES = (
    "tests/faults",
    "tests/results/test_lock.py",
    "tests/runtime/test_signals.py",
    "tests/sweeper/test_beside_stock.py",
    "tests/sweeper/test_frozen.py",
    "tests/sweeper/test_kills.py",
    "tests/sweeper/test_old_sweep.py",
    "tests/sweeper/test_postgresql.py",
    "tests/sweeper/test_ray.py",
    "tests/sweeper/test_stock.py",
    "tests/sweeper/test_submitit.py",
    "tests/trackers/test_reading_back.py",
    "tests/training/test_experiment.py",
)

#: Selection of these places in the first round, which runs the marked tests separately.
LONGER = (*PLACES, "-m", "not soak")

#: Selection of the tests with random faults, which a new seed changes.
RANDOM = (*PLACES, "-k", "kill or fuzz")


def main() -> int:
    """Run rounds until the time is up, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.soak", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="repeat with new seeds for at least this long (default: 30)"
    )
    parser.add_argument("--seed", type=int, help="seed of the first round (default: random)")
    parser.add_argument("--processes", type=int, default=2, help="number of test processes (default: 2)")
    options, rest = parser.parse_known_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(
        f"soak: seed {first} (to repeat: make soak ARGS='--seed {first}'), at least {options.minutes:g} minutes",
        flush=True,
    )
    started, seeds, failed, table = time.monotonic(), random.Random(first), [], Table()
    rounds, seed = 0, first
    while rounds == 0 or time.monotonic() - started < 60 * options.minutes:
        rounds += 1
        codes = []
        for selection in (MARKED, LONGER) if rounds == 1 else (RANDOM,):
            code, new = _run(seed, options.minutes, [*selection, "-n", str(options.processes), *rest])
            table = add_up([*to_rows(table), *to_rows(new)])
            codes.append(code)
        if any(codes):
            failed.append(seed)
        print(f"soak: round {rounds}, seed {seed}: {'failed' if any(codes) else 'passed'}", flush=True)
        seed = seeds.randrange(2**31)
    print(render(table))
    has_faults = any(row["lost"] or row["wrong"] for row in table.values())
    outcome = f"failed with the seeds {failed}" if failed else "lost or wrong outcomes" if has_faults else "all passed"
    rounds_done = f"{rounds} round{'' if rounds == 1 else 's'}"
    print(f"soak: seed {first}, {rounds_done} in {(time.monotonic() - started) / 60:.1f} minutes: {outcome}")
    return 1 if failed or has_faults else 0


def _run(seed: int, minutes: float, arguments: list[str]) -> tuple[int, Table]:
    """Run pytest once, and return its exit code and table."""
    with tempfile.TemporaryDirectory(prefix="joyful-soak-") as folder:
        file = Path(folder, "table.json")
        environment = {
            **os.environ,
            "JOYFUL_SOAK": f"{minutes:g}",
            "JOYFUL_FAULT_SEED": str(seed),
            "JOYFUL_FAULT_TABLE": str(file),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", "--timeout", "7200", "--dist", "loadfile", *arguments]
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        return code, add_up(json.loads(file.read_text())) if file.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
