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


def current_process() -> Identity:
    """Return the identity of the calling process.

    Example:
        >>> is_local(current_process())
        True
        >>> has_ended(current_process())
        False
    """
    return Identity(machine(), os.getpid(), _start_time(os.getpid()) or 0.0)


def is_local(identity: Identity) -> bool:
    """Return whether the process runs, or ran, on this machine."""
    return identity.machine == machine()


def has_ended(identity: Identity) -> bool:
    """Return whether a process of this machine has ended. A zombie counts as ended."""
    return _start_time(identity.pid) != identity.start_time


def is_stopped(identity: Identity) -> bool:
    """Return whether a process of this machine is stopped (SIGSTOP, Ctrl-Z). False on systems without /proc."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{identity.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def _start_time(pid: int) -> float | None:
    """Return the start time of a process as in `Identity`, None if it has ended."""
    try:
        # The command name is in parentheses and may contain anything. The state is the first field after it, the start
        # time the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def kill(identity: Identity) -> None:
    """Kill a process of this machine, unless it has ended. Its process id may belong to another process by now."""
    if not has_ended(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)
