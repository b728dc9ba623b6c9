"""Programs in a pseudo terminal of a given width, and the lines that a terminal shows in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: A control sequence, such as a colour.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


class TerminalProgram:
    """A program whose standard streams are a terminal.

    Args:
        command: The command.
        folder: Its working folder.
        columns: Width of the terminal.
        environment: Environment variables to set.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, columns: int = 80, environment: Mapping[str, str] | None = None
    ) -> None:
        self._main, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "LC_ALL")}
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=end, stdout=end, stderr=end, start_new_session=True,
            env=variables | {"TERM": "xterm", "LANG": "C.UTF-8"} | dict(environment or {}),
        )  # fmt: skip
        os.close(end)
        self.output = ""
        self.start = time.monotonic()

    def read(self) -> Iterator[float]:
        """Read the output until the program ends. Yields the seconds since its start after each piece."""
        while True:
            try:
                data = os.read(self._main, 65536)
            except OSError:  # the terminal has no program any more
                data = b""
            if not data:
                break
            self.output += data.decode(errors="replace")
            yield time.monotonic() - self.start
        os.close(self._main)
        self.process.wait()


def lines_of(output: str) -> list[str]:
    """Return all lines that were written, without control sequences."""
    return [CONTROL.sub("", line).rstrip() for line in re.split(r"[\r\n]+", output)]
