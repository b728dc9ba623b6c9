"""Keep records of Python's logging away from a terminal that shows a progress bar or a live view instead."""

from __future__ import annotations

import logging
from collections.abc import Callable


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
