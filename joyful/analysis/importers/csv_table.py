"""Import a CSV table of curves with one row per run, evaluation and split."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer
from joyful.analysis.importers.csv_values import integer, number, some
from joyful.analysis.importers.runs import MAXIMUM_RUNS, ROLES, ImportedRun
from joyful.results import InputError
from joyful.results.csv_text import line_error, quoted, read_records

HELP = """\
Import a CSV file (UTF-8, with a header) that has one row per run, evaluation and split:

  arm,seed,step,epoch,split,f1_weighted,nll
  baseline,1,50,1,dev,0.412,1.61
  baseline,1,50,1,train,0.455,1.48
  smoothl1,1,50,1,dev,0.437,1.55

columns
  arm      name of the configuration that is compared (any text)
  seed     integer; two runs of different arms with the same seed form a pair
  step     number of optimizer steps so far (integer); if the column is missing, evaluations are
           numbered by epoch
  epoch    number of passes over the training data so far: an integer at the end of an epoch, 1 at
           the end of the first epoch
  split    train, dev (or val, valid, validation) or test
  metrics  all other columns: numbers, or empty if not measured. The default claims need f1_weighted
           (dev, as a fraction), nll (train and dev), recon_mse and recon_mae (train). The names of
           other metrics must be in lower case

optional columns
  role     comparison (default), calibration (baseline runs that only set the target) or search
  seconds  wall-clock seconds since the start of the run
  names with a dot, such as weights.encoder_loss_weight
           a setting, with one value per run. Settings define arms, together with the column arm or
           without it. A grid of numeric values gives a response curve

example
  joyful import csv curves.csv --out runs --rename "val/f1=f1_weighted" --percent f1_weighted
  joyful report runs --baseline arm=baseline

Nothing is written if the table has an error. Exit codes: 0 success, 1 the runs cannot be written, 2 bad input.
"""

#: Name of a split in the table -> index in SPLITS.
SPLIT_NAMES = {"train": 0, "dev": 1, "val": 1, "valid": 1, "validation": 1, "test": 2}
SPLITS = ("train", "dev", "test")

#: Metrics that must be fractions from 0 to 1.
FRACTIONS = frozenset({"accuracy", "f1_weighted", "f1_macro"})

#: Columns that are not metrics.
KEYS = ("arm", "seed", "step", "epoch", "split", "role", "seconds")

MAXIMUM_BYTES = 2**28
MAXIMUM_COLUMNS = 1_000
MAXIMUM_SETTINGS = 30
#: Maximum number of values of a table, and of one run. The rows of a run become Python objects when it is written.
MAXIMUM_VALUES, MAXIMUM_RUN_VALUES = 20_000_000, 3_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this format to the parser."""
    parser.add_argument("--delimiter", default=",", help="character between columns (default: comma; for tab, $'\\t')")
    rename = "read column FROM as TO; may be given several times"
    parser.add_argument("--rename", metavar="FROM=TO", action="append", default=[], help=rename)
    parser.add_argument("--metrics", metavar="A,B", help="read only these metrics (names after --rename)")
    parser.add_argument("--percent", metavar="A,B", default="", help="metrics in per cent, to be divided by 100")
    epochs_from = "number of the first epoch; with 0, all epochs are increased by 1"
    parser.add_argument("--epochs-from", type=int, choices=(0, 1), help=epochs_from)


@dataclass
class _Header:
    """The columns of the table. `places`, `metrics` and `settings` map names to indices."""

    places: dict[str, int]
    metrics: dict[str, int]
    settings: dict[str, int]
    width: int


