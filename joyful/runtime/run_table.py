"""The table of all runs below a folder, the best first, at the end of a multirun of Hydra's own sweepers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from joyful.records import InputError, visible
from joyful.results import find_runs, natural, one_run, read_run
from joyful.results.arms import differences, flatten
from joyful.runtime.text_table import Column, is_ascii, short_names, table

#: Largest number of runs that are listed.
MOST_RUNS = 20


def print_runs(folder: Path, console: Console | None = None) -> None:
    """Print a table of all runs below a folder, those with the best dev F1 first.

    Args:
        folder: The folder.
        console: The console; None: standard output.
    """
    console = console or Console(highlight=False)
    runs = []
    for name, place in find_runs(folder):
        try:
            runs.append((name, place, read_run(place)))
        except (InputError, OSError):
            continue  # the report names damaged runs
    if not runs:
        return
    runs.sort(key=lambda run: (-_objective(run[2]), natural(run[0])))
    settings = _settings([info for _, _, info in runs])
    shown = runs[:MOST_RUNS]
    columns: list[Column | list[dict[str, str]]] = [
        Column("run", [name for name, _, _ in shown]),
        settings[:MOST_RUNS],
        Column("dev F1", [_per_cent(info.get("objective")) for _, _, info in shown], right=True),
        Column("test F1", [_per_cent(one_run.value_at_best_dev(place, "f1_weighted")) for _, place, _ in shown], right=True),
        Column("status", [str(info["status"]) for _, _, info in shown]),
        Column("folder", [_relative(p) for _, p, _ in shown], links=[p.absolute().as_uri() for _, p, _ in shown]),
    ]  # fmt: skip
    width = console.width - 1 if console.is_terminal else None
    for line in table(columns, width, is_ascii(console)):
        console.print(line, soft_wrap=True)
    if len(runs) > len(shown):
        rest = [str(info["status"]) for _, _, info in runs[len(shown) :]]
        counts = ", ".join(f"{rest.count(status)} {status}" for status in dict.fromkeys(rest))
        console.print(Text(f"and {len(rest)} more runs ({counts}) in {folder}"), soft_wrap=True)


def _objective(info: Mapping[str, Any]) -> float:
    value = info.get("objective") if info["status"] == "completed" else None
    return float(value) if isinstance(value, int | float) else -math.inf


def _settings(runs: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the settings of each run that differ between the runs, by short names."""
    try:
        columns = differences(
            [flatten(info.get("choices") or {}) for info in runs], [flatten(info.get("config") or {}) for info in runs]
        ).columns
    except InputError:
        columns = {}
    seeds = [info.get("seed") for info in runs]
    if len(set(seeds)) > 1 and "seed" not in columns:
        columns = {**columns, "seed": seeds}
    short = short_names(list(columns))
    return [
        {short[name]: _text(values[place]) for name, values in columns.items() if values[place] is not None}
        for place in range(len(runs))
    ]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _per_cent(value: Any) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else ""


def _relative(folder: Path) -> str:
    path = os.path.relpath(folder)
    return visible(str(folder) if path.startswith("..") else path)
