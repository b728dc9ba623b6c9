"""Writing a run's folder so that a kill between any two writes leaves a valid run.

run.json vouches for history.parquet by digest. Before a new history is renamed into place, run.json vouches for the
old and the new one; after it, for the new alone, and that last write is merged with the next one of run.json, which a
reader cannot tell from a kill in between. So an evaluation costs two small files, each with two fsyncs.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from joyful.records import InputError, one_line
from joyful.results import tables
from joyful.results.files import plain, read_bounded, remove_leftovers, write_bytes, write_json
from joyful.results.provenance import git_state, versions
from joyful.results.schema import HISTORY, RUN, RUN_KEYS, SCHEMA, STATUSES, TIMING, ResultsError

#: run.json longer than this is not read, in bytes.
MAXIMUM_RUN_BYTES = 4 * 2**20

_OWN_KEYS = ("schema", "status", "reason", "objective", "history_sha256")
_FILLED_KEYS = ("git", "versions", "started", "host")
_GIVEN_KEYS = tuple(key for key in RUN_KEYS if key not in _OWN_KEYS + _FILLED_KEYS)


class RunFolder:
    """The results of one run, for its one writer (see `joyful.results.lock`)."""

    def __init__(self, path: Path, info: dict[str, Any], digest: str) -> None:
        self.path = path
        #: What run.json holds, as written.
        self.info = info
        self._digest: str | None = digest  # of history.parquet; None: a write failed half-way, look at the file

    @classmethod
    def create(cls, path: str | os.PathLike[str], header: Mapping[str, Any]) -> Self:
        """Begin a run: status running, a history without rows. The folder is made where it is missing.

        header: the keys of run.json (`RUN_KEYS`) except schema, status, reason, objective and history_sha256, which are
        kept here; git, versions, started and host are filled in where missing.
        Raises InputError for missing or unknown keys and where the folder already holds a run, ResultsError when the
        disk refuses.
        """
        folder = Path(path)
        missing = [key for key in _GIVEN_KEYS if key not in header]
        unknown = [str(key) for key in header if key not in _GIVEN_KEYS + _FILLED_KEYS]
        if missing or unknown:
            raise InputError(
                f"run.json: expected the keys {', '.join(_GIVEN_KEYS)}; missing: {', '.join(missing) or 'none'}, "
                f"unknown: {', '.join(unknown) or 'none'}"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(
                error.errno, f"{folder} cannot be made: {error.strerror}; choose another folder"
            ) from error
        remove_leftovers(folder)
        empty = tables.history_bytes([])
        if (folder / RUN).exists() or _other_history(folder / HISTORY, empty):
            raise InputError(
                f"{folder} already holds a run; go on with it by resume={folder}, or choose another folder"
            )
        filled = dict(header)
        if "git" not in filled:  # (asking git takes a process)
            filled["git"] = git_state(Path(__file__).parent)
        filled.setdefault("versions", versions())
        filled.setdefault("started", datetime.now(UTC).isoformat(timespec="seconds"))
        filled.setdefault("host", socket.gethostname())
        digest = _sha256(empty)
        own = {"schema": SCHEMA, "status": "running", "reason": None, "objective": None, "history_sha256": [digest]}
        run = cls(folder, plain({key: (filled | own)[key] for key in RUN_KEYS}), digest)
        # The history comes first: run.json makes the folder a run, and from then on a history is always there.
        write_bytes(folder / HISTORY, empty)
        write_json(folder / RUN, run.info)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, reading: bool = False) -> Self:
        """Go on with a run: verify its history against run.json and clear away what dead writers left.

        reading: nothing in the folder is changed; it may be another's.
        Raises InputError where there is no run or it is damaged, OSError when the disk refuses.
        """
        folder = Path(path)
        try:
            info = read_run(folder)
            data = _verified_history(folder, info)
            tables.decode(data)
        except FileNotFoundError as error:
            name = Path(error.filename or RUN).name
            raise InputError(f"{folder}: expected the folder of a run, but it has no {name}") from None
        if not reading:
            remove_leftovers(folder)
        return cls(folder, info, _sha256(data))

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows in place of the history, whole or not at all.

        rows: all rows of the run so far (see `HISTORY_COLUMNS`); the bytes depend on nothing else.
        Raises InputError for rows that are not a history's, ResultsError when the disk refuses: the old history stands
        then.
        """
        data = tables.history_bytes(rows)
        old, new = self._current_digest(), _sha256(data)
        if new == old:
            return
        self._write_run(self.info | {"history_sha256": [old, new]})
        self._digest = None
        write_bytes(self.path / HISTORY, data)
        self._digest = new

    def history_rows(self) -> list[dict[str, Any]]:
        """The rows of the history, each with what was measured. Raises InputError if it is not the one vouched for."""
        data = _verified_history(self.path, self.info)
        try:
            return tables.history_rows(data)
        except InputError as error:
            raise InputError(f"{self.path / HISTORY}: {error}") from None

    def write_timing(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows {epoch, phase, seconds} in place of timing.parquet. Raises as `write_history`."""
        write_bytes(self.path / TIMING, tables.timing_bytes(rows))

    def timing_rows(self) -> list[dict[str, Any]]:
        """The rows of timing.parquet, none where there is no such file. Raises InputError if it is damaged."""
        return read_timing(self.path)

    def set_status(self, status: str, reason: str | None = None, objective: float | None = None) -> None:
        """Write status, reason and objective together (a NaN or infinite objective as null), and settle the digests.

        Raises InputError for a status other than `STATUSES`, ResultsError when the disk refuses.
        """
        if status not in STATUSES:
            raise InputError(f"status: expected one of {', '.join(STATUSES)}, got {status!r}")
        outcome = {"status": status, "reason": reason, "objective": objective}
        self._write_run(self.info | outcome | {"history_sha256": [self._current_digest()]})

    def update(self, header: Mapping[str, Any]) -> None:
        """Change keys of the header, as a resumed run does on another machine. Raises as `create` and `set_status`."""
        unknown = [str(key) for key in header if key not in _GIVEN_KEYS + _FILLED_KEYS]
        if unknown:
            raise InputError(f"run.json: expected keys of the header, got {', '.join(unknown)}")
        self._write_run(self.info | dict(header) | {"history_sha256": [self._current_digest()]})

    def _write_run(self, info: dict[str, Any]) -> None:
        info = plain(info)
        write_json(self.path / RUN, info)
        self.info = info

    def _current_digest(self) -> str:
        if self._digest is None:
            # A write failed where nobody can tell whether the rename was done: only the file knows.
            self._digest = _sha256(_verified_history(self.path, self.info))
        return self._digest


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked contents of a run folder's run.json.

    Raises InputError where it is damaged or of another version, FileNotFoundError where there is none.
    """
    try:
        return parse_run(read_bounded(Path(folder) / RUN, MAXIMUM_RUN_BYTES))
    except InputError as error:
        raise InputError(f"{Path(folder) / RUN}: {error}") from None


def read_timing(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows {epoch, phase, seconds} of a run folder's timing.parquet, none where there is no such file.

    Raises InputError where it is damaged, by its pages' checksums: no digest vouches for it.
    """
    path = Path(folder) / TIMING
    try:
        return tables.timing_rows(read_bounded(path, tables.MAXIMUM_BYTES))
    except FileNotFoundError:
        return []
    except InputError as error:
        raise InputError(f"{path}: {error}; remove it to go on without its times") from None


def parse_run(data: bytes) -> dict[str, Any]:
    """run.json from its bytes, with the types of what readers use checked. Raises InputError."""
    try:
        info = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON ({one_line(error)})") from None
    if not isinstance(info, dict):
        raise InputError(f"expected a mapping of names to values, got {type(info).__name__}")
    if info.get("schema") != SCHEMA or isinstance(info["schema"], bool):
        raise InputError(
            f"expected schema {SCHEMA}, got {str(info.get('schema'))[:100]}; read it with the joyful that wrote it"
        )
    if info.get("status") not in STATUSES:
        raise InputError(f"status: expected one of {', '.join(STATUSES)}, got {str(info.get('status'))[:100]!r}")
    for key in ("choices", "config"):
        if not isinstance(info.get(key), dict | None):
            raise InputError(f"{key}: expected a mapping, got {type(info[key]).__name__}")
    if not isinstance(info.get("seed"), int | None) or isinstance(info.get("seed"), bool):
        raise InputError(f"seed: expected an integer, got {str(info['seed'])[:100]!r}")
    if not isinstance(info.get("role"), str | None):
        raise InputError(f"role: expected text, got {str(info['role'])[:100]!r}")
    digests = info.get("history_sha256")
    if digests is not None and not (isinstance(digests, list) and all(isinstance(digest, str) for digest in digests)):
        raise InputError("history_sha256: expected a list of digests")
    return info


def _other_history(path: Path, empty: bytes) -> bool:
    """Whether `path` holds a history with rows: a run of a program that writes no run.json, not ours to overwrite."""
    try:
        return read_bounded(path, tables.MAXIMUM_BYTES) != empty
    except FileNotFoundError:
        return False
    except InputError:
        return True


def _verified_history(folder: Path, info: Mapping[str, Any]) -> bytes:
    """The bytes of history.parquet, which run.json vouches for. Raises InputError where it does not."""
    try:
        data = read_bounded(folder / HISTORY, tables.MAXIMUM_BYTES)
    except InputError as error:
        raise InputError(f"{folder / HISTORY}: {error}") from None
    vouched = info.get("history_sha256")
    if vouched and _sha256(data) not in vouched:
        raise InputError(
            f"{folder / HISTORY}: its digest is none that {RUN} vouches for; it was changed after it was written, so "
            f"restore both files from a copy, or train anew in another folder"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
