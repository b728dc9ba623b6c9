"""The database of a sweep: its URL, Optuna's storage, an engine for the sweeper's own tables, and retries."""

from __future__ import annotations

import errno
import importlib.util
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from joyful.records import InputError
from joyful.results import ResultsError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which a database that does not answer is retried. A restart takes less.
RETRY_SECONDS = 120.0

#: Seconds that SQLite waits for another writer.
BUSY_SECONDS = 30

#: The message for a study on a full disk.
DISK_FULL = (
    "the sweep's study cannot be written because its disk is full; existing data are intact; free some space, then run "
    "the same command again to resume"
)

#: Network file systems, on which SQLite's write-ahead log does not work.
_NETWORK = ("nfs", "cifs", "smb", "9p", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "afs")


def storage_url(storage: str | None, folder: Path) -> URL:
    """Return the database URL of a sweep.

    Args:
        storage: The URL from the settings; None: study.db in the sweep folder. A relative path of an SQLite file
            refers to the working directory.
        folder: The sweep folder.

    Raises:
        InputError: If the URL is neither an SQLite file nor PostgreSQL, or if PostgreSQL's driver is not installed.

    Example:
        >>> storage_url("sqlite:////tmp/mine.db", Path("multirun/mine"))
        sqlite:////tmp/mine.db
    """
    if storage is None:
        return URL.create("sqlite", database=str(folder.absolute() / "study.db"))
    expected = "expected sqlite:///FILE or postgresql://USER@HOST/NAME"
    try:
        url = make_url(storage)
    except ArgumentError:
        raise InputError(f"hydra.sweeper.storage: {expected}, got {storage!r}") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InputError(f"hydra.sweeper.storage: {expected}, got {backend}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError(f"hydra.sweeper.storage: {expected}, got a database in memory, which workers cannot share")
    if backend == "sqlite" and not str(url.database).startswith("file:"):
        # workers and later commands may start in another folder
        url = url.set(database=str(Path(str(url.database)).absolute()))
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if "password" in url.query:  # SQLAlchemy does not hide passwords there
        url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    if url.drivername == "postgresql+psycopg" and importlib.util.find_spec("psycopg") is None:
        raise InputError(
            "hydra.sweeper.storage: expected the PostgreSQL driver psycopg, found none; "
            "pip install 'joyful-sweeps[sweep]'"
        )
    return url


def without_password(url: URL) -> str:
    """Return the URL without its password, for files and logs. Readers need the password in PGPASSWORD or ~/.pgpass.

    Example:
        >>> without_password(make_url("postgresql://me:secret@host/sweeps"))
        'postgresql://me@host/sweeps'
    """
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.render_as_string()


def with_password(url: URL) -> str:
    """Return the URL with its password, as SQLAlchemy's `make_url` reads it."""
    return url.render_as_string(hide_password=False)


def open_engine(url: URL) -> sqlalchemy.Engine:
    """Return an engine for the sweeper's own tables.

    Each transaction starts with its write, so that SQLite can wait for another writer.
    """
    if url.get_backend_name() != "sqlite":
        return sqlalchemy.create_engine(url, pool_pre_ping=True, pool_size=2, connect_args={"connect_timeout": 10})
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, poolclass=sqlalchemy.NullPool)

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: object, _: object) -> None:
        # After a power failure the last heartbeats may be missing. Optuna's own connections still sync every commit.
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    return engine


def open_storage(url: URL) -> RDBStorage:
    """Open Optuna's storage in a database, and create it if it is missing.

    Raises:
        InputError: If the database cannot be used.
    """
    sqlite = url.get_backend_name() == "sqlite"
    try:
        if sqlite:
            _use_write_ahead_log(url)
        connect = {"timeout": BUSY_SECONDS} if sqlite else {"connect_timeout": 10}
        options = {"connect_args": connect} | ({} if sqlite else {"pool_pre_ping": True})
        return create_with_retries(lambda: RDBStorage(with_password(url), engine_kwargs=options), sqlite)
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError, NoSuchModuleError) as error:
        raise InputError(
            f"hydra.sweeper.storage: {url.render_as_string()} cannot be used ({first_line(error)}); check that the "
            "database is running, that the URL is correct and that its folder is writable"
        ) from None


def close_storage(storage: RDBStorage) -> None:
    """Close the connections of a storage. Further use opens new ones."""
    storage.remove_session()
    storage.engine.dispose()


def create_with_retries(create: Callable[[], T], sqlite: bool) -> T:
    """Call a function that creates missing tables, and return its result.

    If two processes create the tables at the same time, one of them fails. It tries again, and finds the tables.

    Args:
        create: The function.
        sqlite: Whether the database is SQLite, which reports the conflict as another error.
    """
    conflicts = (IntegrityError, ProgrammingError, *((OperationalError,) if sqlite else ()))
    for attempt in range(1, 6):
        try:
            return create()
        except (DBAPIError, StorageInternalError) as error:
            if attempt == 5 or (not isinstance(error, conflicts) and not isinstance(error.__cause__, conflicts)):
                raise
        time.sleep(0.2 * attempt)
    raise AssertionError


def with_retries(action: Callable[[], T], seconds: float = RETRY_SECONDS) -> T:
    """Call a function of the database, and repeat it while the database is busy or does not answer.

    Only connection failures are retried, with growing pauses, not errors in the statement. The limit holds for an
    outage, not for a call: if an earlier call of this process has waited in vain, and the database has not answered
    since, this call waits only for the rest.

    Args:
        action: The function. It must be safe to repeat.
        seconds: Seconds after which to give up.

    Returns:
        The result of the function.

    Raises:
        ResultsError: If the disk is full.
        Exception: The last error of the function, if it is not a connection failure or the time is over.
    """
    start, pause = time.monotonic(), 0.05
    while True:
        try:
            result = action()
        except (DBAPIError, StorageInternalError) as error:
            if _is_full(error):
                raise ResultsError(errno.ENOSPC, DISK_FULL) from error
            if not _is_transient(error) or time.monotonic() + pause > min(start, _outage.start(seconds)) + seconds:
                raise
            log.debug("the database does not answer (%s); retrying in %.2f s", first_line(error), pause)
        else:
            _outage.end()
            return result
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


class _Outage:
    """The time since which this process's database has not answered."""

    def __init__(self) -> None:
        self._first = self._last = -math.inf

    def start(self, seconds: float) -> float:
        """Record a failure now, and return the start of the outage.

        A failure more than `seconds` after the last one starts a new outage.
        """
        now = time.monotonic()
        if now - self._last > seconds:
            self._first = now
        self._last = now
        return self._first

    def end(self) -> None:
        """Record an answer of the database."""
        self._last = -math.inf


_outage = _Outage()


def _is_full(error: BaseException) -> bool:
    """Return whether SQLite or PostgreSQL reports a full disk."""
    for cause in _causes(error):
        origin = getattr(cause, "orig", None)
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or getattr(origin, "sqlstate", None) == "53100":
            return True
    return False


def _is_transient(error: BaseException) -> bool:
    for cause in _causes(error):
        if isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
            return True
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _use_write_ahead_log(url: URL) -> None:
    path = Path(str(url.database)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    if kind.startswith(_NETWORK):
        return
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()


def first_line(error: BaseException) -> str:
    """Return the first line of a database error, without the SQL statement and hints that follow."""
    cause = error.__cause__ or error
    return next(iter(str(getattr(cause, "orig", None) or cause).splitlines()), type(cause).__name__)[:300]
