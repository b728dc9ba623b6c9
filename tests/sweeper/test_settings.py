"""The settings of the sweeper: ranges and combinations."""

import pytest
from omegaconf import OmegaConf

from joyful.config import LOCATION_SETTINGS
from joyful.records import InputError
from joyful.sweeper import plugin
from joyful.sweeper.settings import check_settings
from tests.support.runs import CONF

#: The settings that `check_settings` gets.
DEFAULTS = {name: value for name, value in plugin.DEFAULTS.items() if name not in ("defaults", "_target_", "check")}


def test_the_defaults_are_valid():
    assert check_settings(DEFAULTS).directions == ["minimize"]


def test_the_settings_of_the_trainer_have_the_defaults_except_its_own():
    ours = OmegaConf.to_container(OmegaConf.load(CONF / "hydra/sweeper/optuna_pruned.yaml"))
    differing = {name for name in ours if ours[name] != plugin.DEFAULTS[name]}
    assert ours.keys() == plugin.DEFAULTS.keys()
    assert differing == {"direction", "metric_names", "fold_key", "role_key", "may_differ", "check", "claims", "defaults"}
    assert set(ours["may_differ"]) == {*LOCATION_SETTINGS, "device", "training.threads"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 0}, r"hydra.sweeper.n_trials: expected >= 1 .*set hydra.sweeper.n_trials=VALUE"),
        ({"n_jobs": "two"}, r"hydra.sweeper.n_jobs: expected an integer"),
        ({"direction": "up"}, r"hydra.sweeper.direction: expected one of 'maximize' or 'minimize'"),
        ({"direction": []}, r"hydra.sweeper.direction: expected minimize, maximize or a list"),
        ({"direction": ["minimize", "maximize"], "metric_names": ["a"]}, r"metric_names: expected 2 names"),
        ({"lease_seconds": 1}, r"lease_seconds: expected >= 5"),
        ({"n_trails": 4}, r"hydra.sweeper.n_trails: there is no such setting"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_settings(DEFAULTS | changes)


def test_several_objectives_have_several_directions():
    assert check_settings(DEFAULTS | {"direction": ["maximize", "minimize"]}).directions == ["maximize", "minimize"]
