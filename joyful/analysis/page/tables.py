"""The tables of the page, with cells as text and units in the headings."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from joyful.analysis.claims import Verdict
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import (
    NONE,
    decimals,
    heading,
    interval,
    metric,
    number,
    p_value,
    percent,
    quantity,
    three_digits,
)
from joyful.analysis.page.parts import Table, clean
from joyful.analysis.plots.forest import claimed

#: Maximum number of rows of a table on the page. The Parquet files contain all rows.
MOST_ROWS = 300

#: Maximum number of seeds that the table of pairs shows as columns.
MOST_SEEDS = 12


def verdicts(findings: Findings) -> Table:
    """Return the table of verdicts, with one row per verdict."""
    several = len(findings.sweep.others) > 1
    columns = [
        "claim", "claimed range", "effect, 95 % interval", "verdict", "pairs", "P(better)", "p (no effect)",
        "p (lower edge)", "p (Holm)", "minimum detectable effect", "pairs needed",
    ]  # fmt: skip
    rows = [_verdict(verdict) for verdict in findings.verdicts]
    if several:
        columns.insert(1, "arm")
        rows = [[row[0], verdict.arm, *row[1:]] for row, verdict in zip(rows, findings.verdicts, strict=True)]
    shift = int(several)
    return _table(
        "table-verdicts", "Verdict on every claim", columns, rows, text=(0, 1, 1 + shift, 3 + shift),
        note="Effects are positive in the claimed direction. P(better) is the share of pairs in which the arm is better; "
        "its interval is in the table of secondary measures. Pairs needed: number of pairs for the verdict supported "
        "with 80 % power, if the true effect is the middle of the claimed range.",
        restacks=True, marks=3 + shift, file="verdicts.csv",
    )  # fmt: skip


def _verdict(verdict: Verdict) -> list[object]:
    unit = verdict.claim.unit
    better = verdict.better.estimate if verdict.better is not None else math.nan
    return [
        f"{heading(verdict.claim.name)}\n{clean(metric(verdict.metric.label))}",
        claimed(verdict.claim),
        f"{quantity(verdict.estimate, unit, signed=True)}\n{interval(verdict.low, verdict.high, unit)}",
        f"{verdict.verdict}\n{metric(clean(f'{verdict.detail} {verdict.note}'))}",
        verdict.n_pairs,
        percent(better, 0),
        p_value(verdict.p_zero),
        p_value(verdict.p_lower_edge),
        p_value(verdict.p_holm),
        quantity(verdict.minimum_detectable, unit),
        NONE if verdict.pairs_needed is None else verdict.pairs_needed,
    ]


def pairs(findings: Findings) -> Table | None:
    """Return the table of the effects of the pairs, or None if there are none.

    It has one row per verdict and one column per seed. With more than MOST_SEEDS seeds it has one row per pair.
    """
    frame = findings.tables["pairs"]
    if frame.empty:
        return None
    shown = [verdict for verdict in findings.verdicts if len(verdict.pairs)]
    seeds = sorted(frame["seed"].unique())
    if len(seeds) > MOST_SEEDS:
        rows = [
            [*_claim_and_arm(verdict), seed, quantity(effect, verdict.claim.unit, signed=True)]
            for verdict in shown
            for seed, effect in verdict.pairs.items()
        ]
        columns = ["claim", "arm", "seed", "effect"]
    else:
        rows = [[*_claim_and_arm(verdict), *(_of_seed(verdict, seed) for seed in seeds)] for verdict in shown]
        columns = ["claim", "arm", *(f"seed {seed}" for seed in seeds)]
    return _table(
        "table-pairs", "Effect of each pair", columns, rows, text=(0, 1),
        note="In the unit of the claim (per cent or points), positive in the claimed direction.",
        file="pairs.parquet",
    )  # fmt: skip


def _claim_and_arm(verdict: Verdict) -> list[object]:
    return [f"{heading(verdict.claim.name)}\n{clean(metric(verdict.metric.label))}", verdict.arm]


def _of_seed(verdict: Verdict, seed: int) -> str:
    effect = verdict.pairs.get(seed)
    return number(None if effect is None else float(effect), decimals(verdict.claim.unit), signed=True)


def secondary(findings: Findings) -> Table | None:
    """Return the table of secondary measures, which are not judged, or None if there are none."""
    frame = findings.tables["secondary"]
    if frame.empty:
        return None
    rows = [
        [heading(r["claim"]), r["arm"], metric(r["name"]), r["whose"], *_measure(r)] for r in frame.to_dict("records")
    ]
    return _table(
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
        return [
            quantity(row["estimate"], unit, digits, signed=signed), interval(row["low"], row["high"], unit, digits),
        ]  # fmt: skip
    low, high = row["low"], row["high"]
    bounds = NONE if math.isnan(low) or math.isnan(high) else f"{three_digits(low)} to {three_digits(high)}"
    return [f"{three_digits(row['estimate'])}{f' {metric(unit)}' if unit else ''}", bounds]


def reach(findings: Findings) -> Table:
    """Return the table of the share of runs per arm that reached the target."""
    rows = [
        [
            r["arm"],
            int(r["n"]),
            int(r["reached"]),
            percent(r["rate"], 0),
            f"{percent(r['low'], 0)} to {percent(r['high'], 0)}",
        ]
        for r in findings.tables["reach"].to_dict("records")
    ]
    return _table(
        "table-reach", "Runs that reached the target", ["arm", "runs", "reached", "share", "95 % interval"], rows,
        file="reach.parquet",
    )  # fmt: skip


def gradient_ratios(findings: Findings) -> Table:
    """Return the table of encoder gradient ratios, with one row per arm."""
    rows = [
        [
            r["arm"], int(r["n"]), three_digits(r["ratio"]), f"{three_digits(r['ratio_low'])} to {three_digits(r['ratio_high'])}",
            number(r["cosine"], 3), f"{number(r['cosine_low'], 3)} to {number(r['cosine_high'], 3)}",
        ]
        for r in findings.tables["arm_gradient_ratio"].sort_values(["ratio", "arm"]).to_dict("records")
    ]  # fmt: skip
    return _table(
        "table-places", "Encoder gradient ratio of each arm (median over training)",
        ["arm", "runs", "ratio", "95 % interval", "cosine", "95 % interval"], rows, file="arm_gradient_ratio.parquet",
    )  # fmt: skip


def response(findings: Findings) -> Table:
    """Return the table of the points of the response curves, with their paired gains over the baseline."""
    rows = [
        [
            r["factor"], r["line"], r["measure"], f"{r['weight']:g}", int(r["n"]), three_digits(r["estimate"]),
            f"{three_digits(r['low'])} to {three_digits(r['high'])}", quantity(r["gain"], r["gain_unit"], signed=True),
            interval(r["gain_low"], r["gain_high"], r["gain_unit"]), percent(r["censored"], 0),
        ]
        for r in findings.tables["response"].to_dict("records")
    ]  # fmt: skip
    return _table(
        "table-response", "Points of the response curves",
        ["setting", "line", "measure", "value", "seeds", "estimate", "95 % interval", "gain over baseline",
         "95 % interval", "censored"],
        rows, text=(0, 1, 2),
        note="Units of the estimates: F1 in points, speed in epochs to target, stability in points per epoch. Gains "
        "are positive if the arm is better than the baseline. Censored: share of runs that did not reach the target.",
        file="response.parquet",
    )  # fmt: skip


def trials(findings: Findings) -> Table:
    """Return the table of the trials of the study, best first."""
    frame = findings.tables["trials"]
    assert findings.study is not None
    ordered = frame.sort_values(["value", "number"], ascending=[not findings.study.maximise, True], na_position="last")
    rows = [[r["number"], r["state"], percent(r["value"], 2), r["parameters"]] for r in ordered.to_dict("records")]
    return _table(
        "table-trials", "Trials, best first", ["trial", "state", "objective", "parameters"], rows, text=(1, 3),
        file="trials.parquet",
    )  # fmt: skip


def arms(findings: Findings) -> Table:
    """Return the table of the arms, with their settings and the means of their results over seeds."""
    sweep, scores = findings.sweep, findings.tables["scores"]
    columns = ["arm", *sweep.factors, "runs"]
    measures = [
        (column, label, scale, digits)
        for column, label, scale, digits in (
            ("dev_f1", "best dev F1 (%)", 100.0, 2),
            ("test_f1", "test F1 (%)", 100.0, 2),
            ("epochs_to_target", "epochs to target", 1.0, 2),
            ("final_dev_nll", "final dev NLL", 1.0, 3),
            ("final_train_nll", "final train NLL", 1.0, 3),
            ("final_recon_mse", "final train reconstruction MSE", 1.0, 4),
        )
        if column in scores and scores[column].notna().any()
    ]
    rows = []
    for arm in sweep.arms:
        of_arm = scores[scores["arm"] == arm.name]
        values = [_setting(arm.settings.get(name)) for name in sweep.factors]
        cells = [_mean_sd(of_arm[column] * scale, digits) for column, _, scale, digits in measures]
        rows.append([f"{arm.name}{' (baseline)' * arm.is_baseline}", *values, len(of_arm), *cells])
    return _table(
        "table-arms", "Settings and results of each arm", [*columns, *(label for _, label, _, _ in measures)], rows,
        text=range(len(sweep.factors) + 1), note="Mean ± standard deviation over seeds.",
    )  # fmt: skip


def scores(findings: Findings) -> Table:
    """Return the table of the results of every run that is compared."""
    frame = findings.tables["scores"]
    shown = [
        (column, label, scale, digits)
        for column, label, scale, digits in (
            ("best_epoch", "best epoch", 1.0, 2),
            ("dev_f1", "best dev F1 (%)", 100.0, 2),
            ("test_f1", "test F1 (%)", 100.0, 2),
            ("epochs_to_target", "epochs to target", 1.0, 2),
            ("seconds", "seconds to target", 1.0, 1),
            ("final_dev_nll", "final dev NLL", 1.0, 3),
            ("final_train_nll", "final train NLL", 1.0, 3),
            ("f1_spread", "spread of dev F1 (points)", 100.0, 3),
            ("nll_spread", "spread of train NLL", 1.0, 4),
            ("f1_drawdown", "drawdown of dev F1 (points)", 100.0, 2),
        )
        if column in frame
    ]
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for column, _, scale, digits in shown:
            text = number(row[column] * scale, digits)
            never = column == "epochs_to_target" and not row.get("reached", True) and text != NONE
            cells.append(f"> {text}" if never else text)
        rows.append([row["arm"], int(row["seed"]), *cells])
    return _table(
        "table-scores", "Results of each run", ["arm", "seed", *(label for _, label, _, _ in shown)], rows,
        note="The sign > marks a run that did not reach the target within its budget.", file="scores.parquet",
    )  # fmt: skip


def left_out(findings: Findings) -> Table:
    """Return the table of the runs that were left out, with the reasons."""
    rows = [
        [r["run"], _setting(r["arm"]), _integer(r["seed"]), _setting(r["role"]), r["status"], _setting(r["reason"])]
        for r in findings.sweep.left_out.to_dict("records")
    ]
    return _table(
        "table-left-out", "Runs left out", ["run", "arm", "seed", "role", "status", "reason"], rows, text=(0, 1, 3, 4, 5),
        file="left_out.parquet",
    )  # fmt: skip


def _table(
    name: str, caption: str, columns: list[str], rows: list[list[Any]], *, text: Any = (0,), note: str = "", file: str = "",
    restacks: bool = False, marks: int | None = None,
) -> Table:  # fmt: skip
    if len(rows) > MOST_ROWS:
        note = f"First {MOST_ROWS} of {len(rows)} rows{f'; {file} contains all' if file else ''}. {note}".strip()
        rows = rows[:MOST_ROWS]
    return Table.of(name, caption, columns, rows, text=tuple(text), note=note, restacks=restacks, marks=marks)


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
