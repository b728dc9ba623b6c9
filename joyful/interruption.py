"""Signals as exceptions that are not lost.

What a signal's handler raises may come while Python runs a callback of its own (of a weak reference, a `__del__`). Such exceptions
are only printed ("Exception ignored in ..."): the signal would be lost, and the reader left with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

#: Seconds after which a signal that was lost comes again: by then the callback has ended.
AGAIN_SECONDS = 0.02


class Signalled(BaseException):  # (not an error: like KeyboardInterrupt, no `except Exception` may swallow it)
    """The process was told to end by a signal; `code` is the exit code by convention (128 + signal)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = int(number), 128 + number


def insist_on_signals() -> None:
    """From now on, a signal whose exception Python had to ignore (Signalled, KeyboardInterrupt) is sent to this process again.

    Everything else that Python ignores is told as before. Calling it again changes nothing.
    """
    if getattr(sys.unraisablehook, "insists_on_signals", False):
        return
    before = sys.unraisablehook

    def hook(ignored: Any) -> None:
        number = _number(ignored.exc_value)
        if number is None:
            before(ignored)
            return
        again = threading.Timer(
            AGAIN_SECONDS, os.kill, (os.getpid(), number)
        )  # (raised here, it would be ignored again)
        again.daemon = True
        again.start()

    hook.insists_on_signals = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _number(error: BaseException | None) -> int | None:
    if isinstance(error, KeyboardInterrupt):
        return int(signal.SIGINT)
    return error.number if isinstance(error, Signalled) else None
