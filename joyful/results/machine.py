"""The name of this machine, used to decide whether a process can be checked for being alive, and its cores."""

from __future__ import annotations

import os
import socket
import uuid
from functools import lru_cache
from pathlib import Path


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Return a name that two processes share exactly if they can see each other's process numbers.

    On Linux it consists of the host name, the boot and the process namespace, so containers and restarts differ.
    """
    return _machine(os.getpid())


@lru_cache(maxsize=1)
def _machine(pid: int) -> str:
    """Return the name for a process, which is asked for once: a worker compares it with that of each other worker."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()[:40]}-{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()[:40]}-{uuid.getnode():x}"
