"""All runs below a folder as one tidy frame. A damaged run is named and left out."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyful.records import SPLITS, InputError
from joyful.results import tables
from joyful.results.arms import Differences, differences, printable
from joyful.results.batches import Batch, Item, read_batches
from joyful.results.one_run import HYDRA, RunHeader
from joyful.results.schema import HISTORY, HISTORY_COLUMNS, RESERVED_COLUMNS, RUN, ResultsWarning, column_order

if TYPE_CHECKING:
    import pandas as pd

#: Folders of a run that hold no runs.
_NO_RUNS_IN = frozenset({"checkpoint"})

_ALWAYS = frozenset(RESERVED_COLUMNS) | HISTORY_COLUMNS.keys()


@dataclass(frozen=True)
class Runs:
    """All runs below a folder. frame: as `load` gives it, its `run` coded by the place in `headers`.

    headers: the whole runs, in the frame's order, those without rows too. damaged: those left out, each with its
    `damage`. differences: what tells the whole runs apart.
    """

    frame: pd.DataFrame
    headers: list[RunHeader]
    damaged: list[RunHeader]
    differences: Differences


def load(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read all runs below `path`: a row per run, evaluation and split.

    A run is a folder with run.json, or with .hydra/ and history.parquet; symbolic links and hidden folders are not
    followed. Runs come in the natural order of their names (2 before 10), rows as they stand in the history.

    columns: those of the history to read (step, epoch and split come along); None: all. Beside them are `run` (folder
    relative to `path`, "." for itself), `status` ("unknown" without run.json), `seed`, `role`, and a column for every
    group choice and setting that differs between the runs, under its dotted name. Text is categorical; null is NaN.

    frame.attrs["arms"]: the columns that make arms (see `arm_columns`). frame.attrs["damaged"]: run -> reason; each is
    told in a ResultsWarning too. frame.attrs["empty"]: runs without any evaluation yet.

    Raises InputError where `path` is no folder, or where no run has a column that was asked for.
    """
    runs = read_runs(path, columns)
    for header in runs.damaged:
        warnings.warn(f"run {header.name!r} is damaged and left out: {header.damage}", ResultsWarning, stacklevel=2)
    return runs.frame


def read_runs(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, absent_as_nan: bool = False
) -> Runs:
    """As `load`, with what each run's folder says of it; damaged runs are in the answer and there is no warning.

    absent_as_nan: a column that was asked for and that no run has is a column of NaN, not an error.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder of runs, found {'a file' if folder.exists() else 'nothing'} there"
        )
    found, unlisted = _find(folder)
    batches = read_batches(found, columns)
    damaged = unlisted + [header for batch in batches for header in batch.headers if header.damage]
    for batch in batches:
        batch.headers = [header for header in batch.headers if not header.damage]
    headers = [header for batch in batches for header in batch.headers]
    told = differences([header.choices for header in headers], [header.settings for header in headers])
    frame = _frame(headers, batches, told, columns, absent_as_nan)
    frame.attrs["damaged"] = {header.name: header.damage for header in damaged}
    return Runs(frame, headers, damaged, told)


def arm_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a loaded frame whose values together name an arm; never seed, role or data.fold.

    Values may be null (a setting that is off): group with dropna=False. Raises InputError for a frame that did not come
    from `load`, or that lost its attrs on the way (a merge drops them).
    """
    if "arms" not in frame.attrs:
        raise InputError(
            "this frame does not say which columns make arms; ask the frame that joyful.results.load returned"
        )
    return list(frame.attrs["arms"])


