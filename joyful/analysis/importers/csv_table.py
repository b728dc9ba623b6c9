"""Import CSV tables of curves with one row per run, evaluation and split."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer
from joyful.analysis.importers.csv_values import integer, number, some, table, typed
from joyful.analysis.importers.options import SPLIT_NAMES, Options
from joyful.analysis.importers.runs import Column, ImportedRun
from joyful.analysis.importers.sources import counted, find
from joyful.analysis.importers.writing import MAXIMUM_RUNS
from joyful.results import InputError
from joyful.results.csv_text import line_error, quoted

HELP = """\
Import a CSV file (UTF-8, with a header) that has one row per run, evaluation and split, or a folder
of such files (*.csv):

  arm,seed,step,epoch,split,f1_weighted,nll
  baseline,1,50,1,dev,0.412,1.61
  baseline,1,50,1,train,0.455,1.48
  smoothl1,1,50,1,dev,0.437,1.55

columns
  arm      name of the configuration that is compared (any text)
  seed     integer; two runs of different arms with the same seed form a pair
  step     number of optimizer steps so far (integer)
  epoch    number of passes over the training data so far: an integer at the end of an epoch, 1 at
           the end of the first epoch. One of step and epoch may be missing: without step,
           evaluations are numbered by epoch
  split    train, dev (or val, valid, validation, eval) or test. Without this column, the names of
           the metrics say it: train_nll, val/f1 (see --split-prefix)
  metrics  all other columns: numbers, or empty if not measured. The default claims need f1_weighted
           (dev, as a fraction), nll (train and dev), recon_mse and recon_mae (train). Names become
           lower case, with _ for other characters

optional columns
  task     name of the task, such as a dataset or an environment. Tasks are never arms
  role     comparison (default), calibration (baseline runs that only set the target) or search
  seconds  wall-clock seconds since the start of the run
  tokens   tokens seen so far
  names with a dot, such as weights.encoder_loss_weight
           a setting, with one value per run. Settings define arms, together with the column arm or
           without it. A grid of numeric values gives a response curve

example
  joyful import csv curves.csv --out runs
"""

#: Roles of a run.
ROLES = ("comparison", "calibration", "search")

#: Columns that are not metrics.
KEYS = ("arm", "seed", "step", "epoch", "split", "task", "role", "seconds", "tokens")

MAXIMUM_SETTINGS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this format to the parser."""
    parser.add_argument("--delimiter", default=",", help="character between columns (default: comma; for tab, $'\\t')")


