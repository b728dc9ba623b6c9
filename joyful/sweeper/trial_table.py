"""Statements on Optuna's tables of trials, for workers and displays, which read them often.

Optuna has no functions for them, so this module reads and writes its tables. tests/test_compat.py checks the tables. Most
statements read a number of rows that does not grow with the number of trials. The others say what they read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import delete, func, inspect, literal_column, select, text, union_all, update
from sqlalchemy.exc import SQLAlchemyError

from joyful.compat import optuna_models
from joyful.results.finalists import REPEAT_OF
from joyful.sweeper.database import first_line, with_retries
from joyful.sweeper.registry import Registry, leases_table
from joyful.sweeper.study import REASON, SAME_AS

log = logging.getLogger(__name__)

models = optuna_models()

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

#: Indexes of Optuna's tables that keep the statements of this module fast in a large study: name -> table and columns.
#: Studies without them are read correctly, only more slowly.
INDEXES = {
    "joyful_trials_state": "trials (study_id, state, number)",
    "joyful_trials_number": "trials (study_id, number)",
    "joyful_trials_repeat": f"trial_user_attributes (trial_id) WHERE key = '{REPEAT_OF}'",
}

#: Largest number of values in one condition.
_MOST_VALUES = 500


def add_indexes(registry: Registry) -> None:
    """Add the indexes that a database lacks. Without the right to do so, it stays as it is."""

    def add() -> None:
        with registry.engine.begin() as connection:
            tables = inspect(connection)
            for name, columns in INDEXES.items():
                known = [index["name"] for index in tables.get_indexes(columns.split()[0])]
                if name not in known:  # asked first, because CREATE INDEX waits for the transactions of others
                    connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}"))
            for own in leases_table.indexes:  # a study of an earlier version lacks it
                own.create(connection, checkfirst=True)

    try:
        with_retries(add, seconds=5.0)
    except SQLAlchemyError as error:
        log.debug("no indexes: %s", first_line(error))


# --- states


def states(registry: Registry) -> dict[int, TrialState]:
    """Return the state of each trial by number. It reads a row of each trial."""
    trial = models.TrialModel
    query = select(trial.number, trial.state).where(*_of(registry)).order_by(trial.number)
    return {row.number: row.state for row in registry.read(query)}


def count_states(registry: Registry) -> dict[TrialState, int]:
    """Return the number of trials in each state that has any."""
    state = models.TrialModel.state
    rows = registry.read(select(state, func.count()).where(*_of(registry)).group_by(state))
    return {row[0]: int(row[1]) for row in rows}


def has_unfinished(registry: Registry) -> bool:
    """Return whether any trial is not finished."""
    trial = models.TrialModel
    query: Any = select(literal_column("1")).where(*_of(registry, TrialState.WAITING, TrialState.RUNNING))
    return bool(registry.read(query.select_from(trial).limit(1)))


def first_unfinished(registry: Registry, most: int) -> dict[int, TrialState]:
    """Return the running trials and the first waiting ones by number, all as they are at one moment.

    Args:
        registry: The registry of the study.
        most: Largest number of waiting trials.
    """
    trial = models.TrialModel
    waiting = select(trial.number, trial.state).where(*_of(registry, TrialState.WAITING))
    first = waiting.order_by(trial.number).limit(most).subquery()
    running = select(trial.number, trial.state).where(*_of(registry, TrialState.RUNNING))
    rows = registry.read(union_all(select(first), running))
    return {row.number: row.state for row in sorted(rows, key=lambda row: row.number)}


def numbers_in(registry: Registry, numbers: Collection[int], *states: TrialState) -> set[int]:
    """Return those of some trials that are in one of some states."""
    trial = models.TrialModel
    found: set[int] = set()
    ordered = sorted(numbers)
    for first in range(0, len(ordered), _MOST_VALUES):
        some = ordered[first : first + _MOST_VALUES]
        query = select(trial.number).where(*_of(registry, *states), trial.number.in_(some))
        found |= {row.number for row in registry.read(query)}
    return found


def _of(registry: Registry, *states: TrialState) -> list[Any]:
    """Return the conditions of the trials of a study that are in one of some states, or in any."""
    trial = models.TrialModel
    state = [trial.state == states[0]] if len(states) == 1 else [trial.state.in_(states)] if states else []
    return [trial.study_id == registry.study_id, *state]


def waiting_duplicates(registry: Registry) -> dict[int, int]:
    """Return the running trials that wait for the result of another trial, with the number of that trial.

    It reads a row of each of them, and those whose other trial has finished belong to them until a worker claims them.
    """
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    query = (
        select(trial.number, attribute.value_json)
        .join(attribute, attribute.trial_id == trial.trial_id)
        .where(*_of(registry, TrialState.RUNNING), attribute.key == SAME_AS)
    )
    return {row.number: int(json.loads(row.value_json)) for row in registry.read(query)}


def blocked_duplicates(registry: Registry) -> set[int]:
    """Return the running trials that wait for the result of another trial which is not finished."""
    duplicates = waiting_duplicates(registry)
    finished = numbers_in(registry, set(duplicates.values()), *FINISHED)
    return {number for number, other in duplicates.items() if other not in finished}


# --- results


@dataclass(frozen=True)
class FinishedTrial:
    """What the estimate of the time left needs of a finished trial.

    Attributes:
        seconds: Seconds from its start to its end.
        epochs: Steps that it has reported.
        term: Number of its claims.
    """

    seconds: float
    epochs: int
    term: int


def best_complete(registry: Registry, maximize: bool) -> tuple[int, int, float] | None:
    """Return Optuna's id, the number and the value of the complete trial of the search with the best first objective.

    Of equals, the first wins. None if no trial is complete.
    """
    value, trial = models.TrialValueModel, models.TrialModel
    query = (
        select(trial.trial_id, trial.number, value.value, value.value_type)
        .join(value, value.trial_id == trial.trial_id)
        .where(*_of(registry, TrialState.COMPLETE), value.objective == 0, trial.trial_id.not_in(repeat_ids()))
        .order_by(*_by_value(value, maximize), trial.number)
        .limit(1)
    )
    for row in registry.read(query):
        return row.trial_id, row.number, float(value.stored_repr_to_value(row.value, row.value_type))
    return None


def _by_value(value: Any, maximize: bool) -> Iterator[Any]:
    """Yield the order of values, the best first. Optuna stores infinite values as a type without a number."""
    infinite = value.TrialValueType.INF_POS if maximize else value.TrialValueType.INF_NEG
    yield (value.value_type == infinite).desc()
    yield value.value.is_(None)
    yield value.value.desc() if maximize else value.value.asc()


def failures(registry: Registry) -> dict[int, str]:
    """Return the reason of each failed trial by number."""
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    query = (
        select(trial.number, attribute.value_json)
        .outerjoin(attribute, (attribute.trial_id == trial.trial_id) & (attribute.key == REASON))
        .where(*_of(registry, TrialState.FAIL))
        .order_by(trial.number)
    )
    return {row.number: str(json.loads(row.value_json or '""')) for row in registry.read(query)}


def recent_finished(registry: Registry, most: int, *states: TrialState) -> list[FinishedTrial]:
    """Return the finished trials with the highest numbers.

    Args:
        registry: The registry of the study.
        most: Their largest number.
        states: Their states; none: all finished ones.
    """
    trial, lease = models.TrialModel, leases_table
    times = trial.__table__.c
    columns = (trial.number, times.datetime_start.label("start"), times.datetime_complete.label("end"))
    parts = [
        select(select(*columns).where(*_of(registry, state)).order_by(trial.number.desc()).limit(most).subquery())
        for state in states or FINISHED
    ]
    last = union_all(*parts).subquery()
    query = (
        select(last.c.start, last.c.end, lease.c.epochs, lease.c.term)
        .join(lease, lease.c.number == last.c.number)
        .where(lease.c.study == registry.study_id, last.c.start.is_not(None), last.c.end.is_not(None))
        .order_by(last.c.number.desc())
        .limit(most)
    )
    rows = registry.read(query)
    return [FinishedTrial((row.end - row.start) / timedelta(seconds=1), row.epochs, row.term) for row in rows]


def steps_of_running(registry: Registry) -> dict[int, int]:
    """Return how many running trials have reported how many steps: steps -> trials."""
    trial, lease = models.TrialModel, leases_table
    query = (
        select(lease.c.epochs, func.count().label("trials"))
        .join(trial, trial.number == lease.c.number)
        .where(*_of(registry, TrialState.RUNNING), lease.c.study == registry.study_id)
        .group_by(lease.c.epochs)
    )
    return {row.epochs: row.trials for row in registry.read(query)}


# --- finalists and other attempts


def repeats(registry: Registry) -> frozenset[int]:
    """Return the trials that train a finalist again (see `joyful.results.finalists`)."""
    trial, repeat = models.TrialModel, repeat_ids().subquery()
    joined = (trial.trial_id == repeat.c.trial_id) & (trial.study_id == registry.study_id)
    query = (
        select(trial.number).select_from(repeat).outerjoin(trial, joined)
    )  # with an inner one SQLite reads all trials
    return frozenset(row.number for row in registry.read(query) if row.number is not None)


def repeat_ids() -> Any:
    """Return the subquery of Optuna's ids of the trials that train finalists again, of all studies."""
    attribute = models.TrialUserAttributeModel
    # a literal, because SQLite uses the index of these rows only then
    return select(attribute.trial_id).where(attribute.key == literal_column(f"'{REPEAT_OF}'"))


