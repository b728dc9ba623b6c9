"""The picture of a running sweep: its progress, a row for each running trial, and the best so far."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from joyful.records import clock
from joyful.runtime.text_table import Column, cut, is_ascii, short_names, table
from joyful.sweeper.live import LiveState, RunningTrial, setting_text
from joyful.sweeper.view_text import describe_claims, describe_paused, format_duration, judged

#: Largest number of characters of the bar of a trial in terminals of up to 100 characters and in others, and of that of
#: the sweep.
BAR, WIDE_BAR, SWEEP_BAR = 8, 16, 40

#: In narrower terminals, these columns are left out.
WIDTH_OF_BAR, WIDTH_OF_TIMES = 78, 68


def draw(state: LiveState, folder: str, console: Console, waiting: str = "", ago: float = 0.0) -> list[Text]:
    """Return the lines of the picture. None is longer than the console is wide.

    Args:
        state: The state of the sweep.
        folder: The sweep folder.
        console: The console.
        waiting: What the sweep does while no trial runs.
        ago: Seconds since the state was read.
    """
    ascii_only, width = is_ascii(console), max(20, console.width - 1)
    snapshot = state.snapshot
    lines = [
        _cut_line(f"sweep {snapshot.name}  {folder}", width, ascii_only, "dim"),
        *_progress(state, width, ascii_only),
    ]
    rows, more = [_later(row, ago) for row in state.running], 0
    if len(rows) > (most := max(3, console.height - len(lines) - 5)):
        rows, more = rows[:most], len(rows) - most
    if rows:
        lines += _rows(state, rows, width, ascii_only)
    elif waiting:
        lines.append(_cut_line(waiting, width, ascii_only, "cyan"))
    if more:
        lines.append(_cut_line(f"and {more} more running trials", width, ascii_only, "dim"))
    if snapshot.pairs is not None:
        claims = [judged(snapshot), *describe_claims(snapshot)]
        return [*lines, *(Text(part, no_wrap=True) for text in claims for part in textwrap.wrap(text, width))]
    return [
        *lines,
        _cut_line(best_line(state), width, ascii_only, "bold" if snapshot.best_value is not None else "dim"),
    ]


def _later(row: RunningTrial, seconds: float) -> RunningTrial:
    left = None if row.left is None else max(0.0, row.left - seconds)
    return replace(row, elapsed=row.elapsed + seconds, left=left)


def _cut_line(text: str, width: int, ascii_only: bool, style: str = "") -> Text:
    return Text(cut(text, width, ascii_only), style, no_wrap=True, overflow="crop")


def _progress(state: LiveState, width: int, ascii_only: bool) -> list[Text]:
    """Return the bar of the sweep in epochs, and the line with its trials by state."""
    snapshot, unit = state.snapshot, f"{state.unit}s"
    if state.total:
        most = "at most " if state.at_most and snapshot.done < snapshot.n_trials else ""
        parts = [f"{state.done} of {most}{state.total} {unit}"]
        share = state.done / state.total
    else:
        parts, share = [f"{state.done} {unit}"], snapshot.done / max(1, snapshot.n_trials)
    if snapshot.seconds_left is not None and snapshot.done < snapshot.n_trials:
        parts.append(f"{'at most' if state.at_most else 'about'} {format_duration(snapshot.seconds_left)} left")
    text = "  ".join(parts)
    size = min(SWEEP_BAR, width - len(text) - 2)
    line = Text(no_wrap=True, overflow="crop")
    if size >= 8:
        line.append_text(bar(share, size, ascii_only)).append("  ")
    line.append(cut(text, width, ascii_only), "bold")
    counts = [
        (f"{snapshot.done}/{snapshot.n_trials} trials", ""), (f"{snapshot.running} running", "cyan"),
        (f"{snapshot.waiting} waiting", "dim"), (f"{snapshot.complete} complete", "green"),
        (f"{snapshot.pruned} pruned", "yellow"), (f"{snapshot.failed} failed", "red" if snapshot.failed else "dim"),
        (f"{snapshot.workers} worker{'' if snapshot.workers == 1 else 's'}", ""),
    ]  # fmt: skip
    if snapshot.paused:
        counts.insert(3, (describe_paused(snapshot), "dim"))
    return [line, *_wrapped(counts, width)]


def _wrapped(parts: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Return parts on as few lines as they need."""
    lines = [Text(no_wrap=True)]
    for part, style in parts:
        if len(lines[-1]) and len(lines[-1]) + 2 + len(part) > width:
            lines.append(Text(no_wrap=True))
        lines[-1].append("  " if len(lines[-1]) else "").append(part, style)
    return lines


