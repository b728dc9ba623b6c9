"""The process that trains the trials of a worker, one after another. `worker` starts it.

It is a separate process for three reasons. The worker survives a training that the kernel kills or that crashes in a
GPU driver. The worker can always end the training in time. torch is loaded once for all trials of a worker.

The two processes exchange lines of JSON. The worker writes to standard input of the trainer; the trainer writes to the
descriptor given as its first argument.

- The worker sends {"run": request}.
- The trainer sends {"ask": "write"} before it changes the run folder and {"ask": "evaluated", ...} after an
  evaluation.
- The worker answers each question with {"answer": "go"}, {"answer": "prune"} or {"answer": "stop"}.
- The trainer sends {"end": status, ...} at the end of the run.
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


class TakenOverError(BaseException):  # not an Exception, so that no `except Exception` of a run catches it
    """Another worker has taken the trial over. The run must not write anything more."""


class Channel:
    """The connection to the worker. The process exits when the worker has ended, because it must not write any more.

    Args:
        source: Messages of the worker.
        sink: Messages to the worker.
    """

    def __init__(self, source: IO[str], sink: IO[str]) -> None:
        self._source, self._sink = source, sink
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._source:
            self._lines.put(line)
        os._exit(0)  # end of input: the worker has ended, or has closed the connection

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self._sink.write(json.dumps(message) + "\n")
        self._sink.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the next message and return it."""
        while True:
            try:
                # The timeout lets Python run signal handlers.
                message: dict[str, Any] = json.loads(self._lines.get(timeout=0.5))
                return message
            except queue.Empty:
                continue

    def ask(self, question: Mapping[str, Any]) -> str:
        """Send a question, wait for the answer and return it."""
        self.send(question)
        return str(self.receive()["answer"])


class RemoteObserver:
    """The worker as the observer of a run, see `joyful.training.experiment.Observer`.

    Args:
        channel: The connection to the worker.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def before_write(self) -> None:
        """Ask whether the worker still holds the trial.

        Raises:
            TakenOverError: If it does not.
        """
        if self._channel.ask({"ask": "write"}) == "stop":
            raise TakenOverError

    def evaluated(self, record: Any, best: Mapping[str, float]) -> bool:
        """Report an evaluation, and return whether the run should continue.

        Raises:
            TakenOverError: If the worker does not hold the trial any more.
        """
        question = {"ask": "evaluated", "epoch": record.epoch, "best": best["f1_weighted"]}
        answer = self._channel.ask(question)
        if answer == "stop":
            raise TakenOverError
        return answer != "prune"


def train(channel: Channel, request: dict[str, Any]) -> dict[str, Any]:
    """Train one run, and return the message with its end."""
    from joyful import results
    from joyful.records import InputError, Request, one_line
    from joyful.runtime.disk import DiskSpaceError
    from joyful.training import experiment
    from joyful.training.coach import TrainingFailedError
    from joyful.training.restoring import OtherDataError

    run_request = Request(**{**request, "folder": Path(request["folder"]), "overridden": tuple(request["overridden"])})
    try:
        objective = experiment.train_run(run_request, RemoteObserver(channel))
    except experiment.PrunedError as error:
        return {"end": "pruned", "reason": str(error)}
    except (results.ResultsError, DiskSpaceError, OtherDataError) as error:  # not the fault of the trial
        return {"end": "refused", "reason": one_line(error, 5000)}
    except (InputError, TrainingFailedError) as error:
        return {"end": "failed", "reason": one_line(error, 5000)}
    except (KeyboardInterrupt, experiment.Interrupted):
        return {"end": "interrupted"}
    except (TakenOverError, results.LockLostError):
        return {"end": "taken over"}
    except Exception as error:
        traceback.print_exc()
        return {"end": "failed", "reason": experiment.describe_failure(error)}
    return {"end": "completed", "objective": objective}


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux). On other systems the end of the input ends it.

    Args:
        parent: Process id of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    """Train runs until the worker closes the connection."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    end_with_parent(parent)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group. The worker handles it.
    channel = Channel(sys.stdin, os.fdopen(descriptor, "w", encoding="utf-8"))
    while True:
        request = channel.receive()["run"]
        end = train(channel, request)
        channel.send(end)
        if end["end"] == "interrupted":
            return


if __name__ == "__main__":
    main()
