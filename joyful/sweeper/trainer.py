"""The process that runs the trials of a worker, one after another. `worker` starts it.

It is a separate process for three reasons. The worker survives a trial that the kernel kills or that crashes in a GPU
driver. The worker can always end the trial in time. Libraries are loaded once for all trials of a worker.

The two processes exchange lines of JSON. The worker writes to standard input of the trainer; the trainer writes to the
descriptor given as its first argument.

- The worker sends {"program": ...} once, and {"run": ...} for each trial.
- The trainer sends {"report": step, "value": value} for each report of the program, with the rows of its measurements if
  the sweep is tracked. The worker answers {"prune": bool, "pause": bool}.
- The trainer sends {"end": status, ...} at the end of the trial. After "unusable" and "interrupted" it exits.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from joyful import results
from joyful.records import InputError, SharedInputError, one_line
from joyful.runtime.signals import Signalled
from joyful.sweeper import program
from joyful.sweeper.current_trial import Target, paused_error, trial
from joyful.sweeper.history import History

#: Seconds after a request to stop until KeyboardInterrupt is raised in the program.
PATIENCE_SECONDS = 2.0

#: Seconds that a report waits for the answer of a worker that is stopping.
ANSWER_SECONDS = 1.0

#: Numbers of errors of a full disk, which are not the fault of a trial.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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

    def receive(self, ends: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """Wait for the next message and return it; None if `ends` becomes true before."""
        while not ends():
            try:
                # The timeout lets Python run signal handlers.
                message: dict[str, Any] = json.loads(self._lines.get(timeout=0.1))
                return message
            except queue.Empty:
                continue
        return None

    def expect(self, name: str) -> dict[str, Any]:
        """Wait for the next message and return its value of a name."""
        message = self.receive()
        assert message is not None
        value: dict[str, Any] = message[name]
        return value


class TrialSession:
    """A running trial, see `joyful.sweeper.current_trial.Session`.

    Args:
        channel: The connection to the worker.
        request: The message "run".
        folder: The output folder of the trial.
    """

    def __init__(self, channel: Channel, request: Mapping[str, Any], folder: Path) -> None:
        self.number, self.folder, self.resumed = int(request["number"]), folder, bool(request["resumed"])
        self._stop_time: float | None = None
        self.history = History(folder, request["header"])
        self.targets: tuple[Target, ...] = _targets(request)
        self._channel, self._tracked = channel, bool(request.get("tracked"))
        self.paused = False  # whether the last report has paused the trial

    @property
    def stopping(self) -> bool:
        """Whether the program was asked to stop."""
        return self._stop_time is not None

    def _stopped_for(self) -> float:
        return 0.0 if self._stop_time is None else time.monotonic() - self._stop_time

    def report(self, value: float, step: int, metrics: Mapping[str, float] | None) -> None:
        """Send the value to the worker. Raise TrialPruned if the pruner ends the trial.

        A worker that is its own driver does not answer when it is stopping. Then the step counts as not reported, so
        KeyboardInterrupt is raised before the program can save it.
        """
        rows = self.history.add(step, metrics) if metrics else []
        self._channel.send({"report": step, "value": value, **({"rows": rows} if self._tracked else {})})
        answer = self._channel.receive(lambda: self._stopped_for() > ANSWER_SECONDS)
        if answer is None:
            raise KeyboardInterrupt
        from optuna import TrialPruned

        self.paused = bool(answer.get("pause"))
        if self.paused:
            raise paused_error(f"paused at step {step}")
        if answer["prune"]:
            raise TrialPruned(f"pruned at step {step}")
        self.targets = _targets(answer)
        if self.targets and self.history.has_reached(self.targets):
            raise TrialPruned(f"reached the target at step {step}; no open claim needs more steps")

    @contextmanager
    def stopped_by_sigterm(self) -> Any:
        """Context in which SIGTERM sets `stopping`. After PATIENCE_SECONDS it raises KeyboardInterrupt."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self._stop_time = time.monotonic()
            again = threading.Timer(PATIENCE_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()

        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if self.stopping else signal.SIG_DFL)


def _targets(message: Mapping[str, Any]) -> tuple[Target, ...]:
    return tuple(Target(**target) for target in message.get("targets", ()))


