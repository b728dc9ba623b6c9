"""Who is alive and who holds which trial: three small tables beside Optuna's own, in the same database.

A lease is claim, heartbeat and takeover at once. Every change is one statement that succeeds only if nobody changed the row
before, so two workers can never hold one trial. Nobody compares clocks: a member shows life by counting its beats, and an
observer calls it dead when the count stood still for `lease_seconds` of the observer's own watching (`Watch`), or at once
where both are on one machine and its process has ended. So a clock that jumps and a database that pauses kill nobody.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Literal

import sqlalchemy
from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from joyful.sweeper import identity
from joyful.sweeper.database import made, retried
from joyful.sweeper.identity import Identity

Role = Literal["driver", "worker"]

_metadata = MetaData()

# The names of the columns are those of version 0.1, so that its studies can be read; `key` is the name in this code.
_members = Table(
    "joyful_member",
    _metadata,
    Column("study", Integer, primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("driver", String(64), nullable=False),  # the driver that started it; a driver's own id
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
    Column("owner", String(64), nullable=False),  # "": released
    Column("term", Integer, nullable=False),  # how often it was claimed
    Column("epochs", Integer, nullable=False),  # whole epochs trained, as far as is known
    Column("deaths", Integer, key="worker_failures", nullable=False),  # in a row, without a whole epoch in between
    Column("epochs_at_death", Integer, key="epochs_at_failure", nullable=False),
)

_configurations = Table(
    "joyful_configuration",
    _metadata,
    Column("study", Integer, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
)


@dataclass(frozen=True)
class Member:
    """A process that takes part. beats: its signs of life so far. stop: it was told to end, with all that it started."""

    id: str
    role: str
    driver: str
    identity: Identity
    beats: int
    stop: bool

    @property
    def is_gone(self) -> bool:
        """Whether its process, of this machine, has ended; False for what cannot be seen from here."""
        return identity.is_local(self.identity) and identity.is_gone(self.identity)


@dataclass(frozen=True)
class Lease:
    """A trial's holder ("" for none), the number of its claims, its whole epochs, and how many workers failed at it in a row."""

    number: int
    owner: str
    term: int
    epochs: int
    worker_failures: int
    epochs_at_failure: int


