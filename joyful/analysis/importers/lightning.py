"""Import metrics.csv of Lightning's CSVLogger."""

from __future__ import annotations

from pathlib import Path

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import add_table
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, read_hparams, shown

HELP = """\
Import files metrics.csv of Lightning's CSVLogger: one file, or a folder with one file per run, such
as lightning_logs/version_0/metrics.csv. The files have the columns epoch, step and one per metric.

  arm, seed   settings and the seed are read from hparams.yaml beside metrics.csv, which
              self.save_hyperparameters() writes. Without it, set --arm-from and --seed-from
  step        is kept as logged. Rows of one step are merged
  epoch       counts from 0 in the file. The last row of an epoch gets its number + 1; rows inside
              the epoch get the share of its steps that has passed. This is exact if something is
              logged at the end of each epoch, as validation metrics are
  splits      names that start with train, val or test; all others belong to train

example
  joyful import lightning lightning_logs --out from_lightning
"""


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of files metrics.csv. Raise InputError if one is not valid."""
    runs = []
    for name, path in shown(find(source, lambda name: name == "metrics.csv", "files metrics.csv"), "reading runs"):
        run = ImportedRun(name, [path])
        if options.needs_settings():
            run.settings = read_hparams(path)
        add_table(run, options, {"step": "step", "epoch": "epoch"})
        runs.append(run)
    return runs


FORMATS.register("lightning", "metrics.csv of Lightning's CSVLogger")(Importer(HELP, read, epochs="from 0"))
