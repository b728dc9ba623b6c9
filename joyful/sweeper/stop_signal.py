"""How a worker is told to end: by its driver, or by a terminal's Ctrl-C."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from joyful.sweeper.training_process import TrainingProcess

#: Seconds that a training gets to end by itself, and then its worker to notice that it was killed.
TRAINING_SECONDS, WORKER_SECONDS = 4.0, 3.0


class StopSignal:
    """Rung, it ends the training in progress, and with it the work; a worker that does not end then is ended."""

    def __init__(self, trainer: TrainingProcess) -> None:
        self._trainer = trainer
        # (a queue, because a signal's handler may not touch an event's lock)
        self._orders: queue.SimpleQueue[bool] = queue.SimpleQueue()
        #: Set once it has rung: the work is to end.
        self.is_set = threading.Event()
        self._done = threading.Event()

    @contextmanager
    def active(self) -> Iterator[threading.Event]:
        """The bell is heard inside; gives the event that is set at its end.

        A terminal's Ctrl-C, which reaches workers too, rings it. Raised, it could turn into an error of whatever it interrupts, and
        the trial would be taken for a failed one. A driver that is its own worker answers it itself; ignored, it stays so.
        """
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ours = default and threading.current_thread() is threading.main_thread()
        threading.Thread(target=self._obey, daemon=True).start()
        if ours:
            signal.signal(signal.SIGINT, lambda number, frame: self.set())
        try:
            yield self._done
        finally:
            self._done.set()
            self._orders.put(False)
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def set(self) -> None:
        """End the work. May be called from any thread, and by a signal's handler."""
        self._orders.put(True)

    def _obey(self) -> None:
        if not self._orders.get():
            return
        self.is_set.set()
        self._trainer.ask_to_end()
        if not self._done.wait(TRAINING_SECONDS):
            self._trainer.kill()
        if not self._done.wait(WORKER_SECONDS):
            os._exit(143)  # the main thread hangs in something that is not ours
