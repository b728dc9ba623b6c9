"""Relative paths in settings are those of the folder where the command was typed, also with hydra.job.chdir=true."""

import os

import pytest

from joyful.data import prepared
from joyful.data.loading import load
from joyful.results import read_run
from joyful.runtime import hydra_request
from tests.support import sweeps
from tests.support.runs import TINY, tiny_settings


@pytest.fixture
def train(tmp_path, fork_server):
    """Write a prepared dataset to the relative folder `emo`, and return a function that trains on it."""
    settings = tiny_settings()
    prepared.write_folder(load(settings.data, settings.modality_names), tmp_path / "emo", {})

    def run(*overrides):
        data = ("data.source=prepared", "data.root=emo", "data.cache=cache")
        done = fork_server.run([str(sweeps.RUN), *TINY, *data, *overrides], tmp_path, os.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_paths_of_a_single_run(train, tmp_path):
    train("hydra.run.dir=plain")
    train("hydra.run.dir=changed", "hydra.job.chdir=true")
    plain, changed = (read_run(tmp_path / name) for name in ("plain", "changed"))
    assert changed["status"] == "completed"
    assert (changed["config"], changed["config_hash"]) == (plain["config"], plain["config_hash"])
    train("fork=changed", "hydra.run.dir=forked", "hydra.job.chdir=true", "seed=2")
    assert read_run(tmp_path / "forked")["status"] == "completed"
    train("resume=changed", "hydra.job.chdir=true")
    assert list(tmp_path.glob("changed/.resumed/*/run.log"))


@pytest.mark.parametrize(
    "sweeper",
    [
        pytest.param(("basic", "seed=1,2"), marks=pytest.mark.soak("takes 3 s; our sweeper runs the jobs likewise")),
        ("optuna_pruned", "hydra.sweeper.trials=['seed=1','seed=2']"),
    ],
)
def test_paths_of_a_multirun(sweeper, train, tmp_path):
    name, trials = sweeper
    train("-m", f"hydra/sweeper={name}", trials, "hydra.sweep.dir=many", "hydra.job.chdir=true")
    assert [read_run(tmp_path / "many" / number)["status"] for number in "01"] == ["completed", "completed"]


def test_a_folder_that_cannot_be_entered_is_one_line(monkeypatch, tmp_path):
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config = OmegaConf.create({"hydra": {"job": {"chdir": True}, "runtime": {"cwd": str(tmp_path / "gone")}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    with pytest.raises(
        hydra_request.InputError, match=r"expected to enter .*gone, .* got No such file or directory; set"
    ):
        hydra_request.from_hydra(config)
