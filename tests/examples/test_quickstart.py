"""The session of a user with the smallest program, where torch is not installed: examples/quickstart."""

import subprocess
import sys
from collections import Counter

import pytest

from tests.support import examples, sweeps

pytestmark = pytest.mark.slow

SEARCH = ("lr=tag(log,interval(0.001,0.03))", "momentum=interval(0,0.9)")


@pytest.fixture(autouse=True, scope="module")
def without_torch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", examples.without("torch", tmp_path_factory.mktemp("path") / "without_torch"))
        yield


@pytest.fixture
def folder(tmp_path):
    return examples.copy("quickstart", tmp_path)


def pausing(folder):
    """Let each step take the time of the new setting `pause`."""
    examples.edit(folder, "        trial.report", "        __import__('time').sleep(cfg.pause)\n        trial.report")
    examples.edit(folder, "seed: 1", "pause: 0.1\nseed: 1", file="conf/config.yaml")


def ended(folder, state=("COMPLETE", "PRUNED", "FAIL")):
    """Return trial number -> what the study has of it, for finished trials."""
    return {
        trial.number: (trial.state.name, trial.params, trial.value, trial.intermediate_values, trial.datetime_complete)
        for trial in sweeps.study(folder / "multirun/main").trials
        if trial.state.name in state
    }


def test_torch_is_not_installed_here():
    probe = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in probe.stderr


def test_the_program_is_fifteen_lines_of_code():
    text = (examples.EXAMPLES / "quickstart/main.py").read_text().split('"""')[2]
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 15


@pytest.mark.soak("takes 30 s; test_programs.py resumes a killed sweep of a small program")
def test_a_killed_search_is_resumed_by_two_terminals_and_extended(folder):
    pausing(folder)
    command = examples.sweep_command(*SEARCH, examples.TWO_WORKERS, examples.TO_THE_END, "steps=8")
    sweep = folder / "multirun/main"
    drivers = [sweeps.start([*command, "hydra.sweeper.n_trials=6"], folder)]
    try:
        examples.during(drivers[0], lambda: Counter(sweeps.states(sweep).values())["COMPLETE"] >= 2)
        sweeps.kill_group(drivers[0])  # SIGKILL to the driver, its workers and their programs
        before = ended(folder)
        shown = examples.joyful(folder, "sweep", "status", "multirun/main")
        assert f"{len(before)}/6 trials" in shown
        snapshot = examples.status(folder)
        assert (snapshot["n_trials"], snapshot["running"], snapshot["workers"]) == (6, 0, 0)
        assert snapshot["complete"] == len(before) >= 2
        assert snapshot["waiting"] == 6 - len(before) > 0

        drivers = [sweeps.start([*command, "hydra.sweeper.n_trials=6"], folder)]
        examples.during(drivers[0], lambda: sweeps.workers(sweep))
        drivers.append(sweeps.start([*command, "hydra.sweeper.n_trials=6"], folder, folder / "second.log"))
        examples.wait_for_end(drivers[0], folder)
        assert drivers[1].wait(120) == 0, (folder / "second.log").read_text()
    finally:
        for driver in drivers:
            sweeps.kill_group(driver)
    after = ended(folder)
    assert sweeps.states(sweep) == dict.fromkeys(range(6), "COMPLETE")
    assert {number: after[number] for number in before} == before  # they did not run again
    assert all(list(trial[3]) == list(range(8)) for trial in after.values())  # every step was reported
    assert len({tuple(trial[1].items()) for trial in after.values()}) == 6

    shown = examples.run(folder, *command, "hydra.sweeper.n_trials=7")
    assert "7 of 7 trials done" in shown
    assert {number: trial for number, trial in ended(folder).items() if number < 6} == after


