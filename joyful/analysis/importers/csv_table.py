"""A CSV table of logged curves: one row for each run, evaluation and split."""

from __future__ import annotations

import argparse
import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyful.analysis.importers.csv_records import integer, number, records, short, some
from joyful.analysis.importers.runs import MAXIMUM_RUNS, ROLES, ImportedRun
from joyful.results import InputError

SUMMARY = "a table with a row for each run, evaluation and split"
HELP = """\
Reads a CSV file (UTF-8, with a header) with a row for each run, evaluation and split:

  arm,seed,step,epoch,split,f1_weighted,nll
  baseline,1,50,1,dev,0.412,1.61
  baseline,1,50,1,train,0.455,1.48
  smoothl1,1,50,1,dev,0.437,1.55

columns
  arm     what is compared: any text
  seed    integer; runs of two arms with one seed are a pair
  step    optimizer steps so far (integer); without it, evaluations are numbered by epoch
  epoch   passes over the training data so far; whole at the ends of epochs, the first end is 1
  split   train, dev (or val, valid, validation) or test
  metrics every other column: numbers, empty where not measured. The claims need f1_weighted (dev, a fraction),
          nll (train and dev), recon_mse and recon_mae (train); further ones may follow, named in lower case
optional
  role    comparison (as without it), calibration (baseline runs that only set the target) or search
  seconds wall seconds since the start of the run
  names with a dot, such as weights.encoder_loss_weight: a setting, one value for each run. It makes arms too, alone or
          beside arm, and a grid of numbers gives the response curve

  python -m joyful.analysis.importers csv curves.csv --out runs --rename "val/f1=f1_weighted" --percent f1_weighted
  python -m joyful.analysis.report runs --baseline arm=baseline

Nothing is written unless the whole table is good. Exit codes: 0 done, 1 the disk refused, 2 bad input.
"""

SPLIT_NAMES = {"train": 0, "dev": 1, "val": 1, "valid": 1, "validation": 1, "test": 2}
SPLITS = ("train", "dev", "test")
FRACTIONS = frozenset({"accuracy", "f1_weighted", "f1_macro"})
KEYS = ("arm", "seed", "step", "epoch", "split", "role", "seconds")