@dataclass
class _Curves:
    """The rows of one run as plain arrays, because a table may have millions of rows."""

    settings: dict[str, str | float | int]
    seed: int
    role: str
    line: int
    lines: array[int] = field(default_factory=lambda: array("q"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    epochs: array[float] = field(default_factory=lambda: array("d"))
    splits: bytearray = field(default_factory=bytearray)
    values: array[float] = field(default_factory=lambda: array("d"))
    measured: bytearray = field(default_factory=bytearray)
    seconds: dict[float, float] = field(default_factory=dict)


def read(source: Path, arguments: argparse.Namespace) -> list[ImportedRun]:
    """Read the runs of a table.

    Args:
        source: The CSV file.
        arguments: The options, as defined by `add_arguments`.

    Returns:
        The runs, in the order of their first rows.

    Raises:
        InputError: If the file or an option is not valid. The message names the file and the row.
    """
    if len(arguments.delimiter) != 1 or arguments.delimiter in '"\r\n':
        raise InputError(f"--delimiter: expected one character, got {quoted(arguments.delimiter)}")
    records = read_records(source, MAXIMUM_BYTES, arguments.delimiter)
    rows = ((line, fields) for line, fields in records if any(fields))
    line, names = next(rows, (1, []))
    if not names:
        example = "a header such as arm,seed,step,epoch,split,f1_weighted"
        raise InputError(f"{source}: expected {example}, got an empty file")
    header = _read_header(f"{source}, line {line}", names, arguments)
    percent = _listed(arguments.percent)
    if unknown := ", ".join(sorted(percent - header.metrics.keys())):
        known = ", ".join(header.metrics)[:500]
        raise InputError(f"--percent: expected metrics of the table ({known}), got {unknown}")
    scales = [0.01 if name in percent else 1.0 for name in header.metrics]
    runs: dict[tuple[Any, ...], _Curves] = {}
    values = 0
    for line, fields in rows:
        values += header.width
        try:
            if values > MAXIMUM_VALUES:
                raise InputError(f"expected at most {MAXIMUM_VALUES} values; import the table in parts")
            if len(fields) != header.width:
                expected = f"{header.width} columns as in the header, got {len(fields)}"
                raise InputError(f"expected {expected}; quote text that contains the delimiter")
            _add(runs, header, scales, line, fields)
        except InputError as error:
            raise line_error(source, line, error) from None
    shift = _shift(source, runs, arguments.epochs_from)
    return [_imported(source, curves, header, shift) for curves in runs.values()]


def _read_header(place: str, names: Sequence[str], arguments: argparse.Namespace) -> _Header:
    if len(names) > MAXIMUM_COLUMNS:
        expected = f"at most {MAXIMUM_COLUMNS} columns, got {len(names)}"
        raise InputError(f"{place}: expected {expected}; check --delimiter and the file")
    renamed = _renamed([name.strip() for name in names], arguments.rename)
    if twice := sorted({name for name in renamed if renamed.count(name) > 1}):
        raise InputError(f"{place}: the header has {some(twice)} more than once; remove or rename a column")
    places = {name: index for index, name in enumerate(renamed)}
    settings = {name: index for name, index in places.items() if _is_setting(name)}
    if len(settings) > MAXIMUM_SETTINGS:
        expected = f"at most {MAXIMUM_SETTINGS} settings (names with a dot), got {len(settings)}"
        raise InputError(f"{place}: expected {expected}; remove or rename some")
    missing = [] if "arm" in places or settings else ["arm"]
    missing += [name for name in ("seed", "epoch", "split") if name not in places]
    if missing:
        hint = f'add the columns or rename others, for example --rename "NAME={missing[0]}"'
        raise InputError(f"{place}: the header lacks {', '.join(missing)}; it has {some(renamed)}; {hint}")
    metrics = {name: index for name, index in places.items() if name not in KEYS and name not in settings}
    if arguments.metrics is not None:
        wanted = _listed(arguments.metrics)
        if unknown := sorted(wanted - metrics.keys()):
            raise InputError(f"--metrics: expected columns of the table ({some(list(metrics))}), got {some(unknown)}")
        metrics = {name: index for name, index in metrics.items() if name in wanted}
    if not metrics:
        expected = f"a column with a metric such as f1_weighted or nll in addition to {', '.join(KEYS)}, got none"
        raise InputError(f"{place}: expected {expected}")
    for name in metrics:
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in ("run", "status"):
            expected = "a name of lower-case letters, digits and _, except run and status"
            hint = f"set --rename {quoted(f'{name}=NAME')}, or select other metrics with --metrics"
            raise InputError(f"{place}: metric {quoted(name)}: expected {expected}; {hint}")
    if "arm" in places:
        settings = {"arm": places["arm"], **settings}
    return _Header(places, metrics, settings, len(names))


def _renamed(names: list[str], renaming: Sequence[str]) -> list[str]:
    for item in renaming:
        old, equals, new = item.rpartition("=")
        if not (equals and old and new):
            raise InputError(f"--rename {quoted(item)}: expected FROM=TO")
        if old not in names:
            raise InputError(f"--rename: expected a column of the header ({some(names)}), got {quoted(old)}")
        names = [new if name == old else name for name in names]
    return names


def _add(
    runs: dict[tuple[Any, ...], _Curves], header: _Header, scales: Sequence[float], line: int, fields: Sequence[str]
) -> None:
    places = header.places
    settings = tuple(fields[index].strip() for index in header.settings.values())
    seed = integer(fields[places["seed"]], "seed")
    role = fields[places["role"]].strip().lower() if "role" in places else "comparison"
    run = runs.get((settings, seed, role))
    if run is None:
        if role not in ROLES:
            raise InputError(f"role: expected {', '.join(ROLES)}, got {quoted(role)}")
        if empty := [name for name, value in zip(header.settings, settings, strict=True) if not value]:
            raise InputError(f"{empty[0]}: expected a value, got an empty field; fill it in or remove the row")
        if len(runs) >= MAXIMUM_RUNS:
            expected = f"at most {MAXIMUM_RUNS} runs (combinations of settings and seed)"
            raise InputError(f"expected {expected}; check the column seed")
        values = zip(header.settings, settings, strict=True)
        typed = {name: value if name == "arm" else _typed(value) for name, value in values}
        run = runs[settings, seed, role] = _Curves(typed, seed, role, line)
    epoch = number(fields[places["epoch"]], "epoch")
    if epoch is None or not (math.isfinite(epoch) and epoch >= 0):
        raise InputError(f"epoch: expected a number >= 0, got {quoted(fields[places['epoch']])}")
    given = fields[places["split"]]
    split = SPLIT_NAMES.get(given.strip().lower())
    if split is None:
        raise InputError(f"split: expected train, dev (val, valid, validation) or test, got {quoted(given)}")
    step = integer(fields[places["step"]], "step") if "step" in places else 0
    if step < 0:
        raise InputError(f"step: expected an integer >= 0, got {step}")
    for (name, index), scale in zip(header.metrics.items(), scales, strict=True):
        value = number(fields[index], name)
        run.measured.append(value is not None)
        value = math.nan if value is None else value * scale
        if name in FRACTIONS and not (math.isnan(value) or 0.0 <= value <= 1.0):
            given = f"got {quoted(fields[index])}; for per cent set --percent {name}"
            raise InputError(f"{name}: expected a fraction from 0 to 1, {given}")
        run.values.append(value)
    if "seconds" in places and (seconds := number(fields[places["seconds"]], "seconds")) is not None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"seconds: expected a number >= 0, got {quoted(fields[places['seconds']])}")
        run.seconds[epoch] = max(seconds, run.seconds.get(epoch, 0.0))
    run.lines.append(line)
    run.steps.append(step)
    run.epochs.append(epoch)
    run.splits.append(split)


def _shift(source: Path, runs: dict[tuple[Any, ...], _Curves], epochs_from: int | None) -> int:
    """Return the number to add to every epoch.

    An epoch 0 is ambiguous, so --epochs-from must then be set: an error of one epoch would bias every time to target.
    """
    if epochs_from is not None:
        return 1 - epochs_from
    for run in runs.values():
        if run.epochs and min(run.epochs) == 0.0:
            line = run.lines[run.epochs.index(0.0)]
            hint = "set --epochs-from 0 if it is the first epoch (1 is added to all epochs), or --epochs-from 1 if it is an "
            raise line_error(source, line, f"epoch 0 is ambiguous; {hint}evaluation before training")
    return 0


def _imported(source: Path, run: _Curves, header: _Header, shift: int) -> ImportedRun:
    if len(run.steps) * header.width > MAXIMUM_RUN_VALUES:
        expected = f"at most {MAXIMUM_RUN_VALUES} values of one run, got {len(run.steps)} rows of {header.width} values"
        raise InputError(f"{source}, line {run.line}: expected {expected}; check that the column seed contains seeds")
    if "step" not in header.places:
        numbers = {epoch: number for number, epoch in enumerate(sorted(set(run.epochs)), start=1)}
        run.steps = array("q", [numbers[epoch] for epoch in run.epochs])
    order = sorted(range(len(run.steps)), key=lambda index: (run.steps[index], run.splits[index]))
    for first, second in itertools.pairwise(order):
        if (run.steps[first], run.splits[first]) == (run.steps[second], run.splits[second]):
            where = f"step {run.steps[first]}" if "step" in header.places else f"epoch {run.epochs[first]:g}"
            repeated = f"{where}, {SPLITS[run.splits[first]]} of this run is already in line {run.lines[first]}"
            hint = "remove one of the rows, or distinguish the runs by arm, seed or a setting"
            raise InputError(f"{source}, line {run.lines[second]}: {repeated}; {hint}")
        if run.epochs[first] > run.epochs[second]:
            after, before = (f"epoch {run.epochs[i]:g} at step {run.steps[i]}" for i in (second, first))
            decrease = f"{after}, but line {run.lines[first]} has {before}; epochs must not decrease with the step"
            raise InputError(f"{source}, line {run.lines[second]}: {decrease}")
    seconds = sorted(run.seconds.items())
    for (_, earlier), (epoch, now) in itertools.pairwise(seconds):
        if now < earlier:
            decrease = f"the seconds of this run decrease at epoch {epoch:g}"
            raise InputError(f"{source}, line {run.line}: {decrease}; expected seconds since the start of the run")
    width = len(header.metrics)

    def rows() -> Iterator[dict[str, Any]]:
        for index in order:
            row: dict[str, Any] = {"step": run.steps[index], "epoch": run.epochs[index] + shift}
            row["split"] = SPLITS[run.splits[index]]
            for place, name in enumerate(header.metrics, start=index * width):
                if run.measured[place]:
                    row[name] = run.values[place]
            yield row

    seconds = [(epoch + shift, value) for epoch, value in seconds]
    epochs = max(run.epochs) + shift
    return ImportedRun(run.settings, run.seed, run.role, rows, epochs, seconds, f", line {run.line}")


def _typed(text: str) -> str | float | int:
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value) or "_" in text:
        return text
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _is_setting(name: str) -> bool:
    return "." in name and all(part and part.replace("_", "a").isalnum() for part in name.split("."))


def _listed(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}


FORMATS.register("csv", "CSV table with one row per run, evaluation and split")(Importer(HELP, add_arguments, read))