@pytest.mark.soak("takes 7 s; test_programs.py prunes a small program")
def test_a_bad_trial_is_pruned(folder):
    examples.run(
        folder,
        *examples.sweep_command(
            examples.trials("lr=0.02", "lr=0.03", "lr=0.001"),
            "hydra/sweeper/pruner=median",
            "hydra.sweeper.pruner.n_startup_trials=2",
            "hydra.sweeper.pruner.n_warmup_steps=2",
            "steps=8",
        ),
    )
    assert sweeps.states(folder / "multirun/main") == {0: "COMPLETE", 1: "COMPLETE", 2: "PRUNED"}
    assert list(ended(folder)[2][3]) == [0, 1, 2]  # it stopped at the first step after the warm-up


@pytest.mark.soak("takes 15 s; tests/faults/test_nan.py retries failed trials")
def test_a_failed_trial_is_retried_when_the_program_is_repaired(folder):
    examples.edit(folder, "    for step", "    assert cfg.lr < 0.02, 'too large'\n    for step")
    command = examples.sweep_command(examples.trials("lr=0.01", "lr=0.03"), examples.TO_THE_END, "steps=3")
    shown = examples.run(folder, *command)
    assert "trial 1 failed: AssertionError: too large" in shown
    assert examples.status(folder)["failures"] == {"1": "AssertionError: too large"}
    before = ended(folder, "COMPLETE")
    assert list(before) == [0]
    examples.edit(folder, "    assert cfg.lr < 0.02, 'too large'\n", "")
    assert "all 2 trials are finished" in examples.run(folder, *command)  # a failed trial is finished
    shown = examples.joyful(folder, "sweep", "retry", "multirun/main", "--failed")
    assert shown.startswith("trials 1 are queued again")
    examples.run(folder, *command)
    assert sweeps.states(folder / "multirun/main") == {0: "COMPLETE", 1: "COMPLETE"}
    assert ended(folder)[0] == before[0]


@pytest.mark.soak("takes 10 s; tests/test_docs.py searches and runs the best settings")
def test_the_best_settings_give_the_same_value(folder):
    examples.edit(folder, "    return value", "    print(repr(value))\n    return value")
    command = examples.sweep_command(*SEARCH, "hydra.sweeper.n_trials=4", examples.TO_THE_END, "steps=3")
    shown = examples.run(folder, *command)
    assert "run the best settings: python main.py --config-dir multirun/main +experiment=best" in shown
    printed = examples.run(folder, sys.executable, "main.py", "--config-dir", "multirun/main", "+experiment=best")
    best = sweeps.study(folder / "multirun/main").best_trial
    assert float(printed) == best.value == examples.status(folder)["best_value"]


@pytest.mark.soak("takes 8 s; test_programs.py has another seed key")
def test_arms_are_compared_in_pairs_by_another_seed_key(folder):
    examples.edit(folder, "cfg.seed", "cfg.start.seed")
    examples.edit(folder, "seed: 1", "start:\n  seed: 1", file="conf/config.yaml")
    paired = ("hydra.sweeper.arms=['lr=0.01','lr=0.03']", "hydra.sweeper.pairs=2", "hydra.sweeper.seed_key=start.seed")
    examples.run(folder, *examples.sweep_command(*paired, examples.TO_THE_END, "steps=2"))
    listed = [trial.user_attrs["own_overrides"] for trial in sweeps.study(folder / "multirun/main").trials]
    calibration = [f"lr=0.01 start.seed={seed}" for seed in (9000, 9001, 9002)]
    assert listed == [*calibration, *(f"lr={lr} start.seed={seed}" for seed in (1, 2) for lr in (0.01, 0.03))]
    values = [trial[2] for trial in ended(folder, "COMPLETE").values()]
    assert len(set(values)) == len(values) == 7  # each seed starts from another point


@pytest.mark.soak("takes 7 s; test_programs.py has two objectives")
def test_several_objectives(folder):
    examples.edit(folder, "return value", "return value, cfg.lr")
    command = examples.sweep_command(
        *SEARCH, "hydra.sweeper.direction=[minimize,maximize]", "hydra.sweeper.n_trials=3", "steps=3"
    )
    examples.run(folder, *command)
    study = sweeps.study(folder / "multirun/main")
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert [trial.values[1] for trial in study.trials] == [trial.params["lr"] for trial in study.trials]
    assert study.best_trials
