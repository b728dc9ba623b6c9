"""Write the folder of a run such that a kill between any two writes leaves a valid run.

run.json records the SHA-256 of history.parquet. Before a new history is renamed into place, run.json records both the
old and the new digest. The old digest is dropped at the next write of run.json; for a reader this is the same as a kill
in between. An evaluation therefore writes two small files, each with two fsyncs.
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
from joyful.results.files import json_bytes, plain, read_bounded, remove_leftovers, write_bytes, write_json
from joyful.results.provenance import git_state, versions
from joyful.results.schema import (
    HISTORY,
    OUTCOME_KEYS,
    PREDICTIONS,
    RUN,
    RUN_KEYS,
    SCHEMA,
    STATUSES,
    TIMING,
    ResultsError,
)

#: Maximum size of run.json in bytes.
MAXIMUM_RUN_BYTES = 4 * 2**20

_OWN_KEYS = ("schema", "status", "reason", "objective", "history_sha256")
_FILLED_KEYS = ("data", "git", "versions", "started", "host")
_GIVEN_KEYS = tuple(key for key in RUN_KEYS if key not in _OWN_KEYS + _FILLED_KEYS)


class RunFolder:
    """The results of one run, for the process that writes it and holds its lock (see `joyful.results.lock`).

    Attributes:
        path: The folder of the run.
        info: The content of run.json.
    """

    def __init__(self, path: Path, info: dict[str, Any], digest: str) -> None:
        self.path = path
        self.info = info
        self._digest: str | None = digest  # of history.parquet; None after a failed write: compute it from the file

    @classmethod
    def create(cls, path: str | os.PathLike[str], header: Mapping[str, Any]) -> Self:
        """Create a run with status "running" and a history without rows.

        Args:
            path: The folder of the run. It is created if it does not exist.
            header: The keys of run.json (`RUN_KEYS`) except schema, status, reason, objective and history_sha256, which
                this class manages. The keys data, git, versions, started and host are optional and filled in.

        Returns:
            The new run.

        Raises:
            InputError: If keys are missing or unknown, or the folder already contains a run.
            ResultsError: If the folder or a file cannot be written.
        """
        folder = Path(path)
        _check_header(header)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(
                error.errno, f"{folder} cannot be created: {error.strerror}; choose another folder"
            ) from error
        remove_leftovers(folder)
        empty = tables.history_bytes([])
        if (folder / RUN).exists() or _other_history(folder / HISTORY, empty):
            raise InputError(
                f"{folder} already contains a run; resume it with resume={folder}, or choose another folder"
            )
        filled = dict(header)
        if "git" not in filled:  # setdefault would start a git process each time
            filled["git"] = git_state(Path(__file__).parent)
        filled.setdefault("data", None)
        filled.setdefault("versions", versions())
        filled.setdefault("started", datetime.now(UTC).isoformat(timespec="seconds"))
        filled.setdefault("host", socket.gethostname())
        digest = _sha256(empty)
        run = cls(folder, _content(filled, "running", digest), digest)
        # Write the history first: run.json makes the folder a run, and a run always has a history.
        write_bytes(folder / HISTORY, empty)
        write_json(folder / RUN, run.info)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, reading: bool = False) -> Self:
        """Open an existing run: verify its history against run.json, and remove the temporary files of dead writers.

        Args:
            path: The folder of the run.
            reading: Whether to leave the folder unchanged, because another process may be writing it.

        Returns:
            The run.

        Raises:
            InputError: If there is no run, or it is damaged.
            OSError: If a file cannot be read.
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
        """Replace the history atomically.

        Args:
            rows: All rows of the run so far, one per evaluation and split (see `HISTORY_COLUMNS`). The bytes of the
                file depend on nothing else.

        Raises:
            InputError: If the rows are not a valid history (see `tables.history_bytes`).
            ResultsError: If the file cannot be written. The old history is then intact.
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
        """Return the rows of the history, each without its null values.

        Raises:
            InputError: If the file is damaged, or its digest is not in run.json.
        """
        data = _verified_history(self.path, self.info)
        try:
            return tables.history_rows(data)
        except InputError as error:
            raise InputError(f"{self.path / HISTORY}: {error}") from None

    def write_timing(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace timing.parquet atomically by rows {epoch, phase, seconds}. Raises the errors of `write_history`."""
        write_bytes(self.path / TIMING, tables.timing_bytes(rows))

    def timing_rows(self) -> list[dict[str, Any]]:
        """Return the rows of timing.parquet, or an empty list if there is no such file (see `read_timing`)."""
        return read_timing(self.path)

    def set_status(
        self,
        status: str,
        reason: str | None = None,
        objective: float | None = None,
        outcome: Mapping[str, Any] | None = None,
    ) -> None:
        """Write status, reason, objective and outcome together, and drop the digest of a replaced history.

        Args:
            status: One of `STATUSES`.
            reason: Why the run has this status; None if there is nothing to report.
            objective: Value of the objective; None if unknown. NaN and infinities become null.
            outcome: What is known of the best evaluation once a run has ended, by `OUTCOME_KEYS`. Keys that it does not have
                are removed.

        Raises:
            InputError: If the status is not one of `STATUSES`, or a key of the outcome is not one of `OUTCOME_KEYS`.
            ResultsError: If run.json cannot be written.
        """
        if status not in STATUSES:
            raise InputError(f"status: expected one of {', '.join(STATUSES)}, got {status!r}")
        outcome = outcome or {}
        if unknown := outcome.keys() - OUTCOME_KEYS.keys():
            raise InputError(f"outcome: expected keys of {', '.join(OUTCOME_KEYS)}, got {', '.join(sorted(unknown))}")
        info = {key: value for key, value in self.info.items() if key not in OUTCOME_KEYS}
        info |= {"status": status, "reason": reason, "objective": objective}
        info["history_sha256"] = [self._current_digest()]
        self._write_run(info | {key: outcome[key] for key in OUTCOME_KEYS if key in outcome})

    def write_predictions(self, data: bytes) -> str:
        """Replace predictions.parquet atomically, and return its SHA-256 for the outcome (see `set_status`).

        Args:
            data: The content of the file (see `joyful.results.predictions.predictions_bytes`).

        Raises:
            ResultsError: If the file cannot be written.
        """
        write_bytes(self.path / PREDICTIONS, data)
        return _sha256(data)

    def update(self, header: Mapping[str, Any]) -> None:
        """Change keys of the header, for example after a run was resumed on another machine.

        Args:
            header: The keys to change (see `create`).

        Raises:
            InputError: If a key does not belong to the header.
            ResultsError: If run.json cannot be written.
        """
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
            # A write failed, possibly after the rename, so only the file itself shows which history is there.
            self._digest = _sha256(_verified_history(self.path, self.info))
        return self._digest


