"""Read a source with an importer, and look at what it read."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS
from joyful.analysis.importers.__main__ import main
from joyful.analysis.importers.options import add_arguments
from joyful.analysis.importers.runs import ImportedRun
from joyful.results.tables import columns_bytes, history_rows

#: Files that the libraries wrote (its README says how).
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "importers"


def read_runs_of(name: str, source: Path | str, *words: str) -> list[ImportedRun]:
    """Return the runs of a source, with arms and seeds.

    Args:
        name: The format.
        source: The file or folder, or the URL of a storage.
        words: Options of ``joyful import``.
    """
    importer, parser = FORMATS[name], argparse.ArgumentParser()
    parser.add_argument("source")
    importer.add_arguments(parser)
    add_arguments(parser, importer.epochs)
    options = importer.options(parser.parse_args([str(source), *words]))
    runs = importer.read(Path(source), options)
    options.finish(runs)
    return runs


def rows_of(run: ImportedRun) -> list[dict[str, Any]]:
    """Return the rows of a run's history, each without its null values."""
    return history_rows(columns_bytes(run.history()))


def curve(run: ImportedRun, split: str, metric: str, axis: str = "step") -> list[tuple[Any, Any]]:
    """Return the pairs (axis, metric) of a split, where the metric was measured."""
    return [(row.get(axis), row[metric]) for row in rows_of(run) if row["split"] == split and metric in row]


def refusal(name: str, source: Path, *words: str) -> str:
    """Return the message of an import that is refused. Check that it is one line and that nothing is written."""
    out, printed = source.parent / "refused", io.StringIO()
    before = sorted(source.parent.iterdir())
    with contextlib.redirect_stderr(printed):
        code = main([name, str(source), "--out", str(out), *words])
    assert code == 2, printed.getvalue()
    assert printed.getvalue().count("\n") == 1
    assert sorted(source.parent.iterdir()) == before
    return printed.getvalue()


def copied(name: str, folder: Path) -> Path:
    """Return the path of a copy of the files of a format in a folder, for a test that damages them."""
    return Path(shutil.copytree(FIXTURES / name, folder / name))
