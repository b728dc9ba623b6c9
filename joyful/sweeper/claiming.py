"""The claim loop: which trial a worker takes next.

A claim reads the leases that have an owner, the members, the running trials, the first waiting ones and the leases of the
candidates. So its cost depends on the number of workers, not on the number of trials. Two kinds of sweeps read more: with
paused trials (`asha_promotion`) the states and leases of all trials, and with equal configurations those trials that wait
for another one's result. docs/CLAIM_PROTOCOL.md has the protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from optuna.trial import TrialState

from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.pausing import Pausing, Trials
from joyful.sweeper.registry import Lease, Member, Registry
from joyful.sweeper.trial_table import blocked_duplicates, first_unfinished, repeats, states, waiting_duplicates

log = logging.getLogger(__name__)

#: Free trials that a worker tries to claim before it looks again.
CANDIDATES = 16


class Found(NamedTuple):
    """What a worker found.

    Attributes:
        lease: The lease of the trial that it has claimed, None if it has claimed none.
        unfinished: Whether any trial is not finished.
        lost: Whether other workers have claimed what it found. Then it looks again at once.
    """

    lease: Lease | None
    unfinished: bool
    lost: bool


class _Candidate(NamedTuple):
    """A free trial: its number, its state, its lease as it was read, and the failed worker that held it."""

    number: int
    state: TrialState
    lease: Lease | None
    owner: Member | None


class Claiming:
    """Claims trials for one worker.

    Args:
        registry: The members and leases of the study.
        worker: Id of the worker.
        detector: Its failure detector.
        pausing: What decides which trials are paused and promoted; None: none are.
    """

    def __init__(self, registry: Registry, worker: str, detector: FailureDetector, pausing: Pausing | None) -> None:
        self._registry, self._worker, self._detector, self._pausing = registry, worker, detector, pausing

    def next(self) -> Found:
        """Claim the next free trial, in the order of their numbers or in that of `Pausing.order`.

        When several workers look for a trial at the same time, the first one by its id takes the first trial, the second
        one the second trial, and so on. So they do not all try to claim the same.
        """
        if self._pausing is not None:
            return self._next_of_all(self._pausing)
        held, members = self._registry.held_and_members()
        self._detector.observe(members)
        busy = self._held(held, members)
        # a trial that a worker has claimed and not started yet is waiting
        place = self._place(held, members)
        unfinished = first_unfinished(self._registry, len(busy) + place + CANDIDATES)
        free = [number for number in unfinished if number not in busy]
        if any(unfinished[number] == TrialState.RUNNING for number in free):
            blocked = blocked_duplicates(self._registry)
            free = [number for number in free if number not in blocked]
        start = place % max(len(free), 1)
        candidates = self._candidates((free[start:] + free[:start])[:CANDIDATES], unfinished, held, members)
        return Found(self._claim(candidates, members), bool(unfinished), bool(free))

    def _place(self, held: Mapping[int, Lease], members: Mapping[str, Member]) -> int:
        """Return how many live workers without a trial come before this one, in the order of their ids."""
        owners = {lease.owner for lease in held.values()}
        others = [m for m in members.values() if m.role == "worker" and m.id < self._worker and m.id not in owners]
        return sum(not self._detector.is_dead(member) for member in others)

    def _candidates(
        self,
        free: list[int],
        unfinished: Mapping[int, TrialState],
        held: Mapping[int, Lease],
        members: Mapping[str, Member],
    ) -> list[_Candidate]:
        """Return free trials with their leases.

        A lease that had no owner is read after the members. If it has one by now, another worker was faster. It may have
        joined after the members were read, so it must not count as one that has left.
        """
        released = self._registry.leases_of([number for number in free if number not in held])
        return [
            _candidate(number, unfinished[number], held.get(number, released.get(number)), members)
            for number in free
            if number not in released or not released[number].owner
        ]

    def _next_of_all(self, pausing: Pausing) -> Found:
        now = self.look_at_all()
        candidates = (_candidate(n, now.states[n], now.leases.get(n), now.members) for n in pausing.order(now))
        return Found(self._claim(candidates, now.members), bool(now.unfinished), lost=False)

    def look_at_all(self) -> Trials:
        """Return the state of all trials, for `Pausing`."""
        leases, members = self._registry.leases_and_members()
        self._detector.observe(members)
        all_states, duplicates = states(self._registry), waiting_duplicates(self._registry)
        return Trials(
            all_states, leases, members, self._held(leases, members),
            blocked={number for number, other in duplicates.items() if not all_states[other].is_finished()},
            repeats=repeats(self._registry),
        )  # fmt: skip

    def _held(self, leases: Mapping[int, Lease], members: Mapping[str, Member]) -> set[int]:
        """Return the trials that a live worker holds."""
        owned = {number: lease.owner for number, lease in leases.items() if lease.owner}
        return {number for number, owner in owned.items() if not self._detector.is_dead(members.get(owner))}

    def _claim(self, candidates: Iterable[_Candidate], members: Mapping[str, Member]) -> Lease | None:
        """Claim the first candidate that no other worker claims before. Return its lease, None if there is none."""
        for number, state, lease, owner in candidates:
            owner_failed = owner is not None and not self._detector.is_dead(members.get(owner.driver))
            claimed = self._registry.claim(number, self._worker, lease, owner_failed=owner_failed)
            if claimed is None:
                continue
            if owner is not None:
                owner.identity.kill()  # it may be frozen, and must not resume and write
            if self._pausing is not None and self._pausing.ends(number):
                log.info("trial %d is not promoted and ends", number)
            elif state == TrialState.RUNNING:
                was = "paused" if owner is None else "started by another worker"
                log.info("trial %d was %s and is resumed", number, was)
            return claimed
        return None


def _candidate(number: int, state: TrialState, lease: Lease | None, members: Mapping[str, Member]) -> _Candidate:
    return _Candidate(number, state, lease, members.get(lease.owner) if lease is not None and lease.owner else None)