@dataclass
class _Header:
    """The columns of the table.

    Attributes:
        places: Key -> index of its column.
        settings: Setting -> index of its column.
        metrics: Split in the table, or None without the column split -> (index, name, column) of the selected metrics.
        width: Number of columns.
    """

    places: dict[str, int]
    settings: dict[str, int]
    metrics: dict[str | None, list[tuple[int, str, Column]]]
    width: int


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of tables.

    Args:
        source: A CSV file, or a folder of files *.csv.
        options: The options.

    Returns:
        The runs, in the order of their first rows.

    Raises:
        InputError: If the file or an option is not valid. The message names the file and the row.
    """
    delimiter = options.arguments.delimiter
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"--delimiter: expected one character, got {quoted(delimiter)}")
    runs: dict[tuple[Any, ...], ImportedRun] = {}
    for name, path in find(source, lambda name: name.lower().endswith(".csv"), "files *.csv"):
        line, names, rows = table(path, "arm,seed,step,epoch,split,f1_weighted", delimiter)
        header = _read_header(f"{path}, line {line}", names, options)
        for line, fields in counted(rows, f"reading {path.name}"):
            try:
                options.count(header.width)
                _add(runs, options, header, (name, path, line), fields)
            except InputError as error:
                raise line_error(path, line, error) from None
    return list(runs.values())


def _read_header(place: str, names: Sequence[str], options: Options) -> _Header:
    names = _renamed(names, options, place)
    places = {name: index for index, name in enumerate(names) if name in KEYS and not options.gives(name)}
    settings = {name: index for index, name in enumerate(names) if _is_setting(name)}
    if len(settings) > MAXIMUM_SETTINGS:
        expected = f"at most {MAXIMUM_SETTINGS} settings (names with a dot), got {len(settings)}"
        raise InputError(f"{place}: expected {expected}; remove or rename some")
    missing = [] if "arm" in places or settings or options.gives("arm") else ["arm"]
    missing += [] if "seed" in places or options.gives("seed") else ["seed"]
    missing += [] if "step" in places or "epoch" in places else ["step or epoch"]
    if missing:
        hint = (
            f'add the columns, rename others, for example --rename "NAME={missing[0].partition(" ")[0]}", or see --help'
        )
        raise InputError(f"{place}: the header lacks {', '.join(missing)}; it has {some(names)}; {hint}")
    others = [(index, name) for index, name in enumerate(names) if name not in KEYS and name not in settings]
    metrics = {
        split: [
            (index, name, column)
            for index, name in others
            if (column := options.column(name, split, place)) is not None
        ]
        for split in (SPLIT_NAMES if "split" in places else [None])
    }
    if not any(metrics.values()):
        if others:
            known, wanted = some([name for _, name in others]), quoted(options.arguments.metrics)
            raise InputError(f"--metrics: expected columns of the table ({known}), got {wanted}")
        expected = f"a column with a metric such as f1_weighted or nll in addition to {', '.join(KEYS)}, got none"
        raise InputError(f"{place}: expected {expected}")
    return _Header(places, settings, metrics, len(names))


def _renamed(names: Sequence[str], options: Options, place: str) -> list[str]:
    """Apply --rename where the new name is not that of a metric; `Options` renames the metrics."""
    renamed = list(names)
    for item in options.arguments.rename:
        old, _, new = item.rpartition("=")
        if old in names and (new in KEYS or _is_setting(new)):
            options.renamed.add(old)
            renamed[list(names).index(old)] = new
    if twice := sorted({name for name in renamed if renamed.count(name) > 1}):
        raise InputError(f"{place}: the header has {some(twice)} more than once; remove or rename a column")
    return renamed


def _add(
    runs: dict[tuple[Any, ...], ImportedRun],
    options: Options,
    header: _Header,
    where: tuple[str, Path, int],
    fields: Sequence[str],
) -> None:
    places, (name, path, line) = header.places, where
    settings = tuple(fields[index].strip() for index in header.settings.values())
    arm, task, role = (fields[places[key]].strip() if key in places else None for key in ("arm", "task", "role"))
    texts = arm, task, role.lower() if role is not None else None
    seed = integer(fields[places["seed"]], "seed") if "seed" in places else None
    key = (path, texts, seed, settings)
    run = runs.get(key)
    if run is None:
        named = [*zip(("arm", "task", "role"), texts, strict=True), *zip(header.settings, settings, strict=True)]
        if empty := [name for name, value in named if value == ""]:
            raise InputError(f"{empty[0]}: expected a value, got an empty field; fill it in or remove the row")
        role = texts[2] or ROLES[0]
        if role not in ROLES:
            raise InputError(f"role: expected {', '.join(ROLES)}, got {quoted(role)}")
        if len(runs) >= MAXIMUM_RUNS:
            expected = f"at most {MAXIMUM_RUNS} runs (combinations of settings and seed)"
            raise InputError(f"expected {expected}; check the column seed")
        own = {name: typed(value) for name, value in zip(header.settings, settings, strict=True)}
        run = runs[key] = ImportedRun(name, [path], own, arm, seed, task, role, strict=True)
    epoch = number(fields[places["epoch"]], "epoch") if "epoch" in places else None
    if epoch is None and "step" not in places:
        raise InputError(f"epoch: expected a number >= 0, got {quoted(fields[places['epoch']])}")
    split = None
    if "split" in places:
        given = fields[places["split"]]
        split = given.strip().lower()
        if split not in SPLIT_NAMES:
            raise InputError(f"split: expected train, dev (val, valid, validation) or test, got {quoted(given)}")
    step = integer(fields[places["step"]], "step") if "step" in places else None
    seconds, tokens = (number(fields[places[key]], key) if key in places else None for key in ("seconds", "tokens"))
    row = run.row(line, step, epoch, seconds, tokens)
    measured = False
    for index, metric, column in header.metrics[split]:
        value = number(fields[index], metric)
        if value is not None:
            run.put(row, column, value)
            measured = True
    if not measured:
        options.left_out["rows without a metric"] += 1


def _is_setting(name: str) -> bool:
    return "." in name and re.fullmatch(r"\w+(\.\w+)+", name) is not None


FORMATS.register("csv", "CSV table with one row per run, evaluation and split")(
    Importer(HELP, read, add_arguments, split=None, epochs="ask")
)
