"""Import trainer_state.json of Hugging Face's Trainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, read_json, shown
from joyful.results import InputError
from joyful.results.csv_text import quoted

HELP = """\
Import files trainer_state.json of the Trainer of Hugging Face's transformers: one file, or a folder
with the output folders of several runs. Of a run with several files (checkpoint-500/, checkpoint-1000/
and the output folder itself) the one with the most steps is read.

  arm, seed   are not in the file: set --arm-from and --seed-from. The run's name is the path of its
              output folder with /trainer_state.json
  step, epoch as logged; epoch is the number of passes over the training data, with a fraction
  splits      names that start with eval_ belong to dev, with test_ to test, all others to train
  seconds     train_runtime of a row of train, if it has one
  tokens      num_input_tokens_seen, if it was logged

The last entry of a training, its summary with train_loss over all steps, is left out.

example
  joyful import huggingface hf_outputs --out from_huggingface \\
      --arm-from "^(.+)-seed" --seed-from "seed_([0-9]+)"
"""

_CHECKPOINT = re.compile(r"(?:^|(?<=/))checkpoint-\d+/(?=[^/]*\Z)")

#: Keys of an entry that are not metrics.
_KEYS = frozenset({"step", "epoch", "train_runtime", "num_input_tokens_seen"})


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of files trainer_state.json. Raise InputError if one is not valid."""
    files = find(source, lambda name: name == "trainer_state.json", "files trainer_state.json")
    states: dict[str, tuple[int, Path, list[Any]]] = {}
    for name, path in shown(files, "reading runs"):
        run_name = _CHECKPOINT.sub("", name)
        steps, log = _read_state(path)
        if run_name in states:
            options.left_out["files trainer_state.json of earlier checkpoints"] += 1
        if run_name not in states or steps >= states[run_name][0]:
            states[run_name] = steps, path, log
    runs = []
    for name, (_, path, log) in states.items():
        runs.append(ImportedRun(name, [path], unit="entry"))
        _add_log(runs[-1], options, log)
    return runs


def _read_state(path: Path) -> tuple[int, list[Any]]:
    """Return the number of steps and the entries of the log."""
    state = read_json(path, "trainer_state.json of transformers")
    log = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(log, list):
        raise InputError(f"{path}: expected an object with the list log_history, as the Trainer writes it")
    steps = state.get("global_step")
    return steps if isinstance(steps, int) else 0, log


def _add_log(run: ImportedRun, options: Options, log: list[Any]) -> None:
    restart, last = 0.0, 0.0  # train_runtime counts from the last start of the program
    for number, entry in enumerate(log, start=1):
        place = f"{run.files[0]}, entry {number} of log_history"
        try:
            if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                raise InputError(f"expected an object with an integer step, got {quoted(str(entry))}")
            options.count(len(entry))
            if "total_flos" in entry:
                options.left_out["summaries of trainings"] += 1
                continue
            epoch, seconds, tokens = (
                _number(entry, key) for key in ("epoch", "train_runtime", "num_input_tokens_seen")
            )
            if seconds is not None:
                restart += last if seconds < last else 0.0
                last = seconds
                seconds += restart
            row = run.row(number, entry["step"], epoch, seconds, tokens)
            for name in (name for name in entry if name not in _KEYS):
                column = options.column(name)
                value = None if column is None else _number(entry, name)
                if column is not None and value is not None:
                    run.put(row, column, value)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def _number(entry: dict[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63):
        return float(value)
    raise InputError(f"{name}: expected a number, got {quoted(str(value))}; select other metrics with --metrics")


FORMATS.register("huggingface", "trainer_state.json of Hugging Face's Trainer")(Importer(HELP, read))
