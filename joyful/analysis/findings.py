"""The results of a report: verdicts and tidy tables. Presentation is in `joyful.analysis.page`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from joyful.analysis import convergence, curves, gradient_ratio, response, stability, tasks
from joyful.analysis.claims import Claim, Verdict, judge, ladder, secondary_table, verdict_table
from joyful.analysis.claims_file import SPLITS
from joyful.analysis.columns import unit_depends_on
from joyful.analysis.convergence import Target
from joyful.analysis.lines import ALL_TASKS
from joyful.analysis.measures import select_arm, target_of, values
from joyful.analysis.optuna_study import Study, read_study
from joyful.analysis.statistics import mean_t
from joyful.analysis.sweep import REPORT_COLUMNS, Sweep, of_task
from joyful.results.schema import HISTORY_COLUMNS

#: Components of the training loss.
COMPONENTS = ("classification", "contrastive", "encoder", "gate_reg")

#: Maximum number of metrics with performance profiles.
MOST_PROFILES = 4

#: (metric, split) of the curves in a report, besides those of the claims.
CURVES: tuple[tuple[str, str], ...] = (
    ("f1_weighted", "dev"), ("nll", "dev"), ("nll", "train"), ("recon_mse", "train"),
    *((f"loss_{part}", "train") for part in COMPONENTS), *((f"share_{part}", "train") for part in COMPONENTS),
)  # fmt: skip


#: (metric, split) of the curves whose paired differences are in a report, besides those of the claims.
DIFFERENCES: tuple[tuple[str, str], ...] = (("f1_weighted", "dev"), ("nll", "train"), ("recon_mse", "train"))


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
            - `curves`: `metric`, `split`, `arm`, `x`, `mean`, `low`, `high`, `n`.
            - `differences`: Differences of the pairs from the baseline over training, for the metrics DIFFERENCES and those of
              the claims, with the columns of `curves`. `n` is a number of pairs.
            - `pairs`: `claim`, `metric`, `arm`, `seed`, `effect` (positive in the claimed direction), `low` and `high` (the
              interval in which it is known to lie).
            - `ladder`: Result of `claims.ladder`.
            - `means`: `claim`, `metric`, `arm`, `n`, `mean`, `low`, `high`: the mean over seeds of each metric of the claims
              with its t interval, in the unit of the column.
            - `secondary`: Secondary measures, with the columns of `joyful.analysis.claims.secondary_table`.
            - `profiles`: `metric`, `arm`, `threshold`, `share`, `low`, `high`: the share of runs whose value is above each
              threshold, averaged over tasks (see `tasks.performance_profile`). With several tasks, values are divided by the
              mean of the baseline on the task.
            - `scores`: Scores, times and spreads of each arm and seed.
            - `survival`, `reach`: Results of `convergence.kaplan_meier` and `convergence.reach_rate`. Empty without a
              target.
            - `gradient_ratio`: Result of `gradient_ratio.over_training`.
            - `arm_gradient_ratio`: Result of `gradient_ratio.per_arm`.
            - `response`: Result of `response.response`.
            - `trials`, `importances`: Trials and parameter importances of the study, if there is one.
        study: The Optuna study, or None.
        of_tasks: Task -> the results on this task, if there are several. `target` is None then, and the tables have a column
            `task`.
        required: The claims of --require, which are among those judged.
        claims_digest: SHA-256 of the content of the claims file, as `joyful.results.design.Design.claims_digest`. "" for claims
            that come from no file.
        arguments: The arguments of `report.build` with the text of the claims file as `claims`, or None.
    """

    sweep: Sweep
    target: Target | None
    verdicts: list[Verdict]
    verdict_table: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    study: Study | None = None
    of_tasks: dict[str, Findings] = field(default_factory=dict)
    required: tuple[Claim, ...] = ()
    claims_digest: str = ""
    arguments: Mapping[str, Any] | None = None

    @property
    def other_columns(self) -> list[str]:
        """The columns of the curves that are neither in CURVES nor in a claim."""
        known = {name for name, _ in CURVES} | {verdict.metric.of for verdict in self.verdicts}
        return [name for name in dict.fromkeys(self.tables["curves"]["metric"]) if name not in known]

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
    verdicts = judge(sweep, claims, target, rng=rng)
    study = read_study(sweep.study) if sweep.study is not None else None
    parts = {task: of_task(sweep, task) for task in sweep.tasks} or {"": sweep}
    of_parts = {
        task: _of_one_task(part, claims, target, [v for v in verdicts if v.task == task], rng)
        for task, part in parts.items()
    }
    if not sweep.tasks:
        return replace(of_parts[""], tables=of_parts[""].tables | _study_tables(study), study=study)
    tables = {
        name: pd.concat([f.tables[name].assign(task=task) for task, f in of_parts.items()], ignore_index=True)
        for name in next(iter(of_parts.values())).tables
    }
    tables |= {
        "runs": sweep.runs,
        "left_out": sweep.left_out,
        "pairs": _pairs(verdicts),
        "secondary": _secondary(verdicts),
    }
    tables |= {"profiles": _profiles(list(of_parts.values()), claims, rng)} | _study_tables(study)
    return Findings(sweep, None, verdicts, verdict_table(verdicts), tables, study, of_parts)


