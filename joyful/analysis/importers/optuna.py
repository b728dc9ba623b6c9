"""Import the intermediate values of Optuna studies."""

from __future__ import annotations

import argparse
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import some
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, optional_module, shown
from joyful.results import InputError

HELP = """\
Import the intermediate values that trials of an Optuna study reported with trial.report(value, step).
SOURCE is an SQLite file (study.db), a folder with such files, or the URL of a storage, for example
postgresql://HOST/NAME. A trial is a run; trials without intermediate values are left out.

  arm         the parameters of a trial are its settings
  seed        a parameter or user attribute named seed; else set --seed-from, which searches the name
              of the run, "trial 12": with --seed-from "[0-9]+" every trial has its own seed
  step        as reported
  metric      the name that --metrics gives, by default value
  split       dev (see --split-prefix)

example
  joyful import optuna search.db --out from_optuna --metrics f1_weighted
"""

#: Maximum number of trials of a study.
MAXIMUM_TRIALS = 100_000

_URL = re.compile(r"[a-z0-9+]+://")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this format to the parser."""
    parser.add_argument("--study", metavar="NAME", help="name of the study; needed if the storage has several")


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the trials of studies. Raise InputError if a storage cannot be read or has no such study."""
    optuna = optional_module("optuna", "optuna")
    names = sorted(name for name in (options.arguments.metrics or "value").split(",") if name)
    if len(names) != 1:
        raise InputError(f"--metrics: expected one name for the intermediate values, got {some(names)}")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if _URL.match(options.arguments.source):
            url = options.arguments.source
            return _read(optuna, url, Path(url.rpartition("@")[2]), "", options, names[0])
        runs = []
        files = find(source, lambda name: name.endswith(".db"), "files *.db")
        for name, path in shown(files, "reading studies"):
            with _copy(path) as url:
                prefix = f"{name}/" if source.is_dir() else ""
                runs += _read(optuna, url, path, prefix, options, names[0])
        return runs
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _copy(path: Path) -> Iterator[str]:
    from joyful.analysis.optuna_study import copied

    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(copied(path))
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); expected an SQLite file of an Optuna study") from None
        yield url


def _read(optuna: Any, url: str, place: Path, prefix: str, options: Options, metric: str) -> list[ImportedRun]:
    wanted = options.arguments.study
    with contextlib.ExitStack() as stack:
        try:
            storage = optuna.storages.RDBStorage(url)
            stack.callback(storage.engine.dispose)
            names = optuna.get_all_study_names(storage)
            study = None
            if wanted in names or (wanted is None and len(names) == 1):
                study = optuna.load_study(study_name=names[0] if wanted is None else wanted, storage=storage)
                trials = study.get_trials(deepcopy=False)
        except Exception as error:  # Optuna and SQLAlchemy do not document which errors an invalid storage raises
            kind = type(error).__name__
            raise InputError(f"{place} cannot be read ({kind}); expected the storage of an Optuna study") from None
    if study is None:
        hint = f"got {wanted!r}" if wanted is not None else "set --study NAME"
        raise InputError(f"{place}: --study: expected one of the studies {some(names) or '(none)'}; {hint}")
    if len(trials) > MAXIMUM_TRIALS:
        raise InputError(f"{place}: expected at most {MAXIMUM_TRIALS} trials, got {len(trials)}")
    options.notes.append(
        f"direction of the study {study.study_name}: {', '.join(one.name.lower() for one in study.directions)}"
    )
    column = options.column(metric, place=str(place))
    runs = []
    for trial in trials:
        if not trial.intermediate_values:
            options.left_out["trials without intermediate values"] += 1
            continue
        given = {name: value for name, value in trial.user_attrs.items() if name in ("arm", "seed", "task")}
        run = ImportedRun(f"{prefix}trial {trial.number}", [place], {**trial.params, **given}, unit="trial")
        for step, value in sorted(trial.intermediate_values.items()):
            options.count(1)
            try:
                row = run.row(trial.number, step)
            except InputError as error:
                raise InputError(f"{place}, trial {trial.number}: {error}") from None
            if column is not None:
                run.put(row, column, float(value))
        runs.append(run)
    return runs


FORMATS.register("optuna", "intermediate values of an Optuna study")(Importer(HELP, read, add_arguments, split="dev"))
