"""Import curves from Python, as ``joyful import`` does."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer
from joyful.analysis.importers.options import Options, add_arguments
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.writing import check_free, write_runs
from joyful.results import InputError


def import_curves(
    format: str, source: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, **options: Any
) -> Path:
    """Import the curves of another training program into run folders, which `read_sweep` reads.

    Args:
        format: Name of a format, such as "csv" (see ``joyful import --help``).
        source: File, or folder that is searched for files.
        out: Folder to write the runs to. It must be new or empty. None stands for a new temporary folder.
        **options: Options of the command, such as `arm_from="^(.+)-seed"` for --arm-from, or `rename=["acc=accuracy"]` for
            one that may be given several times.

    Returns:
        The folder with the runs.

    Raises:
        InputError: If the source or an option is not valid, or `out` is not a new or empty folder. The message names the
            file and the row.
        ResultsError: If the runs cannot be written.

    Example:
        ``import_curves("csv", "curves.csv", "runs")``
    """
    importer = FORMATS[format]
    parsed = _arguments(importer, options)
    folder = Path(tempfile.mkdtemp(prefix="joyful-runs-") if out is None else out)
    check_free(folder)
    runs, _ = read_runs(importer, parsed, Path(source))
    write_runs(runs, folder, str(source))
    return folder


def read_runs(importer: Importer, parsed: argparse.Namespace, source: Path) -> tuple[list[ImportedRun], Options]:
    """Return the runs of a source, with their arms and seeds, and the options with what they left out."""
    options = importer.options(parsed)
    runs = importer.read(source, options)
    options.finish(runs)
    return runs, options


def _arguments(importer: Importer, options: dict[str, Any]) -> argparse.Namespace:
    """Return the options with the defaults of the command."""
    parser = argparse.ArgumentParser(add_help=False)
    importer.add_arguments(parser)
    add_arguments(parser, importer.epochs)
    parsed = parser.parse_args([])
    for name, value in options.items():
        if not hasattr(parsed, name):
            raise InputError(f"option {name}: expected one of {', '.join(sorted(vars(parsed)))}")
        if isinstance(getattr(parsed, name), list) and isinstance(value, str):
            raise InputError(f"{name}: expected a list such as [{value!r}], got text")
        setattr(parsed, name, value)
    return parsed
