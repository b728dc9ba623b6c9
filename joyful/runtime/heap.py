"""The C library's heap as a training wants it: a step frees what the next one allocates again, so freed memory stays, and fits.

By default glibc returns the end of its heap to the system and takes pages of their own for large tensors; the kernel then
clears each page anew, step after step. That was 6 % of a step of the small model and 4 % of the large one
(docs/PERFORMANCE.md).

A tensor is aligned, so glibc cuts a sliver off before and behind it. It keeps slivers for small objects (per-thread cache, fast
bins), which then stand between what two tensors leave: the hole of a tensor has no room for another of its size, and the heap of
a full-size training grows by 0.2 GiB. Without both, slivers and holes become one again; small objects cost no time that could
be measured. The per-thread cache is settled when a process begins, hence `start_over`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

#: Names of glibc's malloc.h.
_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = 1, -1, -3

#: Bytes: no free end of the heap is given back, and only a tensor beyond a gibibyte has pages of its own.
_NEVER, _GIBIBYTE = 2**31 - 1, 2**30

#: Where glibc reads its settings, and the one that is wanted.
VARIABLE, _CACHE = "GLIBC_TUNABLES", "glibc.malloc.tcache_count"

#: Arguments of Hydra programs, and of argparse, that show something and train nothing: such a start is to be quick.
_LOOKS = frozenset({"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--version"})


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, in one piece; returns whether it could be told (glibc alone can).

    The most memory that the process ever has resident stays as it was, or less; from then on it has it until its end.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return False
    settings = {_M_MMAP_THRESHOLD: _GIBIBYTE, _M_TRIM_THRESHOLD: _NEVER, _M_MXFAST: 0}
    return all(mallopt(name, value) for name, value in settings.items())


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to train: as given, glibc's per-thread cache off unless it says something of it."""
    settings = given.get(VARIABLE, "")
    if _CACHE in settings:
        return dict(given)
    return {**given, VARIABLE: ":".join(filter(None, [settings, f"{_CACHE}=0"]))}


def start_over() -> None:
    """Begin this program again in `environment`, in the same process and by the same command, if it is not in it yet.

    For the first line of a program. Only where `python PROGRAM ARGUMENTS...` started it: a debugger, a runner of tests or
    whatever else may stand before it goes on as it is, as does another C library, and a program that is only to show something.
    """
    wanted = environment(os.environ)
    if _LOOKS.intersection(sys.argv):
        return
    if wanted.get(VARIABLE) == os.environ.get(VARIABLE) or sys.orig_argv[1:] != sys.argv or not _is_glibc():
        return
    with suppress(OSError):  # memory alone is lost
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError):  # another system, another C library
        return False