def run_trial(channel: Channel, state: program.State, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one trial as a Hydra job, and return the message with its end."""
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job, setup_globals

    setup_globals()
    Singleton.set_state(state.singletons)
    task = _Task(state, request, channel)
    try:
        _ = run_job(
            task_function=task,
            config=program.loads(request["config"]),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=state.hydra_context,
        ).return_value  # raises the exception of a failed job
    except (KeyboardInterrupt, Signalled):
        task.end = {"end": "interrupted"}
    except results.LockLostError:
        task.end = {"end": "taken over"}
    except BaseException as error:
        traceback.print_exc()
        # libraries turn KeyboardInterrupt or SIGTERM into other exceptions, such as SystemExit
        task.end = {"end": "interrupted"} if task.stopping else _failure(error)
    return task.finish()


class _Task:
    """The task function of a trial: runs that of the program, and keeps how it ended.

    Hydra logs exceptions of a task function as errors of the job, so those that are none do not leave it.
    """

    def __init__(self, state: program.State, request: Mapping[str, Any], channel: Channel) -> None:
        self._state, self._request, self._channel = state, request, channel
        self.end: dict[str, Any] = {"end": "failed", "reason": "Hydra did not start the job"}
        self._session: TrialSession | None = None

    @property
    def stopping(self) -> bool:
        """Whether the program was asked to stop."""
        return self._session is not None and self._session.stopping

    def __call__(self, config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from optuna import TrialPruned

        self._session = TrialSession(self._channel, self._request, Path(HydraConfig.get().runtime.output_dir))
        try:
            with trial.running(self._session), self._session.stopped_by_sigterm():
                value = self._state.task_function(config)
        except TrialPruned as error:
            paused = self._session.paused  # programs may have replaced the exception by their own TrialPruned
            self.end = {"end": "paused" if paused else "pruned", "reason": str(error)}
        except (results.ResultsError, SharedInputError) as error:
            self.end = {"end": "refused", "reason": one_line(error, 5000)}
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            self.end = {"end": "refused", "reason": one_line(error, 5000)}
        else:
            self.end = self._value(value)
            return value
        return None

    def _value(self, value: Any) -> dict[str, Any]:
        if self.stopping:
            return {"end": "interrupted"}
        count = int(self._request["objectives"])
        several = isinstance(value, Sequence) and not isinstance(value, str)
        try:
            values = [float(item) for item in (value if several else [value])]
        except (TypeError, ValueError):
            values = []
        if len(values) != count or any(item != item for item in values):
            expected = "a number" if count == 1 else f"{count} numbers"
            return {
                "end": "failed", "reason": f"the program returned {one_line(repr(value))}; expected {expected}, the "
                f"objective{'' if count == 1 else 's'}"
            }  # fmt: skip
        return {"end": "completed", "values": values}

    def finish(self) -> dict[str, Any]:
        """Write the history of the trial, and return how the trial ended."""
        status, values = self.end["end"], self.end.get("values", [None])
        status = "interrupted" if status == "paused" else status
        if self._session is not None and status in results.STATUSES:
            try:
                self._session.history.finish(status, self.end.get("reason"), values[0])
            except results.ResultsError as error:
                return {"end": "refused", "reason": one_line(error, 5000)}
            except results.LockLostError:
                return {"end": "taken over"}
            except InputError as error:
                return {"end": "failed", "reason": one_line(error, 5000)}
        return self.end


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, SystemExit):
        reason = f"the program called sys.exit({error.code!r})"
    elif type(error).__module__.split(".")[0] == "joyful":  # its messages are complete sentences
        reason = one_line(error, 5000)
    else:
        reason = one_line(f"{type(error).__name__}: {error}", 5000)
    return {"end": "failed", "reason": reason}


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux). On other systems the end of the input ends it.

    Args:
        parent: Process id of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(0)


def _open_channel(descriptor: int) -> Channel:
    """Return the connection to the worker, which no process of the program inherits."""
    source = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.set_inheritable(descriptor, False)
    return Channel(source, os.fdopen(descriptor, "w", encoding="utf-8"))


def main() -> None:
    """Run trials until the worker closes the connection."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    end_with_parent(parent)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group. The worker handles it.
    channel = _open_channel(descriptor)
    try:
        state = program.rebuild(**channel.expect("program"))
    except program.ImportedProgramError as error:
        traceback.print_exc()
        channel.send({"end": "unusable", "reason": one_line(error, 5000)})
        return
    while True:
        end = run_trial(channel, state, channel.expect("run"))
        channel.send(end)
        if end["end"] == "interrupted":
            return


if __name__ == "__main__":
    main()
