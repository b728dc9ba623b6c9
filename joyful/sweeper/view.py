"""The sweep on the terminal: a live panel where there is one, plain lines where there is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from joyful.sweeper.status import Snapshot

#: Seconds between two plain lines while nothing ends.
QUIET_SECONDS = 60.0


class SweepView:
    """Shows a sweep on standard error while it runs. take: gives its present state."""

    def __init__(self, take: Callable[[], Snapshot], folder: Path, console: Console | None = None) -> None:
        self._take, self._folder = take, folder
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last: tuple[int, ...] = ()
        self._spoke = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show the present state; without a terminal only when a trial has ended, or once a minute."""
        shot = self._take()
        if self._live is not None:
            self._live.update(panel(shot, self._folder), refresh=True)
            return
        counts = (shot.complete, shot.pruned, shot.failed)
        now = time.monotonic()
        if counts != self._last or now - self._spoke > QUIET_SECONDS:
            self._last, self._spoke = counts, now
            self._console.print(Text(line(shot)))


def line(shot: Snapshot) -> str:
    """The sweep in one line."""
    done = shot.complete + shot.pruned + shot.failed
    words = [f"sweep {shot.name}: {done} of {shot.n_trials} trials done"]
    words.append(f"({shot.complete} complete, {shot.pruned} pruned, {shot.failed} failed), {shot.running} running")
    if shot.best_value is not None:
        words.append(f"; best {shot.best_value:.4f} (trial {shot.best_trial}: {_settings(shot.best_params)})")
    if shot.seconds_left is not None and done < shot.n_trials:
        words.append(f"; about {duration(shot.seconds_left)} left")
    return " ".join(words).replace(" ;", ";")


def panel(shot: Snapshot, folder: Path) -> Group:
    """The sweep as a panel of a few lines."""
    done = shot.complete + shot.pruned + shot.failed
    counts = Table.grid(padding=(0, 2))
    counts.add_row(
        Text(f"{done}/{shot.n_trials} trials", style="bold"),
        Text(f"{shot.complete} complete", style="green"),
        Text(f"{shot.running} running", style="cyan"),
        Text(f"{shot.pruned} pruned", style="yellow"),
        Text(f"{shot.failed} failed", style="red" if shot.failed else "dim"),
        Text(f"{shot.workers} worker{'' if shot.workers == 1 else 's'}"),
        Text("" if shot.seconds_left is None else f"about {duration(shot.seconds_left)} left", style="dim"),
    )
    best = "no trial is complete yet"
    if shot.best_value is not None:
        best = f"best {shot.best_value:.4f}, trial {shot.best_trial}: {_settings(shot.best_params)}"
    return Group(
        Text(f"sweep {shot.name}  {folder}", style="dim"),
        ProgressBar(total=max(shot.n_trials, 1), completed=done, width=60),
        counts,
        Text(best),
    )


def _settings(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in params.items()) or "-"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def show(shot: Snapshot, folder: Path) -> None:
    """Print the panel, and why trials failed, on standard output."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(panel(shot, folder))
    for number, reason in shot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"))
