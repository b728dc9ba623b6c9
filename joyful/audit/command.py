"""The command `joyful audit`: check the manifest of a report, train some runs again, and compare them.

    joyful audit SWEEP_FOLDER [--runs K] [--seed N] [--command "python main.py"] ...

The audited folder is only read. Runs are trained in a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from joyful.analysis.manifest import MANIFEST
from joyful.audit import comparison, programs, retraining
from joyful.audit.comparison import CLOSE, DIFFERENT, TOLERANCE, Outcome
from joyful.audit.confidence import statement
from joyful.messages import CommandParser
from joyful.records import InputError, print_error, visible
from joyful.results import find_runs, read_run
from joyful.results.design import read_designs
from joyful.runtime.signals import RaisingSignals, Signalled

#: Exit code if something differs.
DIFFERS = 3

#: Drawn runs: name -> content of run.json.
Infos = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `joyful audit`.

    Args:
        arguments: Arguments of the command line, by default those of the process.

    Returns:
        The exit code: 0 if nothing differs, 1 if training failed, 2 for invalid input, 3 if something differs, 130 and 143
        after a signal.
    """
    parsed = _parser().parse_args(arguments)
    try:
        with RaisingSignals(Signalled, signal.SIGTERM):  # so that the temporary folder is removed
            return _audit(parsed)
    except InputError as error:
        print_error(f"audit: {error}")
        return 2
    except programs.ProgramFailedError as error:
        print_error(f"audit: {error}")
        return 1
    except KeyboardInterrupt:
        print_error("audit: interrupted by Ctrl-C")
        return 130
    except Signalled as error:
        print_error(f"audit: interrupted by {error}")
        return error.code


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="joyful audit",
        description="Check the manifest of a report, draw some of the completed runs at random, train them again from their\n"
        "recorded configuration, compare the histories, and say how many runs can be false. Nothing is written to\n"
        "the folder.",
        epilog="Exit codes: 0 nothing differs, 1 training failed, 2 invalid input, 3 something differs (each is named).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP_FOLDER", type=Path, help="folder with runs in or below it (multirun/NAME)")
    add("--report", metavar="FOLDER", type=Path, help="folder of the report (default: SWEEP_FOLDER/report)")
    add(
        "--claims", metavar="FILE", type=Path, help="claims that the report should judge (default: the registered ones)"
    )
    add("--runs", metavar="K", type=_count, default=5, help="runs to draw and to train again (default: 5); 0: none")
    add("--seed", metavar="N", type=_count, help="seed of the draw (default: a new one, which is printed)")
    add(
        "--tolerance", metavar="T", type=_fraction, default=TOLERANCE,
        help=f"largest difference of scores where bits may differ, such as on another processor (default: {TOLERANCE}); for "
        "other columns, times the largest value of the curve",
    )  # fmt: skip
    add("--data-root", metavar="DIR", type=Path, help="folder of the dataset in place of the recorded one")
    add(
        "--command", metavar="COMMAND",
        help='command of the program that the sweep ran, such as "python main.py", if it is not joyful train',
    )  # fmt: skip
    return parser


def _say(text: str) -> None:
    """Print a line. Names in it may be hostile, so control characters are escaped."""
    print(visible(text), flush=True)


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected an integer of 0 or more, got {text}")
    return value