def _of_one_task(
    sweep: Sweep, claims: Sequence[Claim], target: Target | None, verdicts: list[Verdict], rng: np.random.Generator
) -> Findings:
    timed = next((metric for claim in claims for metric in claim.metrics if metric.to_target), None)
    of_claims = (timed.of, timed.better) if timed is not None else ("f1_weighted",)
    effective_target = convergence.choose_target(sweep, target, *of_claims)
    times = convergence.times_to_target(sweep, effective_target) if effective_target is not None else _NO_TIMES
    tables = {
        "runs": sweep.runs,
        "left_out": sweep.left_out,
        "curves": _bands(sweep, [(m.of, m.split) for claim in claims for m in claim.metrics]),
        "differences": _paired_bands(sweep, [(m.of, m.split) for claim in claims for m in claim.metrics]),
        "pairs": _pairs(verdicts),
        "secondary": _secondary(verdicts),
        "ladder": ladder(sweep, claims),
        "means": _means(sweep, claims, target),
        "scores": _scores(sweep, times),
        "survival": convergence.kaplan_meier(times),
        "reach": convergence.reach_rate(times).reset_index(),
        "gradient_ratio": gradient_ratio.over_training(sweep),
        "arm_gradient_ratio": gradient_ratio.per_arm(sweep),
        "response": response.response(sweep, effective_target),
    }
    found = Findings(sweep, effective_target, verdicts, verdict_table(verdicts), tables)
    return replace(found, tables=tables | {"profiles": _profiles([found], claims, rng)})


def _study_tables(study: Study | None) -> dict[str, pd.DataFrame]:
    if study is None:
        return {}
    importances = study.importances.rename_axis("setting").rename("importance").reset_index()
    return {"trials": study.trials, "importances": importances}


_NO_TIMES = pd.DataFrame(
    {name: [] for name in ("epochs", "after", "by", "reached", "seconds", "seconds_after")},
    index=pd.MultiIndex.from_arrays([[], []], names=["arm", "seed"]),
)


def _bands(sweep: Sweep, of_claims: Sequence[tuple[str, str]]) -> pd.DataFrame:
    others = [(column, split) for column in _other_columns(sweep) for split in SPLITS]
    return _over_training(sweep, [*CURVES, *of_claims, *others], curves.band)


def _other_columns(sweep: Sweep) -> list[str]:
    """Return the columns of another program that were read beside those of reports and claims."""
    known = {*REPORT_COLUMNS, *HISTORY_COLUMNS, "run", "arm", "seed", "role", "fold", "x"}
    return [str(name) for name in sweep.frame.columns if name not in known and is_numeric_dtype(sweep.frame[name])]


def _paired_bands(sweep: Sweep, of_claims: Sequence[tuple[str, str]]) -> pd.DataFrame:
    paired = sweep.design == "paired" and bool(sweep.others)
    measured = [(metric, split) for metric, split in of_claims if not unit_depends_on(metric)]
    measured += [(column, split) for column in _other_columns(sweep) for split in SPLITS]
    return _over_training(
        sweep,
        [*DIFFERENCES, *measured] if paired else [],
        lambda found: curves.paired_differences(found, sweep.arms[0].name),
    )


