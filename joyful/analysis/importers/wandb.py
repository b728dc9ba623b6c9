"""Import tables of charts exported from Weights & Biases."""

from __future__ import annotations

from pathlib import Path

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import integer, number, some, table
from joyful.analysis.importers.points import Points
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, shown
from joyful.results import InputError
from joyful.results.csv_text import line_error

HELP = """\
Import tables of charts exported from Weights & Biases (the menu of a chart, "CSV"): one file, or a
folder with one file *.csv per chart, whose columns are merged by run and step. A table has the x axis
in its first column, and a column "RUN - METRIC" per run:

  "Step","mse-seed1 - val/f1","mse-seed1 - val/f1__MIN","mse-seed1 - val/f1__MAX",...

  arm, seed   are not in the table: set --arm-from and --seed-from, which search the name of the run
  x axis      Step or another name that ends with step; or epoch; or a relative time in seconds. With
              an epoch or a time, evaluations are numbered
  splits      names such as val/f1 or train_loss. For others, set --split-prefix
  left out    columns __MIN and __MAX, and W&B's own such as _step

example
  joyful import wandb wandb_export.csv --out from_wandb \\
      --arm-from "^([^-]+)" --seed-from "seed([0-9]+)"
"""


#: Maximum number of columns of a table; three per run and metric.
MAXIMUM_COLUMNS = 30_000


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of exported tables. Raise InputError if one is not valid."""
    runs: dict[str, tuple[ImportedRun, Points]] = {}
    axes: dict[str, Path] = {}
    files = find(source, lambda name: name.lower().endswith(".csv"), "files *.csv")
    for _, path in shown(files, "reading tables"):
        line, names, rows = table(path, '"Step","RUN - METRIC"', maximum_columns=MAXIMUM_COLUMNS)
        axis = _axis(names[0])
        other = next((other for known, other in axes.items() if known != axis), None)
        if axis == "" or other is not None:
            expected = "the x axis Step, epoch or a relative time" if axis == "" else f"the x axis of {other}"
            raise line_error(
                path, line, f"expected {expected}, got {names[0]!r}; export the chart again with that axis"
            )
        axes[axis] = path
        columns = []
        for index, name in enumerate(names[1:], start=1):
            run_name, _, metric = name.rpartition(" - ")
            if name.endswith(("__MIN", "__MAX")) or metric in ("_step", "_timestamp"):
                options.left_out["columns __MIN, __MAX, _step and _timestamp"] += 1
            elif run_name:
                if run_name not in runs:
                    run = ImportedRun(run_name, [])
                    runs[run_name] = run, Points(run, options)
                run, points = runs[run_name]
                run.files += [path] if path not in run.files else []
                columns.append((index, metric, points, len(run.files) - 1))
            else:
                options.left_out["columns without the name of a run"] += 1
        if not columns:
            raise line_error(path, line, f"expected columns 'RUN - METRIC', got {some(names)}")
        for line, fields in rows:
            try:
                position = integer(fields[0], names[0]) if axis == "step" else number(fields[0], names[0])
                if position is None:
                    raise InputError(f"{names[0]}: expected a number, got an empty field")
                for index, metric, points, file in columns:
                    value = number(fields[index], names[index])
                    if value is not None:
                        points.add(metric, position, value, line, file=file)
            except InputError as error:
                raise line_error(path, line, error) from None
    for _, points in runs.values():
        points.close(next(iter(axes)))
    return [run for run, _ in runs.values()]


def _axis(name: str) -> str:
    """Return what an x axis is: step, epoch or seconds; "" if it is none of them."""
    lower = name.lower()
    if lower.endswith("step"):
        return "step"
    if lower.rpartition("/")[2] in ("epoch", "epochs"):
        return "epoch"
    return "seconds" if lower.startswith("relative time") or lower == "_runtime" else ""


FORMATS.register("wandb", "tables of charts exported from Weights & Biases")(
    Importer(HELP, read, split=None, epochs="ask")
)
