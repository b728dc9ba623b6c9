"""Import curves of other training programs: ``joyful import FORMAT SOURCE --out FOLDER``.

Each format is a module of this folder that registers an `Importer`. To add one, write the module and a test of it. The
modules `runs`, `options`, `sources` and `writing` are common to all formats.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from joyful.analysis.importers.options import Options
from joyful.analysis.importers.runs import ImportedRun
from joyful.registry import Registry


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


@dataclass(frozen=True)
class Importer:
    """A format of curves.

    Attributes:
        help: The full explanation, for ``joyful import FORMAT --help``.
        read: Function from the source and the options to the runs. It raises InputError for bad input. Packages that
            not every installation has are imported in it.
        add_arguments: Function that adds the options of this format alone to a parser.
        prefixes: Prefixes of metric names in addition to those of every format (val_, train/ and so on): prefix -> split.
        split: Split of the metrics whose name has no such prefix. None refuses them.
        epochs: What an epoch of the source is: "passes" over the training data so far; "from 0", the number of the epoch
            in progress, the first of which is 0; or "ask", one of the two, so that an epoch 0 needs --epochs-from.
    """

    help: str
    read: Callable[[Path, Options], list[ImportedRun]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    prefixes: Mapping[str, str] = field(default_factory=dict)
    split: str | None = "train"
    epochs: str = "passes"

    def options(self, arguments: argparse.Namespace) -> Options:
        """Return the options of an import in this format. Raise InputError if one is not valid."""
        return Options(arguments, self.prefixes, self.split, self.epochs)


__all__ = ["FORMATS", "ImportedRun", "Importer", "Options"]

#: The formats. The summary of each is its line in ``joyful import --help``.
FORMATS = Registry[Importer]("format")

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")