MAXIMUM_COLUMNS = 1_000
MAXIMUM_SETTINGS = 30
#: Values of a table, and of one run, whose rows are Python objects while they are written.
MAXIMUM_VALUES, MAXIMUM_RUN_VALUES = 20_000_000, 3_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this format."""
    parser.add_argument("--delimiter", default=",", help="character between columns (default: a comma; tab: $'\\t')")
    parser.add_argument("--rename", metavar="FROM=TO", action="append", default=[], help="read column FROM as TO")
    parser.add_argument("--metrics", metavar="A,B", help="read these metrics only (names after --rename)")
    parser.add_argument("--percent", metavar="A,B", default="", help="these metrics are per cent: divide by 100")
    parser.add_argument(
        "--epochs-from", type=int, choices=(0, 1), help="0: the first epoch is numbered 0, so add 1; 1: as they are"
    )


@dataclass
class _Header:
    """Where the columns are. metrics and settings: name -> place."""

    places: dict[str, int]
    metrics: dict[str, int]
    settings: dict[str, int]
    width: int


@dataclass
class _Curves:
    """The rows of one run, held as plain arrays: a table may have millions."""

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
    """The runs of the table, in the order of their first rows.

    Raises InputError with file, row (as an editor shows it) and remedy for whatever the file may hold.
    """
    if len(arguments.delimiter) != 1 or arguments.delimiter in '"\r\n':
        raise InputError(f"--delimiter: expected one character, got {short(arguments.delimiter)}")
    rows = records(source, arguments.delimiter)
    line, names = next(rows, (1, []))
    if not names:
        raise InputError(f"{source} is empty; expected a header: arm,seed,step,epoch,split and metrics")
    header = _read_header(source, line, names, arguments)
    percent = _listed(arguments.percent)
    unknown = sorted(percent - header.metrics.keys())
    if unknown:
        raise InputError(f"--percent: no metric {', '.join(unknown)}; there are {', '.join(header.metrics)[:500]}")
    scales = [0.01 if name in percent else 1.0 for name in header.metrics]
    runs: dict[tuple[Any, ...], _Curves] = {}
    values = 0
    try:
        for line, fields in rows:
            values += header.width
            if values > MAXIMUM_VALUES:
                raise InputError(f"more than {MAXIMUM_VALUES} values; import the table in parts")
            if len(fields) != header.width:
                raise InputError(
                    f"expected {header.width} columns as in the header, got {len(fields)}; text that holds the "
                    "delimiter must be quoted"
                )
            _add(runs, header, scales, line, fields)
    except InputError as error:
        place = "" if str(error).startswith(f"{source}, row") else f"{source}, row {line}: "
        raise InputError(f"{place}{error}") from None
    shift = _shift(source, runs, arguments.epochs_from)
    return [_imported(source, curves, header, shift) for curves in runs.values()]


def _read_header(source: Path, line: int, names: Sequence[str], arguments: argparse.Namespace) -> _Header:
    place = f"{source}, row {line}"
    if len(names) > MAXIMUM_COLUMNS:
        raise InputError(f"{place}: {len(names)} columns; at most {MAXIMUM_COLUMNS} are read: is this the right file?")
    renamed = [name.strip() for name in names]
    for item in arguments.rename:
        old, equals, new = item.rpartition("=")
        if not (equals and old and new):
            raise InputError(f"--rename {short(item)}: expected FROM=TO")
        if old not in renamed:
            raise InputError(f"--rename: the header has no column {short(old)}; it has {some(renamed)}")
        renamed = [new if name == old else name for name in renamed]
    twice = sorted({name for name in renamed if renamed.count(name) > 1})
    if twice:
        raise InputError(f"{place}: the header names {some(twice)} more than once; keep one, or rename by --rename")
    places = {name: index for index, name in enumerate(renamed)}
    settings = {name: index for name, index in places.items() if _is_setting(name)}
    if len(settings) > MAXIMUM_SETTINGS:
        raise InputError(f"{place}: {len(settings)} settings (names with a dot); at most {MAXIMUM_SETTINGS} are read")
    missing = [name for name in ("seed", "epoch", "split") if name not in places]
    if "arm" not in places and not settings:
        missing.insert(0, "arm")
    if missing:
        raise InputError(
            f"{place}: the header lacks {', '.join(missing)}; it has {some(renamed)}. Add the columns, or say which they "
            f'are: --rename "NAME={missing[0]}"'
        )
    metrics = {name: index for name, index in places.items() if name not in KEYS and name not in settings}
    if arguments.metrics is not None:
        wanted = _listed(arguments.metrics)
        if wanted - metrics.keys():
            raise InputError(
                f"--metrics: no column {some(sorted(wanted - metrics.keys()))}; there are {some(list(metrics))}"
            )
        metrics = {name: index for name, index in metrics.items() if name in wanted}
    if not metrics:
        raise InputError(
            f"{place}: no column of a metric; expected f1_weighted, nll or others beside {', '.join(KEYS)}"
        )
    for name in metrics:
        if not (
            name.isascii() and name.islower() and name.replace("_", "a").isalnum() and name[0].isalpha()
        ) or name in (
            "run",
            "status",
        ):
            renaming = short(f"{name}=NAME")
            raise InputError(
                f"{place}: metric {short(name)}: expected a name of lower-case letters, digits and _ (other than run, "
                f"status); rename it (--rename {renaming}) or read only others (--metrics)"
            )
    if "arm" in places:
        settings = {"arm": places["arm"], **settings}
    return _Header(places, metrics, settings, len(names))


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
            raise InputError(f"role: expected {', '.join(ROLES)}, got {short(role)}")
        if empty := [name for name, value in zip(header.settings, settings, strict=True) if not value]:
            raise InputError(f"{empty[0]} is empty; fill it in or remove the row")
        if len(runs) >= MAXIMUM_RUNS:
            raise InputError(
                f"more than {MAXIMUM_RUNS} runs (combinations of settings and seed); is the column named seed the seed?"
            )
        values = dict(zip(header.settings, settings, strict=True))
        typed = {name: value if name == "arm" else _typed(value) for name, value in values.items()}
        run = runs[settings, seed, role] = _Curves(typed, seed, role, line)
    epoch = number(fields[places["epoch"]], "epoch")
    if epoch is None or not (math.isfinite(epoch) and epoch >= 0):
        raise InputError(f"epoch: expected a number from 0 on, got {short(fields[places['epoch']])}")
    split = SPLIT_NAMES.get(fields[places["split"]].strip().lower())
    if split is None:
        raise InputError(
            f"split: expected train, dev (val, valid, validation) or test, got {short(fields[places['split']])}"
        )
    step = integer(fields[places["step"]], "step") if "step" in places else 0
    if step < 0:
        raise InputError(f"step: expected an integer from 0 on, got {step}")
    for (name, index), scale in zip(header.metrics.items(), scales, strict=True):
        value = number(fields[index], name)
        run.measured.append(value is not None)
        value = math.nan if value is None else value * scale
        if name in FRACTIONS and not (math.isnan(value) or 0.0 <= value <= 1.0):
            raise InputError(
                f"{name}: expected a fraction from 0 to 1, got {short(fields[index])}; for per cent add --percent {name}"
            )
        run.values.append(value)
    if "seconds" in places and (seconds := number(fields[places["seconds"]], "seconds")) is not None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"seconds: expected a number from 0 on, got {short(fields[places['seconds']])}")
        run.seconds[epoch] = max(seconds, run.seconds.get(epoch, 0.0))
    run.lines.append(line)
    run.steps.append(step)
    run.epochs.append(epoch)
    run.splits.append(split)


def _shift(source: Path, runs: dict[tuple[Any, ...], _Curves], epochs_from: int | None) -> int:
    """What to add to every epoch. An epoch 0 is ambiguous, and off by one would bias every time to target."""
    if epochs_from is not None:
        return 1 - epochs_from
    for run in runs.values():
        if run.epochs and min(run.epochs) == 0.0:
            line = run.lines[run.epochs.index(0.0)]
            raise InputError(
                f"{source}, row {line}: epoch 0: is this the first epoch (then set --epochs-from 0, which adds 1 to all) "
                "or an evaluation before training (then set --epochs-from 1)?"
            )
    return 0


def _imported(source: Path, run: _Curves, header: _Header, shift: int) -> ImportedRun:
    if len(run.steps) * header.width > MAXIMUM_RUN_VALUES:
        raise InputError(
            f"{source}, row {run.line}: this run has {len(run.steps)} rows of {header.width} values; at most "
            f"{MAXIMUM_RUN_VALUES} values of one run are read: is the column named seed really the seed?"
        )
    if "step" not in header.places:
        numbers = {epoch: number for number, epoch in enumerate(sorted(set(run.epochs)), start=1)}
        run.steps = array("q", [numbers[epoch] for epoch in run.epochs])
    order = sorted(range(len(run.steps)), key=lambda index: (run.steps[index], run.splits[index]))
    for first, second in itertools.pairwise(order):
        if (run.steps[first], run.splits[first]) == (run.steps[second], run.splits[second]):
            where = f"step {run.steps[first]}" if "step" in header.places else f"epoch {run.epochs[first]:g}"
            raise InputError(
                f"{source}, row {run.lines[second]}: {where}, {SPLITS[run.splits[first]]} of this run stands in row "
                f"{run.lines[first]} already; keep one of the two (or tell two runs apart by arm, seed or a setting)"
            )
        if run.epochs[first] > run.epochs[second]:
            raise InputError(
                f"{source}, row {run.lines[second]}: epoch {run.epochs[second]:g} at step {run.steps[second]}, but row "
                f"{run.lines[first]} has epoch {run.epochs[first]:g} at step {run.steps[first]}; epochs may not fall"
            )
    seconds = sorted(run.seconds.items())
    for (_, before), (epoch, now) in itertools.pairwise(seconds):
        if now < before:
            raise InputError(
                f"{source}, row {run.line}: the seconds of this run fall at epoch {epoch:g}; expected seconds since its start"
            )
    width = len(header.metrics)

    def rows() -> Iterator[dict[str, Any]]:
        for index in order:
            row: dict[str, Any] = {
                "step": run.steps[index],
                "epoch": run.epochs[index] + shift,
                "split": SPLITS[run.splits[index]],
            }
            start = index * width
            for place, name in enumerate(header.metrics, start=start):
                if run.measured[place]:
                    row[name] = run.values[place]
            yield row

    return ImportedRun(
        run.settings,
        run.seed,
        run.role,
        rows,
        max(run.epochs) + shift,
        tuple((epoch + shift, value) for epoch, value in seconds),
        f", row {run.line}",
    )


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
