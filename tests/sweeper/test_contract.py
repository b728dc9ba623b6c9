"""What the sweeper expects of other packages. Their versions are pinned; these tests check a new pin."""

from importlib.metadata import version

import sqlalchemy
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from omegaconf import OmegaConf

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


def test_our_yaml_has_all_settings_of_the_stock_sweeper():
    ours = OmegaConf.load(CONF / "hydra/sweeper/optuna.yaml")
    stock = OmegaConf.structured(OptunaSweeperConf)
    assert set(ours) == set(stock) - {"sampler"}
    assert ours.direction == "maximize"
    differing = {name for name in ours if name not in ("defaults", "direction") and ours[name] != stock[name]}
    assert not differing


def test_a_study_on_a_local_disk_uses_a_write_ahead_log(tmp_path):
    url = storage_url(None, tmp_path)
    open_storage(url)
    with open_engine(url).connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