def bar(share: float, size: int, ascii_only: bool) -> Text:
    """Return a bar of a number of characters."""
    full = min(size, max(0, int(share * size + 1e-9)))
    done, rest = ("#", ".") if ascii_only else ("━", "─")
    return Text.assemble((done * full, "green"), (rest * (size - full), "dim"))


def _rows(state: LiveState, rows: Sequence[RunningTrial], width: int, ascii_only: bool) -> list[Text]:
    metric, bars = state.metric, width >= WIDTH_OF_BAR
    steps = [_step_text(row) for row in rows]
    size = max(map(len, steps))
    shown = [text.rjust(size) if not row.phase else text for row, text in zip(rows, steps, strict=True)]
    if bars and any(row.total for row in rows):
        length = BAR if width <= 100 else WIDE_BAR
        shown = [f"{text} {_plain_bar(row, length, ascii_only)}" for row, text in zip(rows, shown, strict=True)]
    phases = [row.phase for row in rows]
    progress = [phase or text for phase, text in zip(phases, shown, strict=True)]
    columns: list[Column | list[dict[str, str]]] = [
        Column("trial", [str(row.number) for row in rows], right=True),
        _short_settings(rows),
        Column(state.unit, progress, style="cyan"),
        Column(cut(metric.name, 16, ascii_only), [metric.text(row.value) for row in rows], right=True, minimum=6),
        Column("best", [metric.text(row.best) for row in rows], right=True, minimum=6),
    ]
    if width >= WIDTH_OF_TIMES:
        columns += [
            Column("time", [clock(row.elapsed) for row in rows], right=True),
            Column("left", ["" if row.left is None else clock(row.left) for row in rows], right=True, minimum=4),
        ]
    return table(columns, width, ascii_only)


def _short_settings(rows: Sequence[RunningTrial]) -> list[dict[str, str]]:
    short = short_names(list(dict.fromkeys(name for row in rows for name in row.settings)))
    return [{short[name]: value for name, value in row.settings.items()} for row in rows]


def _step_text(row: RunningTrial) -> str:
    return "" if row.phase else str(row.done) if row.total is None else f"{row.done}/{row.total}"


def _plain_bar(row: RunningTrial, length: int, ascii_only: bool) -> str:
    return "" if row.total is None else bar(row.done / row.total, length, ascii_only).plain


def best_line(state: LiveState) -> str:
    """Return the best trial so far as a line."""
    snapshot = state.snapshot
    if snapshot.best_value is None:
        return "no trial is complete yet"
    short = short_names(list(snapshot.best_params))
    settings = " ".join(f"{short[name]}={setting_text(value)}" for name, value in snapshot.best_params.items())
    value = state.metric.text(snapshot.best_value)
    return f"best so far: {state.metric.name} {value}, trial {snapshot.best_trial}: {settings or '-'}"


def step_line(state: LiveState, row: RunningTrial) -> str:
    """Return a new step of a trial as a line, such as "trial 3: epoch 7/20, dev F1 41.2 % (best 41.9 %), 0:35"."""
    metric = state.metric
    best = f"(best {metric.text(row.best)})" if row.best is not None else ""
    value = f"{metric.text(row.value)} {best}" if row.value is not None else best
    return f"trial {row.number}: {state.unit} {_step_text(row)}, {metric.name} {value}, {clock(row.elapsed)}"
