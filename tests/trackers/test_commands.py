"""Trackers on the command line: multiruns and searches of the trainer, what is refused, help and tab completion."""

import json
import os

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra._internal.utils import create_config_search_path

from joyful.results import arm_columns, load, read_run
from joyful.trackers import STATE
from tests.support import small_program, sweeps
from tests.support.trackers import read_tensorboard

#: A module that registers a tracker whose package is not installed.
ABSENT = """
from joyful.trackers import TRACKERS


@TRACKERS.register("absent", "a tracker that is not installed")
class Absent:
    package = "no_such_package"
"""


def test_tab_completion_offers_the_trackers():
    completion = BashCompletion(ConfigLoaderImpl(config_search_path=create_config_search_path("pkg://joyful.conf")))
    offered = completion._query(config_name="config", line="track=")
    assert offered == ["track=mlflow", "track=tensorboard", "track=wandb"]


@pytest.mark.slow
def test_a_command_without_the_package_is_refused_in_one_line(tmp_path, fork_server):
    (tmp_path / "plugin_absent.py").write_text(ABSENT)
    environment = os.environ | {"JOYFUL_PLUGINS": "plugin_absent"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    program = small_program.write(tmp_path)
    for command, setting in (
        ([str(sweeps.RUN), "+track.absent=true"], "track"),
        ([str(sweeps.RUN), "-m", "seed=1,2", "+track.absent=true"], "track"),
        (
            [str(program), "-m", "hydra/sweeper=optuna_pruned", "x=interval(0,1)", "hydra.sweeper.track=[absent]"],
            "hydra.sweeper.track",
        ),
    ):
        done = fork_server.run(command, tmp_path, environment)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"joyful: {setting}=absent: expected the package no_such_package")
        assert "pip install 'joyful-sweeps[absent]'" in line
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "multirun").exists()


@pytest.mark.slow
@pytest.mark.soak("takes 4 s; the documents track multiruns")
def test_a_multirun_has_the_arms_of_one_without_trackers(tmp_path, fork_server):
    done = sweeps.run(sweeps.command("grid", "loss=mse,smoothl1", "track=tensorboard"), tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    grid = tmp_path / "multirun/grid"
    assert arm_columns(load(grid)) == ["loss"]
    for number in range(2):
        assert read_tensorboard(grid / f"{number}/tensorboard").status == "completed"
        assert json.loads((grid / str(number) / STATE).read_text())["levels"] == 1
        assert "track" not in read_run(grid / str(number))["choices"]


@pytest.mark.slow
@pytest.mark.soak("takes 6 s; a rare order")
def test_a_sweep_may_be_tracked_from_some_trial_on(tmp_path, fork_server):
    """Trial 1 is the same configuration as trial 0, which was trained without trackers."""
    command = sweeps.command("search", "hydra/sweeper=optuna_pruned", "hydra.sweeper.n_jobs=1")
    first = sweeps.run([*command, "hydra.sweeper.trials=['seed=1']"], tmp_path, fork_server)
    assert first.returncode == 0, first.stderr
    trials = "hydra.sweeper.trials=['seed=1','loss=mse seed=1','seed=2']"
    done = sweeps.run([*command, trials, "track=tensorboard"], tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    search = tmp_path / "multirun/search"
    attributes = [trial.user_attrs for trial in sweeps.study(search).trials]
    assert attributes[1]["same_as"] == 0
    assert {path.parent.name for path in search.glob(f"*/{STATE}")} == {"2"}
    assert read_tensorboard(search / "2/tensorboard").status == "completed"


@pytest.mark.slow
def test_the_trainer_refuses_the_setting_for_other_programs(tmp_path, fork_server):
    command = sweeps.command("twice", "hydra/sweeper=optuna_pruned", "seed=1,2", "hydra.sweeper.track=[mlflow]")
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "hydra.sweeper.track: expected []" in line
    assert line.endswith("set track=[mlflow] instead")


#: A program that dies in its third step, when it runs for the first time. It keeps no checkpoint.
DYING = """\
    for step in range(cfg.steps):
        trial.report(cfg.x / (step + 1), step)
        if step == 2 and not (trial.folder / "died").exists():
            (trial.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return cfg.x
"""


@pytest.mark.slow
@pytest.mark.soak("takes 5 s; test_reading_back.py resumes a run")
def test_a_trial_that_starts_again_repeats_no_step(tmp_path, fork_server):
    small_program.write(tmp_path, DYING, before="import signal")
    done = small_program.run(
        tmp_path, "hydra.sweeper.trials=['x=0.5']", "hydra.sweeper.track=[tensorboard]", server=fork_server
    )
    assert done.returncode == 0, done.stderr
    stored = read_tensorboard(tmp_path / "multirun/main/0/tensorboard")
    assert {step: round(value, 5) for step, value in stored.curves["objective"].items()} == {
        0: 0.5, 1: 0.25, 2: 0.16667, 3: 0.125
    }  # fmt: skip
    assert stored.repeated == []
    assert stored.scores == {"final_objective": 0.5}


@pytest.mark.slow
def test_a_tracker_that_fails_in_a_sweep_is_one_line_and_the_sweep_completes(tmp_path, fork_server):
    small_program.write(tmp_path)
    (tmp_path / "multirun/main/0").mkdir(parents=True)
    (tmp_path / "multirun/main/0/tensorboard").write_text("in the way")
    done = small_program.run(
        tmp_path, "hydra.sweeper.trials=['x=0.1','x=0.2']", "hydra.sweeper.track=[tensorboard]", server=fork_server
    )
    assert done.returncode == 0, done.stderr
    assert sweeps.states(tmp_path / "multirun/main") == {0: "COMPLETE", 1: "COMPLETE"}
    lines = [line for line in done.stderr.splitlines() if "track" in line]
    assert len(lines) == 1
    assert "track=tensorboard: [Errno 17] File exists" in lines[0]
    assert read_tensorboard(tmp_path / "multirun/main/1/tensorboard").status == "completed"
