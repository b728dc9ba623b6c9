"""Signals as exceptions that are not lost, and Ctrl-C as an end at once while a program still loads.

What a signal's handler raises may come while Python runs a callback of its own (of a weak reference, a `__del__`). Such exceptions
are only printed ("Exception ignored in ..."): the signal would be lost, and the reader left with a traceback.

It may also come while an extension module is loaded: torch's own calls Python from C++ that no exception may leave, and the process
aborts with a core ("terminate called after throwing ..."). Nothing has begun then, so nothing needs to be raised.

And it may come while other people's code can only fail for it: OmegaConf, interrupted while it makes a node, fails with an
AttributeError as it tidies up, and Hydra reports a configuration that cannot be composed. What fails after a signal has failed
because of it (`RaisingSignals.kept`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

#: Seconds after which a signal that was lost comes again: by then the callback has ended.
AGAIN_SECONDS = 0.02


class Signalled(BaseException):  # (not an error: like KeyboardInterrupt, no `except Exception` may swallow it)
    """The process was told to end by a signal; `code` is the exit code by convention (128 + signal)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = int(number), 128 + number


def leave_at_ctrl_c() -> None:
    """From now on, until `raise_at_ctrl_c`, Ctrl-C ends this process in one line with code 130, and raises nothing.

    For the first lines of a program, in its main thread. Where somebody else answers Ctrl-C, or it is ignored (as a shell's job in
    the background does), that stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_at_ctrl_c() -> None:
    """Undo `leave_at_ctrl_c`: what is to be used is loaded, and Ctrl-C raises KeyboardInterrupt again, as CTRL_C."""
    if signal.getsignal(signal.SIGINT) is _leave:
        CTRL_C.begin()


def _leave(number: int, frame: FrameType | None) -> None:
    # written to the descriptor: nothing of Python's may hold it up
    os.write(2, b"joyful: interrupted by Ctrl-C before anything began; nothing is lost\n")
    os._exit(128 + number)


class RaisingSignals:
    """Signals that raise in the main thread what `answer` returns for their numbers, while the context lasts.

    One that was ignored when it begins (Ctrl-C by a shell's job in the background, a hang-up under nohup) stays ignored. In another
    than the main thread, where nobody can answer signals, it changes nothing.
    """

    def __init__(self, answer: Callable[[int], BaseException], *numbers: int) -> None:
        self._answer, self._numbers = answer, numbers
        self._before: dict[int, Any] = {}
        #: What the last signal has raised, None where none came.
        self.raised: BaseException | None = None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def begin(self) -> None:
        """Answer them from now on, to the end of the context, or of the program where there is none."""
        if threading.current_thread() is threading.main_thread():
            insist_on_signals()
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._raise)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # (None: one that was not set by Python)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = self._answer(number)
        raise self.raised

    @contextmanager
    def kept(self, *others: type[Exception]) -> Iterator[None]:
        """Inside, an error that comes after a signal becomes what the signal has raised. Those of `others` stay what they are."""
        try:
            yield
        except others:
            raise
        except Exception:
            if self.raised is None:
                raise
            raise self.raised from None


#: Ctrl-C between `raise_at_ctrl_c` and whatever answers it otherwise (a run, a sweep's driver).
CTRL_C = RaisingSignals(lambda number: KeyboardInterrupt(), signal.SIGINT)


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
