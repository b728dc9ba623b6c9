"""Command line of the importers, ``joyful import``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.analysis.importers import FORMATS
from joyful.analysis.importers.runs import write_runs
from joyful.registry import expected_one_of
from joyful.results import InputError, ResultsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: import a file, and print the arms and the number of their seeds.

    Args:
        arguments: The arguments. None stands for those of the process.

    Returns:
        The exit code: 0 on success, 1 if the runs cannot be written, 2 for bad input.
    """
    parser = argparse.ArgumentParser(
        prog="joyful import",
        description="Import the curves of another training program into the results format, for joyful report.",
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    raw, out = argparse.RawDescriptionHelpFormatter, "folder to write the runs to; it must be new or empty"
    for name, summary in FORMATS.summaries().items():
        of_format = formats.add_parser(name, help=summary, description=FORMATS[name].help, formatter_class=raw)
        of_format.add_argument("source", metavar="SOURCE", type=Path, help="file to import")
        of_format.add_argument("--out", metavar="FOLDER", type=Path, required=True, help=out)
        FORMATS[name].add_arguments(of_format)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in FORMATS:
        parser.error(f"{FORMATS.setting}: {expected_one_of(given[0], list(FORMATS))}")
    parsed = parser.parse_args(given)
    try:
        runs = FORMATS[parsed.format].read(parsed.source, parsed)
        write_runs(runs, parsed.out, str(parsed.source))
    except (InputError, ResultsError) as error:
        print(f"joyful import: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    seeds: dict[tuple[tuple[str, object], ...], set[int]] = {}
    for run in runs:
        seeds.setdefault(tuple(run.settings.items()), set()).add(run.seed)
    for arm, arm_seeds in seeds.items():
        print(f"{' '.join(f'{name}={value}' for name, value in arm)}: {len(arm_seeds)} seeds")
    print(f"{len(runs)} runs of {len(seeds)} arms in {parsed.out}; next: joyful report {parsed.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
