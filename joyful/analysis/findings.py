"""The results of a report: verdicts and tidy tables. Presentation is in `joyful.analysis.page`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joyful.analysis import convergence, curves, gradient_ratio, response, stability
from joyful.analysis.claims import Claim, Verdict, judge, secondary_table, verdict_table
from joyful.analysis.convergence import Target
from joyful.analysis.optuna_study import Study, read_study
from joyful.analysis.sweep import Sweep

#: Components of the training loss.
COMPONENTS = ("classification", "contrastive", "encoder", "gate_reg")

#: (metric, split) of the curves in a report.
CURVES: tuple[tuple[str, str], ...] = (
    ("f1_weighted", "dev"), ("nll", "dev"), ("nll", "train"), ("recon_mse", "train"),
    *((f"loss_{part}", "train") for part in COMPONENTS), *((f"share_{part}", "train") for part in COMPONENTS),
)  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """The results of the analysis of a sweep.

    Scores are fractions from 0 to 1, as in the files. Effects are in the unit of their claim.

    Attributes:
        sweep: The sweep.
        target: Target of the convergence speed, or None.
        verdicts: Verdicts on the claims.
        verdict_table: The same verdicts as a table (see `joyful.analysis.claims.verdict_table`).
        tables: Name -> tidy table. A report contains each of them as NAME.parquet.

            - `runs`, `left_out`: As in `Sweep`.
            - `curves`: `metric`, `split`, `arm`, `epoch`, `mean`, `low`, `high`, `n`.
            - `pairs`: `claim`, `metric`, `arm`, `seed`, `effect` (positive in the claimed direction).
            - `secondary`: Secondary measures, with the columns of `joyful.analysis.claims.secondary_table`.
            - `scores`: Scores, times and spreads of each arm and seed.
            - `survival`, `reach`: Results of `convergence.kaplan_meier` and `convergence.reach_rate`. Empty without a
              target.
            - `gradient_ratio`: Result of `gradient_ratio.over_training`.
            - `arm_gradient_ratio`: Result of `gradient_ratio.per_arm`.
            - `response`: Result of `response.response`.
            - `trials`, `importances`: Trials and parameter importances of the study, if there is one.
        study: The Optuna study, or None.
    """

    sweep: Sweep
    target: Target | None
    verdicts: list[Verdict]
    verdict_table: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    study: Study | None = None

    def band(self, metric: str, split: str) -> pd.DataFrame:
        """Return the rows of `tables["curves"]` for a metric and split: mean and interval of each arm and epoch."""
        table = self.tables["curves"]
        return table[(table["metric"] == metric) & (table["split"] == split)]


def compute_findings(
    sweep: Sweep, claims: Sequence[Claim], target: Target | None = None, *, rng: np.random.Generator
) -> Findings:
    """Compute the results of a report.

    Args:
        sweep: The sweep.
        claims: The claims to judge.
        target: Target of the convergence speed. None stands for the default target of the sweep.
        rng: Generator for the bootstrap and the Monte Carlo tests.

    Returns:
        The results.

    Raises:
        InputError: If the sweep was read without a column that a claim or the target needs.
    """
    effective_target = convergence.choose_target(sweep, target)
    verdicts = judge(sweep, claims, target, rng=rng)
    times = convergence.times_to_target(sweep, effective_target) if effective_target is not None else _NO_TIMES
    study = read_study(sweep.study) if sweep.study is not None else None
    tables = {
        "runs": sweep.runs,
        "left_out": sweep.left_out,
        "curves": _bands(sweep),
        "pairs": _pairs(verdicts),
        "secondary": _secondary(verdicts),
        "scores": _scores(sweep, times),
        "survival": convergence.kaplan_meier(times),
        "reach": convergence.reach_rate(times).reset_index(),
        "gradient_ratio": gradient_ratio.over_training(sweep),
        "arm_gradient_ratio": gradient_ratio.per_arm(sweep),
        "response": response.response(sweep, effective_target),
    }
    if study is not None:
        tables["trials"] = study.trials
        tables["importances"] = study.importances.rename_axis("setting").rename("importance").reset_index()
    return Findings(sweep, effective_target, verdicts, verdict_table(verdicts), tables, study)


_NO_TIMES = pd.DataFrame(
    {"epochs": [], "after": [], "reached": [], "seconds": []},
    index=pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"]),
)


def _bands(sweep: Sweep) -> pd.DataFrame:
    parts = []
    for metric, split in CURVES:
        matrix = _curves(sweep, metric, split)
        if matrix is not None:
            parts.append(curves.band(matrix).assign(metric=metric, split=split))
    columns = ["metric", "split", "arm", "epoch", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _curves(sweep: Sweep, metric: str, split: str, *, whole_epochs: bool = False) -> pd.DataFrame | None:
    """Return the curves of a metric, or None if no run has it."""
    if metric not in sweep.frame.columns:
        return None
    matrix = curves.curves(sweep, metric, split, whole_epochs=whole_epochs).replace([np.inf, -np.inf], np.nan)
    return None if matrix.size == 0 or matrix.isna().all(axis=None) else matrix


def _pairs(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        {"claim": v.claim.name, "metric": v.metric.label, "arm": v.arm, "seed": seed, "effect": float(effect)}
        for v in verdicts
        for seed, effect in v.pairs.items()
    ]
    frame = pd.DataFrame(rows, columns=["claim", "metric", "arm", "seed", "effect"])
    return frame.astype({"seed": "int64", "effect": float})


def _secondary(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return `secondary_table`, preceded by the bootstrap interval and the share of better pairs of each verdict."""
    rows = []
    for v in verdicts:
        keys = {"claim": v.claim.name, "metric": v.metric.label, "arm": v.arm, "whose": "pairs"}
        if v.better is not None:
            better = {"estimate": 100 * v.better.estimate, "low": 100 * v.better.low, "high": 100 * v.better.high}
            rows.append(keys | {"name": "pairs in which the arm is better", "unit": "per cent"} | better)
        if v.bootstrap is not None:
            bounds = {"estimate": v.estimate, "low": v.bootstrap.low, "high": v.bootstrap.high}
            rows.append(keys | {"name": "the effect with its BCa bootstrap interval", "unit": v.claim.unit} | bounds)
    table = secondary_table(verdicts)
    return pd.concat([pd.DataFrame(rows, columns=table.columns), table], ignore_index=True) if rows else table


