"""What every importer yields, and how it becomes run folders."""

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

ROLES = ("comparison", "calibration", "search")

#: More runs than this are not imported: each is a folder.
MAXIMUM_RUNS = 100_000


@dataclass(frozen=True)
class ImportedRun:
    """One run as another trainer logged it.

    settings: dotted name -> value; what differs between the runs makes the arms ("arm" is a setting like others).
    rows: yields the rows of history.parquet (see `joyful.results.HISTORY_COLUMNS`), in the order of steps; called once.
    epochs: the last epoch that was logged. A run's budget is the most that any run of the import has, so that one which
        ended early is known as such.
    seconds: (epoch, wall seconds since the start) of evaluations, where they were logged.
    place: where the source has it, for messages.
    """

    settings: Mapping[str, str | float | int]
    seed: int
    role: str
    rows: Callable[[], Iterator[dict[str, Any]]]
    epochs: float
    seconds: Sequence[tuple[float, float]] = field(default=())
    place: str = ""


def write_runs(runs: Sequence[ImportedRun], out: Path, source: str) -> list[str]:
    """Write a folder for each run below the new folder `out`, all or none; returns their names in the order of `runs`.

    The same runs give the same bytes: no times, machines or versions of this program go in.
    Raises InputError where there are no runs or too many, or `out` exists; ResultsError when the disk refuses.
    """
    if not runs:
        raise InputError(f"{source}: expected at least one run, found none")
    if len(runs) > MAXIMUM_RUNS:
        raise InputError(
            f"{source}: {len(runs)} runs (combinations of settings and seed); at most {MAXIMUM_RUNS} are imported: is "
            "the column named seed really the seed?"
        )
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}: expected a new or an empty folder, but it holds something; choose another")
    out = Path(os.path.abspath(out))
    names = _names(runs)
    budget = math.ceil(max(run.epochs for run in runs))
    temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.importing")
    try:
        temporary.mkdir(parents=True)
        try:
            for run, name in zip(runs, names, strict=True):
                _write(run, temporary / name, source, budget)
            os.replace(temporary, out)  # an empty folder may stand there
        except BaseException:  # an interrupt too must leave no half of an import behind
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except ResultsError:
        raise
    except OSError as error:
        message = f"--out {out} cannot be written ({error.strerror}); choose another folder"
        raise ResultsError(error.errno, message) from None
    return names


def _write(run: ImportedRun, folder: Path, source: str, budget: int) -> None:
    rows = list(run.rows())
    scores = [row["f1_weighted"] for row in rows if row["split"] == "dev" and row.get("f1_weighted") is not None]
    header = {
        "objective_name": "best dev f1_weighted",
        "seed": run.seed,
        "role": run.role,
        "epochs": budget,
        "config_hash": None,
        "git": {"commit": None, "dirty": None},
        "versions": {},
        "device": None,
        "threads": None,
        "started": None,
        "host": None,
        "choices": {},
        "config": _nested(run.settings, f"{source}{run.place}"),
    }
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
    """{"a.b": 1} -> {"a": {"b": 1}}. Raises InputError where a name is a setting and a section at once."""
    config: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            inner = node.setdefault(section, {})
            if not isinstance(inner, dict):
                raise InputError(f"{place}: setting {name}: {section} is a setting already; rename one of the two")
            node = inner
        if leaf in node:
            raise InputError(f"{place}: setting {name} is a section already; rename one of the two")
        node[leaf] = value
    return config


def _names(runs: Sequence[ImportedRun]) -> list[str]:
    """A folder name for each run that says what it is, made of letters that every file system takes, all different."""
    names: list[str] = []
    taken: set[str] = set()
    for run in runs:
        text = "-".join(str(value) for value in run.settings.values())
        slug = re.sub(r"[^A-Za-z0-9.+]+", "_", text).strip("._")[:60] or "arm"
        name = base = f"{slug}-seed-{run.seed}"
        number = 1
        while name.lower() in taken:  # two names that differ only in other letters, on a file system that folds case
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
