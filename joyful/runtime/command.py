"""The command that started this program, as text that a shell reads back."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.messages import without_passwords
from joyful.records import visible
from joyful.runtime.hydra_request import string_text


def program() -> str:
    """Return the start of a command that runs the program, such as "python main.py" or "joyful train"."""
    path = sys.argv[0]
    if path == "joyful train":  # set by joyful.cli, for each way to start it
        return path
    name = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None)
    if name is not None and not name.startswith(("joblib.", "joyful.sweeper.")):  # not in a process of a launcher
        return f"python -m {name.removesuffix('.__main__')}"
    return f"python {shlex.quote(path)}" if path.endswith(".py") else shlex.quote(Path(path).name)


def command(arguments: Sequence[str] | None = None) -> str:
    """Return a command of this program, quoted for a shell and without passwords.

    Args:
        arguments: Its arguments; None: those that were typed.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    return without_passwords(" ".join([program(), *map(_quoted, map(str, typed))]))


def _quoted(text: str) -> str:
    """Return an argument in quotes if the shell needs them, double ones around single ones."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def command_with(argument: str) -> str:
    """Return the typed command with one more argument NAME=VALUE, which replaces one of the same name."""
    name = argument.split("=", 1)[0]
    return command([*(item for item in sys.argv[1:] if item.split("=", 1)[0] != name), argument])


def resuming_run(folder: str | Path) -> str:
    """Return the command that resumes the run in a folder."""
    return command([f"resume={string_text(str(folder))}"])


def resuming_sweep(folder: str | Path) -> str:
    """Return the command that resumes the multirun in a folder: the typed one, with the folder if its name is a date."""
    return command_with(f"hydra.sweep.dir={string_text(str(folder))}") if is_dated(folder) else command()


def is_dated(folder: str | Path) -> bool:
    """Return whether the same command would take another folder, because Hydra names it after the date."""
    return re.search(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d$", str(folder)) is not None


def print_how_to_go_on(folder: str | Path, resuming: str) -> None:
    """Write the folder of an interrupted run or sweep and the command that resumes it to standard error."""
    sys.stderr.write(f"joyful: folder: {visible(str(folder))}\njoyful: to go on: {visible(resuming)}\n")
