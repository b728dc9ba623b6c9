"""Reading an Optuna study (study.db) into data frames. Without Optuna, the report states this and omits the study."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

#: Columns of `Study.trials`.
COLUMNS = ("number", "state", "value", "parameters")

#: Largest number of trials that a study may have. The trials of a larger study are not read.
MAXIMUM_TRIALS = 20_000


@dataclass(frozen=True)
class Study:
    """Trials and parameter importances of an Optuna study.

    Attributes:
        name: Name of the study.
        maximise: Whether the objective is maximised.
        trials: One row per trial: `number`, `state` (complete, pruned, fail, running or waiting), `value` (the
            objective, or the last reported value of a pruned trial, or NaN) and `parameters` (text).
        importances: Importance of each parameter, from 0 to 1, over completed trials. Empty if they cannot be computed.
        note: Sentences for the report on what is missing, or "".
    """

    name: str = ""
    maximise: bool = True
    trials: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    importances: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    note: str = ""


def read_study(path: Path) -> Study:
    """Read the study in an SQLite file.

    The file is copied first, so that a running sweep is not disturbed. If it holds several studies, the one with the
    most trials is read. A file that cannot be read does not raise an error.

    Args:
        path: The SQLite file.

    Returns:
        The study. If it cannot be read, it is empty and `Study.note` gives the reason.
    """
    try:
        import optuna
    except ImportError:
        return Study(note="Optuna is not installed, so the study is not shown; run pip install joyful-sweeps.")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with copied(path) as url, contextlib.ExitStack() as stack:
            storage = optuna.storages.RDBStorage(url)
            stack.callback(storage.engine.dispose)  # The copy can be deleted only after its connections are closed.
            return _read(optuna, storage)
    except (sqlite3.Error, OSError) as error:
        return Study(note=f"{path.name} could not be read ({error}).")
    except Exception as error:  # Optuna and SQLAlchemy do not document which errors an invalid file raises.
        kind, line = type(error).__name__, _first_line(error, "")
        return Study(note=f"{path.name} could not be read as an Optuna study ({kind}: {line}).")
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def copied(path: Path) -> Iterator[str]:
    """Context with the URL of a copy of a study's SQLite file, so that a running sweep is not disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        yield f"sqlite:///{copy}"


def _read(optuna: Any, storage: Any) -> Study:
    summaries = optuna.get_all_study_summaries(storage)
    summaries.sort(key=lambda summary: (-summary.n_trials, summary.study_name))
    if not summaries:
        return Study(note="study.db holds no study yet.")
    summary = summaries[0]
    notes = [f"study.db holds {len(summaries)} studies; the largest is shown."] if len(summaries) > 1 else []
    if summary.n_trials > MAXIMUM_TRIALS:
        note = f"The study has {summary.n_trials} trials and is not shown; a report shows at most {MAXIMUM_TRIALS}."
        return Study(summary.study_name, note=note)
    if len(summary.directions) != 1:
        note = "The study has several objectives and is not shown; a report shows studies with one objective."
        return Study(summary.study_name, note=note)
    maximise = summary.directions[0].name == "MAXIMIZE"
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    rows = []
    for trial in study.get_trials(deepcopy=False):
        parameters = ", ".join(f"{name}={value}" for name, value in sorted(trial.params.items()))
        rows.append((trial.number, trial.state.name.lower(), _value(trial), parameters))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": float})
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            importances = pd.Series(optuna.importance.get_param_importances(study), dtype=float)
        if importances.empty:
            notes.append("Importances cannot be computed yet: there are too few completed trials.")
        notes += [f"Importances: {str(warning.message).rstrip('.')}." for warning in caught[:1] if len(importances)]
    except (ValueError, RuntimeError, ImportError, ZeroDivisionError) as error:
        importances = pd.Series(dtype=float)
        notes.append(f"Importances cannot be computed yet ({_first_line(error, type(error).__name__)}).")
    return Study(summary.study_name, maximise, frame, importances, " ".join(notes))


def _first_line(error: Exception, otherwise: str) -> str:
    return (str(error).splitlines() or [otherwise])[0][:200]


def _value(trial: Any) -> float:
    if trial.values is not None and len(trial.values) == 1:
        return float(trial.values[0])
    reported = trial.intermediate_values
    return float(reported[max(reported)]) if reported else float("nan")
