"""Handling of the database password. Workers receive it, but it never appears in files or logs."""

from __future__ import annotations

import os
from collections.abc import Iterable

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write
from sqlalchemy.engine import URL

from joyful.sweeper.database import with_password, without_password

#: The variable in which PostgreSQL's client library looks for a password that the URL does not contain.
VARIABLE = "PGPASSWORD"

_STORAGE = "hydra.sweeper.storage"


def hide(config: DictConfig, url: URL) -> None:
    """Replace the database URL in Hydra's composed configuration by one without the password.

    Trials save a copy of the configuration, and some launchers pickle it. The configuration is changed in place because
    Hydra's loader caches it too.
    """
    if url.password is None:
        return
    address = without_password(url)
    hide_in(config, address)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.overrides.hydra = hide_in_arguments(config.hydra.overrides.hydra, url)
    HydraConfig.instance().set_config(config)


def hide_in_arguments(arguments: Iterable[str], url: URL) -> list[str]:
    """Return the arguments of a command with the database URL without its password."""
    if url.password is None:
        return [str(item) for item in arguments]
    hidden = f"{_STORAGE}='{without_password(url)}'"
    return [hidden if str(item).lstrip("+").split("=")[0] == _STORAGE else str(item) for item in arguments]


def hide_in(config: DictConfig, address: str | None) -> None:
    """Set the database URL in one composed configuration, in place."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweeper.storage = address


def address_for_workers(url: URL, launcher: str) -> str:
    """Return the database URL for the workers. Put the password into the environment if the URL does not contain it.

    Launchers pass the environment on to their workers. Ray does not, but it sends tasks without writing them to a file,
    so there the URL contains the password.

    Args:
        url: The database URL.
        launcher: The full name of the launcher's class.
    """
    if url.password is None or launcher.endswith(".RayLauncher"):
        return with_password(url)
    os.environ[VARIABLE] = str(url.password)
    return without_password(url)
