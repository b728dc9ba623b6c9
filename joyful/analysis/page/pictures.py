"""Pictures of a sweep, for notebooks: each function draws one question about one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from joyful.analysis import claims, convergence, curves, plots, stability
from joyful.analysis.columns import higher_is_better, is_score, units
from joyful.analysis.formatting import metric
from joyful.analysis.page.summary import level
from joyful.analysis.page.words import change, claimed, result
from joyful.analysis.plots.style import Plot, joined
from joyful.analysis.sweep import Sweep
from joyful.analysis.verdict import Verdict

#: Maximum number of verdicts that the description of a picture has in words.
MOST_LISTED = 4


def learning_curves(sweep: Sweep, column: str, split: str = "dev", target: convergence.Target | None = None) -> Plot:
    """Draw the mean curve of each arm with its 95 % interval over seeds.

    Args:
        sweep: The sweep.
        column: Column of the histories.
        split: "train", "dev" or "test".
        target: Drawn as a line if it is a target of this column.
    """
    scale, unit = units(column)
    value = target.value if target is not None and (target.metric, "dev") == (column, split) else None
    return plots.learning_curves(
        curves.band(curves.curves(sweep, column, split)), _arms(sweep), name=_name("curves", split, column),
        quantity=f"{split} {metric(column)}", scale=scale, unit=unit, target=value, x=sweep.x,
    )  # fmt: skip


def differences(sweep: Sweep, column: str, split: str = "dev") -> Plot:
    """Draw the mean difference of each arm from the baseline over training, with its 95 % interval over pairs.

    Args:
        sweep: The sweep.
        column: Column of the histories.
        split: "train", "dev" or "test".
    """
    found = curves.paired_differences(curves.curves(sweep, column, split), _arms(sweep)[0])
    scale, unit = (100.0, "points") if is_score(column) else (1.0, units(column)[1])
    return plots.paired_differences(
        found, _arms(sweep), name=_name("difference", split, column), quantity=f"{split} {metric(column)}", scale=scale,
        unit=unit, x=sweep.x,
    )  # fmt: skip


def time_to_target(sweep: Sweep, target: convergence.Target) -> Plot:
    """Draw the share of runs of each arm that have reached the target over training.

    Args:
        sweep: The sweep.
        target: The target, such as the result of `convergence.choose_target`.
    """
    times = convergence.times_to_target(sweep, target)
    return plots.time_to_target(
        convergence.kaplan_meier(times), convergence.reach_rate(times), _arms(sweep), name="time-to-target",
        target=level(target), end=sweep.lengths[1], x=sweep.x, unit=sweep.unit,
    )  # fmt: skip


def spreads(sweep: Sweep, column: str, split: str = "dev") -> Plot:
    """Draw how much each curve moves from epoch to epoch around its trend (see `stability.spread_of_rows`).

    Args:
        sweep: The sweep.
        column: Column of the histories.
        split: "train", "dev" or "test".
    """
    values = stability.spreads(curves.curves(sweep, column, split, whole_epochs=True))
    return _strips(sweep, values, f"Spread of {split}", column, f"per {sweep.x}", geometric=True)


def drawdowns(sweep: Sweep, column: str, better: str = "") -> Plot:
    """Draw the largest fall of each dev curve below its best value so far.

    Args:
        sweep: The sweep.
        column: Column of the histories.
        better: "higher" or "lower", or "" for a column whose direction is known.
    """
    values = stability.drawdowns(curves.curves(sweep, column), higher_is_better=higher_is_better(column, better))
    return _strips(sweep, values, "Largest drawdown of dev", column)


def effects(sweep: Sweep, verdicts: Sequence[Verdict], claim: str) -> Plot:
    """Draw the effect of each pair, the mean effect with its interval, and the claimed range.

    Args:
        sweep: The sweep.
        verdicts: The verdicts on it.
        claim: Name of the claim.

    Raises:
        ValueError: If there is no verdict on this claim.
    """
    chosen = [verdict for verdict in verdicts if verdict.claim.name == claim]
    if not chosen:
        named = ", ".join(dict.fromkeys(verdict.claim.name for verdict in verdicts)) or "no verdict"
        raise ValueError(f"claim: expected the name of a claim with a verdict, got {claim!r}; there is {named}")
    plot = plots.forest(chosen, _name("effects", claim), _arms(sweep), sweep.unit)
    if len(chosen) > MOST_LISTED:
        return plot
    several = len({verdict.subject for verdict in chosen}) > 1
    texts = [
        f"{f'{v.subject}: ' * several}{change(v.claim, v.metric, v.effect)}; claimed {claimed(v.claim, v.metric)}: {result(v)}"
        for v in chosen
    ]
    return replace(plot, finding=joined(texts))


def gains_by_target(sweep: Sweep, found: Sequence[claims.Claim]) -> Plot:
    """Draw the gain in the time to a target against the target.

    Args:
        sweep: The sweep.
        found: Claims, of which the first on a time to a target is drawn.

    Raises:
        ValueError: If no claim is on a time to a target.
    """
    timed = [claim for claim in found if any(of.to_target for of in claim.metrics)]
    if not timed:
        raise ValueError(
            "claims: expected one on a time to a target, got none; add a claim with measure: time_to_target"
        )
    ladder = claims.ladder(sweep, timed[:1])
    return plots.gains_by_target(ladder, _arms(sweep), unit=timed[0].unit, chosen=convergence.TARGET_SHARE)


def _strips(sweep: Sweep, values: pd.Series, what: str, column: str, per: str = "", geometric: bool = False) -> Plot:
    scale, unit = (100.0, "points") if is_score(column) else units(column)
    axis = f"{unit} {per}".strip() or metric(column)
    title = f"{what} {metric(column)}{f' ({unit})' if unit else ''}"
    return plots.strips(
        scale * values,
        _arms(sweep),
        name=_name(*what.lower().split(), column),
        title=title,
        axis=axis,
        geometric=geometric,
    )


def _name(*parts: str) -> str:
    return "-".join(parts).replace("_", "-")


def _arms(sweep: Sweep) -> list[str]:
    return [arm.name for arm in sweep.arms]