def write_finished(
    path: Path, header: Mapping[str, Any], history: bytes, reason: str, objective: float | None = None
) -> None:
    """Write the folder of a completed run whose history is known, for example an imported one, without any fsync.

    The caller writes to a temporary folder, which it flushes and renames.

    Args:
        path: The folder, which must not exist.
        header: All keys of run.json that `RunFolder` does not manage (see `RunFolder.create`).
        history: The content of history.parquet (see `tables.columns_bytes`).
        reason: See `RunFolder.set_status`.
        objective: See `RunFolder.set_status`.

    Raises:
        InputError: If keys of the header are missing or unknown.
        OSError: If a file cannot be written.
    """
    _check_header(header)
    info = _content(header, "completed", _sha256(history)) | plain({"reason": reason, "objective": objective})
    path.mkdir()
    (path / HISTORY).write_bytes(history)
    (path / RUN).write_bytes(json_bytes(info))


def _check_header(header: Mapping[str, Any]) -> None:
    missing = [key for key in _GIVEN_KEYS if key not in header]
    unknown = [str(key) for key in header if key not in _GIVEN_KEYS + _FILLED_KEYS]
    if missing or unknown:
        raise InputError(
            f"run.json: expected the keys {', '.join(_GIVEN_KEYS)}; missing: {', '.join(missing) or 'none'}, "
            f"unknown: {', '.join(unknown) or 'none'}"
        )


def _content(header: Mapping[str, Any], status: str, digest: str) -> dict[str, Any]:
    """Return the content of a new run.json."""
    own = {"schema": SCHEMA, "status": status, "reason": None, "objective": None, "history_sha256": [digest]}
    content: dict[str, Any] = plain({key: own[key] if key in own else header[key] for key in RUN_KEYS})
    return content


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the validated content of a run's run.json.

    Args:
        folder: The folder of the run.

    Raises:
        InputError: If run.json is damaged, or of another version of the format.
        FileNotFoundError: If there is no run.json.
    """
    try:
        return parse_run(read_bounded(Path(folder) / RUN, MAXIMUM_RUN_BYTES))
    except InputError as error:
        raise InputError(f"{Path(folder) / RUN}: {error}") from None


def read_timing(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows {epoch, phase, seconds} of a run's timing.parquet.

    Args:
        folder: The folder of the run.

    Returns:
        The rows, or an empty list if there is no such file.

    Raises:
        InputError: If the file is damaged. Damage is detected by the checksums of its pages, as run.json has no digest
            of it.
    """
    path = Path(folder) / TIMING
    try:
        return tables.timing_rows(read_bounded(path, tables.MAXIMUM_BYTES))
    except FileNotFoundError:
        return []
    except InputError as error:
        raise InputError(f"{path}: {error}; delete it to continue without timings") from None


def parse_run(data: bytes) -> dict[str, Any]:
    """Parse run.json and check the types of the keys that readers use.

    Args:
        data: The content of the file.

    Raises:
        InputError: If this is not a valid run.json of this version of the format.
    """
    try:
        info = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON ({one_line(error)})") from None
    if not isinstance(info, dict):
        raise InputError(f"expected an object with names and values, got {type(info).__name__}")
    if info.get("schema") != SCHEMA or isinstance(info["schema"], bool):
        raise InputError(
            f"expected schema {SCHEMA}, got {str(info.get('schema'))[:100]}; "
            "read it with the version of joyful that wrote it"
        )
    if info.get("status") not in STATUSES:
        raise InputError(f"status: expected one of {', '.join(STATUSES)}, got {str(info.get('status'))[:100]!r}")
    for key in ("choices", "config", "data"):
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
    """Return whether `path` is a history with rows, written by a program that writes no run.json."""
    try:
        return read_bounded(path, tables.MAXIMUM_BYTES) != empty
    except FileNotFoundError:
        return False
    except InputError:
        return True


def _verified_history(folder: Path, info: Mapping[str, Any]) -> bytes:
    """Return the bytes of history.parquet. Raises InputError if its digest is not in run.json."""
    try:
        data = read_bounded(folder / HISTORY, tables.MAXIMUM_BYTES)
    except InputError as error:
        raise InputError(f"{folder / HISTORY}: {error}") from None
    digests = info.get("history_sha256")
    if digests and _sha256(data) not in digests:
        raise InputError(
            f"{folder / HISTORY}: its SHA-256 is not in {RUN}; the file was changed after it was written. Restore both "
            f"files from a copy, or start a new run in another folder"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
