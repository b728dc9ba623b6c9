"""The name of this machine, used to decide whether a process can be checked for being alive."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path


def machine() -> str:
    """Return a name that two processes share exactly if they can see each other's process numbers.

    On Linux it consists of the host name, the boot and the process namespace, so containers and restarts differ.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()[:40]}-{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()[:40]}-{uuid.getnode():x}"