def _find(root: Path) -> tuple[list[Item], list[RunHeader]]:
    """(name, folder, whether it has .hydra/) of every run, in natural order; and folders that cannot be listed."""
    found: list[Item] = []
    damaged: list[RunHeader] = []
    stack = [("", os.fspath(root))]
    while stack:
        name, folder = stack.pop()
        kinds: dict[str, bool] = {}  # name -> is a folder
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    kinds[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError as error:
            damaged.append(RunHeader(printable(name) or ".", damage=f"the folder cannot be listed: {error.strerror}"))
            continue
        hydra = kinds.get(HYDRA, False)
        if not kinds.get(RUN, True) or (hydra and not kinds.get(HISTORY, True)):
            found.append((printable(name) or ".", folder, hydra))
        for child, is_folder in kinds.items():
            if is_folder and not child.startswith(".") and child not in _NO_RUNS_IN:
                stack.append((f"{name}/{child}" if name else child, os.path.join(folder, child)))
    return sorted(found, key=lambda item: _natural(item[0])), damaged


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part), part) if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def _frame(
    runs: Sequence[RunHeader],
    batches: Sequence[Batch],
    told: Differences,
    columns: Sequence[str] | None,
    absent_as_nan: bool,
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    # a setting may have the name of a column that is always there (`status`, `epoch`): both are shown
    shown = {name: f"config.{name}" if name in _ALWAYS else name for name in told.columns}
    of_run = np.repeat(np.arange(len(runs)), np.array([run.rows for run in runs], dtype=np.int64))
    series: dict[str, Any] = {
        "run": _spread([run.name for run in runs], of_run, in_order=True),
        "status": _spread([run.status for run in runs], of_run),
        "seed": _spread([run.seed for run in runs], of_run, number=True),
        "role": _spread([run.role for run in runs], of_run),
    }
    for name, values in told.columns.items():
        series[shown[name]] = _spread(values, of_run)
    for name in _history_names(batches, columns, series, absent_as_nan):
        # likewise a history's further column may have the name of a group (`loss`) or of what stands beside it
        series[f"history.{name}" if name in series else name] = _whole_column(name, batches)
    frame = pd.DataFrame(series, copy=False)
    frame.attrs["arms"] = [shown[name] for name in told.arms]
    frame.attrs["empty"] = [run.name for run in runs if not run.rows]
    return frame


def _history_names(
    batches: Sequence[Batch], columns: Sequence[str] | None, beside: Iterable[str], absent_as_nan: bool
) -> list[str]:
    present = {name for batch in batches for name in batch.columns}
    names = column_order(present)
    if columns is None:
        return names
    unknown = [name for name in columns if name not in names and name not in set(beside) | set(RESERVED_COLUMNS)]
    if unknown and absent_as_nan:
        names = column_order(present | set(unknown))
    elif unknown and present:
        documented = ", ".join(HISTORY_COLUMNS)
        raise InputError(f"no run has a column {', '.join(unknown)} in its history; documented are {documented}")
    return [name for name in names if name in columns or name in tables.KEY_COLUMNS]


def _whole_column(name: str, batches: Sequence[Batch]) -> Any:
    """One column of all batches, one after another. The batches' own copies are let go."""
    import numpy as np
    import pandas as pd

    parts = []
    for batch in batches:
        part = batch.columns.pop(name, None)
        rows = sum(header.rows for header in batch.headers)
        if part is None and rows:
            part = np.full(rows, np.nan)
        parts += [part] if part is not None else []
    values = np.concatenate(parts) if parts else np.zeros(0)
    if name == "split":
        return pd.Categorical.from_codes(values.astype(np.int8), categories=pd.Index(SPLITS, dtype="str"))
    return values.astype(np.int64, copy=False) if name == "step" else values


def _spread(values: Sequence[Any], of_run: Any, *, in_order: bool = False, number: bool = False) -> Any:
    """One value per run -> one per row: numbers and booleans as arrays, anything else categorical; null is NaN.

    in_order: the categories come as the values do, otherwise sorted. number: nothing but nulls is numbers too.
    """
    import numpy as np
    import pandas as pd

    given = [value for value in values if value is not None]
    complete = bool(given) and len(given) == len(values)
    if complete and all(isinstance(value, bool) for value in given):
        return np.array(values, dtype=bool)[of_run]
    if (given or number) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given):
        if len(given) == len(values) and all(isinstance(value, int) and abs(value) < 2**63 for value in given):
            return np.array(values, dtype=np.int64)[of_run]
        return np.array([np.nan if value is None else _float(value) for value in values], dtype=np.float64)[of_run]
    labels = [None if value is None else _label(value) for value in values]
    distinct = list(dict.fromkeys(label for label in labels if label is not None))
    if not in_order:
        distinct.sort()
    code_of: dict[str | None, int] = {None: -1} | {label: code for code, label in enumerate(distinct)}
    codes = np.array([code_of[label] for label in labels], dtype=np.int64)
    return pd.Categorical.from_codes(codes[of_run], categories=pd.Index(distinct, dtype="str"))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf") if value > 0 else float("-inf")


def _label(value: Any) -> str:
    """Text as it is; a list, or a number or boolean in a column of mixed kinds, as JSON."""
    return printable(value if isinstance(value, str) else json.dumps(value))
