"""The sweep on the terminal: a live panel where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from joyful.sweeper.status import Snapshot

#: Seconds between two plain lines while nothing ends.
QUIET_SECONDS = 60.0

#: Looking at the study may take this share of the time at most: a look that took more than so many seconds is followed by a
#: pause, of so many seconds at most.
SHARE, DEAR, LONGEST_PAUSE = 0.02, 0.02, 10.0


class SweepView:
    """Shows a sweep on standard error while it runs. take: gives its present state."""

    def __init__(self, take: Callable[[], Snapshot], folder: Path, console: Console | None = None) -> None:
        self._take, self._folder = take, folder
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._last: tuple[int, ...] = ()
        self._spoke = 0.0
        self._due = 0.0

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
        """Show the present state, unless the last look was too dear to be repeated so soon; without a terminal only when a trial
        has ended, or once a minute."""
        began = time.monotonic()
        if began < self._due:
            return
        shot = self._take()
        now = time.monotonic()
        took = now - began
        self._due = now + min(took / SHARE - took, LONGEST_PAUSE) if took > DEAR else now
        if self._live is not None:
            self._live.update(panel(shot, self._folder), refresh=True)
            return
        counts = (shot.complete, shot.pruned, shot.failed)
        if counts != self._last or now - self._spoke > QUIET_SECONDS:
            self._last, self._spoke = counts, now
            self._console.print(Text(line(shot)), soft_wrap=True)


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
    """The sweep as a panel of a few lines, as wide as the terminal."""
    done = shot.complete + shot.pruned + shot.failed
    bar = Padding(
        ProgressBar(total=max(shot.n_trials, 1), completed=done, width=60), 0
    )  # (alone it does not end its line)
    return Group(Text(f"sweep {shot.name}  {folder}", style="dim"), bar, _counts(shot), Text(_best(shot)))


def _counts(shot: Snapshot) -> Text:
    done = shot.complete + shot.pruned + shot.failed
    words = [
        (f"{done}/{shot.n_trials} trials", "bold"),
        (f"{shot.complete} complete", "green"),
        (f"{shot.running} running", "cyan"),
        (f"{shot.waiting} waiting", "dim"),
        (f"{shot.pruned} pruned", "yellow"),
        (f"{shot.failed} failed", "red" if shot.failed else "dim"),
        (f"{shot.workers} worker{'' if shot.workers == 1 else 's'}", ""),
    ]
    if shot.seconds_left is not None and done < shot.n_trials:
        words.append((f"about {duration(shot.seconds_left)} left", "dim"))
    return Text("  ").join(Text(word, style) for word, style in words)


def _best(shot: Snapshot) -> str:
    if shot.best_value is None:
        return "no trial is complete yet"
    return f"best {shot.best_value:.4f}, trial {shot.best_trial}: {_settings(shot.best_params)}"


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


def show(shot: Snapshot, folder: Path, console: Console | None = None) -> None:
    """Print the panel, and why trials failed, on standard output; without a terminal one fact a line, and no bar."""
    console = console or Console(highlight=False)
    if console.is_terminal:
        console.print(panel(shot, folder))
    else:
        for text in (f"sweep {shot.name}  {folder}", _counts(shot).plain, _best(shot)):
            console.print(Text(text), soft_wrap=True)
    for number, reason in shot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"), soft_wrap=True)
