"""Tables in words as data frames, for notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from joyful.analysis import curves, stability
from joyful.analysis.claims_file import Claim
from joyful.analysis.columns import is_score
from joyful.analysis.formatting import (
    NONE,
    heading,
    interval,
    metric,
    number,
    quantity,
    three_digits,
    with_unit_of_time,
)
from joyful.analysis.measures import Metric
from joyful.analysis.page.labels import BASELINE
from joyful.analysis.page.parts import clean
from joyful.analysis.page.words import change, claimed, result
from joyful.analysis.plots.style import shortened
from joyful.analysis.sweep import Sweep
from joyful.analysis.verdict import Verdict

#: Measure of `response.response` -> heading of its gains.
_GAINS = {"f1": "best dev F1", "speed": "speed", "stability": "stability of dev F1"}


class Words(pd.DataFrame):
    """A table of text. A notebook shows its cells whole, where pandas cuts them off after 50 characters."""

    @property
    def _constructor(self) -> type[Words]:
        return Words

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return str(self.to_html(notebook=True))


def runs(sweep: Sweep) -> Words:
    """Return the numbers of runs of each arm, the baseline first.

    Args:
        sweep: The sweep.

    Returns:
        A table with one row per arm: `seeds` that are compared, `pairs` with the baseline, `calibration` runs, and runs that
        are `left out`.
    """
    rows = []
    for arm in sweep.arms:
        name = f"{clean(arm.name)}{' (baseline)' * (arm.is_baseline and arm.name != BASELINE)}"
        pairs = NONE if arm.is_baseline or sweep.design == "unpaired" else str(len(sweep.pairs(arm)))
        left_out = int((sweep.left_out["arm"] == arm.name).sum())
        rows.append((name, len(sweep.seeds(arm)), pairs, len(sweep.seeds(arm, "calibration")), left_out))
    return _frame(rows, ["arm", "seeds", "pairs", "calibration", "left out"])


def claims(sweep: Sweep, found: Sequence[Claim]) -> Words:
    """Return claims in words, with one row per metric: what is measured and the claimed range.

    Args:
        sweep: The sweep, which gives the unit of times.
        found: The claims.
    """
    rows = [(heading(claim.name), _measure(sweep, of), claimed(claim, of)) for claim in found for of in claim.metrics]
    return _frame(rows, ["claim", "measure", "claimed"])


def verdicts(sweep: Sweep, found: Sequence[Verdict]) -> Words:
    """Return verdicts in words: the claimed range, the effect with its 95 % interval, and the result.

    Args:
        sweep: The sweep.
        found: Verdicts on it, as returned by `joyful.analysis.claims.judge`.

    Returns:
        A table with one row per verdict. The arm is a column if there are several.
    """
    several = len({v.subject for v in found}) > 1
    rows = [
        (
            heading(v.claim.name), *([clean(v.subject)] if several else []), _measure(sweep, v.metric),
            claimed(v.claim, v.metric), change(v.claim, v.metric, v.effect), result(v), v.n_pairs or NONE,
        )
        for v in found
    ]  # fmt: skip
    columns = [
        "claim",
        *(["arm"] if several else []),
        "measure",
        "claimed",
        "measured (95 % interval)",
        "result",
        "pairs",
    ]
    return _frame(rows, columns)


def times(found: pd.DataFrame) -> Words:
    """Return the times to a target with one row per seed and one column per arm.

    Args:
        found: A table as returned by `joyful.analysis.convergence.times_to_target`.

    Returns:
        The first evaluation at which a run reaches the target, or "> 20" for a run that ends at 20 without reaching it.
    """
    text = [
        NONE if math.isnan(time) else f"{'' if reached else '> '}{number(time, 2)}"
        for time, reached in zip(found["epochs"], found["reached"], strict=True)
    ]
    arms = list(dict.fromkeys(found.index.get_level_values("arm")))
    wide = pd.Series(text, found.index, dtype=object).unstack("arm", fill_value=NONE)[arms]
    return Words(wide.rename(columns=clean).rename_axis(index=None, columns="seed"))


def variation(sweep: Sweep, column: str, split: str = "dev") -> Words:
    """Return the standard deviation over seeds of the last value of a column, with its 95 % interval.

    Args:
        sweep: The sweep.
        column: Column of the histories. Scores are shown in points.
        split: "train", "dev" or "test".

    Returns:
        A table with one row per arm.
    """
    scale = 100.0 if is_score(column) else 1.0
    table = stability.across_seeds(scale * curves.final(curves.curves(sweep, column, split)))
    rows = [
        (clean(arm), int(row["n"]), *(three_digits(row[name]) for name in ("mean", "sd", "low", "high")))
        for arm, row in zip(table.index, table.to_dict("records"), strict=True)
    ]
    return _frame(rows, ["arm", "seeds", "mean", "standard deviation", "from", "to"])


def gains(points: pd.DataFrame, factor: str) -> Words:
    """Return the paired gains over the baseline at each value of a weight, with their 95 % intervals.

    Args:
        points: A table as returned by `joyful.analysis.response.response`.
        factor: Dotted name of the weight.

    Returns:
        A table with one row per line and value. Gains are positive where the arm is better than the baseline.
    """
    chosen = points[points["factor"] == factor]
    names, rows = shortened(list(dict.fromkeys(chosen["line"]))), []
    for (line, weight), of_arm in chosen.groupby(["line", "weight"], sort=False):
        by_measure = {row["measure"]: row for row in of_arm.to_dict("records")}
        rows.append((names[str(line)] or "all", f"{weight:g}", *(_gain(by_measure.get(name)) for name in _GAINS)))
    return _frame(rows, ["line", factor.rpartition(".")[2], *_GAINS.values()])


def _measure(sweep: Sweep, of: Metric) -> str:
    return with_unit_of_time(metric(of.label), sweep.unit)


def _gain(row: Any) -> str:
    if row is None or not math.isfinite(row["gain"]):
        return NONE
    unit = row["gain_unit"]
    bounds = interval(row["gain_low"], row["gain_high"], unit)
    return f"{quantity(row['gain'], unit, signed=True)}{f' ({bounds})' if bounds != NONE else ''}"


def _frame(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> Words:
    """Return a table whose first column is the index, so that it is displayed without row numbers."""
    frame = pd.DataFrame(list(rows), columns=list(columns)).set_index(columns[0])
    return Words(frame.rename_axis(index=None, columns=columns[0]))
