"""Sweeps for tests: the real command in a process of its own, and what it left."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import psutil
import pyarrow.parquet as pq

from joyful.results import HISTORY
from joyful.sweeper import identity
from joyful.sweeper.database import close, open_storage, storage_url, text
from joyful.sweeper.registry import Lease, Member
from joyful.sweeper.status import open_sweep
from tests.support.runs import TINY

RUN = Path(__file__).resolve().parents[2] / "run.py"

#: Of TINY, but for the threads: in a multirun they are 1 anyway.
TINY_SWEEP = tuple(item for item in TINY if not item.startswith("training."))


def command(name: str, *overrides: str, batch_size: int = 2, epochs: int = 3) -> list[str]:
    """A sweep of tiny runs, into multirun/NAME below the working directory."""
    training = (f"training.batch_size={batch_size}", f"training.epochs={epochs}")
    return [sys.executable, str(RUN), "-m", f"sweep_name={name}", *TINY_SWEEP, *training, *overrides]


def start(arguments: Sequence[str], folder: Path, log: Path | None = None) -> subprocess.Popen[str]:
    """Begin a sweep in `folder`, in a process group of its own, as a person at a terminal does."""
    output = (log or folder / "sweep.log").open("a")
    return subprocess.Popen(
        arguments, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=answer_ctrl_c,
    )  # fmt: skip


def answer_ctrl_c() -> None:
    """For a process about to be started: Ctrl-C is answered by default (a shell's job in the background ignores it, and so would
    what its tests start)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(arguments: Sequence[str], folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a sweep to its end."""
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=timeout)


def study(folder: Path, storage: str | None = None) -> optuna.Study:
    """The study of a sweep folder."""
    return optuna.load_study(study_name=folder.name, storage=text(storage_url(storage, folder)))


def states(folder: Path, storage: str | None = None) -> dict[int, str]:
    """Trial number -> name of its state; empty where there is no study yet."""
    if storage is None and not (folder / "study.db").exists():
        return {}
    backend = open_storage(storage_url(storage, folder))
    try:
        trials = backend.get_all_trials(backend.get_study_id_from_name(folder.name), deepcopy=False)
        return {trial.number: trial.state.name for trial in trials}
    except KeyError:
        return {}
    finally:
        close(backend)


def histories(folder: Path) -> dict[int, bytes]:
    """Trial number -> the bytes of its history."""
    return {int(p.parent.name): p.read_bytes() for p in folder.glob(f"[0-9]*/{HISTORY}")}


def unlike(found: dict[int, bytes], expected: dict[int, bytes]) -> list[str]:
    """What is other in the histories that were found: a line for each trial, with the first value that differs."""
    told = [f"trial {number}: none was expected" for number in found.keys() - expected.keys()]
    for number, data in expected.items():
        if number not in found:
            told.append(f"trial {number}: it has none")
        elif found[number] != data:
            told.append(f"trial {number}: {_first_difference(found[number], data)}")
    return told


def _first_difference(found: bytes, expected: bytes) -> str:
    left, right = (pq.read_table(io.BytesIO(data)).to_pylist() for data in (found, expected))
    rows = f"{len(left)} rows, {len(right)} expected"
    for ours, theirs in zip(left, right, strict=False):
        differing = [key for key in ours.keys() | theirs.keys() if repr(ours.get(key)) != repr(theirs.get(key))]
        if differing:
            values = ", ".join(f"{key} {ours.get(key)!r} for {theirs.get(key)!r}" for key in sorted(differing)[:4])
            return f"{rows}; {theirs.get('split')} at epoch {theirs.get('epoch')}, {len(differing)} columns: {values}"
    return f"{rows}; the same values in other bytes"


def workers(folder: Path) -> list[Member]:
    """The living workers of a sweep on this machine; none where there is no sweep yet."""
    if not (folder / "sweep.json").exists():
        return []
    with open_sweep(folder) as sweep:
        return [m for m in sweep.live_workers() if identity.is_local(m.identity)]


def leases(folder: Path) -> dict[int, Lease]:
    """Trial number -> its lease, as it is now."""
    with open_sweep(folder) as sweep:
        return sweep.registry.leases()


def trainers(worker: Member) -> list[int]:
    """The process numbers of a worker's training process."""
    try:
        children = psutil.Process(worker.identity.pid).children()
        return [child.pid for child in children if "joyful.sweeper.trainer" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a sweep with all that it started and that is still of its group: for the end of a test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} did not come true in {seconds:g} s")
        time.sleep(0.05)
