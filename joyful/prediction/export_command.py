"""The command `joyful export`: write a trained model to a folder that can be shared.

joyful export RUN --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.messages import CommandParser
from joyful.prediction.export import export_with_notes
from joyful.records import InputError, print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `joyful export`.

    Args:
        arguments: Arguments of the command line, by default those of the process.

    Returns:
        The exit code: 0 success, 2 invalid input.
    """
    parsed = _parser().parse_args(arguments)
    try:
        folder, notes = export_with_notes(parsed.run, parsed.out, best=parsed.best)
    except InputError as error:
        print_error(f"export: {error}")
        return 2
    for note in notes:
        print_error(note)
    print(f"{folder}: the model of {parsed.run}; predict with it: joyful predict {folder} FILE")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="joyful export",
        description="Write a trained model to a new folder that needs nothing else of its run: model.safetensors with the\n"
        "weights of the best evaluation, and config.json with the settings, the labels, the feature widths, and the\n"
        "name and digest of the text encoder. joyful predict and joyful.prediction.load read it.",
        epilog="example:\n  joyful export outputs/run --out my-model\n\nExit codes: 0 success, 2 invalid input.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="folder of a run")
    add("--out", metavar="FOLDER", type=Path, required=True, help="the new folder")
    add("--best", action="store_true", help="of the folder of a sweep, export the completed run with the best dev F1")
    add(
        "--format", choices=("safetensors",), default="safetensors", help="format of the weights (default: safetensors)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
