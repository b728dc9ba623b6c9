"""The sign of life that drivers and workers give, beside their work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from joyful.sweeper.database import first_line
from joyful.sweeper.registry import Registry

log = logging.getLogger(__name__)

#: Seconds between two signs of life, and between two looks of an idle worker.
BEAT = 1.0


def keep_alive(registry: Registry, member: str, done: threading.Event, look: Callable[[], object]) -> bool:
    """Show that `member` lives and look around, once a BEAT, until `done` is set or a look returns something true.

    Returns whether a look ended it. What fails, as all does while the database is away for longer than it is waited for, is tried
    again with the next beat, and told once in a row.
    """
    failed = False
    while not done.wait(BEAT):
        try:
            registry.beat(member)
            if look():
                return True
            failed = False
        except Exception as error:
            if not failed:
                log.warning("no sign of life could be given: %s", first_line(error))
            failed = True
    return False
