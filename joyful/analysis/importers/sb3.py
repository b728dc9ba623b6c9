"""Import progress.csv and monitor.csv of Stable-Baselines3."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.csv_values import add_table, integer, number, some, table
from joyful.analysis.importers.runs import MAXIMUM_RUN_ROWS, ImportedRun
from joyful.analysis.importers.sources import find, shown
from joyful.results import InputError
from joyful.results.csv_text import line_error, read_records

HELP = """\
Import the logs of Stable-Baselines3: progress.csv, which the logger writes with the format csv, or the
episodes in *.monitor.csv, which the wrapper Monitor writes. SOURCE is one file, or a folder with one
folder per run. If there is any progress.csv, these files are read, else the episodes.

progress.csv
  step        time/total_timesteps
  seconds     time/time_elapsed
  splits      eval/ belongs to dev, rollout/ and train/ to train, for example eval/mean_reward to
              mean_reward of dev and rollout/ep_rew_mean to ep_rew_mean of train
monitor.csv   all files of a folder are one run, with a row per episode
  step        environment steps so far, over all environments
  seconds     the column t
  metrics     ep_rew (the column r) and ep_len (l), of train; with --split-prefix =dev, of dev, whose
              metrics the measures of a report compare
  task        env_id of the first line

  arm, seed   are not in the files: set --arm-from and --seed-from, which search the path

example
  joyful import sb3 sb3_logs --out from_sb3 --arm-from "^([^/]+)/" --seed-from "seed_([0-9]+)"
"""

#: Metric -> its column in monitor.csv.
_EPISODE = {"ep_rew": "r", "ep_len": "l"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this format to the parser."""
    parser.add_argument(
        "--monitor", action="store_true", help="read *.monitor.csv although there are files progress.csv"
    )


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of progress.csv or monitor.csv. Raise InputError if a file is not valid."""
    files = find(source, lambda name: name == "progress.csv" or _is_monitor(name), "files progress.csv or monitor.csv")
    progress = [(name, path) for name, path in files if not _is_monitor(name)]
    if not progress or options.arguments.monitor:
        return _read_monitors(source, [(name, path) for name, path in files if _is_monitor(name)], options)
    if len(files) > len(progress):
        options.left_out["files monitor.csv (--monitor reads them)"] += len(files) - len(progress)
    runs = []
    for name, path in shown(progress, "reading runs"):
        runs.append(ImportedRun(name, [path]))
        add_table(runs[-1], options, {"step": "time/total_timesteps", "seconds": "time/time_elapsed"})
    return runs


def _is_monitor(name: str) -> bool:
    return name.endswith("monitor.csv")


def _read_monitors(source: Path, files: Sequence[tuple[str, Path]], options: Options) -> list[ImportedRun]:
    if not files:
        raise InputError(f"{source}: expected files *.monitor.csv, got none")
    folders: dict[str, list[tuple[str, Path]]] = {}
    for name, path in files:
        folders.setdefault(name.rpartition("/")[0], []).append((name, path))
    runs = []
    for members in shown(list(folders.values()), "reading runs"):
        run = ImportedRun(members[0][0], [path for _, path in members])
        episodes: list[tuple[float, int, int, list[float]]] = []
        starts = []
        for file, (_, path) in enumerate(members):
            start, task, own = _read_monitor(path, file, options)
            starts.append(start)
            run.task = task if run.task is None else run.task
            episodes += [(start + seconds, file, line, values) for seconds, line, values in own]
        steps = 0
        for at, file, line, values in sorted(episodes, key=lambda episode: episode[0]):
            steps += int(values[1])
            row = run.row(line, steps, seconds=max(0.0, at - min(starts)), file=file)
            for name, value in zip(_EPISODE, values, strict=True):
                column = options.column(name, place=str(run.files[file]))
                if column is not None:
                    run.put(row, column, value)
        runs.append(run)
    return runs


def _read_monitor(
    path: Path, file: int, options: Options
) -> tuple[float, str | None, list[tuple[float, int, list[float]]]]:
    """Return the time of the start, the environment, and (seconds, line, [reward, length]) of the episodes."""
    line, first = next(read_records(path, 2**28), (1, [""]))
    try:
        about = json.loads(",".join(first).removeprefix("#")) if first[0].startswith("#") else {}
        start, task = float(about.get("t_start", 0.0)), about.get("env_id")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise line_error(
            path, line, 'expected a first line such as #{"t_start": 0.0, "env_id": "CartPole-v1"}'
        ) from None
    line, names, rows = table(path, "r,l,t", skip=lambda field: field.startswith("#"))
    if missing := [name for name in ("r", "l", "t") if name not in names]:
        raise line_error(path, line, f"the header lacks {some(missing)}; it has {some(names)}")
    episodes: list[tuple[float, int, list[float]]] = []
    for line, fields in rows:
        try:
            options.count(3)
            if len(episodes) >= MAXIMUM_RUN_ROWS:
                raise InputError(f"expected at most {MAXIMUM_RUN_ROWS} episodes of one run; thin the rows out")
            values = {name: number(fields[names.index(name)], name) for name in ("r", "t")}
            length = integer(fields[names.index("l")], "l")
            if None in values.values() or length < 0:
                raise InputError("expected numbers in r, l and t")
            episodes.append((values["t"] or 0.0, line, [values["r"] or 0.0, float(length)]))
        except InputError as error:
            raise line_error(path, line, error) from None
    return start, None if task is None else str(task), episodes


FORMATS.register("sb3", "progress.csv and monitor.csv of Stable-Baselines3")(
    Importer(HELP, read, add_arguments, prefixes={"rollout/": "train"})
)
