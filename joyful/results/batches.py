"""Read many runs in batches, in this process and in helper processes.

Reading small Parquet files is limited by Python's global interpreter lock, so threads help little. A helper is another
process of the same interpreter. It is not started by multiprocessing, which would run the caller's script again.
Requests are JSON; answers are JSON and raw arrays, so nothing is unpickled. If a helper dies, this process reads its
batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from joyful.records import SPLITS
from joyful.results.one_run import RunHeader, read_run_folder
from joyful.results.schema import column_order

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: (name, folder, whether it has a .hydra/ folder) of a run.
Item = tuple[str, str, bool]

BATCH = 250
#: Number of runs from which helpers are used; a helper takes about half a second to start.
HELPERS_FROM = 1000
MAXIMUM_HELPERS = 7
#: Threads of each process; they overlap waits for the disk.
_THREADS = 4

_CHILD = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from joyful.results.batches import serve; serve()"


@dataclass
class Batch:
    """The runs of a batch.

    Attributes:
        headers: One header per run.
        columns: Column name -> one array with the rows of all runs, one run after another.
    """

    headers: list[RunHeader] = field(default_factory=list)
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def read_batches(items: Sequence[Item], columns: Sequence[str] | None, helpers: int | None = None) -> list[Batch]:
    """Read all runs, in the order of `items`.

    Args:
        items: The runs to read.
        columns: History columns to read; None reads all.
        helpers: Number of processes in addition to this one; None chooses it from the cores and the number of runs.

    Returns:
        The batches, in order.
    """
    slices = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    if helpers is None:
        helpers = 0 if len(items) < HELPERS_FROM else min(MAXIMUM_HELPERS, _cores() - 1, len(slices) - 1)
    done: dict[int, Batch] = {}
    waiting = list(range(len(slices)))[::-1]
    lock = threading.Lock()

    def take() -> int | None:
        with lock:
            return waiting.pop() if waiting else None

    def drive() -> None:
        number = None
        try:
            with _helper() as helper:
                while (number := take()) is not None:
                    done[number] = _request(helper, slices[number], columns)
        except Exception:  # if a helper fails in any way, this process reads its batch
            if number is not None:
                with lock:
                    waiting.append(number)

    threads = [threading.Thread(target=drive, daemon=True) for _ in range(helpers)]
    for thread in threads:
        thread.start()
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            while len(done) < len(slices):
                number = take()
                if number is not None:
                    done[number] = read_batch(slices[number], columns, pool)
                else:
                    for thread in threads:
                        thread.join(0.02)
    finally:
        with lock:
            waiting.clear()  # stops the helpers after an error or Ctrl-C
    return [done[number] for number in range(len(slices))]


def read_batch(items: Sequence[Item], columns: Sequence[str] | None, pool: ThreadPoolExecutor) -> Batch:
    """Read the runs of one batch. A damaged run has a header with `damage` and no rows."""
    results = list(pool.map(lambda item: read_run_folder(item[0], Path(item[1]), item[2], columns), items))
    return Batch([header for header, _ in results], _columns([table for _, table in results if table is not None]))


def serve() -> None:
    """Run a helper: read lines of JSON (items and columns) from standard input and write a batch for each."""
    import numpy as np

    out = sys.stdout.buffer
    with ThreadPoolExecutor(_THREADS) as pool:
        for line in sys.stdin.buffer:
            items, columns = json.loads(line)
            batch = read_batch([(name, folder, hydra) for name, folder, hydra in items], columns, pool)
            layout = [(name, array.dtype.str, len(array)) for name, array in batch.columns.items()]
            head = json.dumps({"headers": [header.__dict__ for header in batch.headers], "columns": layout})
            out.write(head.encode("ascii") + b"\n")
            for array in batch.columns.values():
                out.write(array.view(np.uint8).data)
            out.flush()


@contextlib.contextmanager
def _helper() -> Iterator[subprocess.Popen[bytes]]:
    if not sys.executable:
        raise OSError("this Python is embedded and has no interpreter to start")
    command = [sys.executable, "-c", _CHILD, json.dumps([os.fspath(place) for place in sys.path])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=False
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _request(helper: subprocess.Popen[bytes], items: Sequence[Item], columns: Sequence[str] | None) -> Batch:
    import numpy as np

    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.write(json.dumps([items, None if columns is None else list(columns)]).encode("ascii") + b"\n")
    helper.stdin.flush()
    head = json.loads(helper.stdout.readline() or _raise_ended())
    arrays = {}
    for name, kind, length in head["columns"]:
        arrays[name] = np.empty(length, dtype=np.dtype(kind))
        _fill(helper.stdout, arrays[name].view(np.uint8).data)
    headers = [RunHeader(**header) for header in head["headers"]]
    if [header.name for header in headers] != [name for name, _, _ in items]:
        raise ValueError("the helper returned other runs than requested")
    return Batch(headers, arrays)


def _fill(stream: IO[bytes], place: memoryview) -> None:
    while place.nbytes:
        count = stream.readinto(place)  # type: ignore[attr-defined]
        if not count:
            _raise_ended()
        place = place[count:]


def _raise_ended() -> bytes:
    raise EOFError("the helper ended")


def _columns(tables: Sequence[pa.Table]) -> dict[str, np.ndarray]:
    """Concatenate the columns of several runs, in file order. Null becomes NaN; split becomes its index in SPLITS."""
    import pyarrow as pa

    present = {name for table in tables for name in table.column_names}
    if tables and all(table.schema.equals(tables[0].schema) for table in tables[1:]):
        combined = pa.concat_tables(tables)  # fast path: the runs of a sweep have one schema
        chunks = {name: combined.column(name).chunks for name in present}
    else:
        chunks = {name: [] for name in present}
        for table in tables:
            has = set(table.column_names)
            for name in present:
                chunks[name] += table.column(name).chunks if name in has else [pa.nulls(table.num_rows, pa.float64())]
    return {name: _array(name, chunks[name]) for name in column_order(present) if name in present}


def _array(name: str, chunks: Sequence[Any]) -> np.ndarray:
    import pyarrow as pa

    if name == "split":
        return _split_codes(chunks)
    column = pa.chunked_array(chunks, type=pa.int64() if name == "step" else pa.float64())
    array: np.ndarray = column.to_numpy()
    return array


def _split_codes(chunks: Sequence[Any]) -> np.ndarray:
    """Return the index into SPLITS of every row of dictionary-coded chunks; each chunk has its own dictionary."""
    import numpy as np

    tables_of: dict[tuple[str, ...], Any] = {}
    codes = [np.zeros(0, dtype=np.int8)]
    for chunk in chunks:
        texts = tuple(chunk.dictionary.to_pylist())
        if texts not in tables_of:
            tables_of[texts] = np.array([SPLITS.index(text) if text in SPLITS else -1 for text in texts], dtype=np.int8)
        codes.append(tables_of[texts][chunk.indices.to_numpy()])
    return np.concatenate(codes)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
