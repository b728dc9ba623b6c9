"""Alias of :mod:`joyful.model.hierarchical_fusion` under the name of the reference implementation."""

from joyful.model.hierarchical_fusion import AutoFusion_Hierarchical

__all__ = ["AutoFusion_Hierarchical"]