def _fraction(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def _audit(parsed: argparse.Namespace) -> int:
    if not parsed.sweep.is_dir():
        raise InputError(f"{parsed.sweep}: expected the folder of a sweep, found none; give multirun/NAME")
    if not _check_manifest(parsed):
        return DIFFERS
    return _check_runs(parsed) if parsed.runs else 0


def _check_manifest(parsed: argparse.Namespace) -> bool:
    """Check the report, and return whether nothing differs."""
    from joyful.analysis.report_check import check_report

    place = parsed.report or parsed.sweep / "report"
    if not (place / MANIFEST).exists() and parsed.report is None and parsed.runs:
        _say(f"manifest: there is no {place / MANIFEST}, so the report is not checked")
        return True
    check = check_report(parsed.sweep, place, parsed.claims)
    for note in check.notes:
        _say(f"manifest: {note}")
    for line in check.differences:
        _say(line)
    if check.differences:
        _say("the report is not that of these files; no run was trained again" if parsed.runs else "the report differs")
        return False
    _say(f"manifest: {check.summary} and every number of the report: unchanged")
    return True


def _check_runs(parsed: argparse.Namespace) -> int:
    """Draw runs, train them again and compare them. Return the exit code."""
    drawn, total = _draw(parsed)
    folders = dict(find_runs(parsed.sweep))
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="joyful-audit-") as scratch:
        for name, trained in _trained(parsed, drawn, Path(scratch)):
            outcomes[name] = comparison.compare(folders[name], trained, parsed.tolerance)
            _say(f"run {name}: {outcomes[name].text}")
    return _conclude(outcomes, total, parsed.tolerance)


def _draw(parsed: argparse.Namespace) -> tuple[Infos, int]:
    """Return the drawn runs in their order in the folder, and the number of runs from which they were drawn."""
    completed: Infos = {}
    with_cut = any(
        design.pairs is None for design in read_designs(parsed.sweep)
    )  # runs that end at the target are used
    for name, folder in find_runs(parsed.sweep):
        try:
            info = read_run(folder)
        except (InputError, OSError) as error:
            _say(f"run {name}: left out, because it cannot be read: {error}")
            continue
        if info["status"] == "completed" or (with_cut and info["status"] == "pruned" and info["role"] == "comparison"):
            completed[name] = info
    if not completed:
        raise InputError(f"{parsed.sweep}: expected completed runs, found none; check the report alone with --runs 0")
    seed = secrets.randbelow(2**32) if parsed.seed is None else parsed.seed
    names = set(random.Random(seed).sample(sorted(completed), min(parsed.runs, len(completed))))
    _say(f"seed {seed}: {len(names)} of {len(completed)} completed runs are drawn and trained again")
    return {name: info for name, info in completed.items() if name in names}, len(completed)


def _trained(parsed: argparse.Namespace, drawn: Infos, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Train the drawn runs, and yield the name of each and its folder."""
    if parsed.command is not None:
        yield from programs.train(parsed.sweep, drawn, parsed.command, scratch).items()
        return
    if others := [name for name, info in drawn.items() if not retraining.is_own(info)]:
        raise InputError(
            f"run {others[0]} is not of joyful's trainer; set --command to the command of its program, such as "
            '--command "python main.py", or check the report alone with --runs 0'
        )
    if missing := retraining.missing_packages():
        raise InputError(
            f"--runs {parsed.runs} needs {' and '.join(missing)}; run pip install 'joyful-sweeps[train]', or check the report "
            "alone with --runs 0"
        )
    for number, (name, info) in enumerate(drawn.items()):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            try:
                retraining.train(info, place := Path(folder, str(number)), parsed.data_root)
            except InputError as error:
                raise InputError(f"run {name}: {error}") from None
            except Exception as error:
                raise programs.ProgramFailedError(f"run {name} failed when trained again: {error}") from error
            yield name, place


def _conclude(outcomes: dict[str, Outcome], total: int, tolerance: float) -> int:
    """Print what the outcomes say of all runs, and return the exit code."""
    kinds = [outcome.kind for outcome in outcomes.values()]
    if different := [name for name, outcome in outcomes.items() if outcome.kind == DIFFERENT]:
        _say(f"{len(different)} of {len(kinds)} differ: run{'s' * (len(different) > 1)} {', '.join(different)}")
        return DIFFERS
    said = statement(len(kinds), total)
    if CLOSE not in kinds:
        _say(f"{len(kinds)} of {len(kinds)} equal: {said}")
        return 0
    _say(
        f"{kinds.count(comparison.EQUAL)} of {len(kinds)} equal, {kinds.count(CLOSE)} within the tolerance {tolerance:g}: "
        f"{said}, if a run is false only where a curve is off by more than the tolerance; this is weaker than equal bits"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
