"""One writer for a run folder: a lock that its holder's death releases."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from joyful.records import InputError
from joyful.results.schema import ResultsError

LOCK = ".lock"


class LockLostError(BaseException):  # (no `except Exception` of a run may go on after it)
    """Another process has taken this process's run folder over: nothing more may be written there."""


class RunLock:
    """A held lock of a run folder; `release` it, or use it as a context manager. The kernel releases it at death."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next writer in; releasing twice does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _held.discard(self)
            try:
                os.ftruncate(descriptor, 0)  # the file stays: removing it would race with a process that just opened it
            finally:
                os.close(descriptor)

    @property
    def is_taken_over(self) -> bool:
        """Whether another holder's lock stands in the place of this one."""
        try:
            there = os.stat(self.path / LOCK, follow_symlinks=False)
        except OSError:
            return False  # it is being put there, or was removed by hand
        return self._descriptor is not None and not os.path.samestat(there, os.fstat(self._descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


#: Locks that this process holds.
_held: set[RunLock] = set()


def holds(folder: str | os.PathLike[str]) -> bool:
    """Whether this process holds the lock of the run whose folder it is, or which it lies in."""
    return bool(_held_of(folder))


def _held_of(folder: str | os.PathLike[str]) -> list[RunLock]:
    place = Path(folder).absolute()
    return [held for held in _held if held.path in (place, place.parent)]


def require_lock(folder: str | os.PathLike[str]) -> None:
    """Before a change in a run's folder: raises LockLostError where this process held its lock and another has taken it over.

    Together with `_fence` nothing slips through for files that get their names at last: a process that is frozen after this
    look finds its temporary file gone, and one that wakes before it is told here.
    """
    mine = _held_of(folder)
    if mine and all(held.is_taken_over for held in mine):
        raise LockLostError(f"{folder}: another process has taken this run over; nothing more is written by this one")


def lock(path: str | os.PathLike[str], take_over_after: float | None = None) -> RunLock:
    """Take the lock of the run folder `path` and hold it until `release` or the process's death.

    take_over_after: None does not wait for another holder; a number of seconds waits so long and then puts a lock of its own in
    place of the other's. That is for a caller who knows that the holder has lost its right to the folder; whatever that one
    still tries to write, frozen and woken, gets no name there.
    The folder must exist. A second taker, in another process or in this one, gets an InputError that says who holds it.
    Raises ResultsError where the filesystem has no locks.
    """
    if take_over_after is None:
        return _lock_at_once(path)
    deadline = time.monotonic() + take_over_after
    while True:
        try:
            return _lock_at_once(path)
        except InputError:
            if time.monotonic() > deadline:
                break
        time.sleep(0.1)
    (Path(path) / LOCK).unlink(missing_ok=True)  # the other holds a file that has no name any more
    held = _lock_at_once(path)
    _fence(Path(path))
    return held


def _fence(folder: Path) -> None:
    """Remove all files that are being written in the folder and in its own: their writers have lost it."""
    for place in (folder, *(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())):
        for path in place.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _lock_at_once(path: str | os.PathLike[str]) -> RunLock:
    import fcntl  # not on Windows; there is no run without it

    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run, found none; make it before locking it")
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ResultsError(error.errno, f"{folder / LOCK} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(
                f"{folder}: another process writes this run ({holder}); wait for it, or end it first"
            ) from None
        message = f"{folder} cannot be locked ({error.strerror}); put the runs on a filesystem with locks"
        raise ResultsError(error.errno, message) from error
    held = RunLock(folder.absolute(), descriptor)
    holder_info = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder_info).encode("ascii"), 0)
    except OSError:
        pass  # a full disk takes nothing from the lock itself, only the words about its holder
    _held.add(held)
    return held


def _holder(descriptor: int) -> str:
    try:
        info = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {info['pid']} on {info['host']} since {info['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its holder has not said who it is"


def _forget_all() -> None:
    """In a forked child: let go of the parent's locks, so that the child does not hold them on after its death."""
    for held in _held:
        if held._descriptor is not None:
            os.close(held._descriptor)  # no truncation: the words about the holder are the parent's
            held._descriptor = None
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)
