"""Counts the statements and the rows of this process's SQLite databases, below SQLAlchemy and Optuna."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


class Counts:
    """What was counted so far. Statements that open, commit or close a transaction or set a pragma do not count."""

    def __init__(self) -> None:
        self.statements = self.rows = 0

    def take(self) -> tuple[int, int]:
        """Return the statements and the rows since the last call."""
        taken = self.statements, self.rows
        self.statements = self.rows = 0
        return taken


@contextmanager
def counted() -> Iterator[Counts]:
    """Count the statements and the rows of all connections that are opened inside the context."""
    counts = Counts()

    class Cursor(sqlite3.Cursor):
        def execute(self, text: str, *values: Any) -> Cursor:
            counts.statements += not text.startswith("PRAGMA")
            return super().execute(text, *values)

        def fetchall(self) -> list[Any]:
            rows = super().fetchall()
            counts.rows += len(rows)
            return rows

        def fetchmany(self, size: int | None = 1) -> list[Any]:
            rows = super().fetchmany(size)
            counts.rows += len(rows)
            return rows

        def fetchone(self) -> Any:
            row = super().fetchone()
            counts.rows += row is not None
            return row

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = None) -> Any:
            return super().cursor(Cursor)

    def connect(dialect: Any, _: Any, __: Any, parameters: dict[str, Any]) -> None:
        if dialect.name == "sqlite":
            parameters["factory"] = Connection

    event.listen(Engine, "do_connect", connect)
    try:
        yield counts
    finally:
        event.remove(Engine, "do_connect", connect)
