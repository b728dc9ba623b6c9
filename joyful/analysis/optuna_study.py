"""Reading an Optuna study (study.db) into data frames. Without Optuna, the report states this and omits the study."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from joyful.results.finalists import SEED, Finalist, best_finalist, finalists_of, is_repeat

#: Columns of `Study.trials`.
COLUMNS = ("number", "state", "value", "parameters", "start", "end", "run")

_FLOATS = {"value": float, "start": float, "end": float}

#: Largest number of trials that a study may have. The trials of a larger study are not read.
MAXIMUM_TRIALS = 20_000

#: Maximum number of folders between a sweep and its runs.
_DEEPEST = 4


@dataclass(frozen=True)
class Study:
    """Trials and parameter importances of an Optuna study.

    Attributes:
        name: Name of the study.
        maximise: Whether the objective is maximised. Of several objectives, the first one.
        trials: One row per trial: `number`, `state` (complete, pruned, fail, running or waiting), `value` (the
            objective, or the last reported value of a pruned trial, or NaN), `parameters` (text), `start` and `end` (seconds
            since the first trial started, or NaN) and `run` (the folder of its run relative to the sweep, or "").
        settings: Parameter -> value of each trial, indexed by number. A trial without the parameter has None.
        reported: Values that the trials reported: `number`, `step` and `value`.
        objectives: Values of several objectives: one row per complete trial, indexed by number, and one column per objective.
            Empty for one objective.
        directions: "maximize" or "minimize" for each objective.
        objective: Name of the first objective, or "".
        overrides: The overrides of each trial on the command line, by number, where a sweep of joyful recorded them.
        importances: Importance of each parameter, from 0 to 1, over completed trials. Empty if they cannot be computed.
        note: Sentences for the report on what is missing, or "".
        finalists: Configurations that were trained on further seeds, the best first.
        mean: The finalist with the best mean. None without finalists, or while they still train.
        repeats: Number of each trial that trains a finalist again -> its seed.
    """

    name: str = ""
    maximise: bool = True
    trials: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)).astype(_FLOATS))
    settings: pd.DataFrame = field(default_factory=pd.DataFrame)
    reported: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["number", "step", "value"]))
    objectives: pd.DataFrame = field(default_factory=pd.DataFrame)
    directions: tuple[str, ...] = ("maximize",)
    objective: str = ""
    overrides: dict[int, str] = field(default_factory=dict)
    importances: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    note: str = ""
    finalists: tuple[Finalist, ...] = ()
    mean: Finalist | None = None
    repeats: dict[int, int] = field(default_factory=dict)

    @property
    def best(self) -> int | None:
        """Number of the trial of the best finalist, or of the complete trial with the best first objective, or None."""
        if self.mean is not None:
            return self.mean.trial
        done = self.trials[(self.trials["state"] == "complete") & np.isfinite(self.trials["value"])]
        done = done[~done["number"].isin(list(self.repeats))]
        if done.empty:
            return None
        place = done["value"].idxmax() if self.maximise else done["value"].idxmin()
        return int(done.loc[place, "number"])

    @property
    def front(self) -> list[int]:
        """Numbers of the trials that no other one surpasses in all objectives: the Pareto front."""
        signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in self.directions])
        values = self.objectives.dropna()
        costs = values.to_numpy(dtype=float) * signs
        better = [((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any() for row in costs]
        return [int(number) for number, beaten in zip(values.index, better, strict=True) if not beaten]


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
            return _read(optuna, storage, path.parent)
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


def _read(optuna: Any, storage: Any, folder: Path) -> Study:
    summaries = optuna.get_all_study_summaries(storage)
    summaries.sort(key=lambda summary: (-summary.n_trials, summary.study_name))
    if not summaries:
        return Study(note="study.db holds no study yet.")
    summary = summaries[0]
    notes = [f"study.db holds {len(summaries)} studies; the largest is shown."] if len(summaries) > 1 else []
    if summary.n_trials > MAXIMUM_TRIALS:
        note = f"The study has {summary.n_trials} trials and is not shown; a report shows at most {MAXIMUM_TRIALS}."
        return Study(summary.study_name, note=note)
    directions = tuple(direction.name.lower() for direction in summary.directions)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    names = list(study.metric_names or ())
    searched = study
    if any(map(is_repeat, trials)):  # the importances are those of the search
        searched = optuna.create_study(directions=directions)
        searched.add_trials([trial for trial in trials if not is_repeat(trial)])
    importances, remarks = _importances(optuna, searched) if len(directions) == 1 else (pd.Series(dtype=float), [])
    return Study(
        summary.study_name,
        directions[0] == "maximize",
        _frame(trials, folder),
        pd.DataFrame.from_dict({t.number: t.params for t in trials if t.params}, orient="index"),
        pd.DataFrame(
            [(t.number, step, value) for t in trials for step, value in sorted(t.intermediate_values.items())],
            columns=["number", "step", "value"],
        ),
        pd.DataFrame.from_dict(
            {t.number: t.values for t in trials if t.state.name == "COMPLETE" and t.values}, orient="index",
            columns=names or [f"objective {i}" for i in range(1, len(directions) + 1)],
        ) if len(directions) > 1 else pd.DataFrame(),
        directions,
        str(names[0]) if names else "",
        {t.number: text for t in trials if isinstance(text := t.user_attrs.get("overrides"), str)},
        importances,
        " ".join([*notes, *remarks]),
        tuple(finalists_of(trials, directions[0] == "maximize")),
        best_finalist(trials, directions[0] == "maximize"),
        {t.number: t.user_attrs[SEED] for t in trials if is_repeat(t)},
    )  # fmt: skip


def _frame(trials: Sequence[Any], folder: Path) -> pd.DataFrame:
    """Return the trials with their times and the folders of their runs."""
    starts = [t.datetime_start for t in trials if t.datetime_start is not None]
    first = min(starts) if starts else None
    rows = [
        (
            t.number, t.state.name.lower(), _value(t), ", ".join(f"{name}={value}" for name, value in sorted(t.params.items())),
            *((time - first).total_seconds() if time is not None and first is not None else math.nan
              for time in (t.datetime_start, t.datetime_complete)),
            _run(t.user_attrs.get("folder"), folder),
        )
        for t in trials
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_FLOATS)


def _run(recorded: Any, folder: Path) -> str:
    """Return the folder of a run relative to the sweep, wherever the sweep lies now, or "" if it is not in the sweep."""
    parts = Path(recorded).parts if isinstance(recorded, str) else ()
    for length in range(1, min(len(parts), _DEEPEST) + 1):
        name = "/".join(parts[-length:])
        if ".." not in parts[-length:] and (folder / name).is_dir():
            return name
    return ""


def _importances(optuna: Any, study: Any) -> tuple[pd.Series, list[str]]:
    """Return the importances, and remarks on them."""
    notes: list[str] = []
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
    return importances, notes


def _first_line(error: Exception, otherwise: str) -> str:
    return (str(error).splitlines() or [otherwise])[0][:200]


def _value(trial: Any) -> float:
    if trial.values:
        return float(trial.values[0])
    reported = trial.intermediate_values
    return float(reported[max(reported)]) if reported else float("nan")
