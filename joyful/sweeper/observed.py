"""A running trial as an observer sees it: its steps, its pace, and what it does before its first step."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from joyful.records import InputError
from joyful.results import RUN, one_run
from joyful.sweeper.status import params_or_overrides
from joyful.sweeper.study import FOLDER

#: If more new steps of a trial than this are seen at once, only the last one is shown.
MOST_STEPS = 20


class Tracked:
    """A trial that is observed.

    Args:
        frozen: The trial.
        term: Number of claims of the trial so far.
        now: Seconds of a monotonic clock.
        maximize: Whether larger values are better.
    """

    def __init__(self, frozen: FrozenTrial, term: int, now: float, maximize: bool) -> None:
        self.number, self.term, self._maximize = frozen.number, term, maximize
        self.total: int | None = None
        self.of_epochs, self.failures = False, 0
        self._values: dict[int, float | None] = dict(frozen.intermediate_values)
        self._new: list[int] = []
        self._current: dict[int, float] = {}
        self._read_for = -1
        self._first_seen, self._begun = now, 0.0
        start = frozen.datetime_start
        if term == 1 and start is not None:  # an interrupted trial may have started days ago
            self._first_seen -= max(0.0, (datetime.datetime.now() - start).total_seconds())
        self._first_step: tuple[int, float] | None = (len(self._values), now) if self._values else None
        self._last_step = self._first_step
        self.update(frozen)

    def update(self, frozen: FrozenTrial) -> None:
        """Take what the worker has stored of the trial."""
        self.settings: Mapping[str, Any] = params_or_overrides(frozen)
        folder = frozen.user_attrs.get(FOLDER)
        self._folder = Path(folder) if folder else None
        self._read_total()

    @property
    def is_known(self) -> bool:
        """Whether the folder of the trial is known."""
        return self._folder is not None

    def add(self, step: int, value: float | None, now: float) -> None:
        """Add a reported step."""
        self._values[step] = value
        self._new.append(step)
        seen = (len(self._values), now)
        self._first_step, self._last_step = self._first_step or seen, seen
        if self.total is None:
            self._read_total()

    def take_new(self, wait: bool) -> list[int]:
        """Return the new steps, and forget them.

        Args:
            wait: Whether to keep those whose current value is not known yet, because the trial is about to write it.
        """
        new = [step for step in self._new if not wait or step in self._current]
        self._new = [step for step in self._new if step not in new] if len(self._new) <= MOST_STEPS else []
        return new if len(new) <= MOST_STEPS else new[-1:]

    def read_current(self, column: str) -> None:
        """Read the current dev values of a column from history.parquet, if there is a new step."""
        if self._folder is None or not self._values or self._read_for == max(self._values):
            return
        _, history = one_run.read_run_folder("", self._folder, False, [column])
        if history is None or column not in history.column_names:
            return
        rows = history.select(["epoch", "split", column]).to_pylist()
        self._current = {
            int(row["epoch"]): row[column]
            for row in rows
            if row["split"] == "dev" and row["epoch"] is not None and float(row["epoch"]).is_integer()
        }
        self._read_for = max(self._current, default=-1)

    def at(self, step: int | None, has_current: bool) -> tuple[int, float | None, float | None]:
        """Return the number of steps, the current value and the best value; up to a step, or so far.

        Args:
            step: The step; None: the last one.
            has_current: Whether the current value is that of `read_current`, and the reported value the best one.
        """
        steps = sorted(item for item in self._values if step is None or item <= step)
        if not steps:
            return 0, None, None
        values = [value for item in steps if (value := self._values[item]) is not None]
        best = (max if self._maximize else min)(values, default=None)
        if not has_current:
            return len(steps), self._values[steps[-1]], best
        known = [item for item in self._current if item <= steps[-1]]
        return len(steps), self._current[max(known)] if known else None, best

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start, or since this observer first saw a resumed trial."""
        return max(0.0, now - self._first_seen)

    def pace(self) -> float | None:
        """Return the seconds per step, None if they are not known."""
        if self._first_step is None or self._last_step is None:
            return None
        (before, start), (after, end) = self._first_step, self._last_step
        if after > before and end > start:
            return (end - start) / (after - before)
        start = self._begun or self._first_seen
        return (end - start) / after if self.term == 1 and end > start else None

    def left(self, total: int | None, now: float) -> float | None:
        """Return the estimated seconds to the end of the trial."""
        pace = self.pace()
        if pace is None or total is None or self._last_step is None:
            return None
        done, seen = self._last_step
        return max(0.0, pace * (total - done) - (now - seen))

    def phase(self, of_epochs: bool, now: float) -> str:
        """Return what the trial does before its first step; "" if it works on this step.

        Args:
            of_epochs: Whether its program writes run.json before its first step.
            now: Seconds of the monotonic clock.
        """
        if self._folder is None:
            return "preparing"
        if not self._folder.is_dir():
            return "starting the process"
        if self.total is None:
            self._read_total()
        if of_epochs and self.total is None:
            return "loading the data"
        self._begun = self._begun or now
        return ""

    def _read_total(self) -> None:
        """Read the number of epochs from run.json."""
        if self._folder is None:
            return
        try:
            epochs = json.loads((self._folder / RUN).read_bytes())["epochs"]
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return
        if isinstance(epochs, int | float) and epochs >= 1:
            self.total, self.of_epochs = int(epochs), True
