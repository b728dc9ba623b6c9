"""The list of all trials of a sweep, the best first, as a table."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from joyful.records import visible
from joyful.results import RUN, one_run
from joyful.runtime.text_table import Column, is_ascii, short_names, table
from joyful.sweeper.database import with_retries
from joyful.sweeper.live import setting_text
from joyful.sweeper.metric import Metric, metric_of
from joyful.sweeper.status import params_or_overrides
from joyful.sweeper.study import FOLDER, REASON, StudyAccess

#: States in the order of the list.
_ORDER = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING)

#: States as the list names them.
_NAMES = {TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class ListedTrial:
    """A trial, and the keys of `joyful sweep trials --json` in this order.

    Attributes:
        number: Its number.
        state: complete, running, pruned, failed or waiting.
        values: The values of its objectives; of an unfinished trial, its best reported value; [] without one.
        settings: Its parameters; for a list of trials, its overrides.
        steps: Steps that it has reported.
        folder: Its folder; None before it starts.
        reason: Why it has its state, None if nothing is known.
    """

    number: int
    state: str
    values: Sequence[float]
    settings: Mapping[str, Any]
    steps: int
    folder: str | None
    reason: str | None


def list_trials(access: StudyAccess) -> list[ListedTrial]:
    """Return all trials, the best first: complete ones by their first objective, then the others by state."""
    study = access.open()
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    trials = with_retries(lambda: study.get_trials(deepcopy=False))

    def place(trial: FrozenTrial) -> tuple[int, float, int]:
        values = _values(trial, sign)
        return _ORDER.index(trial.state), sign * values[0] if values else math.inf, trial.number

    return [
        ListedTrial(
            trial.number, _NAMES.get(trial.state, trial.state.name.lower()), _values(trial, sign),
            params_or_overrides(trial), len(trial.intermediate_values), trial.user_attrs.get(FOLDER),
            trial.user_attrs.get(REASON),
        )
        for trial in sorted(trials, key=place)
    ]  # fmt: skip


def _values(trial: FrozenTrial, sign: float) -> list[float]:
    if trial.state == TrialState.COMPLETE:
        return list(trial.values)
    reported = trial.intermediate_values.values()
    return [sign * min(sign * value for value in reported)] if reported else []


def print_trials(access: StudyAccess, folder: Path, console: Console | None = None, most: int | None = None) -> None:
    """Print the trials as a table. In a terminal the folders are links, and no line is longer than the terminal.

    Args:
        access: The study.
        folder: The sweep folder.
        console: The console; None: standard output.
        most: Largest number of trials; a line counts the others. None: all.
    """
    console = console or Console(highlight=False)
    trials, study = list_trials(access), access.open()
    names: Sequence[str | None] = study.metric_names or [None] * len(study.directions)
    shown = trials if most is None else trials[:most]
    width, ascii_only = (console.width - 1 if console.is_terminal else None), is_ascii(console)
    for line in table(_columns(shown, [metric_of(name) for name in names]), width, ascii_only):
        console.print(line, soft_wrap=True)
    if len(shown) < len(trials):
        states = [trial.state for trial in trials[len(shown) :]]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        console.print(
            Text(f"and {len(states)} more trials ({counts}): joyful sweep trials {shlex.quote(str(folder))}"),
            soft_wrap=True,
        )


def _columns(trials: Sequence[ListedTrial], metrics: Sequence[Metric]) -> list[Column | list[dict[str, str]]]:
    short = short_names(list(dict.fromkeys(name for trial in trials for name in trial.settings)))
    settings = [{short[n]: setting_text(value) for n, value in trial.settings.items()} for trial in trials]
    columns: list[Column | list[dict[str, str]]] = [
        Column("trial", [str(trial.number) for trial in trials], right=True), settings
    ]  # fmt: skip
    for place, metric in enumerate(metrics):
        texts = [_text(metric, trial.values[place : place + 1]) for trial in trials]
        columns.append(Column(metric.name[:20], texts, right=True))
    if metrics[0].column is not None:
        tests = [_test_value(trial, metrics[0]) for trial in trials]
        if any(tests):
            columns.append(Column(metrics[0].name.replace("dev", "test"), tests, right=True))
    return [
        *columns,
        Column("state", [trial.state for trial in trials]),
        Column(
            "folder", [_relative(trial.folder) for trial in trials],
            links=[Path(trial.folder).absolute().as_uri() if trial.folder else "" for trial in trials],
        ),
    ]  # fmt: skip


def _text(metric: Metric, values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{100 * values[0]:.2f} %" if metric.percent else metric.text(values[0])


def _test_value(trial: ListedTrial, metric: Metric) -> str:
    """Return the value of the test split at the best dev evaluation, "" if it is not recorded."""
    if trial.folder is None or metric.column is None or not Path(trial.folder, RUN).exists():
        return ""
    value = one_run.value_at_best_dev(Path(trial.folder), metric.column)
    return "" if value is None else _text(metric, [value])


def _relative(folder: str | None) -> str:
    """Return a folder relative to the working folder if it is below it."""
    if folder is None:
        return ""
    path = os.path.relpath(folder)
    return visible(folder if path.startswith("..") else path)