class LeaseLostError(Exception):
    """The trial is another worker's now: write nothing more for it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"trial {number} was taken over by another worker")


class Registry:
    """The tables, for one study."""

    def __init__(self, engine: sqlalchemy.Engine, study: int) -> None:
        self.engine, self.study = engine, study
        made(lambda: _metadata.create_all(engine, checkfirst=True), engine.dialect.name == "sqlite")

    # --- members

    def join(self, role: Role, driver: str | None = None) -> Member:
        """Enter this process. driver: who started it; a driver gives none."""
        name = uuid.uuid4().hex[:16]
        member = Member(name, role, driver or name, identity.own(), 0, False)
        row = {"id": name, "role": role, "driver": member.driver, "beats": 0, "stop": False} | vars(member.identity)
        self._write(insert(_members).values(study=self.study, **row))
        return member

    def beat(self, member: str) -> None:
        """A sign of life."""
        row = _members.c
        self._write(
            update(_members).where(row.study == self.study, row.id == member).values(beats=row.beats + 1)
        )  # (a count, not a time: see the module's docstring)

    def leave(self, member: str) -> None:
        """Release what the member holds, and strike it off."""
        lease, row = _leases.c, _members.c
        self._write(update(_leases).where(lease.study == self.study, lease.owner == member).values(owner=""))
        self._write(delete(_members).where(row.study == self.study, row.id == member))

    def stop(self, driver: str) -> None:
        """Tell a driver's workers to end."""
        row = _members.c
        self._write(update(_members).where(row.study == self.study, row.driver == driver).values(stop=True))

    def members(self) -> dict[str, Member]:
        """Everybody who entered and was not struck off, by id."""
        rows = self._read(select(_members).where(_members.c.study == self.study))
        return {
            r.id: Member(r.id, r.role, r.driver, Identity(r.machine, r.pid, r.start_time), r.beats, bool(r.stop))
            for r in rows
        }

    def member(self, name: str) -> Member | None:
        """One member, None where there is none."""
        rows = self._read(select(_members).where(_members.c.study == self.study, _members.c.id == name))
        return next(
            (
                Member(r.id, r.role, r.driver, Identity(r.machine, r.pid, r.start_time), r.beats, bool(r.stop))
                for r in rows
            ),
            None,
        )

    # --- leases

    def leases(self) -> dict[int, Lease]:
        """Every trial that was ever claimed, by number."""
        rows = self._read(select(_leases).where(_leases.c.study == self.study))
        return {
            r.number: Lease(r.number, r.owner, r.term, r.epochs, r.worker_failures, r.epochs_at_failure) for r in rows
        }

    def leases_and_members(self) -> tuple[dict[int, Lease], dict[str, Member]]:
        """Both, so that an owner who is not among the members has left: nobody claims before joining, so the leases are read first.
        The other way round, one who joins and claims in between would be taken for dead."""
        leases = self.leases()
        return leases, self.members()

    def claim(self, number: int, owner: str, before: Lease | None, died: bool = False) -> Lease | None:
        """Take trial `number` if its lease still is `before` (None: never claimed); None where somebody was quicker.

        died: its last owner died at its work; counted in `worker_failures`, from 1 again after each whole epoch.
        """
        if before is None:
            lease = Lease(number, owner, 1, 0, 0, 0)
            try:
                self._write(insert(_leases).values(study=self.study, **vars(lease)))
            except IntegrityError:
                found = self.leases().get(number)  # (a repeated statement may find its own row)
                return found if found is not None and found.owner == owner else None
            return lease
        worker_failures, at = before.worker_failures, before.epochs_at_failure
        if died:
            worker_failures, at = (1 if before.epochs > at else worker_failures + 1), before.epochs
        lease = Lease(number, owner, before.term + 1, before.epochs, worker_failures, at)
        row = _leases.c
        unchanged = (row.study == self.study, row.number == number, row.owner == before.owner, row.term == before.term)
        taken = self._write(
            update(_leases)
            .where(*unchanged)
            .values(owner=owner, term=lease.term, worker_failures=worker_failures, epochs_at_failure=at)
        )
        # where the answer was lost with the connection, the repeated statement changes nothing: the row tells
        return lease if taken or self.leases().get(number) == lease else None

    def renew(self, lease: Lease, epochs: int | None = None) -> None:
        """Show life before a write; epochs: whole epochs trained by now. Raises LeaseLostError where it is another's."""
        row = _leases.c
        values: dict[str, object] = {"term": lease.term}
        if epochs is not None:
            values["epochs"] = epochs
        mine = (row.study == self.study, row.number == lease.number, row.owner == lease.owner, row.term == lease.term)
        if not self._write(update(_leases).where(*mine).values(**values)):
            raise LeaseLostError(lease.number)

    def count_failure(self, lease: Lease) -> Lease:
        """The trainer of a trial died while its worker lives on, and keeps it. Returns the lease with the failure counted."""
        again = self.claim(lease.number, lease.owner, self.leases()[lease.number], died=True)
        if again is None:
            raise LeaseLostError(lease.number)
        return again

    def release(self, number: int, owner: str) -> None:
        """Give a trial back, if it still is the owner's."""
        row = _leases.c
        self._write(
            update(_leases).where(row.study == self.study, row.number == number, row.owner == owner).values(owner="")
        )

    def reset_failures(self, number: int) -> None:
        """Set a trial's worker failures to 0, so that it is tried again."""
        row = _leases.c
        self._write(
            update(_leases).where(row.study == self.study, row.number == number).values(owner="", worker_failures=0)
        )

    # --- configurations

    def trainer_of(self, digest: str, number: int) -> int:
        """The trial that trains the configuration of this digest: `number`, unless another was first."""
        row = _configurations.c
        try:
            self._write(insert(_configurations).values(study=self.study, digest=digest, number=number))
            return number
        except IntegrityError:
            rows = self._read(select(row.number).where(row.study == self.study, row.digest == digest))
            return int(rows[0].number)

    def succeed(self, digest: str, failed: int, number: int) -> bool:
        """Trial `number` trains the configuration instead of the failed trial; False where another was first."""
        row = _configurations.c
        return self._write(
            update(_configurations)
            .where(row.study == self.study, row.digest == digest, row.number == failed)
            .values(number=number)
        )

    # ---

    def _write(self, statement: sqlalchemy.Insert | sqlalchemy.Update | sqlalchemy.Delete) -> bool:
        def write() -> bool:
            with self.engine.begin() as connection:
                return connection.execute(statement).rowcount > 0

        return retried(write)

    def _read(self, statement: sqlalchemy.Select) -> list[sqlalchemy.Row]:
        def read() -> list[sqlalchemy.Row]:
            with self.engine.connect() as connection:
                return list(connection.execute(statement))

        return retried(read)


class FailureDetector:
    """An observer's memory of other members' beats, for telling the dead from the living."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}  # id -> beats, seconds watched without another
        self._last = time.monotonic()

    def look(self, members: dict[str, Member]) -> None:
        """Take note of everybody's beats; to be called about once a second."""
        now = time.monotonic()
        # A gap between two looks is the observer's own pause, or the database's: it says nothing of the others.
        gap, self._last = min(now - self._last, 2.0), now
        seen = {}
        for name, member in members.items():
            beats, silent = self._seen.get(name, (-1, 0.0))
            seen[name] = (member.beats, silent + gap if member.beats == beats else 0.0)
        self._seen = seen

    def silence(self, member: str) -> float:
        """Seconds watched since its last beat."""
        return self._seen.get(member, (0, 0.0))[1]

    def is_dead(self, member: Member | None) -> bool:
        """Whether it has left, or its process has ended, or it was silent for too long."""
        if member is None:
            return True
        if member.is_gone:
            return True
        return self.silence(member.id) > self._lease_seconds
