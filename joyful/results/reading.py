"""Read all runs below a folder as one tidy frame. Damaged runs are reported and left out."""

from __future__ import annotations

import json
import math
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
from joyful.results.one_run import HYDRA, RunHeader, read_run_folder
from joyful.results.schema import HISTORY, HISTORY_COLUMNS, RESERVED_COLUMNS, RUN, ResultsWarning, column_order

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Subfolders of a run that are not searched for runs.
_NO_RUNS_IN = frozenset({"checkpoint"})

_ALWAYS = frozenset(RESERVED_COLUMNS) | HISTORY_COLUMNS.keys()


#: Number of histories that are joined at a time.
_BLOCK = 500


@dataclass(frozen=True)
class Runs:
    """All runs below a folder.

    Attributes:
        frame: The frame that `load` returns. The category codes of its column `run` index `headers`.
        headers: The intact runs in the order of the frame, including those without rows.
        damaged: The runs that were left out, each with its `damage`.
        differences: The columns in which the intact runs differ.
    """

    frame: pd.DataFrame
    headers: list[RunHeader]
    damaged: list[RunHeader]
    differences: Differences


def load(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read all runs below a folder into one frame, with a row per run, evaluation and split.

    A run is a folder with run.json, or with .hydra/ and history.parquet. Symbolic links and hidden folders are not
    followed. A damaged run is left out with a ResultsWarning.

    Args:
        path: The folder of the runs. It may be a run itself.
        columns: History columns to read; step, epoch and split are always read. None reads all.

    Returns:
        A frame whose runs are in natural order of their names (2 before 10) and whose rows are in the order of the
        history. Text is categorical and null is NaN. In addition to the history columns it has:

        - `run`: folder relative to `path`, "." for `path` itself,
        - `status`: "unknown" if there is no run.json,
        - `seed` and `role`,
        - a column for every group choice and setting that differs between the runs, under its dotted name.

        `frame.attrs` has three entries: "arms" lists the columns that define arms (see `arm_columns`), "damaged" maps
        damaged runs to reasons, and "empty" lists runs without an evaluation.

    Raises:
        InputError: If `path` is not a folder, or no run has a column of `columns`.
    """
    runs = read_runs(path, columns)
    for header in runs.damaged:
        warnings.warn(f"run {header.name!r} is damaged and left out: {header.damage}", ResultsWarning, stacklevel=2)
    return runs.frame


def read_runs(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    absent_as_nan: bool = False,
    nan_as_infinity: bool = False,
) -> Runs:
    """Read all runs below a folder as `load` does, and return their headers too. Damaged runs cause no warning.

    Args:
        path: See `load`.
        columns: See `load`.
        absent_as_nan: Whether a column of `columns` that no run has becomes a column of NaN instead of an error.
        nan_as_infinity: Whether a value that was measured and is not a number becomes infinity. It can then be told from a
            value that was not measured.

    Returns:
        The frame, the headers, the damaged runs, and the differences between the runs.

    Raises:
        InputError: See `load`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder of runs, found {'a file' if folder.exists() else 'nothing'} there"
        )
    found, damaged = _find(folder)
    headers: list[RunHeader] = []
    histories: list[pa.Table] = []
    for name, place, hydra in found:
        header, history = read_run_folder(name, Path(place), hydra, columns)
        (damaged if header.damage else headers).append(header)
        if history is not None:
            histories.append(history)
    differing = differences([header.choices for header in headers], [header.settings for header in headers])
    frame = _frame(headers, histories, differing, columns, absent_as_nan, nan_as_infinity)
    frame.attrs["damaged"] = {header.name: header.damage for header in damaged}
    return Runs(frame, headers, damaged, differing)


