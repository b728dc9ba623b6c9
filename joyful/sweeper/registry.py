"""Members and leases of a sweep: three small tables in the same database as Optuna's own.

A lease is the claim on a trial. It also stores its progress, and another worker can take it over. Every change is one
statement that succeeds only if the row is unchanged since it was read, so two workers never hold the same trial.

Members count their heartbeats, see `heartbeat`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from joyful.sweeper.database import create_with_retries, with_retries
from joyful.sweeper.identity import Identity, current_process

Role = Literal["driver", "worker"]

_metadata = MetaData()

# `Member` and `Lease` describe the columns and have the same order. The column names are those of version 0.1, so that
# its studies stay readable. `key` is the name in this code.
_members = Table(
    "joyful_member",
    _metadata,
    Column("study", Integer, primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("driver", String(64), nullable=False),
    Column("machine", String(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("born", Float(53), key="start_time", nullable=False),
    Column("beats", Integer, nullable=False),
    Column("stop", Boolean, nullable=False),
)

_leases = Table(
    "joyful_lease",
    _metadata,
    Column("study", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("term", Integer, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("deaths", Integer, key="worker_failures", nullable=False),
    Column("epochs_at_death", Integer, key="epochs_at_failure", nullable=False),
    Index("joyful_lease_owner", "study", "owner"),
)

#: The table of the leases, for statements that join it to Optuna's tables.
leases_table = _leases

_configurations = Table(
    "joyful_configuration",
    _metadata,
    Column("study", Integer, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
)


@dataclass(frozen=True)
class Member:
    """A process that takes part in a sweep.

    Attributes:
        id: Unique id of the member.
        role: "driver" or "worker".
        driver: Id of the driver that started it; for a driver, its own id.
        identity: The process.
        beats: Heartbeats so far.
        stop: Whether it was asked to stop.
    """

    id: str
    role: str
    driver: str
    identity: Identity
    beats: int
    stop: bool


@dataclass(frozen=True)
class Lease:
    """The claim on a trial.

    Attributes:
        number: Number of the trial.
        owner: Id of the worker that holds the trial, "" for none.
        term: Number of claims so far.
        epochs: Steps reported so far.
        worker_failures: Worker failures in a row, without a new step between them.
        epochs_at_failure: Value of `epochs` at the last failure.
    """

    number: int
    owner: str
    term: int
    epochs: int
    worker_failures: int
    epochs_at_failure: int


class LeaseLostError(Exception):
    """Another worker holds the trial now. The former owner must not write anything more for it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"trial {number} was taken over by another worker")


