"""Who a process is, so that others can tell whether it lives: machine, process number and the moment of its start.

A process number alone is used again by the kernel; with the start time it names one process for ever.
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
    """machine: see `joyful.results.machine`. born: the process's start, see `_birth`."""

    machine: str
    pid: int
    start_time: float


def own() -> Identity:
    """The identity of the calling process."""
    return Identity(machine(), os.getpid(), _birth(os.getpid()) or 0.0)


def is_local(identity: Identity) -> bool:
    """Whether this process can see that one."""
    return identity.machine == machine()


def is_gone(identity: Identity) -> bool:
    """Whether a process of this machine has ended (a zombie has). Meaningless for processes of other machines."""
    return _birth(identity.pid) != identity.start_time


def is_stopped(identity: Identity) -> bool:
    """Whether a process of this machine stands still (SIGSTOP, Ctrl-Z); False where that cannot be seen."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{identity.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def _birth(pid: int) -> float | None:
    """When the process was started, None for one that has ended. On Linux in clock ticks since the machine's start: unlike a time
    of day it stays the same when somebody sets the clock."""
    try:
        # the name, in parentheses, may hold anything; the state is the first field behind it, the start the twentieth
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
    """Kill a process of this machine, if it is still that one: a frozen process that has lost its trial must not wake in it."""
    if not is_gone(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)
