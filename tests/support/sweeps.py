"""Running sweeps as separate processes, and reading their results."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
import psutil
import pyarrow.parquet as pq

from joyful.results import HISTORY
from joyful.sweeper.database import close_storage, open_storage, storage_url, with_password
from joyful.sweeper.registry import Lease, Member
from joyful.sweeper.status import open_sweep
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY

RUN = Path(__file__).resolve().parents[2] / "run.py"

#: TINY without training settings, which `command` sets. A multirun uses 1 thread by default.
TINY_SWEEP = tuple(item for item in TINY if not item.startswith("training."))


def command(name: str, *overrides: str, batch_size: int = 2, epochs: int = 3) -> list[str]:
    """Return the command of a sweep of tiny runs, which writes to multirun/NAME in the working directory."""
    training = (f"training.batch_size={batch_size}", f"training.epochs={epochs}")
    return [sys.executable, str(RUN), "-m", f"sweep_name={name}", *TINY_SWEEP, *training, *overrides]


def start(arguments: Sequence[str], folder: Path, log: Path | None = None) -> subprocess.Popen[str]:
    """Start a sweep in `folder`, in its own process group as in a terminal."""
    output = (log or folder / "sweep.log").open("a")
    return subprocess.Popen(
        arguments, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=enable_ctrl_c,
    )  # fmt: skip


def enable_ctrl_c() -> None:
    """Restore the default reaction to Ctrl-C in a process that is being started.

    Background jobs of a shell ignore Ctrl-C, and the processes that they start inherit this.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(
    arguments: Sequence[str], folder: Path, server: ForkServer | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a sweep and wait for its end; with a fork server, without importing the libraries again."""
    if server is not None:
        return server.run(arguments[1:], folder, os.environ, timeout)
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=timeout)


def study(folder: Path, storage: str | None = None) -> optuna.Study:
    """Return the Optuna study of a sweep folder."""
    return optuna.load_study(study_name=folder.name, storage=with_password(storage_url(storage, folder)))


def states(folder: Path, storage: str | None = None) -> dict[int, str]:
    """Return trial number -> name of its state; empty if there is no study yet."""
    if storage is None and not (folder / "study.db").exists():
        return {}
    backend = open_storage(storage_url(storage, folder))
    try:
        trials = backend.get_all_trials(backend.get_study_id_from_name(folder.name), deepcopy=False)
        return {trial.number: trial.state.name for trial in trials}
    except KeyError:
        return {}
    finally:
        close_storage(backend)


def histories(folder: Path) -> dict[int, bytes]:
    """Return trial number -> content of its history.parquet."""
    return {int(p.parent.name): p.read_bytes() for p in folder.glob(f"[0-9]*/{HISTORY}")}


def differing_histories(actual: Mapping[int, bytes], expected: Mapping[int, bytes]) -> list[str]:
    """Compare histories, and return one line for each trial that differs, with the first value that differs."""
    lines = [f"trial {number}: expected no history" for number in actual.keys() - expected.keys()]
    for number, data in expected.items():
        if number not in actual:
            lines.append(f"trial {number}: has no history")
        elif actual[number] != data:
            lines.append(f"trial {number}: {_first_difference(actual[number], data)}")
    return lines


def _first_difference(actual: bytes, expected: bytes) -> str:
    left, right = (pq.read_table(io.BytesIO(data)).to_pylist() for data in (actual, expected))
    rows = f"{len(left)} rows, expected {len(right)}"
    for ours, theirs in zip(left, right, strict=False):
        differing = [key for key in ours.keys() | theirs.keys() if repr(ours.get(key)) != repr(theirs.get(key))]
        if differing:
            values = ", ".join(
                f"{key} {ours.get(key)!r}, expected {theirs.get(key)!r}" for key in sorted(differing)[:4]
            )
            return f"{rows}; {theirs.get('split')} at epoch {theirs.get('epoch')}, {len(differing)} columns: {values}"
    return f"{rows}; equal values, but different bytes"


def is_writable(folder: Path) -> bool:
    """Return whether no process holds the write lock of a sweep's SQLite database."""
    with contextlib.closing(sqlite3.connect(folder / "study.db", timeout=0.2)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        except sqlite3.OperationalError:
            return False
        return True


def workers(folder: Path) -> list[Member]:
    """Return the live workers of a sweep on this machine; empty if there is no sweep yet."""
    if not (folder / "sweep.json").exists():
        return []
    with open_sweep(folder) as sweep:
        members = sweep.registry.members(role="worker").values()
        return [m for m in members if m.identity.is_local and not m.identity.has_ended]


def leases(folder: Path) -> dict[int, Lease]:
    """Return trial number -> its current lease."""
    with open_sweep(folder) as sweep:
        return sweep.registry.leases()


def trainers(worker: Member) -> list[int]:
    """Return the process ids of a worker's training processes."""
    try:
        children = psutil.Process(worker.identity.pid).children()
        return [child.pid for child in children if "joyful.sweeper.trainer" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill all processes of a sweep's process group, at the end of a test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition, with at most half of a core. Raise TimeoutError after `seconds` seconds."""
    deadline, asked = time.monotonic() + seconds, time.monotonic()
    while not condition():
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"{condition} did not come true in {seconds:g} s")
        time.sleep(max(0.05, now - asked))
        asked = time.monotonic()
