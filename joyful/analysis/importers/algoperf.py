"""Import measurements.csv of AlgoPerf."""

from __future__ import annotations

import re
from pathlib import Path

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import add_table
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, shown

HELP = """\
Import the measurements of AlgoPerf: a file measurements.csv or eval_measurements.csv, or a folder with
the folders of submissions, SUBMISSION/study_N/WORKLOAD_FRAMEWORK/trial_N/measurements.csv. Of a folder
with both files, measurements.csv is read.

  arm         SUBMISSION, or the name of SOURCE if study_N lies directly in it
  task        WORKLOAD_FRAMEWORK
  seed        1000 times the number of the study, plus the number of the trial
  step        global_step
  seconds     accumulated_submission_time: the time of training, without evaluation
  splits      train/ belongs to train, validation/ to dev, test/ to test, others to train

--arm-from, --task-from and --seed-from replace these values.

example
  joyful import algoperf external_tuning --out from_algoperf --metrics loss,accuracy
"""

_FILES = ("measurements.csv", "eval_measurements.csv")
_PLACE = re.compile(r"(?:(?P<study>study_\d{1,6})/)?(?P<task>[^/]+)/(?P<trial>trial_\d{1,6})/[^/]+$")

#: Columns that are not metrics: clocks, and what the runs are scored by.
_IGNORED = ("accumulated_eval_time", "accumulated_logging_time", "total_duration", "preemption_count", "score")


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of measurements.csv. Raise InputError if a file is not valid."""
    found = find(source, lambda name: name in _FILES, "files measurements.csv")
    complete = {name.rpartition("/")[0] for name, _ in found if name.rpartition("/")[2] == _FILES[0]}
    files = [
        (name, path) for name, path in found
        if name.rpartition("/")[2] != _FILES[1] or name.rpartition("/")[0] not in complete
    ]  # fmt: skip
    if len(found) > len(files):
        options.left_out["files eval_measurements.csv beside measurements.csv"] += len(found) - len(files)
    runs = []
    for name, path in shown(files, "reading runs"):
        run = ImportedRun(name, [path])
        place = _PLACE.search(name)
        if place is not None:
            run.arm = name[: place.start()].strip("/") or source.absolute().name
            run.task = place["task"]
            run.seed = 1000 * _number(place["study"]) + _number(place["trial"])
        add_table(run, options, {"step": "global_step", "seconds": "accumulated_submission_time"}, _IGNORED)
        runs.append(run)
    return runs


def _number(name: str | None) -> int:
    """Return the number at the end of a folder's name such as trial_1; 0 without a folder."""
    return 0 if name is None else int(name.rpartition("_")[2])


FORMATS.register("algoperf", "measurements.csv of AlgoPerf")(Importer(HELP, read))
