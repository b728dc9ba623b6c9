"""Show the state of a sweep, or queue its failed trials again.

Usage: `joyful sweep status FOLDER [--json]` and `joyful sweep retry FOLDER --failed`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.messages import CommandParser
from joyful.records import InputError, print_error
from joyful.runtime import closed_pipes


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = CommandParser(prog="joyful sweep", description=__doc__.split("\n")[0].replace("`", ""))
    commands = p.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="show trials by state, the best trial, workers and the time left")
    status.add_argument("--json", action="store_true", help="print one JSON object to standard output")
    retry = commands.add_parser("retry", help="queue failed trials again; the sweep's command then trains them")
    retry.add_argument("--failed", action="store_true", required=True, help="queue all failed trials")
    for command in (status, retry):
        command.add_argument("folder", type=Path, help="folder of the sweep, such as multirun/weights")
        where = "database, if not that of sweep.json; its password may be here, in PGPASSWORD or in ~/.pgpass"
        command.add_argument("--storage", metavar="URL", help=where)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command and its arguments; None: those of the process.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    options = parser().parse_args(arguments)
    from joyful.sweeper.heartbeat import FailureDetector
    from joyful.sweeper.status import open_sweep, take_snapshot
    from joyful.sweeper.study import requeue_failed, silence_logs
    from joyful.sweeper.view import print_snapshot

    silence_logs()
    try:
        with open_sweep(options.folder, options.storage) as study:
            if options.command == "retry":
                trials = ", ".join(map(str, requeue_failed(study.registry)))
                queued = f"trials {trials} are queued again; running workers or the sweep's command train them"
                print(queued if trials else "no trial failed")
                return 0
            snapshot = take_snapshot(study, FailureDetector(lease_seconds=30.0), options.folder)
            if options.json:
                print(json.dumps(vars(snapshot)))
            else:
                print_snapshot(snapshot, options.folder)
            return 0
    except InputError as error:
        print_error(error)
        return 2


if __name__ == "__main__":
    closed_pipes.tolerate()
    sys.exit(main())
