"""Import runs of MLflow's file store."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import integer, number, typed
from joyful.analysis.importers.points import Points
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, open_file, read_file, read_yaml, shown
from joyful.results import InputError
from joyful.results.csv_text import quoted

HELP = """\
Import the runs of MLflow's file store: the folder mlruns, or the folder of an experiment or of a run
in it. A store in a database is not read.

  arm, seed   the parameters are the settings of a run, and a parameter seed is its seed. Without them,
              set --arm-from and --seed-from, which search EXPERIMENT/RUN, the names of the experiment
              and of the run
  step        as logged; if a step was logged again, the last value is kept
  epoch       a metric named epoch, if there is one: it counts from 0 (see --epochs-from)
  seconds     from the times of the values, since the start of the run
  splits      names such as val_loss or val/loss; all others belong to train

Deleted runs are left out.

example
  joyful import mlflow mlruns --out from_mlflow --settings loss
"""


#: Maximum number of bytes of a line of a metric.
_MAXIMUM_LINE = 1_000


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of a file store. Raise InputError if a file is not valid."""
    experiments: dict[str, str] = {}
    found: list[tuple[Path, dict[str, Any]]] = []
    for _, path in shown(find(source, lambda name: name == "meta.yaml", "files meta.yaml"), "reading runs"):
        meta = read_yaml(path)
        if not isinstance(meta, dict):
            raise InputError(f"{path}: expected names and values, got other YAML; restore or remove the file")
        if "run_id" in meta and "model_id" not in meta:
            found.append((path, meta))
        elif "name" in meta:
            experiments[str(meta.get("experiment_id"))] = str(meta["name"])
    if not found:
        raise InputError(f"{source}: expected the folders of runs (meta.yaml with run_id), got none")
    runs = []
    for path, meta in found:
        if meta.get("lifecycle_stage") == "deleted":
            options.left_out["deleted runs"] += 1
            continue
        experiment = str(meta.get("experiment_id"))
        run_name = meta.get("run_name") or meta["run_id"]
        run = ImportedRun(f"{experiments.get(experiment, experiment)}/{run_name}", [path])
        _add_settings(run, path.parent / "params", options)
        _add_metrics(run, path.parent / "metrics", meta.get("start_time"), options)
        runs.append(run)
    return runs


def _add_settings(run: ImportedRun, folder: Path, options: Options) -> None:
    if folder.is_dir() and any(folder.iterdir()) and options.needs_settings():
        for name, path in find(folder, lambda name: True, "parameters"):
            text = read_file(path, "a parameter in UTF-8", 2**20).decode("utf-8", "replace").strip()
            run.settings[name] = typed(text)


def _add_metrics(run: ImportedRun, folder: Path, start: object, options: Options) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    points = Points(run, options)
    files = find(folder, lambda name: True, "metrics")
    run.files = [path for _, path in files]
    for file, (name, path) in enumerate(files):
        with open_file(path, "lines with a time, a value and a step") as lines:
            for line, text in enumerate(iter(functools.partial(lines.readline, _MAXIMUM_LINE), b""), start=1):
                try:
                    _add_line(points, name, text.decode("utf-8", "replace"), line, file)
                except InputError as error:
                    raise InputError(f"{path}, line {line}: {error}") from None
    points.close(origin=min(points.earliest, start / 1000) if isinstance(start, int) else points.earliest)


def _add_line(points: Points, name: str, text: str, line: int, file: int) -> None:
    fields = text.split()
    if len(fields) < 3:
        raise InputError(f"expected a time, a value and a step, got {quoted(text.strip())}")
    time, value, step = integer(fields[0], "time"), number(fields[1], name), integer(fields[2], "step")
    if value is None:
        raise InputError(f"{name}: expected a number, got {quoted(fields[1])}")
    points.add(name, step, value, line, time / 1000, file)


FORMATS.register("mlflow", "runs of MLflow's file store")(Importer(HELP, read, epochs="from 0"))
