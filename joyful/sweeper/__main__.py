"""`python -m joyful.sweeper status FOLDER [--json]` and `retry FOLDER --failed`, for sweeps that run and sweeps that are dead."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.records import InputError, print_error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m joyful.sweeper", description=__doc__.split("\n")[0].replace("`", ""))
    commands = p.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="trials by state, the best so far, workers, time left")
    status.add_argument("--json", action="store_true", help="one JSON object on standard output")
    retry = commands.add_parser("retry", help="make failed trials wait again; the sweep's command then trains them")
    retry.add_argument("--failed", action="store_true", required=True, help="those that failed")
    for command in (status, retry):
        command.add_argument("folder", type=Path, help="the sweep's folder, such as multirun/weights")
        command.add_argument(
            "--storage",
            default=None,
            metavar="URL",
            help="its database, if not that of sweep.json (which has no password: it may be here, in PGPASSWORD or in ~/.pgpass)",
        )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    given = parser().parse_args(arguments)
    from joyful.sweeper.status import open_sweep, snapshot
    from joyful.sweeper.study import quiet, renew_failed
    from joyful.sweeper.view import show

    quiet()
    try:
        with open_sweep(given.folder, given.storage) as sweep:
            if given.command == "status":
                shot = snapshot(sweep.access, sweep.registry, lease_seconds=30.0)
                if given.json:
                    print(json.dumps(shot.as_json()))
                else:
                    show(shot, given.folder)
                return 0
            numbers = renew_failed(sweep.engine, sweep.study_id)
            for number in numbers:
                sweep.registry.reset_failures(number)
    except InputError as error:
        print_error(error)
        return 2
    listed = ", ".join(map(str, numbers))
    print(
        f"trials {listed} wait again; the sweep's workers, or its command, train them" if numbers else "no trial failed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
