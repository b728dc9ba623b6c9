"""The signal that stops a worker, sent by its driver or by Ctrl-C."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from joyful.sweeper.training_process import TrainingProcess

#: Seconds that the training gets to end by itself, and then seconds that the worker gets after the training is killed.
TRAINING_SECONDS, WORKER_SECONDS = 4.0, 3.0


class StopSignal:
    """An event, like `threading.Event`, that also terminates the training in progress when it is set.

    Setting it has an effect only inside `active`. The training is killed if it does not end within TRAINING_SECONDS.
    The worker exits with code 143 if `active` does not end within another WORKER_SECONDS.

    Args:
        trainer: The training process to terminate.
    """

    def __init__(self, trainer: TrainingProcess) -> None:
        self._trainer = trainer
        # A signal handler may call `set`. It must not touch the lock of an event, so it uses a queue.
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._event = threading.Event()
        self._done = threading.Event()

    def is_set(self) -> bool:
        """Return whether the worker is to stop."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the worker to stop. Safe in any thread and in a signal handler."""
        self._requests.put(True)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the signal is set, or for `timeout` seconds, and return whether it is set."""
        return self._event.wait(timeout)

    @contextmanager
    def active(self) -> Iterator[threading.Event]:
        """Respond to `set` and to Ctrl-C inside the context.

        Ctrl-C in a terminal reaches the workers too. Here it sets the signal. A KeyboardInterrupt could turn into an
        error of the interrupted code, and the trial would be recorded as failed. A SIGINT handler that somebody else
        installed, such as that of a driver that is its own worker, stays in place. So does an ignored SIGINT.

        Yields:
            An event that is set when the context ends.
        """
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        handles_sigint = default and threading.current_thread() is threading.main_thread()
        threading.Thread(target=self._handle_request, daemon=True).start()
        if handles_sigint:
            signal.signal(signal.SIGINT, lambda number, frame: self.set())
        try:
            yield self._done
        finally:
            self._done.set()
            self._requests.put(False)
            if handles_sigint:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle_request(self) -> None:
        if not self._requests.get():
            return
        self._event.set()
        self._trainer.terminate()
        if not self._done.wait(TRAINING_SECONDS):
            self._trainer.kill()
        if not self._done.wait(WORKER_SECONDS):
            os._exit(143)  # the main thread hangs in foreign code
