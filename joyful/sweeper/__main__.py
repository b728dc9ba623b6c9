"""Show the state of a sweep or its trials, watch it while it runs, or queue its failed trials again.

Usage: `joyful sweep status FOLDER [--json]`, `joyful sweep watch FOLDER`, `joyful sweep trials FOLDER [--json]` and
`joyful sweep retry FOLDER --failed`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from joyful.messages import CommandParser
from joyful.records import InputError, print_error
from joyful.runtime import closed_pipes

if TYPE_CHECKING:
    from joyful.sweeper.study import StudyAccess

#: Seconds without a heartbeat after which a process of another machine counts as dead.
LEASE_SECONDS = 30.0

#: Seconds between two pictures of a sweep that is watched.
WATCH_SECONDS = 1.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = CommandParser(prog="joyful sweep", description=__doc__.split("\n")[0].replace("`", ""))
    commands = p.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="show trials by state, the best trial, workers and the time left")
    status.add_argument("--json", action="store_true", help="print one JSON object to standard output")
    watch = commands.add_parser("watch", help="show the running trials with their epochs until the sweep is finished")
    trials = commands.add_parser("trials", help="list all trials, the best first, with states, values and folders")
    trials.add_argument("--json", action="store_true", help="print a JSON list to standard output")
    retry = commands.add_parser("retry", help="queue failed trials again; the sweep's command then trains them")
    retry.add_argument("--failed", action="store_true", required=True, help="queue all failed trials")
    for command in (status, watch, trials, retry):
        command.add_argument("folder", type=Path, help="folder of the sweep, such as multirun/weights")
        where = "database, if not that of sweep.json; its password may be here, in PGPASSWORD or in ~/.pgpass"
        command.add_argument("--storage", metavar="URL", help=where)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command and its arguments; None: those of the process.

    Returns:
        The exit code: 0, 2 for bad input, or 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    from joyful.sweeper.status import open_sweep
    from joyful.sweeper.study import silence_logs

    silence_logs()
    try:
        with open_sweep(options.folder, options.storage) as study:
            _COMMANDS[options.command](study, options)
            return 0
    except InputError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        return 130


def _status(study: StudyAccess, options: argparse.Namespace) -> None:
    from joyful.sweeper.heartbeat import FailureDetector
    from joyful.sweeper.status import take_snapshot
    from joyful.sweeper.view import print_snapshot

    snapshot = take_snapshot(study, FailureDetector(LEASE_SECONDS), options.folder)
    if options.json:
        print(json.dumps(vars(snapshot)))
    else:
        print_snapshot(snapshot, options.folder)


def _watch(study: StudyAccess, options: argparse.Namespace) -> None:
    from joyful.sweeper.heartbeat import FailureDetector
    from joyful.sweeper.live import LiveReader
    from joyful.sweeper.status import steps_of
    from joyful.sweeper.view import SweepView

    reader = LiveReader(study, FailureDetector(LEASE_SECONDS), options.folder, steps_of(options.folder))
    with _ctrl_c() as pressed, SweepView(reader.read, options.folder) as view:
        start = time.monotonic()
        while not view.is_finished and not pressed:
            time.sleep(0.1)
            if time.monotonic() - start > WATCH_SECONDS:
                start = time.monotonic()
                view.update()
    if pressed and not view.is_finished:
        raise KeyboardInterrupt
    _status(study, argparse.Namespace(folder=options.folder, json=False))


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Context in which Ctrl-C only adds an item to the list that it yields. An exception could interrupt a read."""
    pressed: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous or signal.SIG_DFL)


def _trials(study: StudyAccess, options: argparse.Namespace) -> None:
    from joyful.sweeper.trials import list_trials, print_trials

    if options.json:
        print(json.dumps([vars(trial) for trial in list_trials(study)]))
    else:
        print_trials(study, options.folder)


def _retry(study: StudyAccess, options: argparse.Namespace) -> None:
    from joyful.sweeper.trial_table import requeue_failed

    trials = ", ".join(map(str, requeue_failed(study.registry)))
    queued = f"trials {trials} are queued again; running workers or the sweep's command train them"
    print(queued if trials else "no trial failed")


_COMMANDS = {"status": _status, "watch": _watch, "trials": _trials, "retry": _retry}


if __name__ == "__main__":
    closed_pipes.tolerate()
    sys.exit(main())
