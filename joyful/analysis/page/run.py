"""The page of one run: its scores, its curves, its losses and shares, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis.classes import ClassScores, classes, confusions
from joyful.analysis.columns import NAMES, higher_is_better, is_score, known_direction
from joyful.analysis.formatting import NONE, count, metric, percent, three_digits
from joyful.analysis.page.parts import Section, Table, clean
from joyful.analysis.page.tables import make_table
from joyful.analysis.plots.confusion import confusion_matrix
from joyful.analysis.plots.run import column_name, curves_of_splits
from joyful.analysis.plots.style import Plot
from joyful.results import InputError, read_run, read_runs
from joyful.results.arms import flatten

#: Maximum number of columns that are drawn.
_MOST_FIGURES = 18

#: Columns that are no curves, or that have a figure of their own.
_NO_CURVES = frozenset({"step", "epoch", "seconds", "lr", "run", "split", "status", "seed", "role", "fold", "x"})

#: First words of the columns of loss components, which get a section of their own.
_LOSSES = ("loss_", "share_", "weight_", "grad_norm_")


@dataclass(frozen=True)
class OneRun:
    """One run with its history.

    Attributes:
        info: The content of run.json, or {} for a run without one.
        frame: The history: one row per evaluation and split.
        damage: Why the history cannot be read, or "".
    """

    info: Mapping[str, Any]
    frame: pd.DataFrame
    damage: str = ""


def read(folder: Path, name: str) -> OneRun:
    """Read a run, also one that is not finished.

    Args:
        folder: The folder that was given.
        name: Name of the run below it, "." for the folder itself.
    """
    found = read_runs(folder)
    try:
        info = read_run(folder / name)
    except (InputError, OSError):
        info = {}
    return OneRun(info, found.frame, found.damaged[0].damage if found.damaged else "")


def headline(run: OneRun) -> str:
    """Return the title: the best dev score, its epoch and the test score there, or what the run reached."""
    best = _best(run)
    status = str(run.info.get("status") or "")
    unfinished = f" ({clean(status)})" if status not in ("", "completed") else ""
    if best is None:
        name = clean(run.info.get("objective_name") or "")
        objective = run.info.get("objective")
        if name and isinstance(objective, (int, float)):
            return f"{metric(name)} {three_digits(float(objective))}{unfinished}"
        return (
            f"One run with {count(int(run.frame['step'].nunique()) if len(run.frame) else 0, 'evaluation')}{unfinished}"
        )
    epochs = run.info.get("epochs")
    of = f" of {epochs:g}" if isinstance(epochs, (int, float)) else ""
    test = f", test {percent(best['test'])} there" if math.isfinite(best["test"]) else ""
    return f"Best dev weighted F1 {percent(best['dev'])} at epoch {best['epoch']:g}{of}{test}{unfinished}"


def sections(run: OneRun) -> tuple[Section, ...]:
    """Return the sections of the page of a run."""
    if run.damage:
        return (Section("damage", "The history cannot be read", (clean(run.damage),)),)
    own = [name for name in _columns(run.frame) if not name.startswith(_LOSSES)]
    losses = [name for name in _columns(run.frame) if name.startswith(("loss_", "share_"))]
    reason = clean(run.info.get("reason") or "")
    built = (
        Section("curves", "Curves", (f"The run ended: {reason}.",) if reason else (), tuple(_curves(run.frame, own))),
        _classes(run),
        Section("losses", "Losses and shares", plots=tuple(_curves(run.frame, losses))),
        Section("scores", "Scores", tables=_scores(run)),
        Section("settings", "Settings", tables=_settings(run), closed=True),
    )
    return tuple(s for s in built if s is not None and (s.text or s.plots or s.tables))


def _best(run: OneRun) -> dict[str, float] | None:
    """Return epoch, dev and test F1 at the best dev evaluation, or None without dev F1."""
    frame = run.frame
    if "f1_weighted" not in frame or "split" not in frame:
        return None
    of_split = {
        name: rows.set_index("epoch")["f1_weighted"].dropna() for name, rows in frame.groupby("split", observed=True)
    }
    dev = of_split.get("dev", pd.Series(dtype=float))
    if dev.empty:
        return None
    epoch = float(str(dev.idxmax()))
    test = of_split.get("test", dev.iloc[:0]).to_dict()
    return {"epoch": epoch, "dev": float(dev.max()), "test": float(test.get(epoch, math.nan))}


def _columns(frame: pd.DataFrame) -> list[str]:
    """Return the numeric columns with values, those with names in `NAMES` first."""
    known = [
        str(name) for name in frame.columns
        if name not in _NO_CURVES and pd.api.types.is_numeric_dtype(frame[name]) and np.isfinite(frame[name]).any()
    ]  # fmt: skip
    return sorted(known, key=lambda name: list(NAMES).index(name) if name in NAMES else len(NAMES))


def _curves(frame: pd.DataFrame, columns: Sequence[str]) -> list[Plot]:
    x = "epoch" if "epoch" in frame and frame["epoch"].notna().any() else "step"
    return [
        curves_of_splits(frame, name, x, f"curve-{number}") for number, name in enumerate(columns[:_MOST_FIGURES], 1)
    ]


def _scores(run: OneRun) -> tuple[Table, ...]:
    """Return the table of the best and the last value of each column and split."""
    rows = []
    for name in _columns(run.frame):
        if name.startswith(_LOSSES):
            continue
        for split in run.frame["split"].cat.categories:
            values = run.frame.loc[run.frame["split"] == split, ["epoch", name]].dropna()
            if values.empty:
                continue
            best, at = NONE, NONE
            if known_direction(name):
                place = values[name].idxmax() if higher_is_better(name) else values[name].idxmin()
                best, at = _value(name, float(values.loc[place, name])), f"{float(values.loc[place, 'epoch']):g}"
            rows.append([column_name(name), split, best, at, _value(name, float(values[name].iloc[-1]))])
    columns = ["metric", "split", "best", "at epoch", "last"]
    return (make_table("table-run", "Best and last values", columns, rows, text=(0, 1)),) if rows else ()


def _value(name: str, value: float) -> str:
    return percent(value, 2) if is_score(name) else three_digits(value)


def _classes(run: OneRun) -> Section | None:
    """Return scores per class and confusion matrices at the best evaluation, if the run recorded them."""
    tables = tuple(_per_class(scores, split) for split, scores in classes(run.info).items())
    drawn = tuple(
        confusion_matrix(matrix, [clean(name) for name in names], f"confusion-{split}", split)
        for split, (names, matrix) in confusions(run.info).items()
    )
    matrices = " Rows of a matrix are the labels, columns the predictions." if drawn else ""
    text = (f"At the best dev evaluation.{matrices}",)
    return Section("classes", "Scores per class", text, drawn, tables) if drawn or tables else None


def _per_class(found: Mapping[str, ClassScores], split: str) -> Table:
    rows = [
        [name, scores.support, percent(scores.precision), percent(scores.recall), percent(scores.f1)]
        for name, scores in found.items()
    ]
    columns = ["class", "utterances", "precision", "recall", "F1"]
    return make_table(f"table-classes-{split}", f"Scores per class, {split}", columns, rows, text=(0,))


def _settings(run: OneRun) -> tuple[Table, ...]:
    config = run.info.get("config")
    found = flatten(config) if isinstance(config, dict) else {}
    rows = [[name, NONE if value is None else str(value)] for name, value in sorted(found.items())]
    return (make_table("table-settings", "All settings", ["setting", "value"], rows, text=(0, 1)),) if rows else ()
