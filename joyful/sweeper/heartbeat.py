"""Heartbeats of drivers and workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from joyful.sweeper.database import first_line
from joyful.sweeper.registry import Registry

log = logging.getLogger(__name__)

#: Seconds between two heartbeats, and between two attempts of an idle worker to claim a trial.
HEARTBEAT_SECONDS = 1.0


def send_heartbeats(registry: Registry, member: str, done: threading.Event, check: Callable[[], object]) -> bool:
    """Send a heartbeat and call `check` every HEARTBEAT_SECONDS, until `done` is set or `check` returns a true value.

    Exceptions of the database or of `check` do not end the loop. The first of several failures in a row is logged.

    Args:
        registry: The registry that counts the heartbeats.
        member: The id of the member.
        done: Ends the loop when set.
        check: Called after each heartbeat.

    Returns:
        True if `check` ended the loop, False if `done` was set.
    """
    failed = False
    while not done.wait(HEARTBEAT_SECONDS):
        try:
            registry.beat(member)
            if check():
                return True
            failed = False
        except Exception as error:
            if not failed:
                log.warning("heartbeat failed: %s", first_line(error))
            failed = True
    return False
