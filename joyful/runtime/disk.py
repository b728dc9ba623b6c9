"""Check the free disk space before a run or a sweep starts. `joyful.training.experiment.run_need` estimates a run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from joyful.records import SharedInputError

#: Bytes of an empty Optuna study with its write-ahead log, of a trial, and of an epoch of a trial.
STUDY, TRIAL, EPOCH = 5 * 2**20, 8 * 2**10, 160


class DiskSpaceError(SharedInputError):
    """There is not enough free disk space."""


@dataclass(frozen=True)
class DiskNeed:
    """The disk space of a run in bytes.

    Attributes:
        permanent: Size of the files that the run leaves.
        temporary: Additional space while a new file is written before it replaces the old one.
    """

    permanent: int
    temporary: int


def study_need(trials: int, epochs: int) -> int:
    """Return the bytes of an Optuna study in SQLite with so many trials, each with so many epochs."""
    return STUDY + trials * (TRIAL + EPOCH * epochs)


def check_disk_space(folder: Path, need: int, user: str, setting: str) -> str:
    """Check that a folder has enough free disk space.

    Args:
        folder: The folder to write to. It need not exist yet.
        need: Required bytes.
        user: What needs the space, as the subject of the message.
        setting: The setting that chooses another folder, for the error message.

    Returns:
        One line with the required and the free space.

    Raises:
        DiskSpaceError: If less than `need` is free.
    """
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    line = f"{user} needs about {_format_size(need)} of disk in {folder}, {_format_size(free)} are free"
    if free < need:
        raise DiskSpaceError(f"{line}; free some space, or choose another folder with {setting}")
    return line


def folder_size(folder: Path) -> int:
    """Return the disk space of the files in a folder in bytes; 0 if the folder does not exist."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue  # removed in the meantime
    return total


def _format_size(size: int) -> str:
    if size < 10**6:
        return f"{max(1, round(size / 10**3))} kB"
    return f"{size / 10**6:.0f} MB" if size < 10**10 else f"{size / 10**9:.0f} GB"
