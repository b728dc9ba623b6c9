"""A worker that is frozen past its lease loses its trial; woken, it writes nothing."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from tests.support import launchers, sweeps

pytestmark = pytest.mark.xdist_group("sweep")


def test_a_frozen_worker_loses_its_trial_and_does_not_wake_in_it(tmp_path, tally):
    command = [*launchers.sweep_command(), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.until(lambda: launchers.held(folder, epochs=2), 120)
        lease = launchers.held(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        second = sweeps.start(command, tmp_path, tmp_path / "second.log")
        try:
            assert second.wait(240) == 0, (tmp_path / "second.log").read_text()
        finally:
            sweeps.kill_group(second)
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):  # whoever took the trial over has ended it
                os.kill(pid, signal.SIGCONT)
        first.wait(60)
    finally:
        sweeps.kill_group(first)
    assert sweeps.states(folder) == launchers.COMPLETE
    assert sweeps.leases(folder)[lease.number].term > 1
    assert sweeps.unlike(sweeps.histories(folder), launchers.alone(tmp_path / "alone")) == []
    tally("a worker frozen past its lease, on the same machine", 1)


def test_a_frozen_worker_that_nobody_can_kill_wakes_and_writes_nothing(tmp_path, tally):
    """The second command has process numbers of its own, as on another machine: it sees silence alone, and cannot end the first."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("process numbers of its own are not permitted here (unshare --pid)")
    command = [*launchers.sweep_command(), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.until(lambda: launchers.held(folder, epochs=2), 120)
        lease = launchers.held(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        second = sweeps.start([*apart, *command], tmp_path, tmp_path / "second.log")
        try:
            assert second.wait(240) == 0, (tmp_path / "second.log").read_text()
        finally:
            sweeps.kill_group(second)
        before = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/**/*") if path.is_file()}
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        assert first.wait(60) == 0, (tmp_path / "first.log").read_text()
    finally:
        sweeps.kill_group(first)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/**/*") if path.is_file()}
    written = [
        str(path)
        for path in after
        if before.get(path) != after[path] and path.suffix != ".log" and path.name != ".lock"
    ]
    tally("a worker frozen past its lease, on another machine", 1, 0, len(written))
    assert written == []
    assert sweeps.states(folder) == launchers.COMPLETE
    assert sweeps.leases(folder)[lease.number].term > 1
    assert sweeps.unlike(sweeps.histories(folder), launchers.alone(tmp_path / "alone")) == []
