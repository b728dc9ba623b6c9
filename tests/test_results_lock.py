"""The lock of a run folder: one writer, released by its death, taken over where its holder has lost its right."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joyful import results
from joyful.records import InputError
from joyful.testing.faults import Tally

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


def test_a_second_writer_learns_who_holds_the_run(tmp_path: Path, holder: subprocess.Popen, tally: Tally) -> None:
    with pytest.raises(InputError, match=rf"another process writes this run \(pid {holder.pid} on .* since 20"):
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
    forks = f"import os\nr, w = os.pipe()\nif os.fork() == 0:\n    {child}\nos.read(r, 1)  # the child is under way\n"
    code = HOLD.replace('print("held"', forks + 'print("held"')
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=-1, stdout=-1, text=True, process_group=0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"pid {process.pid} on"):
            results.lock(tmp_path)
        process.kill()
        process.wait()
        results.lock(tmp_path).release()  # although the child lives on
    finally:
        os.killpg(process.pid, 9)


def test_lock_needs_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the folder of a run, found none"):
        results.lock(tmp_path / "none")


def test_a_lock_whose_holder_ends_in_time_is_waited_for(tmp_path: Path, holder: subprocess.Popen) -> None:
    before = (tmp_path / ".lock").stat().st_ino
    holder.kill()
    results.lock(tmp_path, take_over_after=30).release()
    assert (tmp_path / ".lock").stat().st_ino == before


def test_a_lock_is_taken_over_from_a_holder_that_stays(tmp_path: Path, holder: subprocess.Popen) -> None:
    """As from a frozen process: the new lock keeps others out, and the old holder's end changes nothing."""
    with results.lock(tmp_path, take_over_after=0.2):
        assert holder.poll() is None
        holder.kill()
        holder.wait()
        with pytest.raises(InputError, match=f"pid {os.getpid()} on"):
            results.lock(tmp_path)
