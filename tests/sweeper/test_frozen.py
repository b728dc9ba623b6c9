"""A worker that is frozen for longer than its lease loses its trial. After SIGCONT it writes nothing."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from tests.support import launchers, sweeps
from tests.support.faults import count

EPOCHS = count(quick=15, full=40)


@pytest.mark.soak("takes 40 s; the next test freezes one on another machine")
def test_a_frozen_worker_loses_its_trial(tmp_path, tally):
    command = [*launchers.sweep_command(EPOCHS), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=2), 120)
        lease = launchers.held_lease(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        second = sweeps.start(command, tmp_path, tmp_path / "second.log")
        try:
            assert second.wait(240) == 0, (tmp_path / "second.log").read_text()
        finally:
            sweeps.kill_group(second)
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):  # the worker that took the trial over has killed it
                os.kill(pid, signal.SIGCONT)
        first.wait(60)
    finally:
        sweeps.kill_group(first)
    assert sweeps.states(folder) == launchers.COMPLETE
    assert sweeps.leases(folder)[lease.number].term > 1
    assert sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(EPOCHS)) == []
    tally("a worker frozen past its lease, on the same machine", 1)


def test_a_frozen_worker_that_cannot_be_killed_writes_nothing_when_it_continues(tmp_path, tally):
    """The second command runs in another PID namespace, as on another machine. It cannot kill the first command."""
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("a PID namespace is not permitted here (unshare --pid)")
    command = [*launchers.sweep_command(EPOCHS), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=2), 120)
        lease = launchers.held_lease(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        second = sweeps.start([*namespace, *command], tmp_path, tmp_path / "second.log")
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
    assert sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(EPOCHS)) == []
