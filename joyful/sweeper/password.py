"""The password of a sweep's database: it reaches the workers, and neither a file nor a log."""

from __future__ import annotations

import os

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write
from sqlalchemy.engine import URL

from joyful.sweeper.database import text, without_password

#: Where PostgreSQL's own library looks for a password that the address does not have.
VARIABLE = "PGPASSWORD"

_STORAGE = "hydra.sweeper.storage"


def hide(config: DictConfig, url: URL) -> None:
    """Write the database's address into Hydra's composed configuration as it may be written down: trials keep a copy of it, and
    some launchers pickle it. It is changed where it stands, since Hydra's loader holds it too, in its cache."""
    if url.password is None:
        return
    address = without_password(url)
    hide_in(config, address)
    overrides = [str(item) for item in config.hydra.overrides.hydra]
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.overrides.hydra = [
            f"{_STORAGE}='{address}'" if item.lstrip("+").split("=")[0] == _STORAGE else item for item in overrides
        ]
    HydraConfig.instance().set_config(config)


def hide_in(config: DictConfig, address: str | None) -> None:
    """Set the address in one composed configuration."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweeper.storage = address


def address_for_workers(url: URL, launcher: str) -> str:
    """The address that workers get. The password goes by the environment, which launchers hand on; Ray's workers have one that
    is not ours, and what it sends them touches no file."""
    if url.password is None or launcher.endswith(".RayLauncher"):
        return text(url)
    os.environ[VARIABLE] = str(url.password)
    return without_password(url)
