"""The reference's name for :mod:`joyful.model.fusion`."""

from joyful.model.fusion import AutoFusion

__all__ = ["AutoFusion"]
