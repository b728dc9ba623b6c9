"""The C library's heap as a training wants it: a step frees what the next one allocates again, so freed memory stays.

By default glibc returns the end of its heap to the system and takes pages of their own for large tensors; the kernel then
clears each page anew, step after step. That was 6 % of a step of the small model and 4 % of the large one
(docs/PERFORMANCE.md).
"""

from __future__ import annotations

import ctypes
import sys

#: Names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Bytes: no free end of the heap is given back, and only a tensor beyond a gibibyte has pages of its own.
_NEVER, _GIBIBYTE = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it could be told (glibc alone can).

    The most memory that the process ever has resident stays as it was; from then on it has it until its end.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _GIBIBYTE)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
