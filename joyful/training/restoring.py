"""Resuming a run from its folder, even if files in it are damaged.

A damaged file is reported and renamed; no damaged file is deleted. If the last checkpoint is damaged, the run resumes
from the previous one. If there is no intact checkpoint, the run starts again. The results are the same in every case.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyful import results
from joyful.config import LOCATION_SETTINGS, check, config_hash
from joyful.records import InputError, SharedInputError
from joyful.results import set_aside
from joyful.results.arms import data_settings, flatten
from joyful.training import checkpoints
from joyful.validation import differences

Rows = list[dict[str, Any]]


class OtherDataError(SharedInputError):
    """Runs that belong together have the same settings of the data, but not the same data."""


def check_same_data(folder: Path, header: dict[str, Any]) -> None:
    """Check that the first other run in the folder of a multirun with the same settings of the data has the same data.

    Args:
        folder: The folder of the run, which need not exist. The other runs are beside it.
        header: The values of run.json for the run.

    Raises:
        OtherDataError: If it was trained on other data.
    """
    own = data_settings(flatten(header["config"]))
    for path in sorted(folder.parent.glob(f"*/{results.RUN}")):
        try:
            info = results.read_run(path.parent)
            settings = data_settings(flatten(info.get("config") or {}))
        except (InputError, OSError):
            continue  # the report lists damaged runs
        data = info.get("data") or {}
        if path.parent == folder or data.get("digest") is None or settings != own:
            continue
        _check_same(path.parent, data, header["data"]["digest"], header["data"]["labels"])
        return


def _check_same(folder: Path, trained: Mapping[str, Any], digest: str, labels: Sequence[str]) -> None:
    """Raise OtherDataError if a run was trained on other data, or on other names of the classes.

    Args:
        folder: The folder of the run.
        trained: Its description of the data in run.json; earlier versions wrote none.
        digest: The digest of the data now, which does not cover the names.
        labels: The class names now.
    """
    if trained.get("digest") not in (None, digest):
        raise _other_data(folder, trained["digest"], digest)
    if trained.get("labels") not in (None, list(labels)):
        raise OtherDataError(
            f"{folder}: expected the classes that the run was trained on ({', '.join(map(str, trained['labels']))}), got "
            f"{', '.join(labels)}; provide the same data, or start a new run elsewhere"
        )


def _other_data(folder: Path, expected: object, found: str) -> OtherDataError:
    return OtherDataError(
        f"{folder}: expected the data that the run was trained on (digest {expected}), got different data (digest "
        f"{found}); provide the same data, or start a new run elsewhere"
    )


def open_or_create(folder: Path, header: dict[str, Any]) -> tuple[results.RunFolder, bool]:
    """Open the folder of a run, or create it.

    Args:
        folder: The folder of the run.
        header: The values of run.json for the requested run.

    Returns:
        The run folder, and whether the run is already complete.

    Raises:
        InputError: If the folder holds a run with a different configuration or number of threads, or one of another
            version of this program.
        OtherDataError: If the run was trained on other data.
    """
    path = folder / results.RUN
    if not path.exists():
        return results.RunFolder.create(folder, header), False
    try:
        info = results.read_run(folder)
        _check_own_hash(path, info, header)
    except InputError as error:
        if not _is_file(path) or _other_version(path):
            raise
        set_aside(path, f"{error}; the run starts again")
        set_aside(folder / results.HISTORY, f"it cannot be verified without {results.RUN}")
        return results.RunFolder.create(folder, header), False
    if info.get("config_hash") != header["config_hash"]:
        lines = differences(info.get("config") or {}, header["config"])
        lines = [line for line in lines if not line.startswith(LOCATION_SETTINGS)]
        raise InputError(
            f"{folder} already holds a run with a different configuration ({'; '.join(lines) or 'other defaults'}); "
            f"choose another folder, or set fork={folder} to start a new run from it"
        )
    _check_same(folder, info.get("data") or {}, header["data"]["digest"], header["data"]["labels"])
    try:
        run = results.RunFolder.open(folder)
        _check_objective(run)
    except InputError as error:
        if os.path.lexists(folder / results.HISTORY) and not _is_file(folder / results.HISTORY):
            raise
        set_aside(folder / results.HISTORY, f"{error}; the run starts again")
        set_aside(path, "it belongs to the damaged history")
        return results.RunFolder.create(folder, header), False
    if run.info["status"] == "completed":
        return run, True
    if run.info["threads"] != header["threads"]:
        raise InputError(
            f"{folder}: expected training.threads={run.info['threads']}, with which the run was started, got "
            f"{header['threads']}; set training.threads={run.info['threads']}, since results depend on it"
        )
    run.update({key: header[key] for key in ("objective_name", "seed", "role", "epochs", "choices", "config")})
    return run, False


@dataclass(frozen=True)
class Restored:
    """A checkpoint, with the rows up to it.

    Attributes:
        checkpoint: The checkpoint.
        history: Rows of history.parquet.
        timing: Rows of timing.parquet.
    """

    checkpoint: checkpoints.Checkpoint
    history: Rows
    timing: Rows


def last_checkpoint(
    run: results.RunFolder, fingerprint: Mapping[str, str], evaluations_per_epoch: int
) -> Restored | None:
    """Return the last intact checkpoint of a run; None if there is none.

    Args:
        run: The folder of the run.
        fingerprint: "config_hash" and "data", the digests of the configuration and of the data.
        evaluations_per_epoch: Number of dev rows of an epoch.

    Raises:
        InputError: If the run was trained on different data.
    """
    folder = run.path / "checkpoint"
    checkpoints.clean_up(folder)
    _check_best(folder)
    for name in (checkpoints.LAST, checkpoints.PREVIOUS):
        try:
            saved = checkpoints.read(folder, name)
            if saved is None:
                continue
            rows = _rows_up_to(run, saved, fingerprint["config_hash"], evaluations_per_epoch)
        except InputError as error:
            fallback = "the previous one is used, if any" if name == checkpoints.LAST else "the run starts again"
            _set_checkpoint_aside(folder, name, f"{error}; {fallback}")
            continue
        _check_data(run.path, saved, fingerprint["data"])
        if name == checkpoints.PREVIOUS:
            checkpoints.promote_previous(folder)
        return Restored(saved, rows, _timing(run, saved.state["epoch"]))
    return None


def checkpoint_of(source: Path, fingerprint: Mapping[str, str], labels: Sequence[str]) -> Restored:
    """Return the last intact checkpoint of another run, without changing its folder.

    Args:
        source: The folder of the other run.
        fingerprint: "data", the digest of the data.
        labels: The class names of the data.

    Raises:
        InputError: If the other run has no intact checkpoint, or was trained on different data.
    """
    run, damage = results.RunFolder.open(source, reading=True), ""
    for name in (checkpoints.LAST, checkpoints.PREVIOUS):
        try:
            saved = checkpoints.read(source / "checkpoint", name)
            epoch = _epoch_of(source, saved) if saved is not None else 0
        except InputError as error:
            damage = f" ({error})"
            continue
        if saved is not None:
            _check_data(source, saved, fingerprint["data"])
            _check_same(source, run.info.get("data") or {}, fingerprint["data"], labels)
            history, timing = (
                [row for row in rows if row["epoch"] <= epoch] for rows in (run.history_rows(), run.timing_rows())
            )
            return Restored(saved, history, timing)
    raise InputError(
        f"fork={source}: expected a run with an intact checkpoint, found none{damage}; train it for at least one epoch"
    )


def _rows_up_to(run: results.RunFolder, saved: checkpoints.Checkpoint, config_hash: str, evaluations: int) -> Rows:
    """Return the rows of the history up to a checkpoint. Raise InputError if the two do not belong together."""
    if saved.state.get("config_hash") != config_hash:
        raise InputError(f"{run.path}: its checkpoint belongs to a different configuration")
    epoch = _epoch_of(run.path, saved)
    rows = [row for row in run.history_rows() if row["epoch"] <= epoch]
    found, expected = sum(row["split"] == "dev" for row in rows), epoch * evaluations
    if found != expected:
        raise InputError(
            f"{run.path}: its history has {found} evaluations up to epoch {epoch}, the epoch of its checkpoint; "
            f"expected {expected}"
        )
    return rows


def _epoch_of(folder: Path, saved: checkpoints.Checkpoint) -> int:
    epoch = saved.state.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool):
        raise InputError(f"{folder}: the epoch of its checkpoint is missing")
    return epoch


def _check_data(folder: Path, saved: checkpoints.Checkpoint, data: str) -> None:
    if saved.state.get("data") != data:
        raise _other_data(folder, saved.state.get("data"), data)


def _timing(run: results.RunFolder, epoch: int) -> Rows:
    try:
        rows = run.timing_rows()
    except InputError as error:
        set_aside(run.path / results.TIMING, f"{error}; the run continues without its earlier times")
        return []
    return [row for row in rows if row["epoch"] <= epoch]


def _check_best(folder: Path) -> None:
    """Set the checkpoint "best" aside if it is damaged. Resuming does not need it, but users of the best model do."""
    try:
        checkpoints.read(folder, checkpoints.BEST)
    except InputError as error:
        _set_checkpoint_aside(
            folder, checkpoints.BEST, f"{error}; the run continues, and writes it again at the next better evaluation"
        )


def _set_checkpoint_aside(folder: Path, name: str, why: str) -> None:
    others = checkpoints.referenced_tensors(folder, without=name)
    for path in sorted(folder.glob(f"{checkpoints.tensor_prefix(name)}-*.safetensors")):
        if path.name not in others:
            set_aside(path, "it belongs to a damaged checkpoint")
    set_aside(folder / f"{name}.json", why)


def _check_own_hash(path: Path, info: dict[str, Any], header: dict[str, Any]) -> None:
    """Raise InputError if the hash in run.json is not that of the configuration in it."""
    if info.get("config_hash") in (None, header["config_hash"]):
        return
    try:
        own = config_hash(check(info.get("config") or {}))
    except InputError:
        return  # possibly settings of another version; the caller reports the difference
    if own == header["config_hash"]:
        raise InputError(
            f"{path}: its config_hash does not match its configuration; the file was changed after it was written"
        )


def _check_objective(run: results.RunFolder) -> None:
    """Raise InputError if the objective of a complete run is not the best value of its history."""
    if run.info["status"] == "completed":
        best = max((row["f1_weighted"] for row in run.history_rows() if row["split"] == "dev"), default=None)
        if best != run.info["objective"]:
            raise InputError(
                f"{run.path / results.RUN}: its objective is {run.info['objective']}, but the best value of its history "
                f"is {best}; one of the two files was changed after it was written"
            )


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _other_version(path: Path) -> bool:
    """Whether the file is an intact run.json of another version of this program."""
    try:
        schema = json.loads(path.read_bytes())["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(schema, int) and schema != results.SCHEMA
