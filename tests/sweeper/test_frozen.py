"""A worker that is frozen past its lease loses its trial; woken, it writes nothing."""

import contextlib
import os
import signal

import pytest

from joyful.testing import launchers, sweeps

pytestmark = pytest.mark.xdist_group("sweep")


def test_a_frozen_worker_loses_its_trial_and_does_not_wake_in_it(tmp_path):
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
    assert sweeps.histories(folder) == launchers.alone(tmp_path / "alone")
