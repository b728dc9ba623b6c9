"""Figures of an Optuna study: history, curves and time line of the trials, score against each parameter, importances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from joyful.analysis.arms import is_number
from joyful.analysis.formatting import count, number, three_digits
from joyful.analysis.plots.rows import MOST_ROWS, label_rows, rows_panel
from joyful.analysis.plots.style import LABEL, PALETTE, Plot, joined, label_axes, log_scale, panel, short

#: State of a trial -> colour, marker and line style.
STATES = {
    "complete": ("series-1", "o", "-"), "pruned": ("series-2", "X", (0, (3, 1))), "fail": ("series-4", "v", (0, (1, 2))),
    "running": ("series-3", "^", (0, (6, 1.5))),
}  # fmt: skip

#: Largest ratio of the values of a parameter that is drawn on a linear axis.
_LINEAR = 20.0

#: Maximum number of choices of a parameter that is drawn.
_MOST_CHOICES = 12


def history(trials: pd.DataFrame, objective: str, maximise: bool = True, scale: float = 1.0) -> Plot:
    """Plot the objective of every trial and the best value so far.

    Args:
        trials: Trials as in `joyful.analysis.optuna_study.Study`.
        objective: Name of the objective with its unit.
        maximise: Whether higher values are better.
        scale: Factor from the values to the axis.

    Returns:
        The figure.
    """
    with panel() as (figure, axes):
        _by_state(axes, trials, trials["number"], scale)
        done = trials[(trials["state"] == "complete") & np.isfinite(trials["value"])].sort_values("number")
        if len(done):
            running = done["value"].cummax() if maximise else done["value"].cummin()
            axes.step(
                done["number"].to_numpy(), scale * running.to_numpy(dtype=float), where="post", color=PALETTE["ink"][0],
                linewidth=1.4, label="best so far",
            )  # fmt: skip
        label_axes(axes, objective, "trial")
    counts = {str(state): n for state, n in trials["state"].value_counts().to_dict().items()}
    states = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    best = ""
    if len(done):
        place = done["value"].idxmax() if maximise else done["value"].idxmin()
        value = three_digits(scale * float(done.loc[place, "value"]))
        best = f"; the best is trial {done.loc[place, 'number']} with {value}"
    finding = f"{count(len(trials), 'trial')}: {states}{best}."
    return Plot("study-history", f"Trials in their order: {objective}", finding, figure)


def against(
    trials: pd.DataFrame, values: pd.Series, name: str, objective: str, figure_name: str, scale: float = 1.0
) -> Plot | None:
    """Plot the objective of every trial against one parameter. None if the parameter has too many choices to be drawn.

    The axis of numbers is logarithmic if they are positive and their largest is more than 20 times the smallest.

    Args:
        trials: Trials as in `joyful.analysis.optuna_study.Study`.
        values: Value of the parameter by number of the trial.
        name: Name of the parameter.
        objective: Name of the objective with its unit.
        figure_name: Identifier of the figure.
        scale: Factor from the values to the axis.

    Returns:
        The figure.
    """
    known = [value for value in values if value is not None and value == value]
    numeric = bool(known) and all(is_number(value) for value in known)
    choices = sorted({str(value) for value in known})
    if not known or (not numeric and len(choices) > _MOST_CHOICES):
        return None
    of_trial = trials["number"].map(values.to_dict())
    x = (
        of_trial.astype(float)
        if numeric
        else of_trial.map(lambda v: choices.index(str(v)) if str(v) in choices else np.nan)
    )
    with panel() as (figure, axes):
        _by_state(axes, trials, x, scale)
        label_axes(axes, objective, short(name, 40))
        positive = numeric and min(known) > 0
        if positive and max(known) > _LINEAR * min(known):
            log_scale(axes.xaxis)
        if not numeric:
            axes.set_xticks(range(len(choices)), [short(choice, 14) for choice in choices])
    best = trials["value"].where(trials["state"] == "complete")
    finding = "no complete trial" if best.isna().all() else f"{count(int(best.notna().sum()), 'complete trial')}"
    return Plot(
        figure_name,
        f"{objective} against {name}",
        f"{finding}, {len(trials) - int(best.notna().sum())} others.",
        figure,
    )


def curves(
    reported: pd.DataFrame, states: Mapping[int, str], objective: str, best: int | None, scale: float = 1.0
) -> Plot:
    """Plot the values that every trial reported. Pruned trials are dashed and end in a cross; the best is thick.

    Args:
        reported: `number`, `step` and `value`, as in `joyful.analysis.optuna_study.Study`.
        states: State of each trial by number.
        objective: Name of the reported value with its unit.
        best: Number of the best trial, or None.
        scale: Factor from the values to the axis.

    Returns:
        The figure.
    """
    with panel() as (figure, axes):
        shown: set[str] = set()
        for trial, rows in reported.groupby("number", sort=True):
            index = int(str(trial))
            state = states.get(index, "running")
            colour, marker, dashes = STATES.get(state, STATES["running"])
            is_best = index == best
            axes.plot(
                rows["step"].to_numpy(dtype=float), scale * rows["value"].to_numpy(dtype=float),
                color=PALETTE["ink" if is_best else colour][0], linestyle=dashes, alpha=1.0 if is_best else 0.55,
                linewidth=2.4 if is_best else 1.1, zorder=3 if is_best else 2, marker=marker, markevery=[-1],
                gid=f"{LABEL}trial {index}",
            )  # fmt: skip
            shown.add(state)
        label_axes(axes, objective, "step")
        for state, (colour, marker, dashes) in STATES.items():
            if state in shown:
                axes.plot([], [], color=PALETTE[colour][0], linestyle=dashes, marker=marker, label=state)
    ended = [states.get(int(str(trial)), "running") for trial in reported["number"].unique()]
    finding = ", ".join(f"{ended.count(state)} {state}" for state in STATES if state in ended)
    thick = f"; the thick line is the best, trial {best}" if best is not None else ""
    return Plot("study-curves", f"Curves of the trials: {objective}", f"{finding}{thick}.", figure)


def timeline(trials: pd.DataFrame) -> Plot:
    """Plot when each trial ran. A row is a worker: trials that overlap in time lie in different rows.

    Args:
        trials: Trials as in `joyful.analysis.optuna_study.Study`.

    Returns:
        The figure.
    """
    ran = trials[np.isfinite(trials["start"])].sort_values(["start", "number"])
    last = float(np.nanmax([*trials["end"], *trials["start"], 0.0]))
    unit, size = ("h", 3600.0) if last > 2 * 3600 else ("min", 60.0) if last > 120 else ("s", 1.0)
    free: list[float] = []
    busy = 0.0
    with panel(labels=False) as (figure, axes):
        for row in ran.to_dict("records"):
            end = row["end"] if np.isfinite(row["end"]) else last
            lane = next((i for i, until in enumerate(free) if until <= row["start"] + 1e-3), len(free))
            free[lane : lane + 1] = [end]
            busy += end - row["start"]
            colour, marker, _ = STATES.get(row["state"], STATES["running"])
            axes.barh(
                -lane, (end - row["start"]) / size, left=row["start"] / size, height=0.8, color=PALETTE[colour][0], alpha=0.75,
                edgecolor=PALETTE["card"][0], linewidth=0.8,
            )  # fmt: skip
            axes.plot([end / size], [-lane], marker=marker, markersize=3.5, color=PALETTE["ink"][0], linestyle="none")
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"time since the first trial started ({unit})")
        axes.margins(y=0.15)
    share = busy / (last * len(free)) if free and last else 0.0
    workers = count(len(free), "worker")
    busy_text = f"they were busy {100 * share:.0f} % of it"
    finding = f"{count(len(ran), 'trial')} on {workers} in {number(last / size, 1)} {unit}; {busy_text}."
    return Plot("study-timeline", "Time line of the workers", finding, figure)


def front(objectives: pd.DataFrame, best: Sequence[int], name: str = "study-front") -> Plot:
    """Plot the first two objectives of every complete trial, with the Pareto front.

    Args:
        objectives: One row per trial and one column per objective.
        best: Numbers of the trials of the front.
        name: Identifier of the figure.

    Returns:
        The figure.
    """
    first, second = objectives.columns[:2]
    on = objectives.index.isin(best)
    with panel() as (figure, axes):
        for chosen, colour, marker, label in (
            (~on, "series-1", "o", "other trials"),
            (on, "series-2", "D", "Pareto front"),
        ):
            rows = objectives[chosen].sort_values(first)
            if len(rows):
                axes.plot(
                    rows[first].to_numpy(dtype=float), rows[second].to_numpy(dtype=float), marker=marker,
                    linestyle=":" if label == "Pareto front" else "none", color=PALETTE[colour][0], label=label,
                    gid=f"{LABEL}{label}",
                )  # fmt: skip
        label_axes(axes, short(str(second), 30), short(str(first), 40))
    finding = (
        f"{len(best)} of {count(len(objectives), 'complete trial')} are on the front: {', '.join(map(str, best[:12]))}."
    )
    return Plot(name, f"{second} against {first}", finding, figure)


def importances(values: pd.Series) -> Plot:
    """Plot the importance of each setting, largest first. At most MOST_ROWS settings are drawn.

    Args:
        values: Importances from 0 to 1, indexed by setting.

    Returns:
        The figure.
    """
    shown = values.sort_values(ascending=False, kind="stable").head(MOST_ROWS)
    with rows_panel(len(shown)) as (figure, axes):
        axes.barh(-np.arange(len(shown)) - 0.1, shown.to_numpy(dtype=float), height=0.34, color=PALETTE["series-1"][0])
        axes.set_xlim(0, max(1e-9, float(shown.max())) * 1.05 if len(shown) else 1)
        axes.set_xlabel("importance (sum 1)")
        label_rows(axes, [str(name) for name in shown.index], [number(float(value), 2) for value in shown])
    sentences = [f"{name} {number(float(value), 2)}" for name, value in shown.items()]
    return Plot("study-importances", "Importance of each setting", joined(sentences), figure)


def _by_state(axes: Axes, trials: pd.DataFrame, x: pd.Series, scale: float) -> None:
    """Draw a mark for each trial with a value, by state."""
    for state, (colour, marker, _) in STATES.items():
        chosen = (trials["state"] == state) & np.isfinite(trials["value"]) & x.notna()
        if chosen.any():
            axes.plot(
                x[chosen].to_numpy(dtype=float), scale * trials.loc[chosen, "value"].to_numpy(dtype=float), linestyle="none",
                marker=marker, color=PALETTE[colour][0], label=f"{state} ({int(chosen.sum())})", alpha=0.8,
                markeredgewidth=0, gid=f"{LABEL}{state}",
            )  # fmt: skip
