"""A store of text vectors on disk, which several processes can use at the same time.

The store is one SQLite file. The key is the SHA-256 digest of the text, and the value is the vector as little-endian
float32. Each vector has a checksum (CRC-32). A vector with a wrong checksum counts as missing. A file that SQLite
reports as damaged is renamed with one warning, and a new file is created.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from joyful.records import InputError

_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
_LOCK_SECONDS = 60.0  # how long a write waits for other processes
_CHUNK = 500  # keys per query; old builds of SQLite allow 999 parameters

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class VectorStore:
    """A persistent mapping from texts to vectors, (D,) float32. Use it as a context manager.

    The file is opened on first use. Shape letter: D features of a vector.

    Args:
        path: The file. `put` creates it and its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors that are in the store. This creates no file.

        Args:
            texts: The texts to look up.

        Returns:
            Text -> vector, for the texts that are in the store.

        Raises:
            InputError: If the file cannot be used.
        """
        if self._connection is None and not self.path.exists():
            return {}
        return self._guarded(lambda connection: _get(connection, texts))

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Store vectors in one transaction. Existing vectors with a correct checksum are not replaced.

        Args:
            vectors: Text -> vector.

        Raises:
            InputError: If the file cannot be used.
        """
        self._guarded(lambda connection: _put(connection, vectors))

    def _guarded(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Call `work` with the connection. If the file is damaged, rename it and try once more with a new file."""
        for attempt in (1, 2):
            try:
                return work(self._open())
            except (sqlite3.DatabaseError, OSError) as error:
                self._close()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if attempt == 1 and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    self._rename_damaged(error)
                    continue
                raise InputError(
                    f"the cache of text vectors {self.path} cannot be used ({error});"
                    " set data.cache=FOLDER to a writable folder"
                ) from None
        raise AssertionError("unreachable")

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_LOCK_SECONDS)
            if not self._has_table():  # once per file, because a change of the journal mode needs exclusive access
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute(_SCHEMA)
                self._connection.commit()
            self._connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def _has_table(self) -> bool:
        assert self._connection is not None
        return bool(self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchall())

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rename_damaged(self, error: Exception) -> None:
        renamed = self.path.with_name(f"{self.path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        try:
            os.replace(self.path, renamed)
        except FileNotFoundError:
            return  # another process was faster
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        _log.warning(
            "%s is damaged (%s): it is set aside as %s, and a new file is created", self.path, error, renamed.name
        )


def _get(connection: sqlite3.Connection, texts: Sequence[str]) -> dict[str, np.ndarray]:
    by_key = {_key(text): text for text in texts}
    keys = list(by_key)
    vectors: dict[str, np.ndarray] = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        placeholders = ",".join("?" * len(chunk))
        query = f"SELECT key, vector, crc FROM vectors WHERE key IN ({placeholders})"
        for key, blob, crc in connection.execute(query, chunk):
            if isinstance(blob, bytes) and blob and len(blob) % 4 == 0 and zlib.crc32(blob) == crc:
                vectors[by_key[key]] = np.frombuffer(blob, dtype="<f4").astype(np.float32)
    return vectors


def _put(connection: sqlite3.Connection, vectors: Mapping[str, np.ndarray]) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        present = _get(connection, list(vectors))
        blobs = [
            (_key(text), vector.astype("<f4").tobytes()) for text, vector in vectors.items() if text not in present
        ]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in blobs]
        connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
