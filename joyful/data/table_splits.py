"""The split of a table of dialogues: by its column, by the names of its files, or made from a seed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from joyful.data import cells
from joyful.data.dialogue_table import DialogueTable
from joyful.data.raw_table import RawFile
from joyful.data_settings import TableSettings
from joyful.randomness import host_generator
from joyful.records import SPLITS, InputError
from joyful.results.csv_text import quoted

#: Names of splits in files -> split.
NAMES = {
    "train": "train", "training": "train", "dev": "dev", "development": "dev", "val": "dev", "valid": "dev",
    "validation": "dev", "test": "test", "testing": "test",
}  # fmt: skip

_log = logging.getLogger(__name__)


def splits_of(raw: RawFile) -> tuple[str, ...]:
    """Return the splits in the column split of a file.

    Raises:
        InputError: If a cell is not the name of a split.
    """
    result = []
    for row, cell in enumerate(raw.cells["split"]):
        name = cells.text(raw, row, "split", cell) or ""
        if name.lower() not in NAMES:
            message = f"split must be one of {', '.join(SPLITS)}, got {quoted(name)}"
            raise raw.error(row, f"{message}; data.table.columns.split=null makes a split from data.table.seed")
        result.append(NAMES[name.lower()])
    return tuple(result)


def split_of_files(paths: Sequence[Path], settings: TableSettings) -> list[str] | None:
    """Return the split of each file by its name, such as train.csv; None if no name has one, or there is one file.

    Raises:
        InputError: If only some of the names have a split.
    """
    if len(paths) == 1 or settings.columns.split is None:
        return None
    found = [_split_of_name(path.stem) for path in paths]
    if not any(found):
        return None
    if None in found:
        one, other = paths[found.index(None)], next(path for path, split in zip(paths, found, strict=True) if split)
        raise InputError(
            f"{one.parent}: {other.name} names a split, and {one.name} does not; rename or move it, add a column split"
            " to all files, or set data.table.columns.split=null to make the split"
        )
    return [split for split in found if split is not None]


def _split_of_name(stem: str) -> str | None:
    found = {NAMES[part] for part in re.split(r"[^a-z]+", stem.lower()) if part in NAMES}
    return found.pop() if len(found) == 1 else None


def check_splits(table: DialogueTable) -> None:
    """Check that each split has an utterance with a label.

    Raises:
        InputError: If one has not.
    """
    labelled = {split for split, labels in zip(table.split, table.labels, strict=True) if labels is not None}
    if missing := [split for split in SPLITS if split not in labelled]:
        has = "no rows" if missing[0] not in table.split else "no label"
        raise InputError(
            f"{table.sources[0].rpartition(',')[0]}: expected labelled utterances in train, dev and test, but"
            f" {missing[0]} has {has}; add them, or set data.table.columns.split=null to make the split"
        )


def make_splits(table: DialogueTable, settings: TableSettings) -> DialogueTable:
    """Divide the dialogues at random. It depends on the seed and the names of the dialogues alone.

    The dialogues with labels are divided by data.table.dev_fraction and test_fraction, at least one for each split.
    Dialogues without any label go to train.

    Args:
        table: A table without splits.
        settings: The settings data.table.

    Raises:
        InputError: If the fractions leave nothing for train, or fewer than three dialogues have labels.
    """
    if (total := settings.dev_fraction + settings.test_fraction) >= 1:
        raise InputError(
            f"data.table.dev_fraction: expected less than 1 together with data.table.test_fraction, got {total:g}; lower one"
        )
    labelled = sorted({name for name, own in zip(table.dialogue, table.labels, strict=True) if own is not None})
    n = len(labelled)
    if n < len(SPLITS):
        raise InputError(
            f"{table.sources[0].rpartition(',')[0]}: expected at least 3 dialogues with labels to make train, dev and"
            f" test, got {n}; label more dialogues, or add a column split"
        )
    n_dev, n_test = (max(1, round(part * n)) for part in (settings.dev_fraction, settings.test_fraction))
    while n_dev + n_test >= n:
        n_dev, n_test = (n_dev - 1, n_test) if n_dev > n_test else (n_dev, n_test - 1)
    order = host_generator(settings.seed, "split").permutation(n)
    chosen = {labelled[index]: "test" if rank < n_test else "dev" for rank, index in enumerate(order[: n_dev + n_test])}
    _log.info(
        "the split is made by dialogue from data.table.seed=%d: train %d, dev %d, test %d dialogues with labels",
        settings.seed, n - n_dev - n_test, n_dev, n_test,
    )  # fmt: skip
    return replace(table, split=tuple(chosen.get(name, "train") for name in table.dialogue))
