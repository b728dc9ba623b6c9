"""Write imported runs as run folders: all of them or none."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import shown
from joyful.results import InputError, ResultsError, remove_leftovers
from joyful.results.files import temporary_beside
from joyful.results.run_folder import write_finished
from joyful.results.schema import column_order
from joyful.results.tables import columns_bytes

#: Maximum number of runs of an import. Each run is a folder.
MAXIMUM_RUNS = 100_000

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):  # a BaseException like KeyboardInterrupt, so that `except Exception` does not catch it
    """The process received SIGINT or SIGTERM.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Context in which SIGINT and SIGTERM raise `Stopped` in the main thread. Ignored signals stay ignored.

    An error after a signal counts as the signal, because a library that was interrupted may raise any error.
    """
    raised: list[Stopped] = []

    def stop(number: int, frame: FrameType | None) -> None:
        raised.append(Stopped(number))
        raise raised[0]

    with _handlers(stop):
        try:
            yield
        except Exception:
            if not raised:
                raise
            raise raised[0] from None


@contextmanager
def _handlers(handler: Any) -> Iterator[None]:
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, old in previous.items():
            if old is not signal.SIG_IGN:
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


def write_runs(runs: Sequence[ImportedRun], out: Path, source: str) -> list[str]:
    """Write one folder per run into a new folder. Either all runs are written or none.

    The folders contain no times, host names or versions, so the same runs give the same bytes. They are written to a
    hidden folder next to `out`, which is flushed to the disk once and renamed. The next import there removes that
    folder if the process was killed.

    Args:
        runs: The runs. Their arm or settings, and their seeds, are known.
        out: Folder to write to. It must be new or empty.
        source: Name of the imported file or folder, for messages and for the reason of each run.

    Returns:
        The names of the folders, in the order of `runs`.

    Raises:
        InputError: If there are no runs or more than MAXIMUM_RUNS, a run is not valid, or `out` is not a new or empty
            folder.
        ResultsError: If a file cannot be written.
    """
    if not runs:
        raise InputError(f"{source}: expected at least one run, got none; check that it has values")
    if len(runs) > MAXIMUM_RUNS:
        raise InputError(f"{source}: expected at most {MAXIMUM_RUNS} runs, got {len(runs)}; import it in parts")
    check_free(out)
    out = Path(os.path.abspath(out))
    names = _names(runs)
    temporary = temporary_beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent)
        try:
            temporary.mkdir()
            for run, name in shown(list(zip(runs, names, strict=True)), "writing runs"):
                _write(run, temporary / name, source)
            os.sync()  # once, because a flush of each of thousands of files takes minutes
            os.replace(temporary, out)  # also replaces an empty folder
        except BaseException:  # a signal too must not leave a partial import
            with _handlers(signal.SIG_IGN):
                shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        message = f"--out {out}: the folder cannot be written ({error.strerror}); choose another folder"
        raise ResultsError(error.errno, message) from None
    return names


def check_free(out: Path) -> None:
    """Raise InputError unless `out` is a new or an empty folder."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}: expected a new or an empty folder, but it is not empty; choose another folder")


def settings_of(run: ImportedRun) -> dict[str, Any]:
    """Return the settings that a run's run.json holds: the arm, the task, and the others."""
    named = {"arm": run.arm, "task": run.task}
    return {name: value for name, value in named.items() if value is not None} | run.settings


def _write(run: ImportedRun, folder: Path, source: str) -> None:
    import pyarrow.compute as pc

    columns = run.history()
    last = pc.max(columns["epoch"]).as_py()
    header = {
        "objective_name": "best dev f1_weighted", "seed": run.seed, "role": run.role,
        "epochs": int(last) if last is not None and last.is_integer() else last, "config_hash": None, "data": None,
        "git": {"commit": None, "dirty": None}, "versions": {}, "device": None, "threads": None, "started": None,
        "host": None, "choices": {}, "config": _nested(settings_of(run), run.where()),
    }  # fmt: skip
    objective = None
    if "f1_weighted" in columns:
        scores = columns["f1_weighted"].filter(pc.equal(columns["split"], "dev"))
        objective = pc.max(scores.filter(pc.is_finite(scores))).as_py()
    ordered = {name: columns[name] for name in column_order(set(columns)) if name in columns}
    write_finished(folder, header, columns_bytes(ordered), f"imported from {Path(source).name}", objective)


def _nested(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Turn {"a.b": 1} into {"a": {"b": 1}}. Raise InputError if a name is both a setting and a section."""
    config: dict[str, Any] = {}
    hint = "rename one of the two, or select settings with --settings"
    for name, value in settings.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            inner = node.setdefault(section, {})
            if not isinstance(inner, dict):
                raise InputError(f"{place}: setting {name}: {section} is already a setting; {hint}")
            node = inner
        if leaf in node:
            raise InputError(f"{place}: setting {name} is already a section; {hint}")
        node[leaf] = value
    return config


def _names(runs: Sequence[ImportedRun]) -> list[str]:
    """Return a unique and descriptive folder name for each run, of characters that are valid on all file systems."""
    names: list[str] = []
    numbers: dict[str, int] = {}
    taken: set[str] = set()
    for run in runs:
        text = "-".join(str(value) for value in settings_of(run).values())
        slug = re.sub(r"[^A-Za-z0-9.+]+", "_", text).strip("._")[:60] or "arm"
        name = base = f"{slug}-seed-{run.seed}"
        while name.lower() in taken:  # names may collide after replacement or case folding
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base}-{numbers[base]}"
        taken.add(name.lower())
        names.append(name)
    return names
