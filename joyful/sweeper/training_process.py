"""A worker's handle on the process that trains its trials (`trainer`): starts it, talks with it, ends it in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

#: Seconds between asking the training to end and killing it.
GRACE = 4.0


class TrainerEndedError(Exception):
    """The process that trained has ended without a word; the message says how."""


class TrainingProcess:
    """The process, started when it is first needed. log: takes what it prints. environment: beside the worker's own."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self._log, self._environment = log, dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._answers: IO[str] | None = None

    @property
    def pid(self) -> int | None:
        """Its process number, None where it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, starting the process where it does not run. Raises TrainerDiedError where it has ended."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        """Wait for its next message. Raises TrainerDiedError where it has ended."""
        assert self._answers is not None
        line = self._answers.readline()
        if not line.endswith("\n"):
            raise self._death()
        return json.loads(line)

    def ask_to_end(self) -> None:
        """Let it write that it was interrupted, and end. May be called from any thread."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once. May be called from any thread."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def close(self, grace: float = GRACE) -> None:
        """Ask it to end, wait so many seconds, then kill it."""
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
        self._forget(process)

    def _start(self) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        ours, its = os.pipe()
        # the package is where this one was found, whatever the folder and the path of the started process
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "joyful.sweeper.trainer", str(its), str(os.getpid())],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(its,), text=True, encoding="utf-8",
                    env={**os.environ, **self._environment, "PYTHONPATH": path},
                )  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(its)
        self._answers = os.fdopen(ours, "r", encoding="utf-8")
        return self._process

    def _death(self) -> TrainerEndedError:
        process, self._process = self._process, None
        if process is None:
            return TrainerEndedError("the training process was ended")
        try:
            code = process.wait(GRACE)
        except subprocess.TimeoutExpired:  # it closed the conversation but lives: nothing good comes of it
            process.kill()
            code = process.wait()
        self._forget(process)
        if code == -signal.SIGKILL:
            return TrainerEndedError("its process was killed (by the kernel for want of memory, or by hand)")
        if code < 0:
            return TrainerEndedError(f"its process was ended by {signal.Signals(-code).name}")
        return TrainerEndedError(f"its process ended with code {code}; see {self._log}")

    def _forget(self, process: subprocess.Popen[str]) -> None:
        for stream in (process.stdin, self._answers):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # what was not sent is of no interest any more
        self._answers = None
