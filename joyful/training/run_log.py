"""The log of a run: run.log in its folder, a line for each epoch.

The lines go through Python's logging, so Hydra's settings in hydra.job_logging decide where they are written. By default
(`joyful.runtime.job_log`) that is run.log, and standard error where it is not a terminal. A terminal shows the progress
bar instead.
"""

from __future__ import annotations

import logging
import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import joyful
from joyful.records import DialogueDataset, Dialogues, EpochRecord, clock
from joyful.runtime.command import command
from joyful.runtime.job_log import below, terminal_handlers

log = logging.getLogger(__name__)

#: Largest number of bytes of an epoch's line.
LINE = 160


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Context of a run, in which its log also goes to the folder of a resumed run, and not to a terminal.

    Args:
        folder: The folder of the run. That of Hydra's job is another one if the run is resumed with resume=FOLDER.
    """
    logging.raiseExceptions = False  # no traceback for a log file on a full disk
    root, terminals = logging.getLogger(), terminal_handlers()
    only_warnings = below("joyful", logging.WARNING)
    resumed = folder.absolute() / ".resumed"  # the folder of Hydra's job, see joyful.runtime.config_source
    files = [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]
    extra = [_copy(file, folder) for file in files if Path(file.baseFilename).is_relative_to(resumed)]
    logging.captureWarnings(bool(files))
    for handler in terminals:
        handler.addFilter(only_warnings)
    for file in extra:
        root.addHandler(file)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in terminals:
            handler.removeFilter(only_warnings)
        for file in extra:
            root.removeHandler(file)
            file.close()


def _copy(handler: logging.FileHandler, folder: Path) -> logging.FileHandler:
    """Return a handler that writes the same lines to a file of the same name in another folder."""
    copy = logging.FileHandler(folder / Path(handler.baseFilename).name, encoding=handler.encoding, delay=True)
    copy.setFormatter(handler.formatter)
    copy.setLevel(handler.level)
    return copy


class RunLog:
    """Writes the log of one run.

    Args:
        epochs: Epochs of the run.
        info: The header of the run, with its versions.
        data: The dataset.
        overrides: Its overrides, for a run of a multirun.
    """

    def __init__(
        self, epochs: int, info: Mapping[str, Any], data: DialogueDataset, overrides: Sequence[str] = ()
    ) -> None:
        self._epochs, self._start = epochs, time.monotonic()
        self._info, self._data, self._overrides = info, data, overrides
        self._best: Mapping[str, Any] = {}
        self._begun = False

    def begin(self, warning: str | None = None) -> None:
        """Write what is trained, on which data and device, and by which version. Nothing is written before this.

        Args:
            warning: A line for the user, which a terminal shows too.
        """
        self._begun = True
        info, data, overrides = self._info, self._data, self._overrides
        git, versions = info["git"], info["versions"]
        code = f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git["commit"] else ""
        log.info("command: %s", command())
        if overrides:
            log.info("overrides: %s", shlex.join(overrides))
        log.info("joyful %s%s, torch %s, Python %s", joyful.__version__, code, torch.__version__, versions["python"])
        sizes = (_size(name, dialogues) for name, dialogues in data.splits.items())
        log.info("data: %s, digest %s; %s", data.name, info["data"]["digest"], "; ".join(sizes))
        threads = f"{info['threads']} thread{'' if info['threads'] == 1 else 's'}"
        log.info("device: %s, %s, host %s", info["device"], threads, platform.node())
        log.info("seed %s, %d epochs", info["seed"], self._epochs)
        if warning:
            log.warning("%s", warning)

    def resume(self, epoch: float, best: Mapping[str, Any]) -> None:
        """Write the epoch from which the run is resumed, with the scores of its best evaluation (`Coach.best`)."""
        self._best = best
        log.info("resumed after epoch %g of %d", epoch, self._epochs)

    def evaluated(self, record: EpochRecord, best: Mapping[str, Any]) -> None:
        """Write the line of an epoch, if the record is that of its end.

        Args:
            record: The record.
            best: Scores of the best evaluation so far (`Coach.best`).
        """
        self._best = best
        if not float(record.epoch).is_integer():
            return
        rows = {row["split"]: row for row in record.rows}
        dev, loss = rows["dev"], rows.get("train", {}).get("loss_total")
        parts = [
            f"epoch {record.epoch:g}/{self._epochs}",
            f"dev F1 {100 * float(dev['f1_weighted']):.1f} % (best {100 * best['f1_weighted']:.1f} %)",
            f"NLL {float(dev['nll']):.3f}",
            *([f"loss {float(loss):.4g}"] if loss is not None else []),
            clock(self._seconds),
        ]
        log.info("%s", ", ".join(parts))

    def end(self, status: str, reason: str | None = None) -> None:
        """Write how the run has ended, why, and its best evaluation. A run that was refused before `begin` has no line."""
        if not self._begun:
            return
        parts, best = [status if reason is None else f"{status} ({reason})"], self._best
        if best:
            parts.append(f"best dev F1 {100 * best['f1_weighted']:.2f} % at epoch {best['epoch']:g}")
            parts.append(f"test F1 there {100 * best['test_f1_weighted']:.2f} %")
        log.info("%s", ", ".join([*parts, clock(self._seconds)]))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start


def _size(split: str, part: Dialogues) -> str:
    n, labelled = len(part.labels), int(part.labelled.sum())
    return (
        f"{split} {len(part.lengths)} dialogues, {n} utterances{'' if labelled == n else f' ({labelled} with a label)'}"
    )
