"""The log of Hydra's jobs: a short format, and no records on a terminal that shows a progress bar or a live view."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

#: The format of Hydra's own hydra/job_logging=default.
_HYDRA = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"

#: Our format of a log file, and of its times.
_FILE, _TIME = "%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S"


def shorten(config: DictConfig) -> None:
    """Give the log of the running job our format, and write it to standard error in place of standard output.

    This happens only where nothing has changed Hydra's own settings of the job log.

    Args:
        config: The configuration of the job, with the section hydra.
    """
    chosen = config.hydra.runtime.choices.get("hydra/job_logging")
    if chosen != "default" or OmegaConf.select(config, "hydra.job_logging.formatters.simple.format") != _HYDRA:
        return
    prefix = f"run {config.hydra.job.num}: " if config.hydra.mode == RunMode.MULTIRUN else ""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.setFormatter(logging.Formatter(_FILE, _TIME))
        elif isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
            handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))


def terminal_handlers() -> list[logging.Handler]:
    """Return the handlers of the root logger that write to a terminal."""
    return [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "isatty", bool)()
    ]


def below(name: str, level: int) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that keeps the records of loggers outside a package, and those of at least a level.

    Args:
        name: Name of the package.
        level: The level.
    """
    return lambda record: record.levelno >= level or not f"{record.name}.".startswith(f"{name}.")
