"""Display of a sweep: a live panel in a terminal, plain lines elsewhere."""

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

from joyful.results.design import DECIDED, OPEN
from joyful.sweeper.status import Snapshot

#: Maximum number of open claims that are shown.
MOST_CLAIMS = 10

#: Seconds between two plain lines while no trial finishes.
LINE_SECONDS = 60.0

#: Reading the study may take at most this share of the time. A read of more than CHEAP_SECONDS is followed by a pause
#: of at most MAXIMUM_PAUSE seconds.
MAXIMUM_SHARE, CHEAP_SECONDS, MAXIMUM_PAUSE = 0.02, 0.02, 10.0


class SweepView:
    """Shows a running sweep on standard error. A context manager.

    Args:
        take_snapshot: Returns the current state of the sweep.
        folder: The sweep folder.
        console: The console; None: standard error.
    """

    def __init__(self, take_snapshot: Callable[[], Snapshot], folder: Path, console: Console | None = None) -> None:
        self._take_snapshot, self._folder = take_snapshot, folder
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._last_counts: tuple[int, ...] = ()
        self._last_print = 0.0
        self._next_read = 0.0

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
        """Show the current state, unless reading it took long and is paused.

        Without a terminal, print a line only if a trial has finished, or once a minute.
        """
        start = time.monotonic()
        if start < self._next_read:
            return
        snapshot = self._take_snapshot()
        now = time.monotonic()
        if (seconds := now - start) > CHEAP_SECONDS:
            self._next_read = now + min(seconds / MAXIMUM_SHARE - seconds, MAXIMUM_PAUSE)
        if self._live is not None:
            self._live.update(panel(snapshot, self._folder), refresh=True)
            return
        counts = (snapshot.complete, snapshot.pruned, snapshot.failed)
        if counts != self._last_counts or now - self._last_print > LINE_SECONDS:
            self._last_counts, self._last_print = counts, now
            self._console.print(Text(format_line(snapshot)), soft_wrap=True)


def format_line(snapshot: Snapshot) -> str:
    """Return the state of a sweep as one line."""
    text = (
        f"sweep {snapshot.name}: {snapshot.done} of {snapshot.n_trials} trials done ({snapshot.complete} complete, "
        f"{snapshot.pruned} pruned, {snapshot.failed} failed), {snapshot.running} running"
    )
    if snapshot.pairs is not None:
        return f"{text}; {_judged(snapshot)}"
    if snapshot.best_value is not None:
        text += f"; best {format_value(snapshot.best_value)} (trial {snapshot.best_trial}: {_settings(snapshot.best_params)})"
    return "; ".join([text, *_time_left(snapshot)])


def panel(snapshot: Snapshot, folder: Path) -> Group:
    """Return the state of a sweep as a panel of a few lines, as wide as the terminal."""
    bar = ProgressBar(total=max(snapshot.n_trials, 1), completed=snapshot.done, width=60)
    title = Text(f"sweep {snapshot.name}  {folder}", style="dim")
    lines = [_best(snapshot)] if snapshot.pairs is None else [_judged(snapshot), *describe_claims(snapshot)]
    # a ProgressBar alone does not end its line
    return Group(title, Padding(bar, 0), _counts(snapshot), *map(Text, lines))


def _judged(snapshot: Snapshot) -> str:
    """Return how many pairs were judged and how many claims are open, for a sweep with pairs=auto."""
    still_open = sum(line["state"] == OPEN for line in snapshot.claims)
    claims = f"{still_open} of {len(snapshot.claims)} claims open" if snapshot.claims else "no claim judged yet"
    return f"{snapshot.pairs} of at most {snapshot.max_pairs} pairs judged, {claims}"


def describe_claims(snapshot: Snapshot) -> list[str]:
    """Return the state of the claims as lines of text: each open claim with its interval, then the others by verdict."""
    several = len({line["arm"] for line in snapshot.claims}) > 1
    lines, words = list[str](), dict[str, list[str]]()
    for line in snapshot.claims:
        subject = _subject(line, several)
        if line["state"] == OPEN:
            lines.append(f"open: {subject}: {_effect(line)}, claimed {line['claimed']}")
        else:
            pairs = f", {len(line['seeds'])} pairs" if line["state"] == DECIDED else ""
            words.setdefault(line["verdict"], []).append(f"{subject}{pairs}")
    if len(lines) > MOST_CLAIMS:
        lines = [*lines[:MOST_CLAIMS], f"open: {len(lines) - MOST_CLAIMS} more"]
    return [*lines, *(f"{word}: {'; '.join(subjects)}" for word, subjects in words.items())]


def _subject(line: Mapping[str, Any], several: bool) -> str:
    parts = [line["claim"] or "all claims", f"({line['metric']})" if line["metric"] else "", line["task"]]
    return " ".join([*([f"{line['arm']}:"] if several else []), *filter(None, parts)])


def _effect(line: Mapping[str, Any]) -> str:
    if line["verdict"] == "not testable":
        return str(line["detail"])
    low, high = ("unbounded" if line[end] is None else f"{line[end]:.3g}" for end in ("low", "high"))
    return f"{line['estimate'] or 0.0:.3g} ({low} to {high})"


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
    parts += [(part, "dim") for part in _time_left(snapshot)]
    return Text("  ").join(Text(part, style) for part, style in parts)


def _time_left(snapshot: Snapshot) -> list[str]:
    known = snapshot.seconds_left is not None and snapshot.done < snapshot.n_trials
    return [f"about {format_duration(snapshot.seconds_left or 0.0)} left"] if known else []


def _best(snapshot: Snapshot) -> str:
    if snapshot.best_value is None:
        return "no trial is complete yet"
    return f"best {format_value(snapshot.best_value)}, trial {snapshot.best_trial}: {_settings(snapshot.best_params)}"


def _settings(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{n}={v:.4g}" if isinstance(v, float) else f"{n}={v}" for n, v in params.items()) or "-"


def format_value(value: float) -> str:
    """Return a value with four decimals, or with four digits if that would hide it.

    Example:
        >>> format_value(0.59192), format_value(1.3083e-10), format_value(0.0)
        ('0.5919', '1.308e-10', '0.0000')
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def format_duration(seconds: float) -> str:
    """Return a duration in hours and minutes, minutes and seconds, or seconds.

    Example:
        >>> format_duration(4000.0)
        '1 h 06 min'
    """
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds_left:02d} s" if minutes else f"{seconds_left} s"


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
        state = [_best(snapshot)] if snapshot.pairs is None else [_judged(snapshot), *describe_claims(snapshot)]
        for text in (f"sweep {snapshot.name}  {folder}", _counts(snapshot).plain, *state):
            console.print(Text(text), soft_wrap=True)
    for number, reason in snapshot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"), soft_wrap=True)
