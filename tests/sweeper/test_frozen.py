"""A worker that is frozen for longer than its lease loses its trial. After SIGCONT it writes nothing.

`make test` freezes a small program. A soak also freezes the trainer.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.support import launchers, small_program, sweeps

EPOCHS = 40


def freeze(pids, folder):
    """Stop processes at a moment when none of them holds SQLite's lock, which would stop every other process too."""
    for _ in range(100):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if sweeps.is_writable(folder):
            return
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
    pytest.fail("the sweep wrote to its database whenever it was stopped")


@pytest.mark.soak("takes 40 s; the next test freezes a small program on another machine")
def test_a_frozen_worker_loses_its_trial(tmp_path, tally):
    command = [*launchers.sweep_command(EPOCHS), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=2), 120)
        lease = launchers.held_lease(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        freeze(frozen, folder)
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


#: A program that keeps no checkpoint. Its first trial takes 4 seconds, the second one none.
BODY = """\
    import time
    for step in range(1, 21):
        time.sleep(cfg.x)
        trial.report(cfg.x + 1 / step, step, metrics={"loss": 1 / step})
    return cfg.x
"""


def namespace():
    """Return the command that starts another in a new PID namespace, as on another machine."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("a PID namespace is not permitted here (unshare --pid)")
    return command


def files_of_trials(folder):
    """Return path -> modification time of what belongs to the trials.

    Logs and locks do not.
    """
    files = [path for path in folder.glob("[0-9]*/**/*") if path.is_file() and path.suffix != ".log"]
    return {str(path): path.stat().st_mtime_ns for path in files if path.name != ".lock"}


def freeze_until_another_has_finished(command, folder, tmp_path):
    """Freeze a command and its training, let a second command that cannot kill it finish the sweep, and wake it up.

    Returns:
        The paths of the trials that have changed after the wake-up.
    """
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=2), 120)
        lease = launchers.held_lease(folder, epochs=2)
        frozen = [first.pid, *(pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker))]
        freeze(frozen, folder)
        second = sweeps.start([*namespace(), *command], tmp_path, tmp_path / "second.log")
        try:
            assert second.wait(240) == 0, (tmp_path / "second.log").read_text()
        finally:
            sweeps.kill_group(second)
        before = files_of_trials(folder)
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):  # the command, woken first, may have ended its training
                os.kill(pid, signal.SIGCONT)
        assert first.wait(60) == 0, (tmp_path / "first.log").read_text()
    finally:
        sweeps.kill_group(first)
    assert sweeps.leases(folder)[lease.number].term > 1
    after = files_of_trials(folder)
    return [path for path in after if before.get(path) != after[path]]


@pytest.mark.soak("takes 20 s; tests/sweeper/test_exhaustive.py freezes workers at every statement")
def test_a_frozen_worker_that_cannot_be_killed_writes_nothing_when_it_continues(tmp_path, tally):
    namespace()
    small_program.write(tmp_path, BODY)
    trials = "hydra.sweeper.trials=['x=0.2','x=0.0']"
    command = small_program.command(tmp_path, trials, "hydra/sweeper/pruner=none", "hydra.sweeper.lease_seconds=5")
    folder = tmp_path / "multirun/main"
    written = freeze_until_another_has_finished(command, folder, tmp_path)
    tally("a worker frozen past its lease, on another machine", 1, 0, len(written))
    assert written == []
    assert sweeps.states(folder) == {0: "COMPLETE", 1: "COMPLETE"}
    histories = sweeps.histories(folder)
    assert histories[0] == histories[1]
    assert [sorted(trial.intermediate_values) for trial in sweeps.study(folder).trials] == [list(range(1, 21))] * 2


@pytest.mark.soak("takes 40 s; the test above freezes a small program")
def test_a_frozen_trainer_that_cannot_be_killed_writes_nothing_when_it_continues(tmp_path, tally):
    namespace()
    command = [*launchers.sweep_command(EPOCHS), "hydra.sweeper.lease_seconds=5"]
    folder = tmp_path / "multirun/launched"
    written = freeze_until_another_has_finished(command, folder, tmp_path)
    tally("a worker frozen past its lease, on another machine", 1, 0, len(written))
    assert written == []
    assert sweeps.states(folder) == launchers.COMPLETE
    assert sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(EPOCHS)) == []
