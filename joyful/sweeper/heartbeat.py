"""Heartbeats: each member of a sweep counts its own, and the others decide from the counts who has failed.

Clocks are never compared. Each observer runs its own `FailureDetector`: a member has failed if its count has not
changed for `lease_seconds` of observation. A member on the observer's machine has failed as soon as its process has
ended. A clock that jumps, or a database that pauses, therefore makes no member look failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from joyful.sweeper.database import first_line
from joyful.sweeper.registry import Member, Registry

log = logging.getLogger(__name__)

#: Seconds between two heartbeats, and between two attempts of an idle worker to claim a trial.
HEARTBEAT_SECONDS = 1.0


@contextmanager
def heartbeats(
    registry: Registry, member: str, done: threading.Event, check: Callable[[], object]
) -> Iterator[threading.Thread]:
    """Send a heartbeat and call `check` every HEARTBEAT_SECONDS in a thread, while the context lasts.

    Exceptions of the database or of `check` do not end this. The first of several failures in a row is logged.

    Args:
        registry: The registry that counts the heartbeats.
        member: The id of the member.
        done: Ends the heartbeats. It is set at the end of the context.
        check: Called after each heartbeat. A true value ends the heartbeats.

    Yields:
        The thread.
    """

    def beat() -> None:
        failed = False
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                registry.beat(member)
                if check():
                    return
                failed = False
            except Exception as error:
                if not failed:
                    log.warning("heartbeat failed: %s", first_line(error))
                failed = True

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        done.set()
        thread.join()


class FailureDetector:
    """Decides from heartbeats which members have failed. Each observer has its own.

    Args:
        lease_seconds: Seconds of observation without a heartbeat after which a member counts as dead.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}  # id -> heartbeats, seconds observed without a new one
        self._last = time.monotonic()

    def observe(self, members: dict[str, Member]) -> None:
        """Record the heartbeat counts of all members. Call it about once a second.

        At most 2 s are counted between two calls. A longer gap is a pause of the observer or of the database.
        """
        now = time.monotonic()
        gap, self._last = min(now - self._last, 2.0), now
        seen = {}
        for name, member in members.items():
            beats, silent = self._seen.get(name, (-1, 0.0))
            seen[name] = (member.beats, silent + gap if member.beats == beats else 0.0)
        self._seen = seen

    def is_dead(self, member: Member | None) -> bool:
        """Return whether a member has left (None), its process has ended, or its heartbeats have stopped."""
        if member is None or member.identity.has_ended:
            return True
        return self._seen.get(member.id, (0, 0.0))[1] > self._lease_seconds