def find_runs(path: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """Return name and folder of every run below a folder, as `load` finds them, in natural order. Nothing is read."""
    return [(name, Path(place)) for name, place, _ in _find(Path(path))[0]]


def arm_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a loaded frame whose values together define an arm; never seed, role or data.fold.

    The values may be null for a setting that is off, so group with `dropna=False`.

    Args:
        frame: A frame from `load`, or a selection of its rows.

    Raises:
        InputError: If the frame has no `attrs["arms"]`: it does not come from `load`, or a merge dropped the attrs.
    """
    if "arms" not in frame.attrs:
        raise InputError(
            "this frame does not record which columns define arms; pass the frame that joyful.results.load returned"
        )
    return list(frame.attrs["arms"])


def _find(root: Path) -> tuple[list[tuple[str, str, bool]], list[RunHeader]]:
    """Return (name, folder, whether it has .hydra/) of all runs in natural order, and headers of unreadable folders."""
    items: list[tuple[str, str, bool]] = []
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
            items.append((printable(name) or ".", folder, hydra))
        for child, is_folder in kinds.items():
            if is_folder and not child.startswith(".") and child not in _NO_RUNS_IN:
                stack.append((f"{name}/{child}" if name else child, os.path.join(folder, child)))
    return sorted(items, key=lambda item: natural(item[0])), damaged


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key that sorts names in natural order (2 before 10)."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part), part) if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def _frame(
    runs: Sequence[RunHeader],
    histories: list[pa.Table],
    differing: Differences,
    columns: Sequence[str] | None,
    absent_as_nan: bool,
    nan_as_infinity: bool,
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    # a setting may share its name with a column that is always present (`status`, `epoch`); both are included
    shown = {name: f"config.{name}" if name in _ALWAYS else name for name in differing.columns}
    of_run = np.repeat(np.arange(len(runs)), np.array([run.rows for run in runs], dtype=np.int64))
    series: dict[str, Any] = {
        "run": _spread([run.name for run in runs], of_run, in_order=True),
        "status": _spread([run.status for run in runs], of_run),
        "seed": _spread([run.seed for run in runs], of_run, number=True),
        "role": _spread([run.role for run in runs], of_run),
    }
    for name, values in differing.columns.items():
        series[shown[name]] = _spread(values, of_run)
    history = _joined(histories, columns, series, absent_as_nan, nan_as_infinity)
    for name in history.columns:
        # likewise, an undocumented history column may share its name with a group (`loss`) or a reserved column
        series[f"history.{name}" if name in series else name] = history[name].array
    frame = pd.DataFrame(series, copy=False)
    frame.attrs["arms"] = [shown[name] for name in differing.arms]
    frame.attrs["empty"] = [run.name for run in runs if not run.rows]
    return frame


def _joined(
    histories: list[pa.Table],
    columns: Sequence[str] | None,
    other_columns: Iterable[str],
    absent_as_nan: bool,
    nan_as_infinity: bool,
) -> pd.DataFrame:
    """Concatenate the histories, with the requested columns in file order. Empties the list to free memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # the table without rows has all documented columns; a column that a run lacks becomes null
    blocks, any_history = [tables.decode(tables.history_bytes([]))], bool(histories)
    while histories:  # large blocks, because freeing small ones column by column would leave holes in the heap
        blocks.append(pa.concat_tables(histories[:_BLOCK], promote_options="default").combine_chunks())
        del histories[:_BLOCK]
    whole = pa.concat_tables(blocks, promote_options="default")
    blocks.clear()
    for name in sorted(set(columns or ()) - {*whole.column_names, *other_columns, *RESERVED_COLUMNS}):
        if absent_as_nan:
            whole = whole.append_column(name, pa.nulls(whole.num_rows, pa.float64()))
        elif any_history:
            raise InputError(
                f"no run has a column {name} in its history; the documented columns are {', '.join(HISTORY_COLUMNS)}"
            )
    wanted = None if columns is None else {*columns, *tables.KEY_COLUMNS}
    names = [name for name in column_order(set(whole.column_names)) if wanted is None or name in wanted]
    if nan_as_infinity:
        for name in set(names) - set(tables.KEY_COLUMNS):
            column = whole.column(name)
            if pc.any(pc.is_nan(column)).as_py():
                whole = whole.set_column(
                    whole.column_names.index(name), name, pc.if_else(pc.is_nan(column), math.inf, column)
                )
    whole = whole.select(names)  # the only reference, so that self_destruct frees each column as it is converted
    frame: pd.DataFrame = whole.to_pandas(ignore_metadata=True, split_blocks=True, self_destruct=True)
    frame["split"] = frame["split"].cat.set_categories(SPLITS)
    return frame


def _spread(values: Sequence[Any], of_run: Any, *, in_order: bool = False, number: bool = False) -> Any:
    """Repeat one value per run for every row. Numbers and booleans become arrays, other values categories, null NaN.

    Args:
        values: One value per run.
        of_run: Index of the run for every row.
        in_order: Whether categories keep the order of the values. By default they are sorted.
        number: Whether a column of nulls alone is numeric. By default it is categorical.
    """
    import numpy as np
    import pandas as pd

    present = [value for value in values if value is not None]
    complete = bool(present) and len(present) == len(values)
    if complete and all(isinstance(value, bool) for value in present):
        return np.array(values, dtype=bool)[of_run]
    if (present or number) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in present
    ):
        if len(present) == len(values) and all(isinstance(value, int) and abs(value) < 2**63 for value in present):
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
    """Return text unchanged, and any other value in a column of mixed types as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
