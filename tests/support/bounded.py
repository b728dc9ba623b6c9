"""Reading hostile files in separate processes, with measured memory and time.

`read_each(READER, paths)` starts a process that loads the reader and forks for each file. A file that takes gigabytes,
hangs or crashes therefore affects only that child. The memory of a file is the peak resident set of the child (VmHWM)
minus its resident set before reading, which excludes the memory of the libraries.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Largest memory of a hostile file in MiB, as documented in docs/RELIABILITY.md.
BOUND_MIB = 512

#: A child that reads for longer is killed, in seconds.
PATIENCE = 60


@dataclass(frozen=True)
class Outcome:
    """The outcome of reading a file.

    Attributes:
        kind: "read", the class of the error, or how the process ended.
        message: Text of the error.
        mebibytes: Growth of the resident memory in MiB.
        seconds: Wall-clock seconds.
    """

    kind: str
    message: str
    mebibytes: float
    seconds: float


def read_each(reader: str, paths: Sequence[Path]) -> list[Outcome]:
    """Read each file with a reader, a key of READERS, and return the outcomes."""
    command = [sys.executable, "-m", "tests.support.bounded", reader, *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(str, sys.path))), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE * len(paths) + 60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def _pickle() -> Callable[[Path], object]:
    from joyful.data.cogmen import restricted_pickle

    return restricted_pickle.load


def _checkpoint() -> Callable[[Path], object]:
    from joyful.training import checkpoints

    return lambda path: checkpoints.read(path, "last")


def _runs() -> Callable[[Path], object]:
    import pyarrow.parquet  # noqa: F401

    from joyful.records import InputError
    from joyful.results import read_runs

    def read(path: Path) -> object:
        runs = read_runs(path)
        if runs.damaged:
            raise InputError("; ".join(header.damage for header in runs.damaged))
        return runs

    return read


def _run() -> Callable[[Path], object]:
    from joyful.results import RunFolder

    def read(path: Path) -> object:
        run = RunFolder.open(path)
        return run.history_rows(), run.timing_rows()

    return read


def _data(name: str) -> Callable[[], Callable[[Path], object]]:
    def load() -> Callable[[Path], object]:
        from joyful.data.sources import SOURCES
        from joyful.data.validation import validate
        from tests.support.datasets import data_settings, fake_encode

        def read(path: Path) -> object:
            settings = data_settings(name, root=str(path))
            dataset = SOURCES[settings.source].read(settings, fake_encode)
            validate(dataset)
            return dataset

        import pyarrow.parquet  # noqa: F401

        return read

    return load


def _importer(*options: str) -> Callable[[Path], object]:
    """Return a reader of logs, whose format is the name of the folder of the file; by default a CSV table."""
    from joyful.analysis.importers import FORMATS
    from joyful.analysis.importers.writing import write_runs
    from tests.support.importing import read_runs_of

    def read(path: Path) -> object:
        name = path.parent.name if path.parent.name in FORMATS else "csv"
        write_runs(read_runs_of(name, path, *options), path.with_suffix(".imported"), str(path))
        return None

    return read


READERS: Mapping[str, Callable[[], Callable[[Path], object]]] = {
    "pickle": _pickle,
    "checkpoint": _checkpoint,
    "runs": _runs,
    "run": _run,
    "importer": _importer,
    "logs": lambda: _importer("--arm", "a", "--seed-from", "[0-9]"),
    **{name: _data(name) for name in ("meld", "emorynlp", "mosi", "prepared", "iemocap")},
}


def _memory(kind: str) -> float:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{kind}:\s+(\d+) kB", status, re.M)
    assert match is not None
    return int(match[1]) / 1024


def _read(read: Callable[[Path], Any], path: Path) -> dict[str, object]:
    before, started, kind, message = _memory("VmRSS"), time.monotonic(), "read", ""
    try:
        read(path)
    except Exception as error:
        kind, message = type(error).__name__, str(error)
        if kind != "InputError":
            traceback.print_exc()
    seconds = time.monotonic() - started
    return {"kind": kind, "message": message[:5000], "mebibytes": _memory("VmHWM") - before, "seconds": seconds}


def main(reader: str, paths: Sequence[str]) -> None:
    """Read each path in a child of this process, and print its outcome as a line of JSON."""
    read = READERS[reader]()
    for path in paths:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE)
            os.write(into, json.dumps(_read(read, Path(path))).encode())
            os._exit(0)
        os.close(into)
        with os.fdopen(out, "rb") as stream:
            answer = stream.read()
        _, status = os.waitpid(child, 0)
        how = f"ended by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "ended"
        print(answer.decode() or json.dumps({"kind": how, "message": "", "mebibytes": 0.0, "seconds": 0.0}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
