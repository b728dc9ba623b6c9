"""Find and read the files of a source within bounds, and show the progress."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from joyful.results import InputError
from joyful.results.arms import flatten
from joyful.results.files import open_plain, read_bounded
from joyful.results.reading import natural
from joyful.results.yaml_text import parse_yaml

T = TypeVar("T")

#: Maximum number of files of a source, and of entries of its folders.
MAXIMUM_FILES, MAXIMUM_ENTRIES = 100_000, 2_000_000

#: Maximum size of a JSON file in bytes. It can take 24 times its size in memory.
MAXIMUM_JSON_BYTES = 2**24


def find(source: Path, is_wanted: Callable[[str], bool], expected: str) -> list[tuple[str, Path]]:
    """Return the files of a source.

    Args:
        source: A file, which is taken whatever its name, or a folder, which is searched with its subfolders. Hidden
            folders and symbolic links are not followed.
        is_wanted: Whether a file name is one of the format.
        expected: The files of the format, for messages, such as "files metrics.csv".

    Returns:
        Pairs (name, path) in natural order (2 before 10). The name is the path relative to `source`, with "/"; of a
        file the file name.

    Raises:
        InputError: If there is no such file, or more than MAXIMUM_FILES.
    """
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"{source}: expected a file or a folder with {expected}, found nothing there")
        return [(source.name, source.resolve() if source.is_symlink() else source)]
    found: list[tuple[str, Path]] = []
    stack, entries_seen = [("", os.fspath(source))], 0
    while stack:
        name, folder = stack.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    entries_seen += 1
                    own = f"{name}/{entry.name}" if name else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            stack.append((own, entry.path))
                    elif entry.is_file(follow_symlinks=False) and is_wanted(entry.name):
                        found.append((own, Path(entry.path)))
        except OSError as error:
            raise InputError(f"{folder}: the folder cannot be listed ({error.strerror})") from None
        if len(found) > MAXIMUM_FILES or entries_seen > MAXIMUM_ENTRIES:
            raise InputError(
                f"{source}: expected at most {MAXIMUM_FILES} files in it; import its subfolders separately"
            )
    if not found:
        raise InputError(f"{source}: expected a folder with {expected}, got none in it or its subfolders")
    return sorted(found, key=lambda item: natural(item[0]))


def read_file(path: Path, expected: str, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        InputError: If the file cannot be read. The message names it and says that `expected` was expected.
    """
    try:
        return read_bounded(path, limit)
    except InputError as error:
        raise InputError(f"{path}: {error}; expected {expected}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from None


def open_file(path: Path, expected: str) -> io.BufferedReader:
    """Open a regular file. Raise InputError if it cannot be opened; the message says that `expected` was expected."""
    try:
        return open_plain(path)
    except InputError as error:
        raise InputError(f"{path}: {error}; expected {expected}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from None


def read_json(path: Path, expected: str) -> Any:
    """Return the value of a JSON file.

    Raises:
        InputError: If the file cannot be read or is not JSON. The message names it, and the line of the error.
    """
    data = read_file(path, expected, MAXIMUM_JSON_BYTES)
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg}); expected {expected}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON in UTF-8, or nested too deeply; expected {expected}") from None


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file, without constructing objects; None if there is no such file.

    Raises:
        InputError: If the file cannot be read or is not YAML. The message names it.
    """
    if not path.is_file():
        return None
    data = read_file(path, "a YAML file", 2**20)
    try:
        return parse_yaml(data)
    except InputError as error:
        raise InputError(f"{path}: {error}; correct or remove the file") from None


def read_hparams(path: Path) -> dict[str, Any]:
    """Return the settings in the file hparams.yaml beside a file, by dotted name; {} if there is none."""
    settings = read_yaml(path.with_name("hparams.yaml"))
    return flatten(settings) if isinstance(settings, dict) else {}


def optional_module(name: str, package: str) -> Any:
    """Import a module that only some installations have.

    Raises:
        InputError: If it is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"this format needs the package {package}; run pip install 'joyful-sweeps[import]'") from None


def shown(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items, with a progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with _progress() as progress:
        yield from progress.track(items, description=what)


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield the items, whose number is not known, with a count on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with _progress() as progress:
        task, iterator, done = progress.add_task(what, total=None), iter(items), 0
        while block := list(itertools.islice(iterator, 1_000)):
            yield from block
            done += len(block)
            progress.update(task, completed=done, description=f"{what} ({done})")


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)
