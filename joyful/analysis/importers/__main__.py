"""The command line of the importers."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.analysis.importers import FORMATS
from joyful.analysis.importers.runs import write_runs
from joyful.results import InputError, ResultsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Import, say what was found, and return the exit code: 0 done, 1 the disk refused, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m joyful.analysis.importers",
        description="Turn curves that another trainer logged into the results format, for python -m joyful.analysis.report.",
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, module_name in FORMATS.items():
        module = importlib.import_module(module_name)
        one = formats.add_parser(
            name,
            help=module.SUMMARY,
            description=module.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("source", metavar="SOURCE", type=Path)
        one.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="new folder of runs to write")
        module.add_arguments(one)
    parsed = parser.parse_args(arguments)
    try:
        runs = importlib.import_module(FORMATS[parsed.format]).read(parsed.source, parsed)
        write_runs(runs, parsed.out, str(parsed.source))
    except (InputError, ResultsError) as error:
        print(f"joyful.analysis.importers: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    seeds: dict[tuple[tuple[str, object], ...], set[int]] = {}
    for run in runs:
        seeds.setdefault(tuple(run.settings.items()), set()).add(run.seed)
    for arm, of_arm in seeds.items():
        print(f"{' '.join(f'{name}={value}' for name, value in arm)}: {len(of_arm)} seeds")
    print(f"{len(runs)} runs of {len(seeds)} arms in {parsed.out}; next: python -m joyful.analysis.report {parsed.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
