"""Figures from tidy frames, one module per kind of figure.

Each function returns a `Plot`: a matplotlib figure, its title, and a description of the result in words. The
functions do not use pyplot and do not change global settings (see `style`).
"""

from joyful.analysis.plots.curves import learning_curves, paired_differences
from joyful.analysis.plots.forest import forest
from joyful.analysis.plots.gradient_ratio import arms_by_ratio, cosine_over_training, ratio_over_training
from joyful.analysis.plots.losses import shares
from joyful.analysis.plots.profiles import performance_profiles
from joyful.analysis.plots.response import response_curve
from joyful.analysis.plots.strips import strips
from joyful.analysis.plots.style import PALETTE, Plot
from joyful.analysis.plots.survival import gains_by_target, time_to_target

__all__ = [
    "PALETTE", "Plot", "arms_by_ratio", "cosine_over_training", "forest", "gains_by_target", "learning_curves",
    "paired_differences",
    "performance_profiles", "ratio_over_training", "response_curve", "shares", "strips", "time_to_target",
]  # fmt: skip