def _scores(sweep: Sweep, times: pd.DataFrame) -> pd.DataFrame:
    """Return scores, times and spreads of the comparison runs, with one row per arm and seed.

    `dev_f1` is the best dev weighted F1, `best_epoch` its epoch and `test_f1` the test weighted F1 at this epoch.
    `final_*` are values at the last evaluation. `epochs_to_target` (the budget if censored), `not_before` (the evaluation
    before it), `reached` and `seconds` are as in `convergence.times_to_target`. `f1_spread` (dev F1) and `nll_spread`
    (train NLL) are per epoch. `f1_drawdown` is the largest drawdown of dev F1 over all evaluations. NaN marks a value that
    was not measured.
    """
    columns: dict[str, pd.Series] = {}

    def add(name: str, function: Callable[[pd.DataFrame], pd.Series], *curve: str, whole_epochs: bool = False) -> None:
        matrix = _curves(sweep, *curve, whole_epochs=whole_epochs)
        if matrix is not None:
            columns[name] = function(matrix)

    add("best_epoch", curves.best_epoch, "f1_weighted", "dev")
    if "best_epoch" in columns:
        add("dev_f1", lambda matrix: curves.at_epoch(matrix, columns["best_epoch"]), "f1_weighted", "dev")
        add("test_f1", lambda matrix: curves.at_epoch(matrix, columns["best_epoch"]), "f1_weighted", "test")
    add("final_dev_nll", curves.final, "nll", "dev")
    for metric in ("nll", "recon_mse", "recon_mae", "loss_total"):
        add(f"final_{'train_' * (metric == 'nll')}{metric}", curves.final, metric, "train")
    add("f1_spread", stability.spreads, "f1_weighted", "dev", whole_epochs=True)
    add("f1_drawdown", stability.drawdowns, "f1_weighted", "dev")
    add("nll_spread", stability.spreads, "nll", "train", whole_epochs=True)
    if len(times):
        columns |= {"epochs_to_target": times["epochs"], "not_before": times["after"]}
        columns |= {"reached": times["reached"], "seconds": times["seconds"]}
    if not columns:
        return pd.DataFrame(columns=["arm", "seed"])
    return pd.DataFrame(columns).rename_axis(index=["arm", "seed"]).reset_index()
