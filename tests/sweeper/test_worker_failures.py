"""A trial whose training process is killed repeatedly fails, and the sweep continues with the other trials."""

import os
import signal

from joyful.results import read_run
from tests.support import sweeps


def test_a_trial_fails_after_three_worker_failures_without_an_epoch(tmp_path):
    trials = "hydra.sweeper.trials=['seed=1','seed=2']"
    command = sweeps.command("failures", "hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", trials)
    folder, driver, killed = tmp_path / "multirun/failures", sweeps.start(command, tmp_path), set()

    def next_trainer():
        pids = {pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker)} - killed
        return pids or driver.poll() is not None

    try:
        for _ in range(3):  # each is killed while it loads torch, before it completes an epoch
            sweeps.wait_until(next_trainer, 120)
            assert driver.poll() is None, (tmp_path / "sweep.log").read_text()
            for worker in sweeps.workers(folder):
                for pid in set(sweeps.trainers(worker)) - killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        assert driver.wait(120) == 0
    finally:
        sweeps.kill_group(driver)
    assert len(killed) == 3
    assert sweeps.states(folder) == {0: "FAIL", 1: "COMPLETE"}
    reason = sweeps.study(folder).trials[0].user_attrs["reason"]
    assert "its process was killed" in reason
    assert "3 times in a row without completing a step" in reason
    assert f"trial 0 failed: {reason}" in (tmp_path / "sweep.log").read_text()
    assert read_run(folder / "1")["status"] == "completed"
