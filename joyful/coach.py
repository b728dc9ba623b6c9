"""The reference's name for :mod:`joyful.training.coach`."""

from joyful.training.coach import Coach

__all__ = ["Coach"]
