"""The studies of `benchmarks.claims`: their databases, their trials, and the check that none was lost or done twice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sqlalchemy import insert, select, text
from sqlalchemy.engine import URL

from benchmarks.measuring import seconds_of
from joyful.sweeper.creation import enqueue
from joyful.sweeper.database import close_storage, open_engine, open_storage, storage_url
from joyful.sweeper.registry import Lease, Registry, leases_table
from joyful.sweeper.study import DIGEST, FOLDER, OVERRIDES, OWN, StudyAccess, open_or_create
from joyful.sweeper.trial_table import add_indexes, models
from tests.support import postgresql

#: The name of the study.
NAME = "claims"

#: Steps that a finished trial has reported.
STEPS = 5


def fill(url: URL, n_trials: int, n_finished: int, folder: Path) -> int:
    """Create a study whose first trials are complete, and return Optuna's id of it."""
    backend = open_storage(url)
    study_id = open_or_create(backend, NAME, ["maximize"], {"space": {}, "trials": None, "base": {}}, ["score"])
    registry, now = Registry(open_engine(url), study_id), datetime.now(UTC).replace(tzinfo=None)
    trial = models.TrialModel
    with registry.engine.begin() as connection:
        finished = {"state": TrialState.COMPLETE, "datetime_start": now, "datetime_complete": now}
        waiting = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}
        rows = [
            {"number": n, "study_id": study_id, **(finished if n < n_finished else waiting)} for n in range(n_trials)
        ]
        connection.execute(insert(trial.__table__), rows)
        query = select(trial.trial_id, trial.number).where(trial.study_id == study_id)
        ids = {row.number: row.trial_id for row in connection.execute(query)}
        numbers = range(n_finished)
        fixed = [{"trial_id": i, "key": "fixed_params", "value_json": "{}"} for i in ids.values()]
        connection.execute(insert(models.TrialSystemAttributeModel), fixed)
        attributes = {DIGEST: "{n:016x}", OVERRIDES: "x={n}", OWN: "x={n}", FOLDER: str(folder / "{n}"), "seed": "{n}"}
        parts: dict[Any, list[dict[str, Any]]] = {
            models.TrialUserAttributeModel: [
                {"trial_id": ids[n], "key": key, "value_json": json.dumps(value.format(n=n))}
                for n in numbers for key, value in attributes.items()
            ],
            models.TrialValueModel: [
                {"trial_id": ids[n], "objective": 0, "value": value_of(n), "value_type": "FINITE"} for n in numbers
            ],
            models.TrialIntermediateValueModel: [
                {"trial_id": ids[n], "step": s, "intermediate_value": value_of(n), "intermediate_value_type": "FINITE"}
                for n in numbers for s in range(1, STEPS + 1)
            ],
            leases_table: [
                {"study": study_id, **vars(Lease(n, "", 1, STEPS, 0, 0))} for n in numbers
            ],
        }  # fmt: skip
        for table, values in parts.items():
            if values:
                connection.execute(insert(table), values)
    add_indexes(registry)
    if registry.engine.dialect.name == "postgresql":  # as the server does by itself, within a minute
        with registry.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    StudyAccess(backend, registry, NAME, RandomSampler, NopPruner()).__exit__()
    return study_id


def value_of(number: int) -> float:
    """Return the value of a trial. The best one is in the middle, and neighbours differ."""
    return (number * 7919 % 10007) / 10007


def create(kind: str, n_trials: int, folder: Path) -> float:
    """Return the seconds in which a driver creates the trials of a new study."""
    with database(kind, folder) as (url, _):
        backend = open_storage(url)
        study_id = open_or_create(backend, NAME, ["maximize"], {"space": {}, "trials": None, "base": {}})
        registry = Registry(open_engine(url), study_id)
        plan: Any = SimpleNamespace(n_trials=n_trials, grid=[{"x": number} for number in range(n_trials)])
        seconds = seconds_of(lambda: enqueue(backend, registry, plan, {}))
        registry.engine.dispose()
        close_storage(backend)
    return seconds


def check(access: StudyAccess, n_finished: int, found: Sequence[dict[str, Any]]) -> None:
    """Check that no trial was lost or done twice.

    Raises:
        RuntimeError: If one was.
    """
    claimed = Counter(number for one in found for number, _ in one["claims"])
    if doubled := [number for number, times in claimed.items() if times > 1]:
        raise RuntimeError(f"expected each trial to be claimed once, got {doubled[:9]} more often")
    told = sum(one["done"]["complete"] for one in found)
    if told != len(claimed):
        raise RuntimeError(f"expected {len(claimed)} results, got {told}")
    leases = access.registry.leases()
    for trial in access.backend.get_all_trials(access.registry.study_id, deepcopy=False):
        number, lease = trial.number, leases.get(trial.number)
        if number < n_finished or number in claimed:
            steps = STEPS if number < n_finished else 1
            expected = (TrialState.COMPLETE, [value_of(number)], Lease(number, "", 1, steps, 0, 0))
            if (trial.state, trial.values, lease) != expected:
                raise RuntimeError(f"trial {number}: expected {expected}, got {(trial.state, trial.values, lease)}")
        elif (trial.state, lease) != (TrialState.WAITING, None):
            raise RuntimeError(f"trial {number}: expected it to wait, got {trial.state} with {lease}")


# --- databases


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[URL, int | None]]:
    """Yield the URL of a new database, and the process id of its server."""
    if kind == "sqlite":
        yield storage_url(None, folder), None
        return
    programs = postgresql.programs()
    if programs is None:
        sys.exit("--database postgresql: expected PostgreSQL, found none; apt-get install postgresql")
    server = postgresql.Server(programs, {"max_connections": 1000})
    try:
        yield storage_url(server.url, folder), server.pid
    finally:
        server.stop()


def server_seconds(pid: int) -> float:
    """Return the processor seconds of a server so far, with those of its processes that have ended."""
    own = psutil.Process(pid)
    times = [own.cpu_times(), *(child.cpu_times() for child in own.children(recursive=True))]
    ended = own.cpu_times().children_user + own.cpu_times().children_system
    return ended + sum(one.user + one.system for one in times)


def transactions(registry: Registry) -> int:
    """Return the transactions of a PostgreSQL database so far."""
    query: Any = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(registry.read(query)[0][0])
