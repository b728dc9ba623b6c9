"""A manual clock, which makes tests of waiting independent of the load of the machine."""

from __future__ import annotations


class ManualClock:
    """Replaces the module `time`. Its time changes only by `sleep` and by setting `now`.

    Attributes:
        now: Current time in seconds.
        slept: Arguments of the calls of `sleep`.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return `now`, in place of time.monotonic."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance `now` at once, in place of time.sleep."""
        self.now += seconds
        self.slept.append(seconds)
