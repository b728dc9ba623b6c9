"""The lock of a run folder. It admits one writer and is released when that process ends."""

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

from joyful import platforms
from joyful.records import InputError
from joyful.results.schema import ResultsError

LOCK = ".lock"


class LockLostError(BaseException):  # a BaseException, so that no `except Exception` continues the run
    """Another process has taken over this run's folder, so this process must not write there any more."""


class RunLock:
    """A held lock of a run folder.

    Call `release`, or use the lock as a context manager. The kernel releases the lock when the process ends.

    Attributes:
        path: Absolute path of the run folder.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _held.discard(self)
            try:
                os.ftruncate(descriptor, 0)  # keep the file: removing it would race with a process that just opened it
            finally:
                os.close(descriptor)

    @property
    def is_taken_over(self) -> bool:
        """Whether another process has replaced this lock by its own."""
        try:
            current = os.stat(self.path / LOCK, follow_symlinks=False)
        except OSError:
            return False  # it is being created, or was removed by hand
        return self._descriptor is not None and not os.path.samestat(current, os.fstat(self._descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


#: Locks that this process holds.
_held: set[RunLock] = set()


def holds(folder: str | os.PathLike[str]) -> bool:
    """Return whether this process holds the lock of a run, given its folder or a folder in it."""
    return bool(_held_of(folder))


def _held_of(folder: str | os.PathLike[str]) -> list[RunLock]:
    place = Path(folder).absolute()
    return [held for held in _held if held.path in (place, place.parent)]


def require_lock(folder: str | os.PathLike[str]) -> None:
    """Check, before a change in a run's folder, that this process has not lost the lock of the run.

    A file that is written to a temporary name and then renamed is safe together with `_fence`: a process that is frozen
    after this check finds its temporary file gone, and a process that wakes before it fails here.

    Args:
        folder: The folder of a run, or one in it. A process that never held the lock passes.

    Raises:
        LockLostError: If this process held the lock and another process has taken it over.
    """
    mine = _held_of(folder)
    if mine and all(held.is_taken_over for held in mine):
        raise LockLostError(f"{folder}: another process has taken over this run; this process writes nothing more")


def lock(path: str | os.PathLike[str], take_over_after: float | None = None) -> RunLock:
    """Lock a run folder until `RunLock.release` is called or the process ends.

    Args:
        path: The folder of the run. It must exist.
        take_over_after: Seconds to wait for another holder before this process replaces that lock by its own. Set it
            only if the holder has lost its right to the folder, for example by an expired lease. A holder that wakes
            later cannot put a file in place. None does not wait and does not take over.

    Returns:
        The held lock.

    Raises:
        InputError: If the folder does not exist, or if another process, or this one, holds the lock. The message names
            the holder.
        ResultsError: If the file system does not support locks.
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
    (Path(path) / LOCK).unlink(missing_ok=True)  # the holder keeps a lock on a file that no longer has a name
    held = _lock_at_once(path)
    _fence(Path(path))
    return held


def _fence(folder: Path) -> None:
    """Remove the temporary files in the folder and its subfolders, because their writers have lost the lock."""
    for place in (folder, *(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())):
        for path in place.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _lock_at_once(path: str | os.PathLike[str]) -> RunLock:
    import fcntl  # not available on Windows (joyful.platforms)

    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run, found none; create it before locking it")
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
                f"{folder}: another process is writing this run ({holder}); wait for it or stop it"
            ) from None
        message = f"{folder} cannot be locked ({error.strerror}); put the runs on a file system that supports locks"
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
        pass  # on a full disk the lock holds all the same; only the information about its holder is missing
    _held.add(held)
    return held


def _holder(descriptor: int) -> str:
    try:
        info = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {info['pid']} on {info['host']} since {info['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown holder"


def _forget_all() -> None:
    """Close the parent's locks in a forked child, so that the child does not hold them after the parent ends."""
    for held in _held:
        if held._descriptor is not None:
            os.close(held._descriptor)  # not truncated: the content describes the parent
            held._descriptor = None
    _held.clear()


platforms.require()
os.register_at_fork(after_in_child=_forget_all)