class Registry:
    """The members, leases and configurations of one study. Creates the tables if they are missing.

    Args:
        engine: The engine of the database.
        study_id: Optuna's id of the study.
    """

    def __init__(self, engine: sqlalchemy.Engine, study_id: int) -> None:
        self.engine, self.study_id = engine, study_id
        create_with_retries(lambda: _metadata.create_all(engine, checkfirst=True), engine.dialect.name == "sqlite")

    # --- members

    def join(self, role: Role, driver: str | None = None) -> Member:
        """Add this process as a member.

        Args:
            role: Role of the process.
            driver: Id of the driver that started it; None for a driver.
        """
        name = uuid.uuid4().hex[:16]
        member = Member(name, role, driver or name, current_process(), 0, False)
        row = {"id": name, "role": role, "driver": member.driver, "beats": 0, "stop": False} | vars(member.identity)
        self.write(insert(_members).values(study=self.study_id, **row))
        return member

    def beat(self, member: str) -> None:
        """Count one heartbeat of a member."""
        self._update(_members, {"id": member}, beats=_members.c.beats + 1)

    def leave(self, member: str) -> None:
        """Release the leases of a member and remove it."""
        self._update(_leases, {"owner": member}, owner="")
        self.write(delete(_members).where(*self._rows(_members, {"id": member})))

    def stop(self, driver: str) -> None:
        """Ask a driver's workers to stop."""
        self._update(_members, {"driver": driver}, stop=True)

    def members(self, **where: str) -> dict[str, Member]:
        """Return all current members by id; with arguments, those whose columns have these values."""
        rows = self.read(select(_members).where(*self._rows(_members, where)))
        return {
            r.id: Member(r.id, r.role, r.driver, Identity(r.machine, r.pid, r.start_time), r.beats, r.stop)
            for r in rows
        }

    def member(self, name: str) -> Member | None:
        """Return the member with an id, None if there is none."""
        return self.members(id=name).get(name)

    # --- leases

    def leases(self) -> dict[int, Lease]:
        """Return the lease of each trial that was ever claimed, by trial number."""
        rows = self.read(select(_leases).where(*self._rows(_leases, {})))
        return {row.number: Lease(*row[1:]) for row in rows}

    def held_leases(self) -> dict[int, Lease]:
        """Return the leases that have an owner, by trial number."""
        rows = self.read(select(_leases).where(*self._rows(_leases, {}), _leases.c.owner > ""))
        return {row.number: Lease(*row[1:]) for row in rows}

    def leases_of(self, numbers: Sequence[int]) -> dict[int, Lease]:
        """Return the leases of some trials, of those that were ever claimed."""
        if not numbers:
            return {}
        rows = self.read(select(_leases).where(*self._rows(_leases, {}), _leases.c.number.in_(numbers)))
        return {row.number: Lease(*row[1:]) for row in rows}

    def lease(self, number: int) -> Lease | None:
        """Return the lease of a trial, None if it was never claimed."""
        rows = self.read(select(_leases).where(*self._rows(_leases, {"number": number})))
        return Lease(*rows[0][1:]) if rows else None

    def steps(self) -> int:
        """Return the steps reported so far by all trials. It reads a row of each trial that was ever claimed."""
        query = select(sqlalchemy.func.sum(_leases.c.epochs)).where(*self._rows(_leases, {}), _leases.c.number >= 0)
        return int(self.read(query)[0][0] or 0)

    def leases_and_members(self) -> tuple[dict[int, Lease], dict[str, Member]]:
        """Return both, read in an order that makes them consistent: an owner that is not among the members has left.

        The leases are read first. In the other order, a worker that joins and claims a trial between the two reads
        would look as if it had left.
        """
        leases = self.leases()
        return leases, self.members()

    def held_and_members(self) -> tuple[dict[int, Lease], dict[str, Member]]:
        """Return the leases that have an owner, and the members, likewise. Their number is that of the workers."""
        held = self.held_leases()
        return held, self.members()

    def claim(self, number: int, owner: str, previous: Lease | None, owner_failed: bool = False) -> Lease | None:
        """Claim a trial if its lease has not changed since it was read.

        Args:
            number: Number of the trial.
            owner: Id of the new owner.
            previous: The lease as it was read; None if the trial was never claimed.
            owner_failed: Whether the previous owner failed while it held the trial. The failure is counted in
                `worker_failures`, which starts again at 1 after each new step.

        Returns:
            The new lease, or None if another worker has changed the lease in the meantime.
        """
        if previous is None:
            lease = Lease(number, owner, 1, 0, 0, 0)
            try:
                self.write(insert(_leases).values(study=self.study_id, **vars(lease)))
            except IntegrityError:
                # The insert may have been repeated after a lost connection. Then the row is this owner's.
                existing = self.lease(number)
                return existing if existing is not None and existing.owner == owner else None
            return lease
        failures, epochs_at_failure = previous.worker_failures, previous.epochs_at_failure
        if owner_failed:
            failures = 1 if previous.epochs > epochs_at_failure else failures + 1
            epochs_at_failure = previous.epochs
        changes: dict[str, Any] = {
            "owner": owner, "term": previous.term + 1, "worker_failures": failures, "epochs_at_failure": epochs_at_failure
        }  # fmt: skip
        lease = replace(previous, **changes)
        # The update may have been repeated after a lost connection. Then it changes nothing, and the row is the new
        # lease.
        return lease if self._update_lease(previous, **changes) or self.lease(number) == lease else None

    def renew(self, lease: Lease, epochs: int | None = None) -> None:
        """Verify that a lease is still held, as its owner must do before each write to the trial.

        Args:
            lease: The lease.
            epochs: Steps reported so far, to be stored; None: unchanged.

        Raises:
            LeaseLostError: If another worker has claimed the trial.
        """
        if not self._update_lease(lease, term=lease.term, **({} if epochs is None else {"epochs": epochs})):
            raise LeaseLostError(lease.number)

    def is_held(self, lease: Lease) -> bool:
        """Return whether no other worker has claimed the trial of a lease."""
        where = {"number": lease.number, "owner": lease.owner, "term": lease.term}
        return bool(self.read(select(_leases.c.number).where(*self._rows(_leases, where))))

    def count_failure(self, lease: Lease) -> Lease:
        """Count a failure of the training process. The worker keeps the trial.

        Returns:
            The new lease.

        Raises:
            LeaseLostError: If another worker has claimed the trial.
        """
        current = self.lease(lease.number)  # its epochs may be newer
        held = current is not None and (current.owner, current.term) == (lease.owner, lease.term)
        renewed = self.claim(lease.number, lease.owner, current, owner_failed=True) if held else None
        if renewed is None:
            raise LeaseLostError(lease.number)
        return renewed

    def release(self, number: int, owner: str) -> None:
        """Release a trial if the owner still holds it."""
        self._update(_leases, {"number": number, "owner": owner}, owner="")

    def reset_failures(self, number: int) -> None:
        """Release a trial and set its worker failures to 0, for another attempt."""
        self._update(_leases, {"number": number}, owner="", worker_failures=0)

    # --- configurations

    def claim_configuration(self, digest: str, number: int) -> int:
        """Claim a configuration for a trial, unless another trial has claimed it.

        Args:
            digest: Digest of the configuration.
            number: Number of the trial.

        Returns:
            The number of the trial that trains the configuration.
        """
        try:
            self.write(insert(_configurations).values(study=self.study_id, digest=digest, number=number))
            return number
        except IntegrityError:
            where = self._rows(_configurations, {"digest": digest})
            return int(self.read(select(_configurations.c.number).where(*where))[0].number)

    def replace_failed(self, digest: str, failed: int, number: int) -> bool:
        """Claim a configuration for a trial in place of a failed trial.

        Returns:
            False if another trial has claimed it in the meantime.
        """
        return self._update(_configurations, {"digest": digest, "number": failed}, number=number)

    # --- statements

    def _rows(self, table: Table, where: Mapping[str, object]) -> list[sqlalchemy.ColumnElement[bool]]:
        """Return the conditions of the study's rows whose columns have the given values."""
        return [table.c[name] == value for name, value in ({"study": self.study_id} | dict(where)).items()]

    def _update(self, table: Table, where: Mapping[str, object], **values: object) -> bool:
        return self.write(update(table).where(*self._rows(table, where)).values(**values))

    def _update_lease(self, lease: Lease, **values: object) -> bool:
        """Change a lease if its owner and its term are still those of `lease`."""
        return self._update(_leases, {"number": lease.number, "owner": lease.owner, "term": lease.term}, **values)

    def write(self, statement: sqlalchemy.Insert | sqlalchemy.Update | sqlalchemy.Delete) -> bool:
        """Execute a statement in a transaction, and return whether it changed any row."""

        def write() -> bool:
            with self.engine.begin() as connection:
                return connection.execute(statement).rowcount > 0

        return with_retries(write)

    def read(self, statement: sqlalchemy.Select[Any] | sqlalchemy.CompoundSelect[Any]) -> list[Any]:
        """Return the rows that a statement selects."""

        def read() -> list[sqlalchemy.Row[Any]]:
            with self.engine.connect() as connection:
                return list(connection.execute(statement))

        return with_retries(read)
