"""AutoFusion under the module name of the reference implementation."""

from joyful.model.joyful import AutoFusion

__all__ = ["AutoFusion"]
