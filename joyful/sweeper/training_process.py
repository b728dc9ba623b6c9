"""The worker's handle of its training process (`trainer`): start it, exchange messages with it, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from joyful.sweeper.program import Program

#: Seconds between SIGTERM and SIGKILL.
GRACE = 4.0


class TrainerEndedError(Exception):
    """The training process has ended without a final message. The error message describes how."""


class TrainingProcess:
    """A training process, started at the first message.

    Args:
        log: File for its output.
        environment: Environment variables in addition to those of the worker.
        program: The program that it runs.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], program: Program) -> None:
        self._log, self._environment, self._program = log, dict(environment), program
        self._process: subprocess.Popen[str] | None = None
        self._answers: IO[str] | None = None

    @property
    def pid(self) -> int | None:
        """Return its process id, None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Start the process if there is none.

        Raises:
            TrainerEndedError: If the process has ended.
        """
        if self._process is None:
            self._process = self._start()
            self._write({"program": {"main": self._program.main, "state": self._program.state}})
        self._write(message)

    def _write(self, message: Mapping[str, Any]) -> None:
        stream = self._process.stdin if self._process is not None else None
        if stream is None:
            raise self._ended_error()
        try:
            stream.write(json.dumps(message) + "\n")
            stream.flush()
        except OSError:
            raise self._ended_error() from None

    def receive(self) -> dict[str, Any]:
        """Wait for the next message and return it.

        Raises:
            TrainerEndedError: If the process has ended.
        """
        process, answers = self._process, self._answers
        if process is None or answers is None:
            raise self._ended_error()
        # Processes that the program has started may keep the pipe open after its end.
        while not select.select([answers], [], [], 1.0)[0] and process.poll() is None:
            pass
        line = answers.readline() if select.select([answers], [], [], 0.0)[0] else ""
        if not line.endswith("\n"):
            raise self._ended_error()
        message: dict[str, Any] = json.loads(line)
        return message

    def terminate(self) -> None:
        """Send SIGTERM: the training records that it was interrupted, and ends. Safe in any thread."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process. Safe in any thread."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def close(self, grace: float = GRACE) -> None:
        """Terminate the process, and kill it if it has not ended after `grace` seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._close_streams(process)

    def _start(self) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        # Put the folder of this package first, whatever the working directory of the new process.
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "joyful.sweeper.trainer", str(write_end), str(os.getpid())],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(write_end,), text=True, encoding="utf-8",
                    env={**os.environ, **self._environment, "PYTHONPATH": path},
                )  # fmt: skip
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._answers = os.fdopen(read_end, "r", encoding="utf-8")
        return process

    def _ended_error(self) -> TrainerEndedError:
        process, self._process = self._process, None
        if process is None:
            return TrainerEndedError("the training process was closed")
        try:
            code = process.wait(GRACE)
        except subprocess.TimeoutExpired:  # it has closed the connection but still runs
            process.kill()
            code = process.wait()
        self._close_streams(process)
        if code == -signal.SIGKILL:
            return TrainerEndedError("its process was killed (by the kernel when memory ran out, or by a user)")
        if code < 0:
            return TrainerEndedError(f"its process was terminated by {signal.Signals(-code).name}")
        return TrainerEndedError(f"its process ended with exit code {code}; see {self._log}")

    def _close_streams(self, process: subprocess.Popen[str]) -> None:
        for stream in (process.stdin, self._answers):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # unsent data is not needed any more
        self._answers = None
