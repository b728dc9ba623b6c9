"""Alias of :mod:`joyful.training.coach` under the name of the reference implementation."""

from joyful.training.coach import Coach

__all__ = ["Coach"]
