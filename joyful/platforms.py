"""The platforms that joyful runs on: POSIX systems. docs/platforms.md says which of them are tested."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

#: What files and locks need of the module os. Windows has none of these.
NEEDED = ("register_at_fork", "O_NOFOLLOW", "O_DIRECTORY", "statvfs")


def reason_against() -> str:
    """Return why joyful cannot run on this system, on one line, or "".

    Example:
        >>> reason_against()
        ''
    """
    missing = [f"os.{name}" for name in NEEDED if not hasattr(os, name)]
    if find_spec("fcntl") is None:
        missing.append("fcntl")
    if not missing:
        return ""
    return (
        f"expected a POSIX system such as Linux, got {sys.platform}, which lacks {', '.join(missing)}; "
        "on Windows run joyful in WSL 2"
    )


def require() -> None:
    """Check that joyful can run on this system.

    Raises:
        ImportError: If it cannot.
    """
    if reason := reason_against():
        raise ImportError(f"joyful: {reason}")
