"""All runs below a folder as one tidy frame. A damaged run is named and left out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyful.records import SPLITS, InputError
from joyful.results import tables
from joyful.results.arms import differences, flatten, printable
from joyful.results.files import read_bounded
from joyful.results.run_folder import MAXIMUM_RUN_BYTES, parse_run
from joyful.results.schema import (
    HISTORY,
    HISTORY_COLUMNS,
    RESERVED_COLUMNS,
    RUN,
    UNKNOWN_STATUS,
    ResultsWarning,
    column_order,
)
from joyful.results.yaml_text import parse_yaml

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Folders of a run that hold no runs.
_NO_RUNS_IN = frozenset({"checkpoint"})
_HYDRA = ".hydra"
_MAXIMUM_YAML_BYTES = 2**20

_ALWAYS = frozenset(RESERVED_COLUMNS) | HISTORY_COLUMNS.keys()

# A writer may put a new history in place between our two reads; run.json changes with it, so one more look suffices.
_LOOKS = 5


@dataclass
class _Run:
    """One run as read; damaged where there is a `reason`."""

    name: str
    reason: str = ""
    status: str = UNKNOWN_STATUS
    seed: int | None = None
    role: str | None = None
    choices: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    rows: int = 0
    columns: dict[str, pa.ChunkedArray] | None = None


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
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder of runs, found {'a file' if folder.exists() else 'nothing'} there"
        )
    found, damaged = _find(folder)
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:  # files, digests and Parquet leave Python's lock
        runs = list(pool.map(lambda item: _read(item[0], item[1], item[2], columns), found))
    damaged |= {run.name: run.reason for run in runs if run.reason}
    for name, reason in damaged.items():
        warnings.warn(f"run {name!r} is damaged and left out: {reason}", ResultsWarning, stacklevel=2)
    frame = _frame([run for run in runs if not run.reason], columns)
    frame.attrs["damaged"] = damaged
    return frame


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


def _find(root: Path) -> tuple[list[tuple[str, Path, bool]], dict[str, str]]:
    """(name, folder, whether it has .hydra/) of every run, in natural order; and folders that cannot be listed."""
    found, damaged = [], {}
    stack = [("", os.fspath(root))]
    while stack:
        name, folder = stack.pop()
        kinds: dict[str, bool] = {}  # name -> is a folder
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    kinds[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError as error:
            damaged[printable(name) or "."] = f"the folder cannot be listed: {error.strerror}"
            continue
        hydra = kinds.get(_HYDRA, False)
        if not kinds.get(RUN, True) or (hydra and not kinds.get(HISTORY, True)):
            found.append((printable(name) or ".", Path(folder), hydra))
        for child, is_folder in kinds.items():
            if is_folder and not child.startswith(".") and child not in _NO_RUNS_IN:
                stack.append((f"{name}/{child}" if name else child, os.path.join(folder, child)))
    return sorted(found, key=lambda item: _natural(item[0])), damaged


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part), part) if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def _read(name: str, folder: Path, hydra: bool, columns: Sequence[str] | None) -> _Run:
    try:
        return _read_whole(name, folder, hydra, columns)
    except InputError as error:
        return _Run(name, reason=str(error))
    except OSError as error:
        return _Run(name, reason=f"it cannot be read: {error.strerror or error}")


def _read_whole(name: str, folder: Path, hydra: bool, columns: Sequence[str] | None) -> _Run:
    info, data = _read_files(folder)
    info = info or {}
    choices, config = info.get("choices"), info.get("config")
    if hydra and not choices:
        choices = _section(_hydra_file(folder, "hydra.yaml"), "hydra", "runtime", "choices")
    if hydra and not config:
        config = _section(_hydra_file(folder, "config.yaml"))
    settings = flatten(config or {})
    seed, role = info.get("seed", settings.get("seed")), info.get("role", settings.get("role"))
    run = _Run(
        name,
        status=info.get("status", UNKNOWN_STATUS),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**63 else None,
        role=role if isinstance(role, str) else None,
        choices=choices or {},
        settings=settings,
    )
    if data is not None:
        try:
            table = tables.decode(data, columns, trusted=bool(info.get("history_sha256")))
        except InputError as error:
            raise InputError(f"{HISTORY}: {error}") from None
        run.rows = table.num_rows
        run.columns = dict(zip(table.column_names, table.columns, strict=True))
    return run


def _read_files(folder: Path) -> tuple[dict[str, Any] | None, bytes | None]:
    """run.json (None: there is none) and the bytes of the history that it vouches for (None: no evaluation yet)."""
    previous = None
    for _ in range(_LOOKS):
        try:
            written = read_bounded(folder / RUN, MAXIMUM_RUN_BYTES)
            info = None if written == previous else parse_run(written)
        except FileNotFoundError:
            return None, _read_history(folder)
        except InputError as error:
            raise InputError(f"{RUN}: {error}") from None
        if info is None:
            break
        previous = written
        vouched = info.get("history_sha256")
        try:
            data = _read_history(folder)
        except FileNotFoundError:
            if vouched or info["status"] in ("completed", "pruned"):
                raise InputError(f"{HISTORY}: it is missing") from None
            return info, None
        if not vouched or hashlib.sha256(data).hexdigest() in vouched:
            return info, data
    raise InputError(f"{HISTORY}: its digest is none that {RUN} vouches for; it was changed after it was written")


def _read_history(folder: Path) -> bytes:
    try:
        return read_bounded(folder / HISTORY, tables.MAXIMUM_BYTES)
    except InputError as error:
        raise InputError(f"{HISTORY}: {error}") from None


def _hydra_file(folder: Path, name: str) -> Any:
    try:
        return parse_yaml(read_bounded(folder / _HYDRA / name, _MAXIMUM_YAML_BYTES))
    except FileNotFoundError:
        return None
    except InputError as error:
        raise InputError(f"{_HYDRA}/{name}: {error}") from None


def _section(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _frame(runs: Sequence[_Run], columns: Sequence[str] | None) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    told = differences([run.choices or {} for run in runs], [run.settings or {} for run in runs])
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
    with_rows = [run for run in runs if run.columns is not None]
    for name in _history_names(with_rows, columns, series):
        # likewise a history's further column may have the name of a group (`loss`) or of what stands beside it
        series[f"history.{name}" if name in series else name] = _gather(name, with_rows)
    frame = pd.DataFrame(series, copy=False)
    frame.attrs["arms"] = [shown[name] for name in told.arms]
    frame.attrs["empty"] = [run.name for run in runs if not run.rows]
    return frame


def _history_names(runs: Sequence[_Run], columns: Sequence[str] | None, beside: Iterable[str]) -> list[str]:
    present = {name for run in runs for name in run.columns or ()}
    names = column_order(present)
    if columns is None:
        return names
    unknown = [name for name in columns if name not in names and name not in set(beside) | set(RESERVED_COLUMNS)]
    if unknown and runs:
        documented = ", ".join(HISTORY_COLUMNS)
        raise InputError(f"no run has a column {', '.join(unknown)} in its history; documented are {documented}")
    return [name for name in names if name in columns or name in tables.KEY_COLUMNS]


def _gather(name: str, runs: Sequence[_Run]) -> Any:
    """One column of all runs, one after another; null as NaN. The runs' own copies are let go."""
    import pandas as pd
    import pyarrow as pa

    chunks: list[Any] = []
    for run in runs:
        column = (run.columns or {}).pop(name, None)
        chunks += column.chunks if column is not None else [pa.nulls(run.rows, pa.float64())]
    if name == "split":
        return pd.Categorical.from_codes(_split_codes(chunks), categories=pd.Index(SPLITS, dtype="str"))
    return pa.chunked_array(chunks, type=pa.int64() if name == "step" else pa.float64()).to_numpy()


def _split_codes(chunks: Sequence[Any]) -> Any:
    """Index into SPLITS for every row of dictionary-coded chunks, each with a dictionary of its own."""
    import numpy as np

    tables_of: dict[tuple[str, ...], Any] = {}
    codes = [np.zeros(0, dtype=np.int8)]
    for chunk in chunks:
        texts = tuple(chunk.dictionary.to_pylist())
        if texts not in tables_of:
            tables_of[texts] = np.array([SPLITS.index(text) if text in SPLITS else -1 for text in texts], dtype=np.int8)
        codes.append(tables_of[texts][chunk.indices.to_numpy()])
    return np.concatenate(codes)


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
