"""Output to a program that has ended, such as ``head -1``, does not end this program."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Descriptor(io.FileIO):
    """A descriptor that becomes /dev/null when the reader of its pipe has closed it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # also for the processes that this one starts
            os.close(null)
            return len(data)


def tolerate() -> None:
    """Make standard output and error discard what is written after the reader of their pipe has closed it.

    Otherwise, the first such write ends a training with an error. Only pipes of the process itself are changed. A
    second call does nothing.
    """
    sys.stdout = _tolerant(sys.stdout, sys.__stdout__)
    sys.stderr = _tolerant(sys.stderr, sys.__stderr__)


def _tolerant(stream: Any, original: Any) -> Any:
    if stream is None or stream is not original:
        return stream
    stream.flush()
    raw: Any = _Descriptor(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),  # python -u writes through
        stream.encoding, stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
