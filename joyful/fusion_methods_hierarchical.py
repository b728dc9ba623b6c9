"""AutoFusion_Hierarchical under the module name of the reference implementation."""

from joyful.model.joyful import AutoFusion_Hierarchical

__all__ = ["AutoFusion_Hierarchical"]
