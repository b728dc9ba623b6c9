"""Files that appear whole or not at all, and bounded reading of files that others wrote."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from joyful.records import InputError, print_error
from joyful.results.lock import holds, require_lock
from joyful.results.machine import machine
from joyful.results.schema import ResultsError

# .NAME.MACHINE-PID-TOKEN.tmp: hidden, so that no reader takes it for a result; machine and pid, so that a dead writer's is
# known
_TEMPORARY = re.compile(r"\..+\.(?P<machine>[^.]*)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp\Z")


def write_bytes(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Put `data` at `path`, whole or not at all: a temporary name beside it, fsync, rename, fsync of the folder.

    Raises ResultsError when the disk refuses; the temporary file is gone then. What stood at `path` before still
    stands, or, where only the folder's own fsync failed, `data` stands whole in its place. Raises LockLostError where
    another process has taken the run over whose folder it is.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)

    write_file(path, write, len(data))


def write_file(path: str | os.PathLike[str], write: Callable[[Path], None], size: int) -> None:
    """As `write_bytes`, for a library that writes the file itself: `write` is given the temporary path, which exists.

    size: about how many bytes it will be, for messages. Only OSError may leave `write` when the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            write(temporary)
            _sync_file(temporary)
            require_lock(path.parent)
            os.replace(temporary, path)
        except BaseException:  # an interrupt too must leave no half file behind
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        require_lock(path.parent)  # (whoever has taken the folder over has removed the temporary file)
        raise ResultsError(error.errno, _explain(path, size, error)) from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Put a value at `path` as strict JSON, whole or not at all; numbers that are not finite become null.

    Raises InputError naming the place of a value that JSON cannot hold, ResultsError when the disk refuses.
    """
    text = json.dumps(plain(value), indent=2, allow_nan=False)
    write_bytes(path, text.encode("ascii") + b"\n")


def plain(value: Any, place: str = "") -> Any:
    """The same value in JSON's types: mappings with text keys, lists, text, numbers, true, false, null.

    NaN and infinities become None, NumPy scalars Python's numbers, paths text. Raises InputError for anything else.
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
                raise InputError(
                    f"{place or 'the value'}: expected text as keys, got {key!r}; write it as {str(key)!r}"
                )
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
    """The bytes of a plain file of at most `limit` bytes.

    A symbolic link is not followed and a pipe or device is not waited for. Raises InputError for these and for a longer
    file (without its name, which the caller knows), FileNotFoundError where there is none, another OSError when the
    disk refuses.
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
    """A plain file, opened for reading. Raises as `read_bounded`."""
    return os.fdopen(_open_plain(path)[0], "rb")


def _open_plain(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The descriptor of a plain file, and its size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError("it is a symbolic link; put the file itself there") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InputError("it is not a plain file")
    return descriptor, status.st_size


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files of writers that are dead; return their names.

    Dead: a process of this machine that has ended; any of another machine, once this process holds the lock of the run. No
    age of a file says so: a clock may jump.
    """
    removed, own, held = [], _machine(), holds(folder)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        match = _TEMPORARY.match(entry.name)
        if match is None or not entry.is_file(follow_symlinks=False):
            continue
        try:
            dead = not _alive(int(match["pid"])) if match["machine"] == own else held
            if dead:
                os.unlink(entry.path)
                removed.append(entry.name)
        except OSError:
            continue  # another opener was quicker, or the folder is read-only: a leftover does no harm
    return removed


def set_aside(path: Path, why: str) -> None:
    """Give a damaged file another name, and say so in a line; nothing where there is no such file. Raises ResultsError where the
    disk refuses."""
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
    print_error(f"{path.name} is set aside as {name}: {' '.join(why.split())}")


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
        # some network filesystems have no fsync of folders: there the rename is as durable as it can be
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
        errno.EROFS: "choose a folder that can be written (hydra.run.dir=FOLDER)",
        errno.EACCES: "choose a folder that you may write (hydra.run.dir=FOLDER)",
        errno.EPERM: "choose a folder that you may write (hydra.run.dir=FOLDER)",
        errno.ENOENT: "the folder is gone: put it back",
    }.get(error.errno or 0, "mend the disk")
    return (
        f"{path.name} ({size} bytes) cannot be written in {path.parent}: {error.strerror or error}. "
        f"What stood there before is whole; {advice}, then start again (a run goes on by resume=FOLDER)"
    )
