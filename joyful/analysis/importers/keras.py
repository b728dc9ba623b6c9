"""Import the files of Keras' CSVLogger."""

from __future__ import annotations

from pathlib import Path

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import add_table
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, shown

HELP = """\
Import the files of Keras' CSVLogger: one CSV file, or a folder with one file *.csv per run. The files
have a row per epoch with the columns epoch, loss, val_loss and so on.

  arm, seed   are not in the files: set --arm-from and --seed-from, which search the path of the file
  step        evaluations are numbered, from 1
  epoch       counts from 0 in the file; the first row is 1 pass over the training data
  splits      names that start with val_ belong to dev, all others to train

example
  joyful import keras keras_logs --out from_keras --arm-from "^([^/]+)/" --seed-from "seed_([0-9]+)"
"""


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of files of CSVLogger. Raise InputError if one is not valid."""
    runs = []
    for name, path in shown(find(source, lambda name: name.endswith(".csv"), "files *.csv"), "reading runs"):
        runs.append(ImportedRun(name, [path]))
        add_table(runs[-1], options, {"epoch": "epoch"})
    return runs


FORMATS.register("keras", "files of Keras' CSVLogger")(Importer(HELP, read, epochs="from 0"))
