"""Configure the heap of the C library for training: keep freed memory, because the next step allocates it again.

By default glibc returns the end of its heap to the system and maps separate pages for large tensors. The kernel then
clears these pages again in every step: 46,000 page faults and 10 % of the processor time of an epoch of the small
model, 50,000 and 2 % of a step at full size. `keep_freed_memory` avoids this.

Tensors are aligned, so glibc splits off a small piece before and after each. It keeps these pieces for small objects,
in its per-thread cache and fast bins. They then separate the space that two tensors leave, so the next tensor of the
same size does not fit, and the heap grows. With both turned off, neighbouring free pieces are merged: a training at
full size has a peak of 1.32 instead of 1.53 GiB and takes 1 % less processor time. The per-thread cache can only be set
when a process starts, hence `restart_with_heap_settings`.

Measured in turn in November 2026 on a shared AMD EPYC with AVX-512, one thread, glibc 2.36 and torch 2.13.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

#: Parameters from malloc.h of glibc.
_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = 1, -1, -3

#: Thresholds in bytes: never return the end of the heap, and map separate pages only for tensors of more than 1 GiB.
_NEVER, _GIBIBYTE = 2**31 - 1, 2**30

#: The environment variable with the settings of glibc, and the setting of the per-thread cache.
VARIABLE, _CACHE = "GLIBC_TUNABLES", "glibc.malloc.tcache_count"

#: Arguments of Hydra and argparse that only print something. These commands skip the restart to stay fast.
PRINTING_ARGUMENTS = frozenset({"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--version"})


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory and merge free pieces.

    The peak of resident memory does not increase, but the process keeps that memory until it ends.

    Returns:
        Whether the settings were made. Only glibc has them.
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


def training_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with the per-thread cache of glibc turned off, for a process that trains.

    Args:
        environment: The environment to extend. If it sets the cache itself, that setting is kept.
    """
    settings = environment.get(VARIABLE, "")
    if _CACHE in settings:
        return dict(environment)
    return {**environment, VARIABLE: ":".join(filter(None, [settings, f"{_CACHE}=0"]))}


def restart_with_heap_settings() -> None:
    """Restart this program in `training_environment`, in the same process and with the same command.

    Call it in the first line of a program. It does nothing if the environment is already set, if the C library is not
    glibc, for arguments that only print something, and unless the program was started as `python PROGRAM ARGUMENTS...`
    (a debugger or a test runner starts it in another way).
    """
    environment = training_environment(os.environ)
    if PRINTING_ARGUMENTS.intersection(sys.argv):
        return
    if environment.get(VARIABLE) == os.environ.get(VARIABLE) or sys.orig_argv[1:] != sys.argv or not _is_glibc():
        return
    with suppress(OSError):  # without the restart the program only needs more memory
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError):  # not Linux, or another C library
        return False
