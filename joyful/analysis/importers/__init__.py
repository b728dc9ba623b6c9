"""Import curves of other training programs: ``joyful import FORMAT SOURCE --out FOLDER``.

Each format is a module of this folder that registers an `Importer`. To add one, write the module and a test of it. The
module `runs` writes the runs of all formats.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from joyful.analysis.importers.runs import ImportedRun
from joyful.registry import Registry


@dataclass(frozen=True)
class Importer:
    """A format of curves.

    Attributes:
        help: The full explanation, for ``joyful import FORMAT --help``.
        add_arguments: Function that adds the options of the format to a parser.
        read: Function from the source and the parsed options to the runs. It raises InputError for bad input. Packages
            that not every installation has are imported in it.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    read: Callable[[Path, argparse.Namespace], list[ImportedRun]]


#: The formats. The summary of each is its line in ``joyful import --help``.
FORMATS = Registry[Importer]("format")

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")
