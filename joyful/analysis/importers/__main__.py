"""Command line of the importers, ``joyful import``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.analysis.importers import FORMATS, Options
from joyful.analysis.importers.importing import read_runs
from joyful.analysis.importers.options import add_arguments
from joyful.analysis.importers.runs import SPLITS, ImportedRun
from joyful.analysis.importers.writing import Stopped, check_free, settings_of, stopped_by_signals, write_runs
from joyful.messages import CommandParser, expected_one_of
from joyful.results import InputError, ResultsError
from joyful.results.arms import differences

END = """
Nothing is written if the source has an error, or after Ctrl-C or SIGTERM. Exit codes: 0 success,
1 the runs cannot be written, 2 bad input, 130 and 143 stopped by these signals."""

#: Number of arms, and of metrics of a split, that are printed.
MAXIMUM_LINES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: import a source, and print the arms, the numbers of their seeds and what was read.

    Args:
        arguments: The arguments. None stands for those of the process.

    Returns:
        The exit code: 0 on success, 1 if the runs cannot be written, 2 for bad input, 130 and 143 after SIGINT and
        SIGTERM.
    """
    parser = CommandParser(
        prog="joyful import",
        description="Import the curves of another training program into the results format, for joyful report. "
        "joyful import FORMAT --help explains a format.",
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    raw, out = argparse.RawDescriptionHelpFormatter, "folder to write the runs to; it must be new or empty"
    for name, summary in FORMATS.summaries().items():
        text = FORMATS[name].help
        of_format = formats.add_parser(name, help=summary, description=text, epilog=END, formatter_class=raw)
        of_format.add_argument("source", metavar="SOURCE", help="file, or folder that is searched for files")
        of_format.add_argument("--out", metavar="FOLDER", type=Path, required=True, help=out)
        FORMATS[name].add_arguments(of_format)
        add_arguments(of_format, FORMATS[name].epochs)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in FORMATS:
        parser.error(f"{FORMATS.setting}: {expected_one_of(given[0], list(FORMATS))}")
    parsed = parser.parse_args(given)
    try:
        with stopped_by_signals():
            check_free(parsed.out)  # before the source is read, which may take a while
            runs, options = read_runs(FORMATS[parsed.format], parsed, Path(parsed.source))
            write_runs(runs, parsed.out, parsed.source)
    except (InputError, ResultsError) as error:
        print(f"joyful import: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except Stopped as stopped:
        print(f"joyful import: stopped by {stopped}; no partial import is left in {parsed.out}", file=sys.stderr)
        return 128 + stopped.number
    _print_arms(runs, parsed.out)
    _print_metrics(runs)
    _print_left_out(runs, options)
    return 0


def _print_arms(runs: Sequence[ImportedRun], out: Path) -> None:
    """Print the arms with the numbers of their seeds and tasks, and the next command."""
    every = [{name: value for name, value in settings_of(run).items() if name != "task"} for run in runs]
    names = differences([{} for _ in runs], every).arms or tuple(name for name in ("arm",) if name in every[0])
    seeds: dict[tuple[str, ...], tuple[set[int | None], set[str]]] = {}
    for run, settings in zip(runs, every, strict=True):
        arm = tuple(f"{name}={settings.get(name)}" for name in names)
        of_arm = seeds.setdefault(arm, (set(), set()))
        of_arm[0].add(run.seed)
        of_arm[1].update([run.task] if run.task is not None else [])
    for arm, (of_arm_seeds, tasks) in list(seeds.items())[:MAXIMUM_LINES]:
        on_tasks = f" on {len(tasks)} tasks" if len(tasks) > 1 else "".join(f" on the task {task}" for task in tasks)
        _print(f"{' '.join(arm) or 'all runs'}: {len(of_arm_seeds)} seed{'s' * (len(of_arm_seeds) != 1)}{on_tasks}")
    if len(seeds) > MAXIMUM_LINES:
        _print(f"and {len(seeds) - MAXIMUM_LINES} more arms")
    _print(f"{len(runs)} runs of {len(seeds)} arms in {out}; next: joyful report {out}")


def _print_metrics(runs: Sequence[ImportedRun]) -> None:
    """Print the metrics of the run with most of them, with their first and last values, and the splits."""
    run = max(runs, key=lambda run: len(run.columns()))
    named = ", ".join([*(f"{name} {value}" for name, value in settings_of(run).items()), f"seed {run.seed}"])
    _print(f"metrics of one run ({named}), first and last value:")
    for split, name in enumerate(SPLITS):
        columns = [column for column in run.columns() if column.split == split]
        values = [(column.name, run.values(column)[1]) for column in columns]
        texts = [f"{metric} {value[0]:g} to {value[-1]:g}" for metric, value in values[:MAXIMUM_LINES]]
        texts += [f"and {len(values) - MAXIMUM_LINES} more"] if len(values) > MAXIMUM_LINES else []
        if texts:
            _print(f"  {name}: {', '.join(texts)}")


def _print_left_out(runs: Sequence[ImportedRun], options: Options) -> None:
    """Print what was left out, and the notes of the format."""
    left_out = [f"{number} {what}" for what, number in options.left_out.items()]
    repeated = sum(run.repeated for run in runs)
    left_out += [f"{repeated} values that were logged again at the same step (the last is kept)"] if repeated else []
    empty = sum(not run.columns() for run in runs)
    left_out += [f"the curves of {empty} runs, which have no metrics"] if empty else []
    if left_out:
        _print(f"left out: {'; '.join(left_out)}")
    for note in options.notes:
        _print(note)


def _print(text: str) -> None:
    """Print a line. Characters of names that are not printable are escaped."""
    print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in text))


if __name__ == "__main__":
    sys.exit(main())
