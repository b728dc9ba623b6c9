"""Display of a sweep: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from joyful.records import clock, visible
from joyful.runtime.text_table import is_ascii
from joyful.sweeper.live import LiveState
from joyful.sweeper.metric import format_value
from joyful.sweeper.panel import draw, step_line
from joyful.sweeper.status import Snapshot
from joyful.sweeper.view_text import describe_claims, describe_paused, format_line, format_settings, judged, time_left

#: Seconds between two plain lines while no trial finishes.
LINE_SECONDS = 60.0

#: Reading the study may take at most this share of the time. A read of more than CHEAP_SECONDS is followed by a pause
#: of at most MAXIMUM_PAUSE seconds.
MAXIMUM_SHARE, CHEAP_SECONDS, MAXIMUM_PAUSE = 0.02, 0.02, 10.0

#: During the first seconds, when workers start and data are loaded, the pause is shorter.
FIRST_SECONDS, FIRST_PAUSE = 60.0, 1.0


class SweepView:
    """Shows a running sweep on standard error. A context manager.

    Args:
        read: Returns the current state of the sweep.
        folder: The sweep folder.
        console: The console; None: standard error.
        idle: What the sweep does while no trial runs and no worker has joined yet.
    """

    def __init__(
        self,
        read: Callable[[], LiveState],
        folder: Path,
        console: Console | None = None,
        idle: str = "the workers are starting",
    ) -> None:
        self._read, self._folder, self._idle = read, folder, idle
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._start = time.monotonic()
        self._last_counts: tuple[int, ...] | None = None
        self._last_print = 0.0
        self._next_read = self._read_at = 0.0
        self._failures: set[int] = set()
        self._ended: dict[int, int] = {}
        self._state: LiveState | None = None

    def __enter__(self) -> Self:
        # a dumb terminal cannot erase what it shows
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stderr=False,
                vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif error is None:
            self._next_read = 0.0
            self.update()  # the last steps

    def update(self) -> None:
        """Show the current state, unless reading it took long and is paused.

        Without a terminal, print a line for each new step, and one if a trial has finished or once a minute.
        """
        start = time.monotonic()
        if start < self._next_read:
            self._draw(start)
            return
        self._state = state = self._read()
        self._read_at = now = time.monotonic()
        if (seconds := now - start) > CHEAP_SECONDS:
            longest = FIRST_PAUSE if now - self._start < FIRST_SECONDS else MAXIMUM_PAUSE
            self._next_read = now + min(seconds / MAXIMUM_SHARE - seconds, longest)
        if self._live is not None:
            self._print_failures(state)
            self._draw(now)
        else:
            self._print_lines(state, now)

    def _draw(self, now: float) -> None:
        """Draw the picture in a terminal, with the times of now."""
        if self._live is not None and self._state is not None:
            waiting, ago = self._waiting(self._state, now), now - self._read_at
            lines = draw(self._state, str(self._folder), self._console, waiting, ago)
            self._live.update(Group(*lines), refresh=True)

    @property
    def is_finished(self) -> bool:
        """Whether all trials were finished when the state was read last."""
        return self._state is not None and self._state.snapshot.done >= self._state.snapshot.n_trials

    def _waiting(self, state: LiveState, now: float) -> str:
        """Return what the sweep does while no trial runs."""
        snapshot = state.snapshot
        since = clock(now - self._start)
        if snapshot.done >= snapshot.n_trials:
            return "all trials are finished"
        if snapshot.workers:
            return (
                f"{snapshot.workers} worker{'s' * (snapshot.workers > 1)} started, the first trials are next, {since}"
            )
        if state.drivers:
            return f"{self._idle}, {since}"
        return "no process works on this sweep; run its command again to go on"

    def _print_lines(self, state: LiveState, now: float) -> None:
        for row in state.reports:
            self._print(step_line(state, row))
        snapshot = state.snapshot
        counts = (snapshot.complete, snapshot.pruned, snapshot.failed)
        if counts != self._last_counts or now - self._last_print > LINE_SECONDS:
            is_first, self._last_counts, self._last_print = self._last_counts is None, counts, now
            self._print(format_line(snapshot))
            if is_first and not snapshot.running and snapshot.done < snapshot.n_trials:
                self._print(self._waiting(state, now))

    def _print_failures(self, state: LiveState) -> None:
        """Print each failed trial, and each end of a training process or worker, since the last call above the panel."""
        failures, ended = state.snapshot.failures, {row.number: row.failures for row in state.running}
        if self._last_counts is not None:
            for number, count in ended.items():
                if count > self._ended.get(number, 0):
                    self._print(
                        f"trial {number} starts again, because its process or its worker ended ({count} in a row)"
                    )
            for number in failures.keys() - self._failures:
                self._print(f"trial {number} failed: {failures[number]}")
        self._ended, self._failures, self._last_counts = ended, set(failures), ()

    def _print(self, text: str) -> None:
        if is_ascii(self._console):
            text = text.encode("ascii", "backslashreplace").decode()
        self._console.print(Text(visible(text)), soft_wrap=True)


def panel(snapshot: Snapshot, folder: Path) -> Group:
    """Return the state of a sweep as a panel of a few lines, as wide as the terminal."""
    bar = ProgressBar(total=max(snapshot.n_trials, 1), completed=snapshot.done, width=60)
    title = Text(f"sweep {snapshot.name}  {folder}", style="dim")
    lines = [_best(snapshot)] if snapshot.pairs is None else [judged(snapshot), *describe_claims(snapshot)]
    # a ProgressBar alone does not end its line
    return Group(title, Padding(bar, 0), _counts(snapshot), *map(Text, lines))


def _counts(snapshot: Snapshot) -> Text:
    parts = [
        (f"{snapshot.done}/{snapshot.n_trials} trials", "bold"),
        (f"{snapshot.complete} complete", "green"),
        (f"{snapshot.running} running", "cyan"),
        (f"{snapshot.waiting} waiting", "dim"),
        (f"{snapshot.pruned} pruned", "yellow"),
        (f"{snapshot.failed} failed", "red" if snapshot.failed else "dim"),
        (f"{snapshot.workers} worker{'' if snapshot.workers == 1 else 's'}", ""),
    ]
    if snapshot.paused:
        parts.insert(4, (describe_paused(snapshot), "dim"))
    parts += [(part, "dim") for part in time_left(snapshot)]
    return Text("  ").join(Text(part, style) for part, style in parts)


def _best(snapshot: Snapshot) -> str:
    if snapshot.best_value is None:
        return "no trial is complete yet"
    return f"best {format_value(snapshot.best_value)}, trial {snapshot.best_trial}: {format_settings(snapshot.best_params)}"


def print_snapshot(snapshot: Snapshot, folder: Path, console: Console | None = None) -> None:
    """Print the panel and the reasons of failed trials. Without a terminal, print plain lines without the bar.

    Args:
        snapshot: State of the sweep.
        folder: The sweep folder.
        console: The console; None: standard output.
    """
    console = console or Console(highlight=False)
    if console.is_terminal:
        console.print(panel(snapshot, folder))
    else:
        state = [_best(snapshot)] if snapshot.pairs is None else [judged(snapshot), *describe_claims(snapshot)]
        for text in (f"sweep {snapshot.name}  {folder}", _counts(snapshot).plain, *state):
            console.print(Text(text), soft_wrap=True)
    for number, reason in snapshot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"), soft_wrap=True)