def _over_training(
    sweep: Sweep, wanted: Sequence[tuple[str, str]], compute: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    parts = []
    for metric, split in dict.fromkeys(wanted):
        matrix = _curves(sweep, metric, split)
        if matrix is not None:
            parts.append(compute(matrix).assign(metric=metric, split=split))
    columns = ["metric", "split", "arm", "x", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _curves(sweep: Sweep, metric: str, split: str, *, whole_epochs: bool = False) -> pd.DataFrame | None:
    """Return the curves of a metric, or None if no run has it."""
    if metric not in sweep.frame.columns:
        return None
    matrix = curves.curves(sweep, metric, split, whole_epochs=whole_epochs).replace([np.inf, -np.inf], np.nan)
    return None if matrix.size == 0 or matrix.isna().all(axis=None) else matrix


def _pairs(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        (v.claim.name, v.metric.label, v.arm, v.task, int(seed), *map(float, effects))
        for v in verdicts
        if v.task != ALL_TASKS
        for seed, *effects in zip(v.pairs.index, v.pairs, v.pair_limits["low"], v.pair_limits["high"], strict=True)
    ]
    columns = ["claim", "metric", "arm", "task", "seed", "effect", "low", "high"]
    frame = pd.DataFrame(rows, columns=columns).astype({"seed": "int64", "effect": float, "low": float, "high": float})
    return frame if any(v.task for v in verdicts) else frame.drop(columns="task")


def _profiles(parts: Sequence[Findings], claims: Sequence[Claim], rng: np.random.Generator) -> pd.DataFrame:
    """Return the performance profiles of the values that the claims are about."""
    rows = []
    metrics = dict.fromkeys(m for claim in claims for m in claim.metrics if m.kind == "value")
    for metric in list(metrics)[:MOST_PROFILES]:
        of_arms: dict[str, list[np.ndarray]] = {arm.name: [] for arm in parts[0].sweep.arms}
        for part in parts:
            found = values(part.sweep, metric).replace([np.inf, -np.inf], np.nan)
            scale = select_arm(found, part.sweep.arms[0]).abs().mean() if len(parts) > 1 and part.sweep.arms else 1.0
            for arm in part.sweep.arms:
                of_arms[arm.name].append(select_arm(found, arm).dropna().to_numpy(dtype=float) / scale)
        known = {name: scores for name, scores in of_arms.items() if scores and all(len(score) for score in scores)}
        if not known:
            continue
        everything = np.concatenate([score for scores in known.values() for score in scores])
        thresholds = np.linspace(everything.min(), everything.max(), 51)
        for name, scores in known.items():
            profile = tasks.performance_profile(scores, thresholds, rng)
            table = pd.DataFrame(
                {"threshold": thresholds, "share": profile.share, "low": profile.low, "high": profile.high}
            )
            rows.append(table.assign(metric=metric.label, arm=name))
    columns = ["metric", "arm", "threshold", "share", "low", "high"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def _means(sweep: Sweep, claims: Sequence[Claim], target: Target | None) -> pd.DataFrame:
    rows = []
    for claim in claims:
        for metric in claim.metrics:
            found = values(sweep, metric, target_of(sweep, metric, target))
            for arm in sweep.arms:
                of_arm = select_arm(found, arm).replace([np.inf, -np.inf], np.nan).dropna()
                mean = mean_t(of_arm)
                rows.append((claim.name, metric.label, arm.name, len(of_arm), mean.estimate, mean.low, mean.high))
    return pd.DataFrame(rows, columns=["claim", "metric", "arm", "n", "mean", "low", "high"])


def _secondary(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return `secondary_table`, preceded by the bootstrap interval and the share of better pairs of each verdict."""
    rows = []
    for v in verdicts:
        keys = {"claim": v.claim.name, "metric": v.metric.label, "arm": v.arm, "task": v.task, "whose": "pairs"}
        if v.better is not None:
            better = {"estimate": 100 * v.better.estimate, "low": 100 * v.better.low, "high": 100 * v.better.high}
            name = "pairs in which the arm is better" if v.n_pairs else "probability that a run of the arm is better"
            rows.append(keys | {"name": name, "unit": "per cent"} | better)
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
