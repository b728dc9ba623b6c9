"""A trial that kills its process again and again is given up, truthfully, and the others go on."""

import os
import signal

import pytest

from joyful.results import read_run
from tests.support import sweeps

pytestmark = pytest.mark.xdist_group("sweep")


def test_a_trial_whose_process_dies_three_times_without_an_epoch_fails_and_the_next_is_trained(tmp_path):
    trials = "hydra.sweeper.trials=['seed=1','seed=2']"
    command = sweeps.command("deaths", "hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", trials)
    folder, driver, killed = tmp_path / "multirun/deaths", sweeps.start(command, tmp_path), set()

    def another():
        found = {pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker)} - killed
        return found or driver.poll() is not None

    try:
        for _ in range(3):  # each dies while it still loads torch: no epoch is completed
            sweeps.until(another, 120)
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
    assert "3 times without completing an epoch in between" in reason
    assert f"trial 0 failed: {reason}" in (tmp_path / "sweep.log").read_text()
    assert read_run(folder / "1")["status"] == "completed"
