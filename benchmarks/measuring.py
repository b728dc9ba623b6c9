"""Measuring: contenders in turn, each in a separate process, with peak memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from joyful.runtime import heap

ROOT = Path(__file__).resolve().parents[1]


def in_turn(contenders: Mapping[str, Callable[[], float]], repeats: Mapping[str, int]) -> dict[str, list[float]]:
    """Call the contenders in turn, round after round, and return the measurements of each.

    Other work on the machine then disturbs all contenders alike. A contender is called repeats[name] times. If the
    numbers differ, the calls of the less frequent contenders are spread evenly over the rounds.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    rounds = max(repeats[name] for name in contenders)
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            if len(measured[name]) < number * repeats[name] // rounds:
                measured[name].append(contender())
    return measured


def seconds_of(action: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    clock = time.perf_counter()
    action()
    return time.perf_counter() - clock


class RemoteContender:
    """A contender in a separate process, `python -m MODULE ARGUMENTS`, which calls `serve`.

    Contenders therefore share no heap, threads or settings. A call makes the process measure once and returns the
    seconds; it raises CalledProcessError if the process fails. Used as a context manager, it kills the process at the
    end of the block. The process has the settings of the C library's heap that run.py uses (joyful.runtime.heap).
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT,
            env=heap.training_environment(os.environ),
        )  # fmt: skip

    def __call__(self) -> float:
        return self._request("measure")

    def peak_memory_gib(self) -> float:
        """Return the peak resident memory of the process, in GiB."""
        return self._request("memory")

    def _request(self, command: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # the missing answer below reports the failure
            self._process.stdin.write(f"{command}\n")
        for line in self._process.stdout:
            if line.startswith(_ANSWER_PREFIX):
                return float(line.removeprefix(_ANSWER_PREFIX))
        raise subprocess.CalledProcessError(self._process.wait(), self._process.args)

    def __enter__(self) -> RemoteContender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(module: str, arguments: Sequence[str], names: Iterable[str]) -> Iterator[dict[str, RemoteContender]]:
    """Start `python -m MODULE ARGUMENTS --serve NAME` for each name, and end these processes with the block."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(RemoteContender(module, [*arguments, "--serve", name])) for name in names}


def serve(contender: Callable[[], float]) -> None:
    """Answer the requests of a RemoteContender on standard input, until it closes."""
    for line in sys.stdin:
        answer = contender() if line.strip() == "measure" else peak_memory_gib()
        print(f"{_ANSWER_PREFIX}{answer}", flush=True)


#: Prefix of each answer, because a contender may print other lines.
_ANSWER_PREFIX = "measured: "


def run_module(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS`, and return the JSON object in its last line of output.

    Raises:
        subprocess.CalledProcessError: If the process fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def peak_memory_gib() -> float:
    """Return the peak resident memory of this process since its start or `reset_peak_memory`, in GiB.

    The value is VmHWM where the system has it. ru_maxrss survives exec, so a child of a large process would report the
    peak of its parent.
    """
    peak = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 if peak is None else peak


def reset_peak_memory() -> float:
    """Reset the peak of resident memory (Linux), and return the memory that is resident now, in GiB.

    If the system does not allow it, the peak stays and is returned.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_memory_gib()
    resident = _status("VmRSS")
    return peak_memory_gib() if resident is None else resident


def _status(name: str) -> float | None:
    """Return a field of /proc/self/status in GiB, or None if there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith(f"{name}:")), None)
