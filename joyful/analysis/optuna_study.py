"""An Optuna study (study.db) as frames. Optuna is optional here: without it the page says so and shows everything else."""

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

#: Trials beyond this are not read: the history of the first ones says what the page can say.
MAXIMUM_TRIALS = 20_000


@dataclass(frozen=True)
class Study:
    """A study as read.

    trials: `number`, `state` (complete, pruned, fail, running, waiting), `value` (objective; of a pruned trial its last
    report; NaN), `parameters` (text). importances: setting -> 0 to 1 (PED-ANOVA over completed trials), empty where they
    cannot be had. note: what a reader must know in place of what is missing.
    """

    name: str = ""
    maximise: bool = True
    trials: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["number", "state", "value", "parameters"])
    )
    importances: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    note: str = ""


def read_study(path: Path) -> Study:
    """The study in an SQLite file, from a copy: a sweep that is running is not disturbed.

    Of several studies in one file the one with the most trials is read. Never raises for what the file holds: a study that
    cannot be read comes back empty, with the reason as its note.
    """
    try:
        import optuna
    except ImportError:
        return Study(note="Optuna is not installed here, so the study is not shown: pip install 'joyful[sweep]'.")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with _copied(path) as url, contextlib.closing(_Storage(url)) as storage:
            return _read(optuna, storage.of_optuna)
    except (sqlite3.Error, OSError) as error:
        return Study(note=f"{path.name} could not be read ({error}).")
    except Exception as error:  # what Optuna and SQLAlchemy raise for a strange file is not theirs to document
        first = (str(error).splitlines() or [""])[0]
        return Study(note=f"{path.name} could not be read as an Optuna study ({type(error).__name__}: {first[:200]}).")
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Storage:
    """Optuna's storage, with its connections closed at the end: the copy is deleted then."""

    def __init__(self, url: str) -> None:
        import optuna

        self.of_optuna = optuna.storages.RDBStorage(url)

    def close(self) -> None:
        self.of_optuna.engine.dispose()


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        yield f"sqlite:///{copy}"


def _read(optuna: Any, storage: Any) -> Study:
    summaries = sorted(
        optuna.get_all_study_summaries(storage), key=lambda summary: (-summary.n_trials, summary.study_name)
    )
    if not summaries:
        return Study(note="study.db holds no study yet.")
    summary = summaries[0]
    notes = [f"study.db holds {len(summaries)} studies; shown is the largest."] if len(summaries) > 1 else []
    if summary.n_trials > MAXIMUM_TRIALS:
        return Study(summary.study_name, note=f"{summary.n_trials} trials; at most {MAXIMUM_TRIALS} are shown.")
    if len(summary.directions) != 1:
        return Study(summary.study_name, note="The study has several objectives; a report shows one.")
    maximise = summary.directions[0].name == "MAXIMIZE"
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": _value(trial),
            "parameters": ", ".join(f"{name}={value}" for name, value in sorted(trial.params.items())),
        }
        for trial in trials
    ]
    frame = pd.DataFrame(rows, columns=["number", "state", "value", "parameters"]).astype({"value": float})
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            importances = pd.Series(optuna.importance.get_param_importances(study), dtype=float)
        if importances.empty:
            notes.append("Importances cannot be computed yet: there are too few completed trials.")
        notes += [f"Importances: {str(warning.message).rstrip('.')}." for warning in told[:1] if len(importances)]
    except (ValueError, RuntimeError, ImportError, ZeroDivisionError) as error:
        importances = pd.Series(dtype=float)
        notes.append(
            f"Importances cannot be computed yet ({(str(error).splitlines() or [type(error).__name__])[0][:200]})."
        )
    return Study(summary.study_name, maximise, frame, importances, " ".join(notes))


def _value(trial: Any) -> float:
    if trial.values is not None and len(trial.values) == 1:
        return float(trial.values[0])
    reported = trial.intermediate_values
    return float(reported[max(reported)]) if reported else float("nan")
