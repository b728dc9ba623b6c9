"""Private parts of other packages that the sweeper uses. Their versions are pinned; these tests check a new pin."""

from importlib.metadata import version

import sqlalchemy
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb import models

from joyful.sweeper.database import open_engine, open_storage, storage_url
from tests.support.runs import CONF


def test_the_pinned_versions_are_installed():
    installed = {
        name: version(name) for name in ("hydra-core", "hydra-optuna-sweeper", "hydra-joblib-launcher", "optuna")
    }
    assert installed == {
        "hydra-core": "1.4.0rc3",
        "hydra-optuna-sweeper": "1.4.0rc3",
        "hydra-joblib-launcher": "1.4.0rc3",
        "optuna": "5.0.0",
    }


def test_search_spaces_are_read_into_distributions_fixed_values_and_the_rest():
    arguments = [
        "a=interval(0.1,1.0)",
        "b=choice(x,y)",
        "c=range(1,4)",
        "d=tag(log,interval(1,8))",
        "e=5",
        "~f",
        "+g=h",
    ]
    space, values, rest = create_params_from_overrides(arguments)
    assert space == {
        "a": FloatDistribution(0.1, 1.0),
        "b": CategoricalDistribution(("x", "y")),
        "c": IntDistribution(1, 3),
        "d": FloatDistribution(1.0, 8.0, log=True),
    }
    assert values == {"e": "5", "+g": "h"}
    assert rest == ["~f"]


def test_grid_choices_of_a_distribution():
    assert list(OptunaSweeperImpl._to_grid_sampler_choices(IntDistribution(1, 5, step=2))) == [1, 3, 5]


def test_our_yaml_has_all_settings_of_the_stock_sweeper():
    ours = OmegaConf.load(CONF / "hydra/sweeper/optuna.yaml")
    stock = OmegaConf.structured(OptunaSweeperConf)
    assert set(ours) == set(stock) - {"sampler"}
    assert ours.direction == "maximize"
    differing = {name for name in ours if name not in ("defaults", "direction") and ours[name] != stock[name]}
    assert not differing


def test_optunas_tables_have_the_columns_that_are_read_and_written(tmp_path):
    url = storage_url(None, tmp_path)
    open_storage(url)
    columns = {
        name: {column["name"] for column in sqlalchemy.inspect(open_engine(url)).get_columns(name)}
        for name in ("trials", "trial_user_attributes", "trial_values", "trial_intermediate_values")
    }
    assert {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"} <= columns["trials"]
    assert {"trial_id", "key", "value_json"} <= columns["trial_user_attributes"]
    assert "trial_id" in columns["trial_values"]
    assert "trial_id" in columns["trial_intermediate_values"]
    assert models.TrialModel.__tablename__ == "trials"


def test_a_study_on_a_local_disk_uses_a_write_ahead_log(tmp_path):
    url = storage_url(None, tmp_path)
    open_storage(url)
    with open_engine(url).connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