def requeue_failed(registry: Registry) -> list[int]:
    """Set failed trials to waiting. See `_requeue`."""
    return _requeue(registry, models.TrialModel.state == TrialState.FAIL)


def pruned_for(registry: Registry, reason: str) -> list[int]:
    """Return the numbers of the trials that were pruned for a reason."""
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    query = (
        select(trial.number)
        .join(attribute, attribute.trial_id == trial.trial_id)
        .where(*_of(registry, TrialState.PRUNED), attribute.key == REASON, attribute.value_json == json.dumps(reason))
    )
    return [row.number for row in registry.read(query)]


def requeue(registry: Registry, numbers: Sequence[int]) -> list[int]:
    """Set trials to waiting. See `_requeue`."""
    return _requeue(registry, models.TrialModel.number.in_(numbers))


def _requeue(registry: Registry, *conditions: Any) -> list[int]:
    """Set trials to waiting, with no worker failures. They keep their numbers and parameters.

    Optuna has no function for this: finished trials are final. So this function writes Optuna's tables.

    Returns:
        The numbers of the trials.
    """
    trial, attribute = models.TrialModel, models.TrialUserAttributeModel
    chosen = (trial.study_id == registry.study_id, *conditions)
    waiting = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}

    def requeue() -> list[int]:
        with registry.engine.begin() as connection:
            rows = connection.execute(select(trial.number, trial.trial_id).where(*chosen).order_by(trial.number)).all()
            ids = [row.trial_id for row in rows]
            connection.execute(delete(attribute).where(attribute.trial_id.in_(ids), attribute.key == REASON))
            for model in (models.TrialValueModel, models.TrialIntermediateValueModel):
                connection.execute(delete(model).where(model.trial_id.in_(ids)))
            connection.execute(update(trial.__table__).where(trial.trial_id.in_(ids)).values(**waiting))
            return [row.number for row in rows]

    numbers = with_retries(requeue)
    for number in numbers:
        registry.reset_failures(number)
    return numbers
