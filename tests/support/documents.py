"""Parts of a Markdown page that can be checked: commands, Python blocks, anchors and file names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Programs. A line of an indented block that starts with one of them is a command.
PROGRAMS = ("python", ".venv/bin/python", "make", "papermill", "optuna-dashboard", "cp", "pip")

#: Top-level folders of the repository. Names of files in them are checked.
FOLDERS = ("analysis", "benchmarks", "conf", "docs", "examples", "joyful", "study", "sweeps", "tests")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        where: Name of the page and line number.
        words: Words of the command, split as by a shell. $JOYFUL_DATA is not yet replaced.
        settings: Environment settings NAME=VALUE before the command.
    """

    where: str
    words: tuple[str, ...]
    settings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass
class Page:
    """Commands and Python blocks of a page, in their order."""

    commands: list[Command] = field(default_factory=list)
    pythons: list[str] = field(default_factory=list)


def read(path: Path) -> Page:
    """Read the commands and Python blocks of a page."""
    page, fence = Page(), None
    block: list[str] = []
    lines = iter(enumerate(path.read_text().splitlines(), start=1))
    for number, line in lines:
        if match := re.match(r"\s*```(\w*)", line):
            if fence == "python":
                page.pythons.append("\n".join(block))
            fence, block = (match[1] or "text", []) if fence is None else (None, [])
            continue
        block.append(line)
        shell = fence in ("bash", "shell")  # a block of sh is a script
        if fence == "console":
            shell, line = line.startswith("$ "), line.removeprefix("$ ")
        is_command = re.sub(r"^([A-Z_]+=\S* )*", "", line.strip()).split(" ")[0] in PROGRAMS
        if not (shell or (fence is None and line.startswith("    ") and is_command)) or not line.strip():
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        words = shlex.split(line, comments=True)
        settings = []
        while words and re.match(r"[A-Z_]+=", words[0]):
            settings.append(words.pop(0))
        if words:
            words[0] = words[0].removeprefix(".venv/bin/")
            page.commands.append(Command(f"{path.name}:{number}", tuple(words), tuple(settings)))
    assert fence is None, f"{path.name}: a fenced block is not closed"
    return page


def heading_anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub forms them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_files(text: str) -> Iterator[str]:
    """Yield the names of files of the repository, such as `a/b.py`, `docs/X.md` and `tests/faults/`.

    Names with placeholders such as NAME or FOLDER are skipped.
    """
    for token in re.findall(r"`([\w./*-]+)`", text):
        in_repository = token.split("/")[0] in FOLDERS and "/" in token
        if (in_repository or re.search(r"\.(py|md|cff|ipynb|toml)$", token)) and not re.search(
            r"\b[A-Z]{3,}\b(?!\.(md|cff))|NAME", token
        ):
            yield token
