"""The answer at a glance: one row per claim with the claimed range, the effect, its interval and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from joyful.analysis.findings import Findings
from joyful.analysis.formatting import heading, metric, quantity
from joyful.analysis.lines import ALL_TASKS
from joyful.analysis.page.parts import Answer, Cell, Row, clean
from joyful.analysis.page.words import change, claimed, result
from joyful.analysis.verdict import Verdict

#: The axis of a row reaches from -BEFORE to BEYOND times the largest edge of the claimed range.
BEFORE, BEYOND = 1.5, 1.75

#: Maximum number of columns. The table of verdicts has all.
MOST_COLUMNS = 24

_NOTE = (
    "Shaded: the claimed range. Mark and line: the mean effect and its 95 % interval. Vertical rule: no difference. Each row has "
    "the scale of its claim. An arrow and a number: the effect lies outside."
)


def answer(findings: Findings) -> Answer | None:
    """Return the verdicts at a glance, or None if there are none.

    The columns are the arms. With one arm and several tasks they are the tasks, and with several of both the arms over all
    tasks.
    """
    verdicts = findings.verdicts
    if not verdicts:
        return None
    several = len(findings.sweep.others) > 1
    if several and any(v.task == ALL_TASKS for v in verdicts):
        verdicts = [v for v in verdicts if v.task == ALL_TASKS]
    columns = list(dict.fromkeys(v.arm if several else v.task or v.arm for v in verdicts))
    rows: dict[tuple[str, str], dict[str, Verdict]] = {}
    for verdict in verdicts:
        of_row = rows.setdefault((verdict.claim.name, verdict.metric.label), {})
        of_row[verdict.arm if several else verdict.task or verdict.arm] = verdict
    note = _NOTE
    if len(columns) > MOST_COLUMNS:
        note += f" The figure shows the first {MOST_COLUMNS} of {len(columns)} columns."
    shown = columns[:MOST_COLUMNS]
    return Answer(tuple(clean(name) for name in shown), tuple(_row(of_row, shown) for of_row in rows.values()), note)


def cell(verdict: Verdict) -> Cell:
    """Return the cell of a verdict."""
    claim = verdict.claim
    edges = [abs(edge) for edge in (claim.lower, claim.upper) if edge and math.isfinite(edge)]
    unit = max(edges, default=1.0)
    low_end, high_end = -BEFORE * unit, BEYOND * unit

    def place(value: float) -> float:
        inside = min(max(value, low_end), high_end)
        return round(100 * (inside - low_end) / (high_end - low_end), 2)

    estimate, low, high = verdict.estimate, verdict.low, verdict.high
    known = math.isfinite(estimate)
    number = quantity(estimate, claim.unit, claim.digits, signed=True)
    return Cell(
        verdict=verdict.verdict,
        result=result(verdict),
        text=change(claim, verdict.metric, verdict.effect)
        if known
        else metric(clean(verdict.detail).partition(" (")[0]),
        short="" if not known else number if claim.unit == "percent" else number.partition(" ")[0],
        zero=place(0.0),
        band=(place(claim.lower), place(claim.upper)),
        line=None if not known or math.isnan(low) or math.isnan(high) else (place(low), place(high)),
        point=place(estimate) if known and low_end <= estimate <= high_end else None,
        before=number if known and estimate < low_end else "",
        beyond=number if known and estimate > high_end else "",
    )


def _row(of_row: dict[str, Verdict], columns: Sequence[str]) -> Row:
    first = next(iter(of_row.values()))
    cells = tuple(cell(of_row[name]) if name in of_row else None for name in columns)
    of_metric = f"{first.metric.split} {metric(first.metric.of)}"
    name = heading(of_metric if len(first.claim.metrics) > 1 else first.claim.name)
    return Row(clean(name), claimed(first.claim, first.metric), cells)
