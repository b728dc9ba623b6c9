"""The reference's name for :mod:`joyful.model.hierarchical_fusion`."""

from joyful.model.hierarchical_fusion import AutoFusion_Hierarchical

__all__ = ["AutoFusion_Hierarchical"]
