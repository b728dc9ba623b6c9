"""The identity of a process: machine, process id and start time.

The kernel reuses process ids. Together with the start time, a process id identifies one process permanently.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from joyful.results.machine import machine


@dataclass(frozen=True)
class Identity:
    """The identity of a process.

    Attributes:
        machine: The name from `joyful.results.machine`.
        pid: The process id.
        start_time: On Linux in clock ticks since boot, which changes of the clock do not affect. Elsewhere in seconds
            since the epoch.
    """

    machine: str
    pid: int
    start_time: float

    @property
    def is_local(self) -> bool:
        """Whether the process runs, or ran, on this machine."""
        return self.machine == machine()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended. False for processes of other machines, which cannot be observed."""
        return self.is_local and _start_time(self.pid) != self.start_time

    @property
    def is_stopped(self) -> bool:
        """Whether a process of this machine is stopped (SIGSTOP, Ctrl-Z). False on systems without /proc."""
        return (_stat(self.pid) or [b""])[0] in (b"T", b"t")

    def kill(self) -> None:
        """Kill a process of this machine, unless it has ended. Its process id may belong to another process by now."""
        if self.is_local and not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def current_process() -> Identity:
    """Return the identity of the calling process.

    Example:
        >>> current_process().is_local, current_process().has_ended
        (True, False)
    """
    return Identity(machine(), os.getpid(), _start_time(os.getpid()) or 0.0)


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third on, the state; None without this file."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # the second field, the command name in parentheses, may contain anything
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return None


def _start_time(pid: int) -> float | None:
    """Return the start time of a process as in `Identity`, None if it has ended. A zombie counts as ended."""
    fields = _stat(pid)
    if fields is not None:
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    if Path("/proc/self/stat").exists():
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
