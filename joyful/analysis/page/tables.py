"""The tables of the page, with cells as text and units in the headings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from joyful.analysis.claims import Verdict
from joyful.analysis.claims_file import claimed
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import (
    NONE,
    heading,
    interval,
    metric,
    number,
    p_value,
    percent,
    quantity,
    three_digits,
)
from joyful.analysis.lines import ALL_TASKS
from joyful.analysis.page import grid
from joyful.analysis.page.parts import Table, clean
from joyful.analysis.rules import FIXED

#: Maximum number of rows of a table on the page. The Parquet files contain all rows.
MOST_ROWS = 300

#: Maximum number of seeds that the table of pairs shows as columns.
MOST_SEEDS = 12


def verdicts(findings: Findings) -> Table:
    """Return the table of verdicts, with one row per verdict."""
    several, tasks = len(findings.sweep.others) > 1, bool(findings.sweep.tasks)
    unit = "runs" if findings.sweep.design == "unpaired" else "pairs"
    columns = [
        "claim", *(["arm"] if several else []), *(["task"] if tasks else []), "claimed range",
        "effect, 95 % interval", "verdict", unit, "P(better)",
        "p (no effect)", "p (lower edge)", "p (Holm)", "minimum detectable effect", "pairs needed",
    ]  # fmt: skip
    rows = [_verdict(verdict, several, tasks) for verdict in findings.verdicts]
    sequential = any(verdict.rule != FIXED for verdict in findings.verdicts)
    shift = several + tasks
    better = "share of pairs in which the arm" if unit == "pairs" else "probability that a run of the arm"
    return make_table(
        "table-verdicts", "Verdict on every claim", columns, rows, text=(*range(2 + shift), 3 + shift),
        note=f"Effects are positive in the claimed direction. P(better) is the {better} is better; "
        "its interval is in the table of secondary measures. Pairs needed: number of pairs for the verdict supported "
        "with 80 % power, if the true effect is the middle of the claimed range."
        + (f" {_SEQUENCE}" if sequential else ""),
        restacks=True, marks=3 + shift, file="verdicts.csv",
    )  # fmt: skip


#: Added to the note under a table with verdicts of the confidence sequence.
_SEQUENCE = (
    "The intervals are those of the confidence sequence, which holds at every number of pairs at once. Its verdict rests on the "
    "first pairs that decide the claim. The wider intervals for all claims hold together (Bonferroni). All other intervals "
    "of the page are those of a fixed number of pairs."
)


def _verdict(verdict: Verdict, several: bool, tasks: bool) -> list[object]:
    unit, digits = verdict.claim.unit, verdict.claim.digits
    better = verdict.better.estimate if verdict.better is not None else math.nan
    return [
        _claim(verdict), *([verdict.arm] if several else []), *([verdict.task] if tasks else []), claimed(verdict.claim),
        _effect(verdict), f"{verdict.verdict}\n{metric(clean(f'{verdict.detail} {verdict.note}'))}",
        _size(verdict), percent(better, 0),
        p_value(verdict.p_zero), p_value(verdict.p_lower_edge), p_value(verdict.p_holm),
        quantity(verdict.minimum_detectable, unit, digits), NONE if verdict.pairs_needed is None else verdict.pairs_needed,
    ]  # fmt: skip


def _effect(verdict: Verdict) -> str:
    """Return the effect, its interval, and under the confidence sequence the interval for all claims together."""
    unit, digits, family = verdict.claim.unit, verdict.claim.digits, verdict.family_effect
    bounds, together = (interval(limits.low, limits.high, unit, digits) for limits in (verdict.effect, family))
    more = "" if together == NONE else f"; all claims: {together}"
    return f"{quantity(verdict.estimate, unit, digits, signed=True)}\n{bounds}{more}"


def pairs(findings: Findings) -> Table | None:
    """Return the table of the effects of the pairs, or None if there are none.

    It has one row per verdict and one column per seed. With more than MOST_SEEDS seeds it has one row per pair.
    """
    frame = findings.tables["pairs"]
    if frame.empty:
        return None
    shown = [verdict for verdict in findings.verdicts if len(verdict.pairs) and verdict.task != ALL_TASKS]
    seeds = sorted(frame["seed"].unique())
    if len(seeds) > MOST_SEEDS:
        rows = [
            [
                _claim(verdict),
                verdict.subject,
                seed,
                quantity(effect, verdict.claim.unit, verdict.claim.digits, signed=True),
            ]
            for verdict in shown
            for seed, effect in verdict.pairs.items()
        ]
        columns = ["claim", "arm", "seed", "effect"]
    else:
        rows = [[_claim(verdict), verdict.subject, *(_of_seed(verdict, seed) for seed in seeds)] for verdict in shown]
        columns = ["claim", "arm", *(f"seed {seed}" for seed in seeds)]
    return make_table(
        "table-pairs", "Effect of each pair", columns, rows, text=(0, 1),
        note="In the unit of the claim, positive in the claimed direction. The time to a target is known to lie between two "
        "evaluations, so the effect of its pair is the middle of an interval, or its finite end; the file has both ends.",
        file="pairs.parquet",
    )  # fmt: skip


def _size(verdict: Verdict) -> str:
    """Return the number of pairs, or of runs in an unpaired design."""
    return str(verdict.n_pairs) if verdict.n_pairs or not sum(verdict.runs) else " and ".join(map(str, verdict.runs))


def _claim(verdict: Verdict) -> str:
    return f"{heading(verdict.claim.name)}\n{clean(metric(verdict.metric.label))}"


def _of_seed(verdict: Verdict, seed: int) -> str:
    effect = verdict.pairs.get(seed)
    return number(None if effect is None else float(effect), verdict.claim.digits, signed=True)


def secondary(findings: Findings) -> Table | None:
    """Return the table of secondary measures, which are not judged, or None if there are none."""
    frame = findings.tables["secondary"]
    if frame.empty:
        return None
    rows = [
        [
            heading(r["claim"]),
            f"{r['arm']} on {r['task']}" if r.get("task") else r["arm"],
            metric(r["name"]),
            r["whose"],
            *_measure(r),
        ]
        for r in frame.to_dict("records")
    ]
    return make_table(
        "table-secondary", "Secondary measures (not judged)",
        ["claim", "arm", "measure", "refers to", "value", "95 % interval"], rows, text=(0, 1, 2, 3),
        note="A measure that refers to pairs is computed from all pairs; changes are positive if the arm is better. "
        "Any other measure refers to the named arm alone.",
        file="secondary.parquet",
    )  # fmt: skip


def _measure(row: dict[Any, Any]) -> list[str]:
    unit = row["unit"]
    if unit in ("percent", "per cent", "points"):
        digits = 0 if row["name"].startswith(("runs that", "pairs in")) else None
        signed = row["whose"] == "pairs" and digits is None
        estimate = quantity(row["estimate"], unit, digits, signed=signed)
        return [estimate, interval(row["low"], row["high"], unit, digits)]
    bounds = NONE if math.isnan(row["low"]) or math.isnan(row["high"]) else _bounds(row["low"], row["high"])
    return [f"{three_digits(row['estimate'])}{f' {metric(unit)}' if unit else ''}", bounds]


def _bounds(low: float, high: float) -> str:
    return f"{three_digits(low)} to {three_digits(high)}"


def reach(findings: Findings) -> Table:
    """Return the table of the share of runs per arm that reached the target."""
    rows = []
    for r in findings.tables["reach"].to_dict("records"):
        share, low, high = (percent(r[name], 0) for name in ("rate", "low", "high"))
        rows.append([r["arm"], int(r["n"]), int(r["reached"]), share, f"{low} to {high}"])
    return make_table(
        "table-reach", "Runs that reached the target", ["arm", "runs", "reached", "share", "95 % interval"], rows,
        file="reach.parquet",
    )  # fmt: skip


def ladder(findings: Findings) -> Table | None:
    """Return the table of the gains at other targets, or None if no claim is on a time to a target."""
    frame = findings.tables["ladder"]
    if frame.empty:
        return None
    several = frame["metric"].nunique() > 1 or frame["claim"].nunique() > 1
    claims = {(v.claim.name, v.metric.label): v.claim for v in findings.verdicts}
    rows = []
    for r in frame.to_dict("records"):
        claim = claims[r["claim"], r["metric"]]
        effect = quantity(r["estimate"], claim.unit, claim.digits, signed=True)
        rows.append(
            [
                r["arm"], *([clean(metric(r["metric"]))] if several else []), percent(r["share"], 0),
                three_digits(r["target"]), f"{r['reached']} and {r['reached_baseline']}", effect,
                interval(r["low"], r["high"], claim.unit, claim.digits),
            ]
        )  # fmt: skip
    columns = [
        "arm",
        *(["metric"] if several else []),
        "share of the way",
        "target",
        "reached",
        "effect",
        "95 % interval",
    ]
    return make_table(
        "table-ladder", "The effect at other targets", columns, rows, text=(0, 1) if several else (0,),
        note="The share of the way from the start of training to its end, in the runs that set the target. Reached: numbers of "
        "runs of the arm and of the baseline. The verdict refers to one target; a conclusion that holds for one target "
        "only is weak.",
        file="ladder.parquet",
    )  # fmt: skip


def means(findings: Findings) -> Table | None:
    """Return the table of the mean of each metric of the claims and each arm, or None if there are no claims."""
    frame = findings.tables["means"]
    frame = frame[frame["n"] > 0].drop_duplicates(["metric", "arm"])
    if frame.empty:
        return None
    rows = [
        [clean(metric(r["metric"])), r["arm"], int(r["n"]), three_digits(r["mean"]), _bounds(r["low"], r["high"])]
        for r in frame.to_dict("records")
    ]
    return make_table(
        "table-means", "Mean of each metric and arm", ["metric", "arm", "runs", "mean", "95 % interval"], rows, text=(0, 1),
        note="In the unit of the column, over all runs of the arm, with the t interval over seeds. The intervals of two arms "
        "do not show whether the arms differ: pairs do. A time is the first evaluation at which the target is reached.",
        file="means.parquet",
    )  # fmt: skip


def gradient_ratios(findings: Findings) -> Table:
    """Return the table of encoder gradient ratios, with one row per arm."""
    rows = [
        [
            r["arm"], int(r["n"]), three_digits(r["ratio"]), _bounds(r["ratio_low"], r["ratio_high"]),
            number(r["cosine"], 3), f"{number(r['cosine_low'], 3)} to {number(r['cosine_high'], 3)}",
        ]
        for r in findings.tables["arm_gradient_ratio"].sort_values(["ratio", "arm"]).to_dict("records")
    ]  # fmt: skip
    return make_table(
        "table-places", "Encoder gradient ratio of each arm (median over training)",
        ["arm", "runs", "ratio", "95 % interval", "cosine", "95 % interval"], rows, file="arm_gradient_ratio.parquet",
    )  # fmt: skip


def response(findings: Findings) -> Table:
    """Return the table of the points of the response curves, with their paired gains over the baseline."""
    rows = [
        [
            r["factor"], r["line"], r["measure"], f"{r['weight']:g}", int(r["n"]), three_digits(r["estimate"]),
            _bounds(r["low"], r["high"]), quantity(r["gain"], r["gain_unit"], signed=True),
            interval(r["gain_low"], r["gain_high"], r["gain_unit"]), percent(r["censored"], 0),
        ]
        for r in findings.tables["response"].to_dict("records")
    ]  # fmt: skip
    return make_table(
        "table-response", "Points of the response curves",
        ["setting", "line", "measure", "value", "seeds", "estimate", "95 % interval", "gain over baseline",
         "95 % interval", "censored"],
        rows, text=(0, 1, 2),
        note="Units of the estimates: F1 in points, speed in epochs to target, stability in points per epoch. Gains "
        "are positive if the arm is better than the baseline. Censored: share of runs that did not reach the target.",
        file="response.parquet",
    )  # fmt: skip


#: Column of the table of scores -> (heading, scale, digits).
_SCORES = {
    "best_epoch": ("best epoch", 1.0, 2),
    "dev_f1": ("best dev F1 (%)", 100.0, 2),
    "test_f1": ("test F1 (%)", 100.0, 2),
    "epochs_to_target": ("epochs to target", 1.0, 2),
    "seconds": ("seconds to target", 1.0, 1),
    "final_dev_nll": ("final dev NLL", 1.0, 3),
    "final_train_nll": ("final train NLL", 1.0, 3),
    "final_recon_mse": ("final train reconstruction MSE", 1.0, 4),
    "f1_spread": ("spread of dev F1 (points)", 100.0, 3),
    "nll_spread": ("spread of train NLL", 1.0, 4),
    "f1_drawdown": ("drawdown of dev F1 (points)", 100.0, 2),
}


def arms(findings: Findings) -> Table:
    """Return the table of the arms, with their settings and the means of their results over seeds."""
    sweep, scores = findings.sweep, findings.tables["scores"]
    names = ("dev_f1", "test_f1", "epochs_to_target", "final_dev_nll", "final_train_nll", "final_recon_mse")
    shown = {name: _SCORES[name] for name in names if name in scores and scores[name].notna().any()}
    rows = []
    arms = sweep.arms
    if grid.is_grid(sweep):  # nothing is judged, so the best comes first
        ranked = list(grid.means(findings).index)
        arms = tuple(sorted(arms, key=lambda arm: ranked.index(arm.name) if arm.name in ranked else len(ranked)))
    for arm in arms:
        of_arm = scores[scores["arm"] == arm.name]
        values = [_setting(arm.settings.get(name)) for name in sweep.factors]
        cells = [_mean_sd(of_arm[column] * scale, digits) for column, (_, scale, digits) in shown.items()]
        rows.append([f"{arm.name}{' (baseline)' * arm.is_baseline}", *values, len(sweep.seeds(arm)), *cells])
    columns = ["arm", *sweep.factors, "runs", *(heading for heading, _, _ in shown.values())]
    return make_table(
        "table-arms", "Settings and results of each arm", columns, rows,
        text=range(len(sweep.factors) + 1), note="Mean ± standard deviation over seeds.",
    )  # fmt: skip


def scores(findings: Findings) -> Table:
    """Return the table of the results of every run that is compared."""
    frame = findings.tables["scores"]
    shown = {name: spec for name, spec in _SCORES.items() if name in frame and name != "final_recon_mse"}
    used = findings.sweep.runs.query("used and role == 'comparison'")
    folders = {(arm, seed): run for run, arm, seed in zip(used["run"], used["arm"], used["seed"], strict=True)}
    rows = []
    for row in frame.to_dict("records"):
        cells = {name: number(row[name] * scale, digits) for name, (_, scale, digits) in shown.items()}
        if cells.get("epochs_to_target", NONE) != NONE:
            before = "> " if not row["reached"] else f"{number(row['not_before'], 2)} to "
            cells["epochs_to_target"] = before + cells["epochs_to_target"]
        rows.append([row["arm"], int(row["seed"]), *cells.values(), folders.get((row["arm"], row["seed"]), NONE)])
    return make_table(
        "table-scores", "Results of each run", ["arm", "seed", *(heading for heading, _, _ in shown.values()), "run"], rows,
        text=(0, len(shown) + 2), runs=len(shown) + 2,
        note="The time to the target is known to lie between two evaluations. The sign > marks a run that did not reach the "
        "target within its budget.",
        file="scores.parquet",
    )  # fmt: skip


def left_out(findings: Findings) -> Table:
    """Return the table of the runs that were left out, with the reasons."""
    rows = [
        [r["run"], _setting(r["arm"]), _integer(r["seed"]), _setting(r["role"]), r["status"], _setting(r["reason"])]
        for r in findings.sweep.left_out.to_dict("records")
    ]
    return make_table(
        "table-left-out", "Runs left out", ["run", "arm", "seed", "role", "status", "reason"], rows, text=(0, 1, 3, 4, 5),
        file="left_out.parquet", runs=0,
    )  # fmt: skip


def make_table(
    name: str, caption: str, columns: list[str], rows: list[list[Any]], *, text: Sequence[int] = (0,), note: str = "",
    file: str = "", restacks: bool = False, marks: int | None = None, runs: int | None = None,
) -> Table:  # fmt: skip
    """Return a table of at most MOST_ROWS rows. `text` holds the indices of the columns that are not numbers."""
    if len(rows) > MOST_ROWS:
        note = f"First {MOST_ROWS} of {len(rows)} rows{f'; {file} contains all' if file else ''}. {note}".strip()
    cells = tuple(tuple("\n".join(map(clean, str(c).split("\n", 1))) for c in row) for row in rows[:MOST_ROWS])
    numeric = frozenset(range(len(columns))) - set(text)
    return Table(name, caption, tuple(columns), cells, numeric, note, restacks, marks, runs)


def _mean_sd(values: pd.Series, digits: int) -> str:
    values = values.dropna()
    if values.empty:
        return NONE
    mean = number(float(values.mean()), digits)
    return mean if len(values) < 2 else f"{mean} ± {number(float(values.std(ddof=1)), digits)}"


def _setting(value: object) -> str:
    if value is None or value != value:
        return NONE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _integer(value: object) -> str:
    return NONE if value is None or value != value else str(int(float(str(value))))
