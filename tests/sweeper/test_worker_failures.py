"""A trial whose training process is killed repeatedly fails, and the sweep continues with the other trials."""

import os
import signal

from tests.support import small_program, sweeps

#: The first trial waits to be killed, before it completes a step.
BODY = """\
    import time
    time.sleep(60 if cfg.x < 0.15 else 0)
    trial.report(cfg.x, 1)
    return cfg.x
"""


def test_a_trial_fails_after_three_worker_failures_without_an_epoch(tmp_path):
    small_program.write(tmp_path, BODY)
    command = small_program.command(tmp_path, "hydra.sweeper.trials=['x=0.1','x=0.2']")
    folder, driver, killed = tmp_path / "multirun/main", sweeps.start(command, tmp_path), set()

    def next_trainer():
        pids = {pid for worker in sweeps.workers(folder) for pid in sweeps.trainers(worker)} - killed
        return pids or driver.poll() is not None

    try:
        for _ in range(3):
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
