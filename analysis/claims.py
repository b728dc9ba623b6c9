"""Claims as data, and the verdict on each: supported, contradicted, inconclusive or not testable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.convergence import Target
from analysis.statistics import Estimate
from analysis.sweep import Sweep

#: The claims of the note.
BASIC_OPTIMIZATION = Path(__file__).resolve().parent / "claims" / "basic_optimization.yaml"

VERDICTS = ("supported", "contradicted", "inconclusive", "not testable")

#: Columns of verdicts.csv, in this order.
VERDICT_COLUMNS = (
    "claim", "metric", "n_pairs", "estimate", "low", "high", "verdict", "detail", "p_zero", "p_lower_edge", "p_holm",
    "minimum_detectable", "pairs_needed",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One line of a claims file: "metric changes by `lower` to `upper`, in this direction".

    name: convergence_speed, ... . says: the sentence that is judged, for the page. metrics: names of measures, each a
    verdict of its own. unit: "percent" or "points". direction: "increase" or "decrease" of what the claim speaks of.
    factors: what the arms may differ in for the claim to be about them; empty: anything.
    """

    name: str
    says: str
    metrics: tuple[str, ...]
    lower: float
    upper: float
    unit: str
    direction: str
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """A measure shown beside a verdict, not judged. estimate, low, high in `unit`, positive in the claimed direction
    where `paired`; otherwise a value per arm (`arm` says whose)."""

    name: str
    unit: str
    estimate: float
    low: float
    high: float
    arm: str = ""
    paired: bool = True


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim and metric for one arm against the baseline.

    Effects (estimate, low, high, bootstrap, minimum_detectable, lower, upper, `pairs`) are in the claim's unit (per cent
    or points) and positive in the claimed direction: a reduction of 12 % under a claim of "-10 to -20 %" is +12.
    metric: its words ("epochs to target"). arm, baseline: names. verdict: one of VERDICTS. detail: in words.
    pairs: seed -> effect of that pair. bootstrap: BCa interval, None below 20 pairs. better: P(arm better than
    baseline) with its interval. pairs_to_see: pairs to tell the claim's lower edge from zero with 80 % power.
    pairs_needed: pairs for "supported" with 80 % power if the truth is the middle of the claimed range.
    NaN (counts: None): could not be computed.
    """

    claim: Claim
    metric: str
    arm: str
    baseline: str
    n_pairs: int
    estimate: float
    low: float
    high: float
    verdict: str
    detail: str
    p_zero: float
    p_lower_edge: float
    p_holm: float
    minimum_detectable: float
    pairs_needed: int | None
    pairs_to_see: int | None = None
    pairs: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    bootstrap: tuple[float, float] | None = None
    better: Estimate | None = None
    beside: tuple[Beside, ...] = ()


def read_claims(path: str | os.PathLike[str] = BASIC_OPTIMIZATION) -> list[Claim]:
    """The claims of a YAML file. Raises InputError naming the place of what is missing, unknown or out of range."""
    raise NotImplementedError


def judge(
    sweep: Sweep, claims: Sequence[Claim], target: str | Target | None = None, *, rng: np.random.Generator
) -> list[Verdict]:
    """A verdict for every claim, metric and arm against the baseline, in this order: arm, claim, metric.

    target: as `convergence.choose_target` takes it. rng: for bootstrap and Monte Carlo tests.
    p_holm: Holm over all p_zero of the list.
    """
    raise NotImplementedError


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """VERDICT_COLUMNS, a row per verdict; with several arms against the baseline, `arm` is one more column, the last."""
    raise NotImplementedError
