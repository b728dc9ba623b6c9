"""How the benchmarks measure: in turn, by medians, each contender in a process of its own."""

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
    """Call each contender in turn, round after round, and return what each measured.

    A contender is called repeats[name] times; where the numbers differ, those that are called less often are spread
    evenly over the rounds. So whatever disturbs the machine disturbs all of them.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    rounds = max(repeats[name] for name in contenders)
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            if len(measured[name]) < number * repeats[name] // rounds:
                measured[name].append(contender())
    return measured


def seconds_of(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    clock = time.perf_counter()
    action()
    return time.perf_counter() - clock


class Served:
    """A contender that lives in `python -m MODULE ARGUMENTS`, which serves it: so none has another's heap, threads or settings.

    Called, it makes that process measure once, and returns the seconds. As a context, it ends the process with the block.
    The C library's heap is as run.py has it (joyful.runtime.heap). Raises CalledProcessError where the process fails.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT,
            env=heap.environment(os.environ),
        )  # fmt: skip

    def __call__(self) -> float:
        return self._ask("measure")

    def peak_memory_gib(self) -> float:
        """The most memory that the process has had resident, GiB."""
        return self._ask("memory")

    def _ask(self, what: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # (the answer will be missing, which says the same)
            self._process.stdin.write(f"{what}\n")
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                return float(line.removeprefix(_ANSWER))
        raise subprocess.CalledProcessError(self._process.wait(), self._process.args)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(module: str, arguments: Sequence[str], names: Iterable[str]) -> Iterator[dict[str, Served]]:
    """Contenders of a benchmark by name, each served by `python -m MODULE ARGUMENTS --serve NAME` until the block ends."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Served(module, [*arguments, "--serve", name])) for name in names}


def serve(contender: Callable[[], float]) -> None:
    """Answer a Served on standard input and output, until it ends."""
    for line in sys.stdin:
        answer = contender() if line.strip() == "measure" else peak_memory_gib()
        print(f"{_ANSWER}{answer}", flush=True)


#: Before each answer, since a contender may print too.
_ANSWER = "measured: "


def in_a_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What `python -m MODULE ARGUMENTS` prints in its last line, as JSON. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def peak_memory_gib() -> float:
    """The most memory that this process had resident, GiB, in its life or since `forget_peak_memory`.

    Taken from VmHWM: ru_maxrss survives exec, so a process that a large one started would report its parent's peak.
    """
    found = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 if found is None else found


def forget_peak_memory() -> float:
    """Begin the peak anew (Linux); returns the memory that is resident now, GiB.

    Where the system does not allow it, the peak of the process's life stands and is returned.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_memory_gib()
    found = _status("VmRSS")
    return peak_memory_gib() if found is None else found


def _status(name: str) -> float | None:
    """A number of /proc/self/status in GiB, None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith(f"{name}:")), None)
