"""A program that continues from its own checkpoint: examples/checkpoint."""

import re
import signal
import sys

import pytest

from tests.support import examples, launchers, sweeps

pytestmark = pytest.mark.slow

STEPS = 14
SWEEP = (examples.TO_THE_END, f"steps={STEPS}", "pause=0.15")


@pytest.fixture
def folder(tmp_path):
    return examples.copy("checkpoint", tmp_path)


def continued(folder, number):
    """Return the steps at which a trial has continued."""
    log = (folder / f"multirun/main/{number}/main.log").read_text()
    return [int(step) for step in re.findall(r"continues at step (\d+)", log)]


def assert_nothing_is_lost(folder, overrides):
    """Check that a trial has reported all steps, and ended as without interruption."""
    trials = sweeps.study(folder / "multirun/main").trials
    for number, override in enumerate(overrides):
        assert trials[number].state.name == "COMPLETE"
        assert list(trials[number].intermediate_values) == list(range(STEPS))
        alone = f"hydra.run.dir=alone/{number}"
        examples.run(folder, sys.executable, "main.py", override, f"steps={STEPS}", "pause=0", alone)
        expected = (folder / f"alone/{number}/checkpoint.json").read_text()
        assert (folder / f"multirun/main/{number}/checkpoint.json").read_text() == expected


@pytest.mark.soak("takes 18 s; test_kills.py kills workers, test_programs.py resumes a killed program")
def test_a_trial_continues_from_its_checkpoint_when_its_worker_is_killed(folder):
    overrides = ["width=0.1", "width=0.5"]
    command = examples.sweep_command(examples.trials(*overrides), examples.TWO_WORKERS, *SWEEP)
    driver = sweeps.start(command, folder)
    try:
        number = examples.kill_a_worker(folder, steps=3)
        examples.wait_for_end(driver, folder)
    finally:
        sweeps.kill_group(driver)
    (step,) = continued(folder, number)
    assert step >= 3
    assert_nothing_is_lost(folder, overrides)


@pytest.mark.soak("takes 13 s; test_programs.py stops a small program")
def test_a_stopped_program_saves_its_state_and_continues(folder):
    command = examples.sweep_command(examples.trials("width=0.3"), examples.TWO_WORKERS, *SWEEP)
    driver = sweeps.start(command, folder)
    try:
        examples.during(driver, lambda: launchers.held_lease(folder / "multirun/main", 3))
        driver.send_signal(signal.SIGTERM)
        examples.wait_for_end(driver, folder, expected=143)
    finally:
        sweeps.kill_group(driver)
    stopped = re.search(r"stops after step (\d+)", (folder / "multirun/main/0/main.log").read_text())
    examples.run(folder, *command)
    assert continued(folder, 0) == [int(stopped[1]) + 1]
    assert_nothing_is_lost(folder, ["width=0.3"])


def test_a_program_that_exits_when_it_is_stopped_is_resumed(folder):
    """Libraries such as Lightning turn KeyboardInterrupt into SystemExit. The trial has not failed."""
    exits = "try:\n            time.sleep(60 * (step > 1))\n        except KeyboardInterrupt:\n            raise SystemExit(1)"
    examples.edit(folder, "time.sleep(cfg.pause)", exits)
    command = examples.sweep_command(examples.trials("width=0.3"), examples.TWO_WORKERS, *SWEEP)
    driver = sweeps.start(command, folder)
    try:
        examples.during(driver, lambda: launchers.held_lease(folder / "multirun/main", 2))
        driver.send_signal(signal.SIGTERM)
        examples.wait_for_end(driver, folder, expected=143)
    finally:
        sweeps.kill_group(driver)
    assert sweeps.states(folder / "multirun/main") == {0: "RUNNING"}
