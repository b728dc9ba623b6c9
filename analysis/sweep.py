"""A sweep as read for a comparison: runs, arms, factors, and what was left out, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

#: The columns of histories that a report needs.
REPORT_COLUMNS: tuple[str, ...] = (
    "f1_weighted", "accuracy", "nll", "recon_mse", "recon_mae", "loss_total",
    "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg",
    "share_classification", "share_contrastive", "share_encoder", "share_gate_reg",
    "encoder_gradient_ratio", "encoder_gradient_cosine",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A configuration that is compared with others.

    name: short, unique in its sweep, readable ("mse 0.05"). settings: factor -> value, for the factors of the sweep.
    choices: Hydra's group choices. config: dotted name -> value of every setting, as the arm's first run has it.
    """

    name: str
    settings: dict[str, Any]
    is_baseline: bool
    choices: dict[str, Any]
    config: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """All runs below a folder.

    frame: a row per run, evaluation and split of the runs that are used: `run`, `arm`, `seed`, `role`, `fold` (NaN where
        there is none), `step`, `epoch`, `split` and the history's columns (NaN: not measured). Runs that were left out
        have no rows here. Fractions from 0 to 1, as in the files.
    runs: a row per run, used or not: `run`, `arm` (None where its files could not be read), `seed`, `role`, `fold`,
        `status`, `reason` (why it ended so; None), `epochs` (reached), `budget` (asked for), `used`.
    arms: the baseline first, then the others in the order of their runs.
    factors: the settings that differ between the arms, dotted names; a group choice where it says it all ("loss").
    left_out: a row per run that is not used: `run`, `arm`, `seed`, `role`, `status` (running, interrupted, pruned,
        failed, damaged, or completed with a reason such as early stopping), `reason` in words.
    study: the sweep's Optuna study (study.db), None where there is none.
    notes: sentences that a reader of the page must know (how the baseline was found, failed runs of an arm, ...).
    """

    path: Path
    frame: pd.DataFrame
    runs: pd.DataFrame
    arms: tuple[Arm, ...]
    factors: tuple[str, ...]
    left_out: pd.DataFrame
    study: Path | None
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> Arm | None:
        """The arm that the others are compared with; None in a sweep without any run."""
        return self.arms[0] if self.arms else None

    @property
    def others(self) -> tuple[Arm, ...]:
        """Every arm but the baseline."""
        return self.arms[1:]

    @property
    def budget(self) -> float:
        """Epochs that the compared runs were given; NaN in a sweep without any run."""
        raise NotImplementedError

    def pairs(self, arm: Arm) -> list[int]:
        """Seeds that both the baseline and `arm` have a complete comparison run of (with folds: of every fold)."""
        raise NotImplementedError


def read_sweep(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, baseline: Sequence[str] | None = None
) -> Sweep:
    """Read all runs below `path` and find the arms.

    columns: those of the histories to read; None: REPORT_COLUMNS.
    baseline: overrides as on the command line (["loss=mse", "weights=baseline"]), matched against group choices and
        settings; then these are the factors named, and arms that differ from the baseline in anything else are refused.
        None: the arm of the calibration runs, else MSE with encoder weight 0.05, else the first arm.

    Raises InputError where `path` is no folder, where `baseline` fits no arm or several, where arms differ in more than
    the factors named, or in what no comparison may differ in (data, epochs, evaluations per epoch).
    """
    raise NotImplementedError
