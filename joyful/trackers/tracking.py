"""The trackers of one run: start or continue them, pass on what the run writes, and leave out those that fail.

The file trackers.json in the folder of a run says which trackers it has, under which ids, and up to which step. A
resumed run goes on with them, and no step is logged twice.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from joyful.records import InputError, first_line_of, print_error
from joyful.results import find_runs, write_json
from joyful.results.files import read_bounded
from joyful.trackers.tracker import TRACKERS, TrackedRun, Tracker

STATE = "trackers.json"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class _Entry:
    """What trackers.json says of a tracker: its id, the last logged step, and whether the run has finished there."""

    id: str
    step: int = -1
    finished: bool = False


class Tracking:
    """The trackers of one run. A tracker that fails is reported once, on one line, and left out from then on.

    Args:
        names: Names of trackers. Those that an earlier process of the run has used are added.
        run: The run.
        unfinished_only: Whether to leave out the trackers in which the run has finished.
    """

    def __init__(self, names: Iterable[str], run: TrackedRun, *, unfinished_only: bool = False) -> None:
        self._entries, levels = _read(run.folder)
        if run.sweep is None and levels:  # a run of a sweep that is resumed alone
            run = replace(run, sweep=run.folder.parents[levels - 1])
        self._run = run
        self._open: dict[str, Tracker] = {}
        self._broken = False  # whether trackers.json cannot be written
        for name in dict.fromkeys((*self._entries, *names)):
            if not (unfinished_only and name in self._entries and self._entries[name].finished):
                self._guard(name, partial(self._start, name))
        self._save()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Pass on values at a step. Values that are not finite are left out.

        Args:
            values: Name -> value.
            step: The step. A tracker that has it already gets nothing.
        """
        values = _finite(values)
        waiting = [name for name in self._open if values and step > self._entries[name].step]
        for name in waiting:
            self._guard(name, partial(self._open[name].log, values, step))
            if name in self._open:
                self._entries[name].step = step
        if waiting:
            self._save()

    def attach(self, files: Mapping[str, Path]) -> None:
        """Pass on files: name -> path. Each call is a step of its own."""
        for name, tracker in list(self._open.items()):
            self._entries[name].step += 1
            self._guard(name, partial(tracker.attach, files, self._entries[name].step))

    def finish(self, status: str, scores: Mapping[str, float] | None = None) -> None:
        """End the run in all trackers.

        Args:
            status: "completed", "pruned", "failed", or "interrupted" for a run that is to be resumed.
            scores: Final scores, name -> value. Those that are not finite are left out, and all of an interrupted run.
        """
        scores = _finite(scores or {}) if status != "interrupted" else {}
        for name, tracker in list(self._open.items()):
            entry = self._entries[name]
            self._guard(name, partial(tracker.finish, status, scores, max(0, entry.step)))
            entry.finished = name in self._open and status != "interrupted"
        if self._open:
            self._save()
        self._open.clear()

    def _start(self, name: str) -> None:
        earlier = self._entries.get(name)
        tracker = TRACKERS[name](self._run, earlier.id if earlier else None, earlier.step if earlier else -1)
        if earlier is None or tracker.id != earlier.id:  # the tracker has lost the earlier run
            self._entries[name] = _Entry(tracker.id)
        self._entries[name].finished = False
        self._open[name] = tracker

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._open.pop(name, None)
            print_error(f"track={name}: {first_line_of(error)}; {self._run.name} goes on without this tracker")

    def _save(self) -> None:
        """Write trackers.json, if there is a tracker."""
        if not self._entries or self._broken:
            return
        sweep = self._run.sweep
        levels = 0 if sweep is None else len(self._run.folder.relative_to(sweep).parts)
        try:
            write_json(
                self._run.folder / STATE,
                {"levels": levels, "trackers": {name: vars(entry) for name, entry in self._entries.items()}},
            )
        except Exception as error:
            self._broken = True
            print_error(f"track: {first_line_of(error)}; {self._run.name} starts anew in its trackers if it is resumed")


def by_step(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Return the values of rows of a history by their step.

    Args:
        rows: Rows of history.parquet, in their order.

    Returns:
        Step -> name such as "dev/f1_weighted" -> value. The epoch, if there is one, is "epoch".

    Example:
        >>> by_step([{"step": 4, "epoch": 1.0, "split": "dev", "nll": 0.5}, {"step": 4, "epoch": 1.0, "split": "test", "nll": 0.7}])
        {4: {'epoch': 1.0, 'dev/nll': 0.5, 'test/nll': 0.7}}
    """
    steps: dict[int, dict[str, float]] = {}
    for row in rows:
        values = steps.setdefault(int(row["step"]), {})
        if row.get("epoch") is not None:
            values["epoch"] = row["epoch"]
        values |= {
            f"{row['split']}/{name}": value
            for name, value in row.items()
            if name not in ("step", "epoch", "split") and value is not None
        }
    return steps


def attach_report(folder: Path, files: Mapping[str, Path], counts: Mapping[str, float]) -> None:
    """Store a report in the trackers of the runs that it judges. Nothing happens if none was tracked.

    Args:
        folder: The folder of the sweep.
        files: Files of the report, name -> path.
        counts: Verdict -> how many claims have it.
    """
    names = dict.fromkeys(name for _, run in find_runs(folder) for name in _read(run)[0])
    if not names:
        return
    place = folder.resolve()
    alone = any(run.resolve() == place for _, run in find_runs(folder))
    tracking = Tracking(names, TrackedRun(place, sweep=None if alone else place))
    tracking.attach(files)
    tracking.finish("completed", {f"verdicts/{name.replace(' ', '_')}": float(n) for name, n in counts.items()})


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _read(folder: Path) -> tuple[dict[str, _Entry], int]:
    """Return what trackers.json of a run says: its trackers, and how many folders the sweep is above the run.

    A damaged file counts as none. The folder may come from elsewhere, so ids and levels are checked.
    """
    try:
        content = json.loads(read_bounded(folder / STATE, 2**16))
        levels, trackers = content["levels"], content["trackers"]
        entries = {name: _Entry(**entry) for name, entry in trackers.items() if name in TRACKERS}
        valid = all(
            _ID.fullmatch(entry.id) and type(entry.step) is int and type(entry.finished) is bool
            for entry in entries.values()
        )
        if not valid or type(levels) is not int or not 0 <= levels <= len(folder.parents):
            return {}, 0
    except (OSError, ValueError, InputError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, 0
    return entries, levels
