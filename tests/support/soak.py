"""`make soak`: the fault tests at their full counts, and then again those that draw at random, with new seeds, until time is up.

`python -m tests.support.soak --minutes 30 [--seed N] [--processes 2] [pytest's arguments]`. It prints the seed first and the
table of all rounds last. Exit code 0 where every round passed and nothing was lost or wrong, else 1.
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

from tests.support.faults import Table, added, as_lines, rendered

ROOT = Path(__file__).resolve().parents[2]

#: Where faults are injected.
PLACES = (
    "tests/faults",
    "tests/test_experiment.py",
    "tests/test_results_lock.py",
    "tests/sweeper/test_frozen.py",
    "tests/sweeper/test_kills.py",
    "tests/sweeper/test_postgresql.py",
)

#: The tests whose faults are drawn at random, so that a new seed is a new test.
DRAWN = "kill or fuzz"


def main() -> int:
    """Run rounds until the time is up; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="go on with new seeds for at least so long (30)")
    parser.add_argument("--seed", type=int, help="of the first round; drawn where it is not given")
    parser.add_argument("--processes", type=int, default=2, help="test processes at a time (2)")
    options, rest = parser.parse_known_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(
        f"soak: seed {first} (make soak ARGS='--seed {first}' repeats it), at least {options.minutes:g} minutes",
        flush=True,
    )
    began, seeds, failed, table = time.monotonic(), random.Random(first), [], Table()
    rounds, seed = 0, first
    while rounds == 0 or time.monotonic() - began < 60 * options.minutes:
        rounds += 1
        chosen = [] if rounds == 1 else ["-k", DRAWN]
        code, new = _round(seed, options.minutes, [*chosen, "-n", str(options.processes), *rest])
        table = added([*as_lines(table), *as_lines(new)])
        if code:
            failed.append(seed)
        print(f"soak: round {rounds}, seed {seed}: {'failed' if code else 'passed'}", flush=True)
        seed = seeds.randrange(2**31)
    print(rendered(table))
    spoiled = any(row["lost"] or row["wrong"] for row in table.values())
    outcome = f"failed with the seeds {failed}" if failed else "faults were lost or wrong" if spoiled else "all passed"
    rounds_done = f"{rounds} round{'' if rounds == 1 else 's'}"
    print(f"soak: seed {first}, {rounds_done} in {(time.monotonic() - began) / 60:.1f} minutes: {outcome}")
    return 1 if failed or spoiled else 0


def _round(seed: int, minutes: float, arguments: list[str]) -> tuple[int, Table]:
    """Run pytest once; its exit code and its table."""
    with tempfile.TemporaryDirectory(prefix="joyful-soak-") as folder:
        file = Path(folder, "table.json")
        environment = {
            **os.environ,
            "JOYFUL_SOAK": f"{minutes:g}",
            "JOYFUL_FAULT_SEED": str(seed),
            "JOYFUL_FAULT_TABLE": str(file),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", "--timeout", "7200", "--dist", "loadgroup", *PLACES, *arguments]
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        return code, added(json.loads(file.read_text())) if file.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
