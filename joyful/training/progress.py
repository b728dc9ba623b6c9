"""Terminal output of a run: a progress bar during training and a summary table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from joyful.records import EpochRecord, visible

#: Maximum number of classes that the table at the end of a run shows.
MOST_CLASSES = 12

#: Maximum width of the names of classes, so that a terminal of 80 columns has room for the table.
_CLASS_WIDTH = 24


class TrainingProgress:
    """A progress bar over epochs on standard error. It is disabled if standard error is not a terminal.

    Use it as a context manager.

    Args:
        epochs: Total number of epochs.
        done: Number of epochs that are complete at the start.
    """

    def __init__(self, epochs: int, done: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("epoch", total=epochs, completed=done, scores="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, record: EpochRecord) -> None:
        """Advance the bar to the epoch of the record, and show its dev scores. F1 is in per cent."""
        rows = {row["split"]: row for row in record.rows}
        dev = rows["dev"]
        scores = f"dev F1 {100 * float(dev['f1_weighted']):.1f} %  NLL {float(dev['nll']):.3f}"
        self._progress.update(self._task, completed=int(record.epoch), scores=scores)


def closing_table(title: str, folder: Path, info: Mapping[str, Any], best: Mapping[str, Any], seconds: float) -> None:
    """Print the outcome and the folder of a run on standard output. Scores are shown in per cent.

    Args:
        title: Title of the table.
        folder: Folder of the run.
        info: Content of its run.json.
        best: Scores of the best evaluation (`Coach.best`); empty if there was none.
        seconds: Wall-clock seconds of training in this process.
    """
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    table = Table(title=escape(title), title_justify="left", show_header=False)
    if best:
        table.add_row(
            "best dev weighted F1", f"{100 * best['f1_weighted']:.2f} %  (epoch {best['epoch']:g} of {info['epochs']})"
        )
        table.add_row("test weighted F1 there", f"{100 * best['test_f1_weighted']:.2f} %")
        table.add_row("test accuracy there", f"{100 * best['test_accuracy']:.2f} %")
    table.add_row("status", info["status"])
    table.add_row("time", f"{seconds:.1f} s")
    console.print(table)
    if "per_class" in info:
        console.print(class_table(info["per_class"]))
    console.print(f"results: {escape(str(folder))}")


def class_table(per_class: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return the table of the F1 of each class and of the utterances that have it as their label.

    Of many classes it has those with the most utterances. It is at most 80 columns wide.

    Args:
        per_class: Split -> class -> scores, as in run.json.
    """
    names = list(next(iter(per_class.values())))
    support = {name: sum(scores[name]["support"] for scores in per_class.values()) for name in names}
    shown = sorted(names, key=lambda name: -support[name])[:MOST_CLASSES]
    table = Table(title="F1 per class there", title_justify="left")
    table.add_column("class", max_width=_CLASS_WIDTH, no_wrap=True)
    for split in per_class:
        table.add_column(f"{split} F1", justify="right", no_wrap=True)
        table.add_column("utterances", justify="right", no_wrap=True)
    for name in (name for name in names if name in shown):
        cells = []
        for scores in per_class.values():
            f1 = scores[name]["f1"]
            cells += ["–" if f1 is None else f"{100 * f1:.1f} %", str(scores[name]["support"])]
        table.add_row(escape(visible(name)), *cells)
    if rest := len(names) - len(shown):
        table.add_row(f"{rest} more in run.json")
    return table
