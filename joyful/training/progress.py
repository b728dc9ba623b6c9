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

from joyful.records import EpochRecord


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


def closing_table(title: str, folder: Path, status: str, best: Mapping[str, Any], epochs: int, seconds: float) -> None:
    """Print the outcome and the folder of a run on standard output. Scores are shown in per cent.

    Args:
        title: Title of the table.
        folder: Folder of the run.
        status: Status of the run.
        best: Scores of the best evaluation (`Coach.best`); empty if there was none.
        epochs: Number of epochs of the run.
        seconds: Wall-clock seconds of training in this process.
    """
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    table = Table(title=escape(title), title_justify="left", show_header=False)
    if best:
        table.add_row(
            "best dev weighted F1", f"{100 * best['f1_weighted']:.2f} %  (epoch {best['epoch']:g} of {epochs})"
        )
        table.add_row("test weighted F1 there", f"{100 * best['test_f1_weighted']:.2f} %")
        table.add_row("test accuracy there", f"{100 * best['test_accuracy']:.2f} %")
    table.add_row("status", status)
    table.add_row("time", f"{seconds:.1f} s")
    console.print(table)
    console.print(f"results: {escape(str(folder))}")
