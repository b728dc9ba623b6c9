"""Alias of :mod:`joyful.model.fusion` under the name of the reference implementation."""

from joyful.model.fusion import AutoFusion

__all__ = ["AutoFusion"]
