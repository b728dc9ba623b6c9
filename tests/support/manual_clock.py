"""A clock for tests of what waits: a busy machine changes nothing in it."""

from __future__ import annotations


class ManualClock:
    """Put in the place of a module's `time`: it stands still but for who sleeps by it, and who sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As time.sleep, at once."""
        self.now += seconds
        self.slept.append(seconds)
