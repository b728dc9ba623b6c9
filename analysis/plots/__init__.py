"""Figures from tidy frames. Each function returns a `Plot`: a matplotlib figure, its title, and what it shows in words.

No pyplot, no global settings: see `style`. One file for each kind of figure.
"""

from analysis.plots.curves import learning_curves
from analysis.plots.felt import arms_by_ratio, cosine_over_training, ratio_over_training
from analysis.plots.forest import forest
from analysis.plots.losses import component, shares
from analysis.plots.response import response_curve
from analysis.plots.strips import strips
from analysis.plots.style import PALETTE, Plot
from analysis.plots.survival import time_to_target

__all__ = [
    "PALETTE",
    "Plot",
    "arms_by_ratio",
    "component",
    "cosine_over_training",
    "forest",
    "learning_curves",
    "ratio_over_training",
    "response_curve",
    "shares",
    "strips",
    "time_to_target",
]
