"""Tiny runs in separate processes, which tests can kill, freeze and signal.

A server process that has imported all libraries forks a process for each run, which takes a fraction of a second.
`python -m tests.support.trainers` is the server. It reads requests from standard input and writes messages about the
runs to standard output, both as lines of JSON.
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


def partial_files(folder: Path) -> list[str]:
    """Return the names of the partially written (temporary) files of a run."""
    folders = [folder, folder / "checkpoint"]
    return [entry.name for path in folders if path.is_dir() for entry in os.scandir(path) if entry.name[-4:] == ".tmp"]


class Trainer:
    """A process that trains a run.

    Attributes:
        pid: Process id.
        epochs: Epochs of the evaluations that the process has reported. It reports an evaluation before writing it. A
            report of epoch e implies that all files of epoch e - 1 have been written, including its checkpoint.
    """

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.epochs, self._log = pid, list[float](), log
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._code: int | None = None

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for the end of the process, and return its exit code, negative for a signal.

        Raises:
            queue.Empty: If it does not end within `seconds` seconds.
        """
        if self._code is None:
            self._code = self._ended.get(timeout=seconds)
        return self._code

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._code is None and self._ended.empty()

    def wait_for_epoch(self, epoch: float, seconds: float = 120.0) -> None:
        """Wait until the process has reported this epoch or ended. Raise TimeoutError after `seconds` seconds."""
        deadline = time.monotonic() + seconds
        while self.running and not (self.epochs and self.epochs[-1] >= epoch):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no epoch {epoch:g} in {seconds:g} s: {self.stderr}")
            time.sleep(0.002)

    def wait_for_write(self, folder: Path, skip: int) -> None:
        """Wait until a new partially written file appears in the folder or the process ends.

        Args:
            folder: Folder of the run.
            skip: Number of earlier writes to ignore.
        """
        seen = set(partial_files(folder))
        while self.running:
            new = set(partial_files(folder)) - seen
            if new:
                seen |= new
                skip -= 1
                if skip < 0:
                    break

    def kill(self) -> None:
        """Send SIGKILL and wait for the end of the process."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def stderr(self) -> str:
        """The output of the process on standard error."""
        return self._log.read_text() if self._log.exists() else ""

    def handle(self, message: Mapping[str, Any]) -> None:
        """Process a message of the server about this process."""
        if "epoch" in message:
            self.epochs.append(float(message["epoch"]))
        else:
            self._ended.put(os.waitstatus_to_exitcode(int(message["ended"])))


class TrainerServer:
    """A server that trains one run at a time. As a context manager, it stops at the end of the block.

    Args:
        logs: Folder for the standard error of the runs.
        environment: Environment variables in addition to those of this process.
    """

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
        """Start or resume a tiny run.

        Args:
            folder: Folder of the run.
            *overrides: Overrides of its settings.
            through_main: Run `experiment.main`, with its messages and exit codes, instead of `train_run`.
            sync_seconds: Additional seconds of each fsync, to simulate a slow disk.
        """
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
        """Train a tiny run to its end, and check that it succeeds."""
        trainer = self.start(folder, *overrides)
        assert trainer.wait(240) == 0, trainer.stderr
        return trainer

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            message = json.loads(line)
            if "started" in message:
                self._started.put(int(message["started"]))
            elif self._trainer is not None:
                self._trainer.handle(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trainer is not None and self._trainer.running:
            os.kill(self._trainer.pid, signal.SIGKILL)
        self._server.kill()
        self._server.communicate()


def _send(descriptor: int, **message: Any) -> None:
    os.write(descriptor, (json.dumps(message) + "\n").encode())  # one write, which a pipe does not split


def _train(folder: str, overrides: Sequence[str], through_main: bool, descriptor: int) -> None:
    from joyful.training import experiment
    from tests.support.runs import tiny_request

    class EpochReporter:
        def evaluated(self, record: Any, best: Mapping[str, float]) -> bool:
            _send(descriptor, epoch=record.epoch)
            return True

    request, train_run = tiny_request(Path(folder), *overrides), experiment.train_run
    if through_main:
        experiment.train_run = lambda request: train_run(request, EpochReporter())  # type: ignore[misc, assignment]
        experiment.main(lambda: request, multirun=False)
    else:
        train_run(request, EpochReporter())


def _slow_down(seconds: float) -> None:
    """Make each fsync take longer."""
    sync = os.fsync

    def wait_and_sync(descriptor: Any) -> None:
        time.sleep(seconds)
        sync(descriptor)

    if seconds:
        os.fsync = wait_and_sync  # type: ignore[assignment]


def _load() -> None:
    """Load everything that a run needs. No training starts, because a fork must not inherit threads of torch."""
    import torch

    from joyful import results
    from joyful.config import check
    from joyful.data.loading import load
    from joyful.training import experiment
    from tests.support.runs import tiny_request

    experiment.prepare_torch(torch.device("cpu"), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        request = tiny_request(Path(folder))
        settings = check(request.config)
        header = experiment._header(settings, request.config, request, torch.device("cpu"), threads=1)
        results.RunFolder.create(folder, header)
        load(settings.data, settings.modality_names)


def main() -> None:
    """Process requests until the end of standard input."""
    _load()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
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
                _send(descriptor, started=os.getpid())
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
        _send(descriptor, ended=os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
