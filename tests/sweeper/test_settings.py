"""The settings of the sweeper: ranges and combinations."""

import pytest

from joyful.records import InputError
from joyful.sweeper.settings import check_settings
from tests.support.runs import sweep_defaults

DEFAULTS = sweep_defaults()


def test_the_defaults_of_the_yaml_are_valid():
    assert check_settings(DEFAULTS, "MedianPruner").directions == ["maximize"]


@pytest.mark.parametrize(
    ("changes", "pruner", "message"),
    [
        ({"n_trials": 0}, "NopPruner", r"hydra.sweeper.n_trials: expected >= 1 .*set hydra.sweeper.n_trials=VALUE"),
        ({"n_jobs": "two"}, "NopPruner", r"hydra.sweeper.n_jobs: expected an integer"),
        ({"objectives": ["f1"]}, "NopPruner", r"objectives.0: expected one of 'dev_f1' or 'epochs_to_target'"),
        ({"objectives": ["dev_f1", "dev_f1"]}, "NopPruner", "expected different objectives"),
        ({"objectives": ["epochs_to_target"]}, "NopPruner", r"set hydra.sweeper.target=0.62"),
        ({"objectives": ["dev_f1", "epochs_to_target"], "target": 0.5}, "MedianPruner", r"pruner=none"),
        ({"objectives": ["epochs_to_target"], "target": 0.5}, "MedianPruner", r"pruner=none"),
        ({"lease_seconds": 1}, "NopPruner", r"lease_seconds: expected >= 5"),
        ({"n_trails": 4}, "NopPruner", r"hydra.sweeper.n_trails: there is no such setting"),
    ],
)
def test_invalid_settings_are_refused(changes, pruner, message):
    with pytest.raises(InputError, match=message):
        check_settings(DEFAULTS | changes, pruner)


def test_two_objectives_have_two_directions():
    both = DEFAULTS | {"objectives": ["dev_f1", "epochs_to_target"], "target": 0.5}
    assert check_settings(both, "NopPruner").directions == ["maximize", "minimize"]
