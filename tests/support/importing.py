"""Read a source with an importer, without the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from joyful.analysis.importers import FORMATS
from joyful.analysis.importers.options import add_arguments
from joyful.analysis.importers.runs import ImportedRun


def read_runs_of(name: str, source: Path, *words: str) -> list[ImportedRun]:
    """Return the runs of a source, with arms and seeds.

    Args:
        name: The format.
        source: The file or folder.
        words: Options of ``joyful import``.
    """
    importer, parser = FORMATS[name], argparse.ArgumentParser()
    importer.add_arguments(parser)
    add_arguments(parser, importer.epochs)
    options = importer.options(parser.parse_args(words))
    runs = importer.read(source, options)
    options.finish(runs)
    return runs
