"""Turn signals into exceptions that are not lost, and exit at once on Ctrl-C while a program is still loading.

Raising an exception in a signal handler has three problems:

- The signal may arrive while Python runs a callback of a weak reference or a `__del__`. Python only prints exceptions
  from there ("Exception ignored in ..."), so the signal would be lost. `resend_ignored_signals` sends it again.
- The signal may arrive while an extension module is loaded. torch's extension calls Python from C++ code that no
  exception may leave, and the process aborts ("terminate called after throwing ..."). No work has started then, so
  `exit_on_ctrl_c` exits without raising.
- The signal may make other code fail with another error. OmegaConf, interrupted while it creates a node, fails with an
  AttributeError, and Hydra reports a configuration that cannot be composed. `RaisingSignals.prefer_signal` therefore
  treats an error after a signal as the signal.
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

#: Seconds after which a lost signal is sent again; by then the callback has ended.
RESEND_SECONDS = 0.02


class Signalled(BaseException):  # a BaseException like KeyboardInterrupt, so that `except Exception` does not catch it
    """The process received a signal to end.

    Attributes:
        number: Number of the signal.
        code: Exit code by convention, 128 + number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = int(number), 128 + number


def exit_on_ctrl_c() -> None:
    """Make Ctrl-C exit this process with one line and code 130, until `raise_on_ctrl_c` is called.

    Call it in the first lines of a program, in the main thread. Another handler of Ctrl-C is kept. So is ignoring it,
    as background jobs of a shell do.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_ctrl_c() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, through `CTRL_C`, once all modules are loaded."""
    if signal.getsignal(signal.SIGINT) is _exit:
        CTRL_C.begin()


def _exit(number: int, frame: FrameType | None) -> None:
    # written to the descriptor, because Python's streams could block
    os.write(2, b"joyful: interrupted by Ctrl-C before anything began; nothing is lost\n")
    os._exit(128 + number)


class RaisingSignals:
    """Context in which signals raise exceptions in the main thread.

    A signal that is ignored at the start stays ignored, such as SIGINT in a background job of a shell or SIGHUP under
    nohup. In a thread other than the main thread, where Python handles no signals, the context does nothing.

    Args:
        make_exception: Returns the exception to raise for a signal number.
        numbers: Signal numbers.

    Attributes:
        raised: The exception of the last signal; None if there was none.
    """

    def __init__(self, make_exception: Callable[[int], BaseException], *numbers: int) -> None:
        self._make_exception, self._numbers = make_exception, numbers
        self._previous: dict[int, Any] = {}
        self._pid = os.getpid()
        self.raised: BaseException | None = None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def begin(self) -> None:
        """Install the handlers until the context ends, or until the program ends if this is not used as a context."""
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            resend_ignored_signals()
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._raise)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None if the handler was not set by Python

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child ends as it would without the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.raised = self._make_exception(number)
        raise self.raised

    @contextmanager
    def prefer_signal(self, *others: type[Exception]) -> Iterator[None]:
        """Context in which an error after a signal is replaced by the exception of the signal.

        Args:
            others: Types of exceptions that are not replaced.
        """
        try:
            yield
        except others:
            raise
        except Exception:
            if self.raised is None:
                raise
            raise self.raised from None


#: Handles Ctrl-C after `raise_on_ctrl_c`, until a run or the driver of a sweep installs its own handler.
CTRL_C = RaisingSignals(lambda number: KeyboardInterrupt(), signal.SIGINT)


def resend_ignored_signals() -> None:
    """Send a signal again if Python had to ignore its exception (Signalled or KeyboardInterrupt).

    Other ignored exceptions are reported as before. A second call does nothing.
    """
    if getattr(sys.unraisablehook, "resends_ignored_signals", False):
        return
    previous = sys.unraisablehook

    def hook(ignored: Any) -> None:
        number = _number(ignored.exc_value)
        if number is None:
            previous(ignored)
            return
        # an exception raised here would be ignored again
        timer = threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    hook.resends_ignored_signals = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _number(error: BaseException | None) -> int | None:
    if isinstance(error, KeyboardInterrupt):
        return int(signal.SIGINT)
    return error.number if isinstance(error, Signalled) else None
