"""The lock of a run folder: one writer, released when its process ends, and taken over from a frozen holder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from joyful import results
from joyful.records import InputError
from joyful.results import files
from joyful.results.lock import require_lock
from joyful.training import checkpoints
from tests.support.faults import Tally

HOLD = """
import sys, time
from joyful.results import lock
held = lock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of tmp_path until it dies or its input is closed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_told_the_holder(tmp_path: Path, holder: subprocess.Popen, tally: Tally) -> None:
    with pytest.raises(InputError, match=rf"another process is writing this run \(pid {holder.pid} on .* since 20"):
        results.lock(tmp_path)
    holder.kill()
    holder.wait()
    with results.lock(tmp_path), pytest.raises(InputError, match=f"pid {os.getpid()} on"):
        results.lock(tmp_path)
    results.lock(tmp_path).release()
    tally("a second process on a run's folder", 2)
    tally("a dead process's lock of a run's folder", 1)


def test_a_forked_child_neither_holds_nor_releases_its_parents_lock(tmp_path: Path) -> None:
    child = "held.release(); os.write(w, b'!'); time.sleep(60)"
    forks = f"import os\nr, w = os.pipe()\nif os.fork() == 0:\n    {child}\nos.read(r, 1)  # the child has started\n"
    code = HOLD.replace('print("held"', forks + 'print("held"')
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=-1, stdout=-1, text=True, process_group=0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"pid {process.pid} on"):
            results.lock(tmp_path)
        process.kill()
        process.wait()
        results.lock(tmp_path).release()  # although the child is still alive
    finally:
        os.killpg(process.pid, 9)


def test_lock_needs_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the folder of a run, found none"):
        results.lock(tmp_path / "none")


def test_waits_for_a_holder_that_ends_in_time(tmp_path: Path, holder: subprocess.Popen) -> None:
    before = (tmp_path / ".lock").stat().st_ino
    holder.kill()
    results.lock(tmp_path, take_over_after=30).release()
    assert (tmp_path / ".lock").stat().st_ino == before


def test_a_lock_is_taken_over_from_a_holder_that_stays(tmp_path: Path, holder: subprocess.Popen) -> None:
    """After a takeover the new lock excludes others, and the end of the old holder changes nothing."""
    with results.lock(tmp_path, take_over_after=0.2):
        assert holder.poll() is None
        holder.kill()
        holder.wait()
        with pytest.raises(InputError, match=f"pid {os.getpid()} on"):
            results.lock(tmp_path)


def take_over(folder: Path) -> None:
    """Let another process take the lock of the run from this one, and end."""
    code = "import sys; from joyful.results import lock; lock(sys.argv[1], take_over_after=0)"
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def written(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("place", ["", "checkpoint"])
@pytest.mark.parametrize("moment", ["before", "while it writes", "after its last check"])
def test_a_writer_that_lost_its_lock_replaces_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, moment: str, tally: Tally
) -> None:
    """A writer is frozen at any moment of a write, another process takes over the run, and the writer wakes."""
    target = tmp_path / place / "file"
    target.parent.mkdir(exist_ok=True)
    with results.lock(tmp_path):
        results.write_bytes(target, b"before")
        before = written(tmp_path)
        if moment == "before":
            take_over(tmp_path)
        if moment == "after its last check":
            checked: list[Path] = []

            def check_and_freeze(folder: Path) -> None:
                require_lock(folder)
                if not checked:
                    checked.append(folder)
                    take_over(tmp_path)

            monkeypatch.setattr(files, "require_lock", check_and_freeze)

        def write(temporary: Path) -> None:
            if moment == "while it writes":
                take_over(tmp_path)
            temporary.write_bytes(b"after")

        with pytest.raises(results.LockLostError, match="another process has taken over this run"):
            results.write_file(target, write, 5)
        assert written(tmp_path) == before
        with pytest.raises(results.LockLostError):
            results.set_aside(target, "no more")
        assert written(tmp_path) == before
    results.write_bytes(target, b"another's")  # a process that never held the lock is not checked
    tally("a writer whose lock another has taken", 1)


def test_a_writer_that_lost_its_lock_changes_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    saved = checkpoints.Checkpoint({"w": torch.ones(2)}, {"epoch": 1})
    with results.lock(tmp_path):
        for step in (1, 2):
            checkpoints.write(folder, checkpoints.LAST, step, saved)
        before = written(tmp_path)
        assert len(before) == 4
        take_over(tmp_path)
        with pytest.raises(results.LockLostError):
            checkpoints.drop_previous(folder)
        for name in (checkpoints.LAST, checkpoints.BEST):
            with pytest.raises(results.LockLostError):
                checkpoints.write(folder, name, 3, saved)
        assert written(tmp_path) == before
