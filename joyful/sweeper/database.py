"""The database of a sweep: its URL, Optuna's storage in it, an engine for our own tables, and patience with its pauses."""

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

#: A database that does not answer is asked again for so long, in seconds: a restart takes less.
PATIENCE = 120.0

#: Seconds that SQLite waits for another writer.
BUSY_SECONDS = 30

#: What is said where a study finds no room.
FULL = (
    "the sweep's study cannot be written: its disk is full. What stood there before is whole; free some space, then give the "
    "same command again: it goes on"
)

#: File systems of other machines, where SQLite's write-ahead log does not work.
_NETWORK = ("nfs", "cifs", "smb", "9p", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "afs")


def storage_url(storage: str | None, folder: Path) -> URL:
    """The database of a sweep in `folder`: the URL given, or study.db in the folder.

    Raises InputError for anything but SQLite files and PostgreSQL, and where the driver is not installed.
    """
    if storage is None:
        return URL.create("sqlite", database=str(folder.absolute() / "study.db"))
    wish = "expected sqlite:///FILE or postgresql://USER@HOST/NAME"
    try:
        url = make_url(storage)
    except ArgumentError:
        raise InputError(f"hydra.sweeper.storage: {wish}, got {storage!r}") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InputError(f"hydra.sweeper.storage: {wish}, got {backend}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError(f"hydra.sweeper.storage: {wish}, got a database in memory, which no worker could share")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if "password" in url.query:  # (where nothing would hide it)
        url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    if url.drivername == "postgresql+psycopg" and importlib.util.find_spec("psycopg") is None:
        raise InputError("hydra.sweeper.storage: PostgreSQL needs its driver; pip install 'joyful[postgres]'")
    return url


def without_password(url: URL) -> str:
    """The URL as it may be written down: whoever reads it there has the password in PGPASSWORD or in ~/.pgpass."""
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.render_as_string()


def text(url: URL) -> str:
    """The URL with its password, for another process's make_url."""
    return url.render_as_string(hide_password=False)


def open_engine(url: URL) -> sqlalchemy.Engine:
    """An engine for our own tables: short transactions, each begun by its write, so that SQLite can wait for the other writer."""
    if url.get_backend_name() != "sqlite":
        return sqlalchemy.create_engine(url, pool_pre_ping=True, pool_size=2, connect_args={"connect_timeout": 10})
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, poolclass=sqlalchemy.NullPool)

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: object, _: object) -> None:
        # a power cut may cost the last sign of life, never the study: Optuna's own connections sync every commit
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    return engine


def open_storage(url: URL) -> RDBStorage:
    """Optuna's storage in that database, made where it is missing. Raises InputError where it cannot be had."""
    sqlite = url.get_backend_name() == "sqlite"
    try:
        if sqlite:
            _use_write_ahead_log(url)
        connect = {"timeout": BUSY_SECONDS} if sqlite else {"connect_timeout": 10}
        options = {"connect_args": connect} | ({} if sqlite else {"pool_pre_ping": True})
        return made(lambda: RDBStorage(text(url), engine_kwargs=options), sqlite)
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError, NoSuchModuleError) as error:
        raise InputError(
            f"hydra.sweeper.storage: {url.render_as_string()} cannot be used ({first_line(error)}); check that the database "
            "runs, that the address is right and that its folder can be written"
        ) from None


def close(storage: RDBStorage) -> None:
    """End the storage's connections; used again, it would make new ones."""
    storage.remove_session()
    storage.engine.dispose()


def made(create: Callable[[], T], sqlite: bool) -> T:
    """The result of `create`, which makes tables where they are missing: of two processes that do so at once one fails, and finds
    them when it looks again."""
    clashes = (IntegrityError, ProgrammingError, *((OperationalError,) if sqlite else ()))
    for attempt in range(1, 6):
        try:
            return create()
        except (DBAPIError, StorageInternalError) as error:
            if attempt == 5 or (not isinstance(error, clashes) and not isinstance(error.__cause__, clashes)):
                raise
        time.sleep(0.2 * attempt)
    raise AssertionError


def retried(action: Callable[[], T], patience: float = PATIENCE) -> T:
    """The result of `action`, which may be repeated: a database that is busy or restarts is asked again, for `patience` seconds.

    All actions of a process share their patience: where one has waited in vain, the next does not wait as long once more, unless
    the database answered in the meantime. Raises what the action raised last. Only failures of the connection are repeated, not
    errors in what was asked; a full disk is a ResultsError at once.
    """
    began, pause = time.monotonic(), 0.05
    while True:
        try:
            result = action()
        except (DBAPIError, StorageInternalError) as error:
            if _is_full(error):
                raise ResultsError(errno.ENOSPC, FULL) from error
            if not _is_passing(error) or time.monotonic() + pause > min(began, _silence.since(patience)) + patience:
                raise
            log.debug("the database does not answer (%s); asked again in %.2f s", first_line(error), pause)
        else:
            _silence.end()
            return result
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


class _Silence:
    """Since when the database of this process's sweep has not answered."""

    def __init__(self) -> None:
        self._first = self._last = -math.inf

    def since(self, patience: float) -> float:
        """Its beginning, this moment being one without an answer. One before a pause of `patience` was another's."""
        now = time.monotonic()
        if now - self._last > patience:
            self._first = now
        self._last = now
        return self._first

    def end(self) -> None:
        """There was an answer."""
        self._last = -math.inf


_silence = _Silence()


def _is_full(error: BaseException) -> bool:
    """Whether a disk has no room: SQLite's, with whatever it could not write there, or PostgreSQL's."""
    for cause in _causes(error):
        origin = getattr(cause, "orig", None)
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or getattr(origin, "sqlstate", None) == "53100":
            return True
    return False


def _is_passing(error: BaseException) -> bool:
    for cause in _causes(error):
        if isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
            return True
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
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
    """What an error of the database says, without the statement and the advice below it."""
    cause = error.__cause__ or error
    return next(iter(str(getattr(cause, "orig", None) or cause).splitlines()), type(cause).__name__)[:300]
