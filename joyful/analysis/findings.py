"""Everything that a report shows, computed once: verdicts and tidy tables, without a word of presentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from joyful.analysis import convergence, curves, gradient_ratio, response, stability
from joyful.analysis.claims import Claim, Verdict, judge, secondary_table, verdict_table
from joyful.analysis.convergence import Target
from joyful.analysis.optuna_study import Study, read_study
from joyful.analysis.sweep import Sweep
from joyful.results import InputError

COMPONENTS = ("classification", "contrastive", "encoder", "gate_reg")

#: (metric, split) -> the curves of a report.
CURVES: tuple[tuple[str, str], ...] = (
    ("f1_weighted", "dev"), ("nll", "dev"), ("nll", "train"), ("recon_mse", "train"),
    *((f"loss_{part}", "train") for part in COMPONENTS), *((f"share_{part}", "train") for part in COMPONENTS),
)  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """What a sweep says.

    tables: name -> tidy frame, each written beside the page as NAME.parquet:
        runs, left_out       as `Sweep` has them
        curves               metric, split, arm, epoch, mean, low, high, n
        pairs                claim, metric, arm, seed, effect (in the claim's unit, positive as claimed)
        secondary            secondary measures: claim, metric, arm, name, unit, estimate, low, high, whose
        scores               a row per arm and seed: what came out (`_scores`)
        survival, reach      as `convergence.kaplan_meier` and `reach_rate`; empty without a target
        gradient_ratio       as `gradient_ratio.over_training`
        arm_gradient_ratio   as `gradient_ratio.of_arms`
        response             as `response.response`
        trials, importances  of the study
    Fractions from 0 to 1 as in the files, effects in the claim's unit.
    """

    sweep: Sweep
    target: Target | None
    verdicts: list[Verdict]
    verdict_table: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    study: Study | None = None
    notes: tuple[str, ...] = field(default=())

    def band(self, metric: str, split: str) -> pd.DataFrame:
        """The mean and interval of a metric over training: arm, epoch, mean, low, high, n."""
        table = self.tables["curves"]
        return table[(table["metric"] == metric) & (table["split"] == split)]


def find(sweep: Sweep, claims: Sequence[Claim], target: Target | None = None, *, rng: np.random.Generator) -> Findings:
    """Compute all that a report shows. target: of the convergence speed; None: as the sweep gives it.

    Raises InputError where the sweep was read without a column that a claim or the target needs.
    """
    chosen = convergence.choose_target(sweep, target)
    verdicts = judge(sweep, claims, target, rng=rng)
    times = convergence.times_to_target(sweep, chosen) if chosen is not None else _no_times()
    study = read_study(sweep.study) if sweep.study is not None else None
    tables = {
        "runs": sweep.runs,
        "left_out": sweep.left_out,
        "curves": _bands(sweep),
        "pairs": _pairs(verdicts),
        "secondary": _secondary(verdicts),
        "scores": _scores(sweep, times),
        "survival": convergence.kaplan_meier(times) if len(times) else _empty(_SURVIVAL),
        "reach": convergence.reach_rate(times).reset_index() if len(times) else _empty(("arm", *_REACH)),
        "gradient_ratio": gradient_ratio.over_training(sweep),
        "arm_gradient_ratio": gradient_ratio.of_arms(sweep),
        "response": response.response(sweep, chosen),
    }
    if study is not None:
        tables["trials"] = study.trials
        tables["importances"] = study.importances.rename_axis("setting").rename("importance").reset_index()
    return Findings(sweep, chosen, verdicts, verdict_table(verdicts), tables, study)


_SURVIVAL = ("arm", "epoch", "reached", "low", "high", "at_risk", "censored")
_REACH = ("n", "reached", "rate", "low", "high")


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object if name == "arm" else float) for name in columns})


def _no_times() -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"])
    return pd.DataFrame({"epochs": [], "reached": [], "seconds": []}, index=index)


def _bands(sweep: Sweep) -> pd.DataFrame:
    parts = []
    for metric, split in CURVES:
        matrix = _curves(sweep, metric, split)
        if matrix is not None:
            parts.append(curves.band(matrix).assign(metric=metric, split=split))
    columns = ["metric", "split", "arm", "epoch", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _curves(sweep: Sweep, metric: str, split: str, *, whole: bool = False) -> pd.DataFrame | None:
    """The curves of a metric; None where no run has it."""
    if metric not in sweep.frame.columns:
        return None
    try:
        matrix = curves.curves(sweep, metric, split, whole=whole)
    except InputError:
        return None
    matrix = matrix.replace([np.inf, -np.inf], np.nan)
    return None if matrix.size == 0 or matrix.isna().all(axis=None) else matrix


def _pairs(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        {"claim": v.claim.name, "metric": v.metric, "arm": v.arm, "seed": seed, "effect": float(effect)}
        for v in verdicts
        for seed, effect in v.pairs.items()
    ]
    frame = pd.DataFrame(rows, columns=["claim", "metric", "arm", "seed", "effect"])
    return frame.astype({"seed": "int64", "effect": float})


def _secondary(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """`secondary_table`, with the bootstrap interval and P(better) of every verdict in the same columns."""
    rows = []
    for v in verdicts:
        place = {"claim": v.claim.name, "metric": v.metric, "arm": v.arm, "whose": "pairs"}
        if v.better is not None:
            better = {"estimate": 100 * v.better.estimate, "low": 100 * v.better.low, "high": 100 * v.better.high}
            rows.append(place | {"name": "pairs in which the arm is better", "unit": "per cent"} | better)
        if v.bootstrap is not None:
            bounds = {"estimate": v.estimate, "low": v.bootstrap[0], "high": v.bootstrap[1]}
            rows.append(place | {"name": "the effect with its BCa bootstrap interval", "unit": v.claim.unit} | bounds)
    secondary_measures = secondary_table(verdicts)
    return (
        pd.concat([pd.DataFrame(rows, columns=secondary_measures.columns), secondary_measures], ignore_index=True)
        if rows
        else secondary_measures
    )


def _scores(sweep: Sweep, times: pd.DataFrame) -> pd.DataFrame:
    """A row per arm and seed of the comparison runs.

    `dev_f1`, `best_epoch`: best dev weighted F1 and where; `test_f1`: test weighted F1 there; `final_*`: at the last
    evaluation; `epochs_to_target` (the budget where censored), `reached`, `seconds`; `f1_spread`, `nll_spread` (per epoch;
    dev F1 and train NLL), `f1_drawdown`. NaN: not measured.
    """
    dev = _curves(sweep, "f1_weighted", "dev")
    columns: dict[str, pd.Series] = {}
    if dev is not None:
        best = curves.best_epoch(dev)
        columns["best_epoch"] = best
        columns["dev_f1"] = curves.at_epoch(dev, best)
        test = _curves(sweep, "f1_weighted", "test")
        if test is not None:
            columns["test_f1"] = curves.at_epoch(test, best)
    for name, metric, split in (
        ("final_dev_nll", "nll", "dev"),
        ("final_train_nll", "nll", "train"),
        ("final_recon_mse", "recon_mse", "train"),
        ("final_recon_mae", "recon_mae", "train"),
        ("final_loss_total", "loss_total", "train"),
    ):
        matrix = _curves(sweep, metric, split)
        if matrix is not None:
            columns[name] = curves.final(matrix)
    whole = _curves(sweep, "f1_weighted", "dev", whole=True)
    if whole is not None:
        columns["f1_spread"] = stability.spreads(whole)
        columns["f1_drawdown"] = stability.drawdowns(whole)
    train = _curves(sweep, "nll", "train", whole=True)
    if train is not None:
        columns["nll_spread"] = stability.spreads(train)
    if len(times):
        columns["epochs_to_target"], columns["reached"] = times["epochs"], times["reached"]
        columns["seconds"] = times["seconds"]
    if not columns:
        return pd.DataFrame(columns=["arm", "seed"])
    return pd.DataFrame(columns).rename_axis(index=["arm", "seed"]).reset_index()
