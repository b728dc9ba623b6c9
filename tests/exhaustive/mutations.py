"""Registries that are broken on purpose, to show that the search finds what it looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from joyful.sweeper.registry import Lease, Registry, _leases


class UnguardedClaim(Registry):
    """A claim does not check that the lease is unchanged since it was read."""

    def claim(self, number: int, owner: str, previous: Lease | None, owner_failed: bool = False) -> Lease | None:
        if previous is None:
            return super().claim(number, owner, previous, owner_failed)
        self._update(_leases, {"number": number}, owner=owner, term=previous.term + 1)
        return replace(previous, owner=owner, term=previous.term + 1)


class UnguardedRenewal(Registry):
    """A worker is not told that it has lost its lease."""

    def renew(self, lease: Lease, epochs: int | None = None) -> None:
        self._update_lease(lease, term=lease.term, **({} if epochs is None else {"epochs": epochs}))


class MembersFirst(Registry):
    """The members are read before the leases."""

    def leases_and_members(self) -> Any:
        members = self.members()
        return self.leases(), members

    def held_and_members(self) -> Any:
        members = self.members()
        return self.held_leases(), members


class UnguardedRelease(Registry):
    """A worker releases a trial although another one holds it."""

    def release(self, number: int, owner: str) -> None:
        self._update(_leases, {"number": number}, owner="")


class EveryClaimIsAFailure(Registry):
    """A failure is counted although the former owner has released the trial."""

    def claim(self, number: int, owner: str, previous: Lease | None, owner_failed: bool = False) -> Lease | None:
        return super().claim(number, owner, previous, owner_failed=True)


class LeavingReleasesAll(Registry):
    """A worker that leaves releases the trials of all workers."""

    def leave(self, member: str) -> None:
        self._update(_leases, {}, owner="")
        super().leave(member)


class KeptLeases(Registry):
    """A claim of a released trial fails: it asks for the row of a trial that was never claimed."""

    def claim(self, number: int, owner: str, previous: Lease | None, owner_failed: bool = False) -> Lease | None:
        return super().claim(number, owner, None, owner_failed)


MUTATIONS = (
    UnguardedClaim, UnguardedRenewal, MembersFirst, UnguardedRelease, EveryClaimIsAFailure, LeavingReleasesAll, KeptLeases
)  # fmt: skip
