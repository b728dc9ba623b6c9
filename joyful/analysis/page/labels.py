"""Labels of arms on a page: what differs from the baseline and nothing else. Files keep the full names of the arms."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from joyful.analysis.arms import Arm, name_part
from joyful.analysis.findings import Findings
from joyful.analysis.sweep import Sweep

#: Names that list at most this number of factors are labels already.
_MOST_FACTORS = 2

#: Label of the baseline where the other labels list differences from it.
BASELINE = "baseline"


def labels(arms: tuple[Arm, ...], factors: tuple[str, ...]) -> dict[str, str]:
    """Return the label of each arm by its name.

    With at most two factors, a label is the name. With more, it lists the values that differ from the baseline, and the
    label of the baseline is "baseline". If two labels were equal, all labels are the names.

    Args:
        arms: The arms, the baseline first.
        factors: The factors of the sweep.

    Example:
        >>> values = {"loss": "mse", "a_weight": 1.0, "b_weight": 2.0}
        >>> arms = (Arm("mse a 1 b 2", values, True, {}, {}), Arm("mse a 1 b 3", values | {"b_weight": 3.0}, False, {}, {}))
        >>> labels(arms, tuple(values))
        {'mse a 1 b 2': 'baseline', 'mse a 1 b 3': 'b 3'}
    """
    names = {arm.name: arm.name for arm in arms}
    if len(factors) <= _MOST_FACTORS or len(arms) < 2:
        return names
    found = {arms[0].name: BASELINE} | {arm.name: _differences(arm, arms[0], factors) for arm in arms[1:]}
    return found if len(set(found.values())) == len(names) and all(found.values()) else names


def with_labels(sweep: Sweep) -> Sweep:
    """Return the sweep with the labels of the arms in place of their names, for display."""
    return _relabelled(sweep, labels(sweep.arms, sweep.factors))


def labelled(findings: Findings) -> Findings:
    """Return the results with the labels of the arms in place of their names."""
    sweep = findings.sweep
    of_name = labels(sweep.arms, sweep.factors)
    if all(name == label for name, label in of_name.items()):
        return findings
    verdicts = [
        replace(v, arm=of_name.get(v.arm, v.arm), baseline=of_name.get(v.baseline, v.baseline))
        for v in findings.verdicts
    ]
    return replace(
        findings,
        sweep=_relabelled(sweep, of_name),
        verdicts=verdicts,
        tables={name: _renamed(table, of_name) for name, table in findings.tables.items()},
        of_tasks={task: labelled(part) for task, part in findings.of_tasks.items()},
    )


def _relabelled(sweep: Sweep, of_name: dict[str, str]) -> Sweep:
    def frame(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(arm=table["arm"].cat.rename_categories(of_name))

    return replace(
        sweep,
        arms=tuple(replace(arm, name=of_name[arm.name]) for arm in sweep.arms),
        frame=frame(sweep.frame),
        cut_frame=None if sweep.cut_frame is None else frame(sweep.cut_frame),
        runs=_renamed(sweep.runs, of_name),
        left_out=_renamed(sweep.left_out, of_name),
    )


def _differences(arm: Arm, baseline: Arm, factors: tuple[str, ...]) -> str:
    differing = [name for name in factors if arm.settings.get(name) != baseline.settings.get(name)]
    return " ".join(name_part(name, arm.settings.get(name)) for name in differing)


def _renamed(table: pd.DataFrame, of_name: dict[str, str]) -> pd.DataFrame:
    if "arm" not in table:
        return table
    return table.assign(arm=table["arm"].astype(object).map(lambda name: of_name.get(name, name)))
