"""How much the reconstruction is felt: the weighted encoder gradient beside the classification gradient."""

from __future__ import annotations

import pandas as pd

from analysis.sweep import Sweep


def over_training(sweep: Sweep) -> pd.DataFrame:
    """Tidy: `arm`, `epoch`, `n`, `ratio`, `ratio_low`, `ratio_high` (geometric mean over seeds with its t interval),
    `cosine`, `cosine_low`, `cosine_high` (mean with its t interval). Empty where no run has recorded them."""
    raise NotImplementedError


def places(sweep: Sweep) -> pd.DataFrame:
    """Every arm's place on the axis of ratios: `arm`, `n`, `ratio`, `ratio_low`, `ratio_high` (of each run's median over
    training: geometric mean over seeds with its t interval), `cosine`, `cosine_low`, `cosine_high`, `is_baseline`."""
    raise NotImplementedError
