"""Tiny runs in processes of their own that can be killed, frozen and signalled, started in a fraction of a second: a server that
has loaded everything forks one for each.

`python -m tests.support.trainers` is the server: lines of JSON on standard input ask for runs, lines of JSON on standard output
tell of them.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


def half_written(folder: Path) -> list[str]:
    """Files of a run that have not got their names yet."""
    places = [folder, folder / "checkpoint"]
    return [
        entry.name for place in places if place.is_dir() for entry in os.scandir(place) if entry.name[-4:] == ".tmp"
    ]


class Trainer:
    """A process that trains a run. epochs: what it told after each evaluation, before it was written; when it tells of epoch e,
    everything of epoch e - 1 has been written, its checkpoint too."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.epochs, self._log = pid, list[float](), log
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._code: int | None = None

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, negative for a signal, once it has ended. Raises queue.Empty where it does not end in time."""
        if self._code is None:
            self._code = self._ended.get(timeout=seconds)
        return self._code

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._code is None and self._ended.empty()

    def until_epoch(self, epoch: float, seconds: float = 120.0) -> None:
        """Wait until it has told of that epoch, or ended. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.running and not (self.epochs and self.epochs[-1] >= epoch):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no epoch {epoch:g} in {seconds:g} s: {self.said}")
            time.sleep(0.002)

    def until_a_write(self, folder: Path, passing: int) -> None:
        """Wait until a new half-written file is in the run's folder, after so many were let pass, or it has ended."""
        seen = set(half_written(folder))
        while self.running:
            new = set(half_written(folder)) - seen
            if new:
                seen |= new
                passing -= 1
                if passing < 0:
                    break

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def said(self) -> str:
        """What it printed on standard error."""
        return self._log.read_text() if self._log.exists() else ""

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take what the server tells of it."""
        if "epoch" in message:
            self.epochs.append(float(message["epoch"]))
        else:
            self._ended.put(os.waitstatus_to_exitcode(int(message["ended"])))


class Trainers:
    """The server, for one run at a time; with a `with`, it ends with the block. environment: beside the caller's."""

    def __init__(self, logs: Path, environment: Mapping[str, str] | None = None) -> None:
        self._logs, self._count = logs, 0
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.trainers"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **(environment or {}), "PYTHONPATH": path},
        )  # fmt: skip
        self._started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._trainer: Trainer | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, folder: Path, *overrides: str, through_main: bool = False, sync_seconds: float = 0.0) -> Trainer:
        """Train a tiny run into `folder`, or go on with it. through_main: as a person at the shell has it, with exit codes.
        sync_seconds: of a disk that takes so much longer for each fsync."""
        assert self._trainer is None or not self._trainer.running, "one run at a time"
        self._count += 1
        log = self._logs / f"trainer-{self._count}.log"
        self._trainer = Trainer(0, log)
        request = {
            "folder": str(folder),
            "overrides": overrides,
            "through_main": through_main,
            "log": str(log),
            "sync": sync_seconds,
        }
        assert self._server.stdin is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        self._trainer.pid = self._started.get(timeout=120)
        return self._trainer

    def run(self, folder: Path, *overrides: str) -> Trainer:
        """Train to the end, which must be a good one."""
        trainer = self.start(folder, *overrides)
        assert trainer.wait(240) == 0, trainer.said
        return trainer

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            message = json.loads(line)
            if "started" in message:
                self._started.put(int(message["started"]))
            elif self._trainer is not None:
                self._trainer.hear(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trainer is not None and self._trainer.running:
            os.kill(self._trainer.pid, signal.SIGKILL)
        self._server.kill()
        self._server.communicate()


def _tell(descriptor: int, **message: Any) -> None:
    os.write(descriptor, (json.dumps(message) + "\n").encode())  # (in one piece: a line is shorter than a pipe's unit)


def _train(folder: str, overrides: Sequence[str], through_main: bool, descriptor: int) -> None:
    from joyful.training import experiment
    from tests.support.runs import tiny_request

    class Teller:
        def before_write(self) -> None:
            pass

        def evaluated(self, record: Any, best: Mapping[str, float]) -> bool:
            _tell(descriptor, epoch=record.epoch)
            return True

    request, train_run = tiny_request(Path(folder), *overrides), experiment.train_run
    if through_main:
        experiment.train_run = lambda request: train_run(request, Teller())  # type: ignore[misc, assignment]
        experiment.main(lambda: request)
    else:
        train_run(request, Teller())


def _slow_down(seconds: float) -> None:
    """Have the disk take longer."""
    sync = os.fsync

    def wait_and_sync(descriptor: Any) -> None:
        time.sleep(seconds)
        sync(descriptor)

    if seconds:
        os.fsync = wait_and_sync  # type: ignore[assignment]


def _load() -> None:
    """Load what a run needs, without beginning one: a fork must not find threads of torch's."""
    import torch

    from joyful import results
    from joyful.training import experiment
    from tests.support.runs import tiny_request

    experiment.prepare_torch(torch.device("cpu"), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        request = tiny_request(Path(folder))
        settings = experiment.check(request.config)
        header = experiment._header(settings, request.config, request, torch.device("cpu"), threads=1)
        results.RunFolder.create(folder, header)
        experiment.load(settings.data, settings.modality_names)


def main() -> None:
    """Serve until standard input ends."""
    _load()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # (a shell's background job ignores Ctrl-C)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                _slow_down(request["sync"])
                _tell(descriptor, started=os.getpid())
                _train(request["folder"], request["overrides"], request["through_main"], descriptor)
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _tell(descriptor, ended=os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
