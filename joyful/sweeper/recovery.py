"""A sweep's study that was damaged: set aside, and made anew from the run folders, which hold all that was trained."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optuna.distributions import BaseDistribution, CategoricalDistribution
from sqlalchemy.engine import URL

from joyful.records import InputError
from joyful.results import read_run, set_aside
from joyful.sweeper.database import BUSY_SECONDS

log = logging.getLogger(__name__)


def set_damaged_aside(url: URL) -> None:
    """Where the study's SQLite file is damaged, or holds something else, give it another name and say so."""
    path = Path(str(url.database)).absolute()
    if url.get_backend_name() != "sqlite" or not path.is_file():
        return
    with _alone(path.parent):
        why = damage(path)
        if why:
            set_aside(path, f"{path} is damaged ({why}); the study is made anew from the folders of its runs")
            for suffix in ("-wal", "-shm"):
                set_aside(path.with_name(path.name + suffix), "it belongs to that study")


def damage(path: Path) -> str:
    """What is wrong with the study in an SQLite file, "" where nothing is. Raises InputError where it cannot be looked at."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    except sqlite3.Error as error:
        raise InputError(f"hydra.sweeper.storage: {path} cannot be opened ({error})") from None
    try:
        found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if found != "ok":
            return " ".join(found.split())
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return "" if "studies" in tables or not tables else "it is no study but another database"
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return str(error)
        raise InputError(f"hydra.sweeper.storage: {path} cannot be read ({error})") from None
    finally:
        connection.close()


def params_of_runs(folder: Path, space: Mapping[str, BaseDistribution], n_trials: int) -> dict[int, dict[str, Any]]:
    """Trial number -> the parameters that its run was trained with, of every trial that has a run: for a study made anew."""
    found = {}
    for number in range(n_trials) if space else ():
        try:
            info = read_run(folder / str(number))
        except (InputError, OSError):
            continue
        values = {name: _value(info, name, distribution) for name, distribution in space.items()}
        if None not in values.values():
            found[number] = values
    if found:
        log.info("%d trials get the parameters of the runs that are here", len(found))
    return found


def _value(info: Mapping[str, Any], name: str, distribution: BaseDistribution) -> Any:
    """The run's value of a parameter, None where it is none of the distribution's."""
    bare = name.lstrip("+")
    value: Any = (info.get("choices") or {}).get(bare.replace(".", "/")) or info.get("config")
    if isinstance(value, Mapping):
        for part in bare.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(distribution, CategoricalDistribution):
        return next((choice for choice in distribution.choices if str(choice) == str(value)), None)
    try:
        return value if distribution._contains(distribution.to_internal_repr(value)) else None
    except (TypeError, ValueError):
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time looks for damage in a folder: of two that found it the second would set the new study aside."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
