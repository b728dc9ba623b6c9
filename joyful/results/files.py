"""Write files atomically, and read files of unknown origin within bounds."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from joyful.records import InputError, print_error
from joyful.results.lock import holds, require_lock
from joyful.results.machine import machine
from joyful.results.schema import ResultsError

log = logging.getLogger(__name__)

# .NAME.MACHINE-PID-TOKEN.tmp. The name is hidden, so no reader mistakes the file or folder for a result. Machine and
# process number show whether the writer is still alive.
_TEMPORARY = re.compile(r"\..+\.(?P<machine>[^.]*)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp\Z")


def temporary_beside(path: Path) -> Path:
    """Return the path of a temporary file or folder next to `path` that `remove_leftovers` recognises."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_bytes(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path` atomically: to a temporary file in the same folder, fsync, rename, fsync of the folder.

    Args:
        path: The file to write or replace.
        data: The new content.

    Raises:
        ResultsError: If the file cannot be written. The temporary file is removed. `path` keeps its previous content
            or, if only the fsync of the folder failed, holds all of `data`.
        LockLostError: If another process has taken over the run that owns the folder.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)

    write_file(path, write, len(data))


def write_file(path: str | os.PathLike[str], write: Callable[[Path], None], size: int) -> None:
    """Write a file atomically through a library that writes to a path.

    Args:
        path: The file to write or replace.
        write: Called with the path of the temporary file, which exists. It must raise OSError if it cannot write.
        size: Approximate size in bytes, for messages.

    Raises:
        ResultsError: See `write_bytes`.
        LockLostError: See `write_bytes`.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            write(temporary)
            _sync_file(temporary)
            require_lock(path.parent)
            os.replace(temporary, path)
        except BaseException:  # an interrupt must not leave a partial file either
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        require_lock(path.parent)  # a process that took over the folder has removed the temporary file
        raise ResultsError(error.errno, _explain(path, size, error)) from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Context with a temporary folder that becomes `folder` at its end: it appears complete or not at all.

    The parents of the folder are created, and what killed writers left there is removed. All users may read the files,
    because folders such as caches are shared.

    Args:
        folder: The folder to create.

    Raises:
        FileExistsError: If another writer was faster. The temporary folder is removed.
        OSError: If the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    temporary = temporary_beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        for path in (temporary, *temporary.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # libraries write some files with mode 600
            if path.is_file():
                _sync_file(path)
        try:
            os.rename(temporary, folder)
        except OSError:
            if folder.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from None
            raise
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value to `path` atomically as strict JSON. NaN and infinities become null.

    Args:
        path: The file to write or replace.
        value: A value that `plain` accepts.

    Raises:
        InputError: If JSON cannot represent a part of the value. The message names the part.
        ResultsError: If the file cannot be written.
    """
    write_bytes(path, json_bytes(plain(value)))


def json_bytes(value: Any) -> bytes:
    """Return a value from `plain` as the content of a JSON file."""
    return json.dumps(value, indent=2, allow_nan=False).encode("ascii") + b"\n"


def plain(value: Any, place: str = "") -> Any:
    """Convert a value to the types of JSON: dictionaries with text keys, lists, text, numbers, booleans and None.

    NaN and infinities become None, NumPy scalars become Python numbers, and paths become text.

    Args:
        value: The value to convert.
        place: Name of the value in error messages.

    Returns:
        A new value; `value` is not changed.

    Raises:
        InputError: If the value contains any other type.

    Example:
        >>> plain({"loss": float("nan"), "betas": (0.9, 0.999)})
        {'loss': None, 'betas': [0.9, 0.999]}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{place or 'the value'}: expected keys of type text, got {key!r}; use {str(key)!r}")
            result[key] = plain(item, f"{place}.{key}" if place else key)
        return result
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a NumPy scalar, without importing NumPy
        return plain(value.item(), place)
    raise InputError(
        f"{place or 'the value'}: expected text, a number, a list or a mapping, got {type(value).__name__}"
    )


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Symbolic links are not followed. Pipes and devices are refused without waiting for them.

    Args:
        path: The file to read.
        limit: Maximum size in bytes.

    Raises:
        InputError: If the file is longer, or is a link, a pipe or a device. The message does not name the file; the
            caller adds the name.
        FileNotFoundError: If there is no such file.
        OSError: If the file cannot be read.
    """
    descriptor, size = _open_plain(path)
    try:
        if size > limit:
            raise InputError(f"it has {size} bytes; at most {limit} are read")
        data = os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise InputError("its length changed while it was read")
    return data


def open_plain(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading. Raises the same errors as `read_bounded`."""
    return os.fdopen(_open_plain(path)[0], "rb")


def _open_plain(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the descriptor of a regular file, and its size in bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError("it is a symbolic link; replace it by the file") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InputError("it is not a plain file")
    return descriptor, status.st_size


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files and folders of dead writers.

    A writer on this machine is dead if its process has ended. A writer on another machine counts as dead if this
    process holds the lock of the run. The age of a file is not used, because clocks can jump.

    Args:
        folder: The folder of a run, or a folder in it.

    Returns:
        The names of the removed files and folders, sorted.
    """
    removed, own, held = [], _machine(), holds(folder)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        match = _TEMPORARY.match(entry.name)
        if match is None or entry.is_symlink():
            continue
        try:
            dead = not _alive(int(match["pid"])) if match["machine"] == own else held
            if dead:
                if entry.is_dir():
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
                removed.append(entry.name)
        except OSError:
            continue  # another process was faster, or the folder is read-only; a leftover does no harm
    return removed


def set_aside(path: Path, why: str) -> None:
    """Rename a damaged file to NAME.damaged (or NAME.damaged-2, ...) and print a line about it.

    Does nothing if the file does not exist.

    Args:
        path: The damaged file.
        why: The reason, for the printed line.

    Raises:
        ResultsError: If the file cannot be renamed.
        LockLostError: If another process has taken over the run that owns the folder.
    """
    if not os.path.lexists(path):
        return
    require_lock(path.parent)
    number, name = 1, f"{path.name}.damaged"
    while os.path.lexists(path.with_name(name)):
        number, name = number + 1, f"{path.name}.damaged-{number + 1}"
    try:
        path.rename(path.with_name(name))
    except OSError as error:
        raise ResultsError(error.errno, f"{path} cannot be set aside as {name}: {error.strerror}") from None
    text = f"{path.name} is set aside as {name}: {' '.join(why.split())}"
    print_error(text)
    log.info("%s", text)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems do not support fsync of folders; the rename is then as durable as it can be
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", machine())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _explain(path: Path, size: int, error: OSError) -> str:
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
        errno.EROFS: "set hydra.run.dir=FOLDER to a writable folder",
        errno.EACCES: "set hydra.run.dir=FOLDER to a writable folder",
        errno.EPERM: "set hydra.run.dir=FOLDER to a writable folder",
        errno.ENOENT: "restore the folder, which no longer exists",
    }.get(error.errno or 0, "check the disk")
    return (
        f"{path.name} ({size} bytes) cannot be written in {path.parent}: {error.strerror or error}. "
        f"The previous file is intact; {advice}, then start again (resume a run with resume=FOLDER)"
    )
