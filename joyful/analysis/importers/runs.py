"""Imported runs, and writing them as run folders."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyful import results
from joyful.results import InputError, ResultsError

#: Roles of a run.
ROLES = ("comparison", "calibration", "search")

#: Maximum number of runs of an import. Each run is a folder.
MAXIMUM_RUNS = 100_000


@dataclass(frozen=True)
class ImportedRun:
    """A run as logged by another training program.

    Attributes:
        settings: Dotted name -> value. The settings that differ between runs define the arms. "arm" is also a setting.
        seed: The seed.
        role: One of ROLES.
        rows: Function that yields the rows of history.parquet (see `joyful.results.HISTORY_COLUMNS`) in the order of steps.
            It is called once.
        epochs: The last logged epoch. The largest value of all runs of the import is their common budget, so a run that
            ended early has fewer epochs than its budget.
        seconds: Pairs of epoch and wall seconds since the start of the run. Empty if they were not logged.
        place: Position in the source, for messages.
    """

    settings: Mapping[str, str | float | int]
    seed: int
    role: str
    rows: Callable[[], Iterator[dict[str, Any]]]
    epochs: float
    seconds: Sequence[tuple[float, float]] = field(default=())
    place: str = ""


def write_runs(runs: Sequence[ImportedRun], out: Path, source: str) -> list[str]:
    """Write one folder per run into a new folder. Either all runs are written or none.

    The folders contain no times, host names or versions, so the same runs give the same bytes.

    Args:
        runs: The runs.
        out: Folder to write to. It must be new or empty.
        source: Name of the imported file, for messages and for the reason of each run.

    Returns:
        The names of the folders, in the order of `runs`.

    Raises:
        InputError: If there are no runs or more than MAXIMUM_RUNS, or `out` is not a new or empty folder.
        ResultsError: If a file cannot be written.
    """
    if not runs:
        raise InputError(f"{source}: expected at least one run, got none; add rows below the header")
    if len(runs) > MAXIMUM_RUNS:
        expected = f"at most {MAXIMUM_RUNS} runs (combinations of settings and seed), got {len(runs)}"
        raise InputError(f"{source}: expected {expected}; check that the column seed contains seeds")
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}: expected a new or an empty folder, but it is not empty; choose another folder")
    out = Path(os.path.abspath(out))
    names = _names(runs)
    budget = math.ceil(max(run.epochs for run in runs))
    temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.importing")
    try:
        temporary.mkdir(parents=True)
        try:
            for run, name in zip(runs, names, strict=True):
                _write(run, temporary / name, source, budget)
            os.replace(temporary, out)  # This also replaces an empty folder
        except BaseException:  # KeyboardInterrupt too must not leave a partial import
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except ResultsError:
        raise
    except OSError as error:
        message = f"--out {out}: the folder cannot be written ({error.strerror}); choose another folder"
        raise ResultsError(error.errno, message) from None
    return names


def _write(run: ImportedRun, folder: Path, source: str, budget: int) -> None:
    rows = list(run.rows())
    scores = [row["f1_weighted"] for row in rows if row["split"] == "dev" and row.get("f1_weighted") is not None]
    header = {
        "objective_name": "best dev f1_weighted", "seed": run.seed, "role": run.role, "epochs": budget, "config_hash": None,
        "git": {"commit": None, "dirty": None}, "versions": {}, "device": None, "threads": None, "started": None,
        "host": None, "choices": {}, "config": _nested(run.settings, f"{source}{run.place}"),
    }  # fmt: skip
    folder_of_run = results.RunFolder.create(folder, header)
    try:
        folder_of_run.write_history(rows)
        timing = [
            {"epoch": epoch, "phase": "train", "seconds": now - before}
            for (epoch, now), (_, before) in zip(run.seconds, [(0.0, 0.0), *run.seconds], strict=False)
        ]
        if timing:
            folder_of_run.write_timing(timing)
    except InputError as error:
        raise InputError(f"{source}{run.place}: {error}") from None
    finite = [score for score in scores if math.isfinite(score)]
    folder_of_run.set_status("completed", f"imported from {Path(source).name}", max(finite, default=None))


def _nested(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Turn {"a.b": 1} into {"a": {"b": 1}}. Raise InputError if a name is both a setting and a section."""
    config: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            inner = node.setdefault(section, {})
            if not isinstance(inner, dict):
                raise InputError(f"{place}: setting {name}: {section} is already a setting; rename one of the two")
            node = inner
        if leaf in node:
            raise InputError(f"{place}: setting {name} is already a section; rename one of the two")
        node[leaf] = value
    return config


def _names(runs: Sequence[ImportedRun]) -> list[str]:
    """Return a unique and descriptive folder name for each run, of characters that are valid on all file systems."""
    names: list[str] = []
    taken: set[str] = set()
    for run in runs:
        text = "-".join(str(value) for value in run.settings.values())
        slug = re.sub(r"[^A-Za-z0-9.+]+", "_", text).strip("._")[:60] or "arm"
        name = base = f"{slug}-seed-{run.seed}"
        number = 1
        while name.lower() in taken:  # Names may collide after replacement or case folding
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
