"""The process that trains a worker's trials, one after another: `python -m joyful.sweeper.trainer`, started by `worker`.

A process of its own, so that what kills a training (the kernel for want of memory, a crash in a driver) leaves the worker alive
to see it, so that a worker can always end its training in time, and so that torch is loaded once for all trials of a worker.

Lines of JSON on standard input and on the descriptor given as argument. The worker sends {"run": request} and gets any number
of questions, {"ask": "write"} before a change of the folder and {"ask": "evaluated", ...} after an evaluation, which it answers
by {"answer": "go"}, "prune" or "stop"; at last {"end": status, ...}.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any


class TakenOverError(BaseException):  # (no `except Exception` of a run may go on after it)
    """The worker said stop: the trial is another's, nothing more is written."""


class Channel:
    """The worker's end of the conversation. When the worker is gone, so is this process: it must not write any more."""

    def __init__(self, source: IO[str], sink: IO[str]) -> None:
        self._source, self._sink = source, sink
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._source:
            self._lines.put(line)
        os._exit(0)  # the end of the input: the worker has ended, or let go of this process

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self._sink.write(json.dumps(message) + "\n")
        self._sink.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the next message."""
        while True:
            try:
                # with a time limit, so that a signal gets its turn
                return json.loads(self._lines.get(timeout=0.5))
            except queue.Empty:
                continue

    def ask(self, question: Mapping[str, Any]) -> str:
        """Send a question and wait for its answer."""
        self.send(question)
        return str(self.receive()["answer"])


class RemoteObserver:
    """The worker as observer of a run (joyful.training.experiment.Observer)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def before_write(self) -> None:
        if self._channel.ask({"ask": "write"}) == "stop":
            raise TakenOverError

    def evaluated(self, record: Any, best: Mapping[str, float]) -> bool:
        question = {"ask": "evaluated", "epoch": record.epoch, "best": best["f1_weighted"]}
        answer = self._channel.ask(question)
        if answer == "stop":
            raise TakenOverError
        return answer != "prune"


def train(channel: Channel, request: dict[str, Any]) -> dict[str, Any]:
    """Train one run; the message that ends it."""
    from joyful import results
    from joyful.records import InputError, Request
    from joyful.runtime.disk import NoRoomError
    from joyful.training import experiment
    from joyful.training.coach import TrainingFailedError

    wanted = Request(**{**request, "folder": Path(request["folder"]), "overridden": tuple(request["overridden"])})
    try:
        objective = experiment.train_run(wanted, RemoteObserver(channel))
    except experiment.PrunedError as error:
        return {"end": "pruned", "reason": str(error)}
    except (results.ResultsError, NoRoomError) as error:  # no fault of the trial's
        return {"end": "disk", "reason": _one_line(str(error))}
    except (InputError, TrainingFailedError) as error:
        return {"end": "failed", "reason": _one_line(str(error))}
    except (KeyboardInterrupt, experiment.Interrupted):
        return {"end": "interrupted"}
    except (TakenOverError, results.LockLostError):
        return {"end": "taken over"}
    except Exception as error:
        traceback.print_exc()
        return {"end": "failed", "reason": experiment.describe_failure(error)}
    return {"end": "completed", "objective": objective}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the one that started it ends (Linux; elsewhere the end of the input does it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    """Serve the worker until it closes the conversation."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    end_with_parent(parent)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the worker decides what follows
    channel = Channel(sys.stdin, os.fdopen(descriptor, "w", encoding="utf-8"))
    while True:
        request = channel.receive()["run"]
        end = train(channel, request)
        channel.send(end)
        if end["end"] == "interrupted":
            return


if __name__ == "__main__":
    main()
