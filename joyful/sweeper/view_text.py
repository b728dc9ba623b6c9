"""Texts that describe the state of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joyful.results.design import DECIDED, OPEN
from joyful.sweeper.metric import format_value
from joyful.sweeper.status import Snapshot

#: Maximum number of open claims that are shown.
MOST_CLAIMS = 10


def format_line(snapshot: Snapshot) -> str:
    """Return the state of a sweep as one line."""
    text = (
        f"sweep {snapshot.name}: {snapshot.done} of {snapshot.n_trials} trials done ({snapshot.complete} complete, "
        f"{snapshot.pruned} pruned, {snapshot.failed} failed), {snapshot.running} running"
    )
    if snapshot.paused:
        text += f", {describe_paused(snapshot)}"
    if snapshot.pairs is not None:
        return f"{text}; {judged(snapshot)}"
    if snapshot.best_value is not None:
        text += f"; best {format_value(snapshot.best_value)} (trial {snapshot.best_trial}: {format_settings(snapshot.best_params)})"
    return "; ".join([text, *time_left(snapshot)])


def describe_paused(snapshot: Snapshot) -> str:
    """Return how many trials are paused, and at which steps.

    Example:
        "7 paused (6 at step 3, 1 at step 9)"
    """
    places = ", ".join(f"{count} at step {rung}" for rung, count in snapshot.paused.items())
    return f"{sum(snapshot.paused.values())} paused ({places})"


def judged(snapshot: Snapshot) -> str:
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


def time_left(snapshot: Snapshot) -> list[str]:
    """Return the estimated time left, [] if it is not known."""
    known = snapshot.seconds_left is not None and snapshot.done < snapshot.n_trials
    return [f"about {format_duration(snapshot.seconds_left or 0.0)} left"] if known else []


def format_settings(params: Mapping[str, Any]) -> str:
    """Return settings as NAME=VALUE, separated by commas."""
    return ", ".join(f"{n}={v:.4g}" if isinstance(v, float) else f"{n}={v}" for n, v in params.items()) or "-"


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
