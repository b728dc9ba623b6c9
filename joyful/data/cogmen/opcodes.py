"""The opcodes of a pickle, one after another, without executing them.

The readers of the arguments come from `pickletools`. They limit every declared length to the bytes that exist. The one
exception is the text of protocol 0, which `pickletools` reads as ASCII, while Python 2 wrote bytes there.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

_QUOTES = b"'\""


def _quoted_latin_1(stream: BinaryIO) -> str:
    """Read the argument of STRING: a quoted line with escapes, whose bytes Python 2 wrote. They are Latin-1 here."""
    line = stream.readline()
    if len(line) < 3 or line[-1:] != b"\n" or line[0] not in _QUOTES or line[-2] != line[0]:
        raise ValueError("a line of text has no quotes, or no end")
    text: bytes = codecs.escape_decode(line[1:-2])[0]
    return text.decode("latin-1")


#: Byte of an opcode -> its name, and the function that reads its argument; None if it has none.
_OPCODES: dict[bytes, tuple[str, Callable[[Any], Any] | None]] = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg is not None else None)
    for opcode in pickletools.opcodes
} | {b"S": ("STRING", _quoted_latin_1)}


class Opcodes:
    """The opcodes of a pickle in memory. Iteration ends after STOP.

    Args:
        data: The pickle.

    Attributes:
        position: Position of the current opcode.
    """

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)
        self._length = len(data)
        self.position = 0

    @property
    def exhausted(self) -> bool:
        """Whether all bytes of the file have been read."""
        return self._stream.tell() >= self._length

    def skip_to(self, position: int) -> None:
        """Continue with the opcode at `position`."""
        self._stream.seek(position)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, argument).

        Raises:
            ValueError: If the pickle is damaged, or ends before STOP.
        """
        stream = self._stream
        name = ""
        while name != "STOP":
            self.position = stream.tell()
            code = stream.read(1)
            if code not in _OPCODES:
                raise ValueError("the file ends before the pickle does" if not code else f"unknown opcode {code!r}")
            name, read = _OPCODES[code]
            yield name, read(stream) if read is not None else None
