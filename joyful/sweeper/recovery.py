"""Recovery of a damaged study: set the file aside, and rebuild the study from the run folders."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy.engine import URL

from joyful.records import InputError
from joyful.results import set_aside
from joyful.results.files import read_bounded
from joyful.results.yaml_text import parse_yaml
from joyful.sweeper.creation import KnownRun
from joyful.sweeper.database import BUSY_SECONDS
from joyful.sweeper.plan import Plan

log = logging.getLogger(__name__)

#: Maximum size of the file with Hydra's settings of a job in bytes.
MAXIMUM_JOB_BYTES = 4 * 2**20

#: Length and first byte of the range that SQLite locks for reading.
_SHARED_LOCK = (510, 0x40000002)


def set_damaged_aside(url: URL) -> None:
    """Rename the study's SQLite file if it is damaged or is not a study, and print a message.

    Args:
        url: The database URL. Other databases than SQLite are not examined.

    Raises:
        InputError: If the file cannot be read, or is damaged and another process has it open.
    """
    path = Path(str(url.database)).absolute()
    if url.get_backend_name() != "sqlite" or not path.is_file():
        return
    with _exclusive(path.parent):
        problem = find_damage(path)
        if problem:
            if _is_open_elsewhere(path):
                raise InputError(
                    f"{path} is damaged ({problem}) and another process has it open; end the other workers of this sweep"
                    " and joyful sweep watch, then run the command again"
                )
            set_aside(path, f"{path} is damaged ({problem}); the study is rebuilt from its run folders")
            for suffix in ("-wal", "-shm"):
                set_aside(path.with_name(path.name + suffix), "it belongs to the damaged study")


def find_damage(path: Path) -> str:
    """Return what is wrong with a study's SQLite file, or "" if it is intact.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    except sqlite3.Error as error:
        raise InputError(f"hydra.sweeper.storage: {path} cannot be opened ({error}); check its permissions") from None
    try:
        result = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if result != "ok":
            return " ".join(result.split())
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return "" if "studies" in tables or not tables else "it is another database, not a study"
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return str(error)
        raise InputError(
            f"hydra.sweeper.storage: {path} cannot be read ({error}); check its permissions and the disk"
        ) from None
    finally:
        connection.close()


def _is_open_elsewhere(path: Path) -> bool:
    """Return whether another process has a database open.

    When it closes a database that has been renamed, SQLite deletes the write-ahead log by the old name. That log belongs
    to the rebuilt study by then, and its last trials would be lost. With a write-ahead log, each connection keeps the
    shared lock on the file (https://sqlite.org/lockingv3.html).
    """
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *_SHARED_LOCK)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # the file system has no locks
            return False
    return False


def runs_of(folder: Path, plan: Plan, seed_key: str) -> dict[int, KnownRun]:
    """Read the parameters of trials from the files that Hydra wrote for their jobs, for rebuilding a study.

    Args:
        folder: The sweep folder.
        plan: The plan of the sweep.
        seed_key: The setting of the program that holds the seed. A trial that trains a finalist again sets it last.

    Returns:
        The run of each trial whose job has recorded its overrides and lies in the search space, by trial number.
    """
    runs = {}
    own = sum(item.startswith(f"{seed_key}=") for item in plan.fixed)
    for path in sorted(folder.glob("**/.hydra/hydra.yaml")) if plan.space else ():
        try:
            hydra = parse_yaml(read_bounded(path, MAXIMUM_JOB_BYTES))["hydra"]
            number, overrides = int(hydra["job"]["num"]), hydra["overrides"]["task"]
        except (InputError, OSError, KeyError, TypeError, ValueError):
            continue
        values = {name: _value(overrides, name, plan) for name in plan.space}
        seeds = [str(item).partition("=")[2] for item in overrides if str(item).startswith(f"{seed_key}=")]
        is_repeat = seed_key not in plan.space and len(seeds) > own and seeds[-1].isdecimal()
        if None not in values.values():
            runs[number] = KnownRun(values, int(seeds[-1]) if is_repeat else None)
    if runs:
        log.info("%d trials keep the parameters of their existing runs", len(runs))
    return runs


def _value(overrides: Sequence[object], name: str, plan: Plan) -> Any:
    """Return the value of a parameter in the overrides of a job, None if its distribution does not contain it."""
    text = next((str(item) for item in reversed(overrides) if str(item).startswith(f"{name}=")), "")
    distribution = plan.space[name]
    if isinstance(distribution, CategoricalDistribution):
        choices = {plan.overrides(0, {name: choice})[-1]: choice for choice in distribution.choices}
        return choices.get(text)
    try:
        value = (int if isinstance(distribution, IntDistribution) else float)(text.partition("=")[2])
        create_trial(state=TrialState.RUNNING, params={name: value}, distributions={name: distribution})
    except ValueError:
        return None
    return value


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder. Without it, a second process that found the damage could set the rebuilt study aside."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # the file system has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
