"""A run's folder opened and its training brought to where it was, whatever has become of its files.

A damaged file is named, set aside under another name (nothing is deleted), and what stands before it is used: for the last
checkpoint the previous one; without any the run begins anew, which gives the same bytes and costs only the time.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from joyful import results
from joyful.config import PLACES, check, config_hash, differences
from joyful.records import InputError
from joyful.results import set_aside
from joyful.training import checkpoints
from joyful.training.coach import Coach

Rows = list[dict[str, Any]]


def open_or_create(folder: Path, header: dict[str, Any]) -> tuple[results.RunFolder, bool]:
    """The run's folder, and whether the run is complete already. Raises InputError where it holds another run."""
    path = folder / results.RUN
    if not path.exists():
        return results.RunFolder.create(folder, header), False
    try:
        info = results.read_run(folder)
        _check_own_hash(path, info, header)
    except InputError as error:
        if not _is_file(path) or _other_version(path):
            raise
        set_aside(path, f"{error}; the run begins anew")
        set_aside(folder / results.HISTORY, f"nothing vouches for it without {results.RUN}")
        return results.RunFolder.create(folder, header), False
    if info.get("config_hash") != header["config_hash"]:
        lines = differences(info.get("config") or {}, header["config"])
        lines = [line for line in lines if not line.startswith(PLACES)]
        raise InputError(
            f"{folder} already holds a run of another configuration ({'; '.join(lines) or 'other defaults'}); choose another "
            f"folder, or start a new run from it by fork={folder}"
        )
    try:
        run = results.RunFolder.open(folder)
        _check_objective(run)
    except InputError as error:
        if os.path.lexists(folder / results.HISTORY) and not _is_file(folder / results.HISTORY):
            raise
        set_aside(folder / results.HISTORY, f"{error}; the run begins anew")
        set_aside(path, "it belongs to that history")
        return results.RunFolder.create(folder, header), False
    if run.info["status"] == "completed":
        return run, True
    if run.info["threads"] != header["threads"]:
        raise InputError(
            f"{folder}: the run was trained with {run.info['threads']} threads, its numbers depend on that; set "
            f"training.threads={run.info['threads']}"
        )
    run.update({key: header[key] for key in ("objective_name", "seed", "role", "epochs", "choices", "config")})
    return run, False


def restore(run: results.RunFolder, coach: Coach) -> tuple[Rows, Rows]:
    """Bring the coach to the run's last whole checkpoint; returns the rows of history and timing up to there."""
    folder = run.path / "checkpoint"
    checkpoints.tidy(folder)
    _check_best(folder)
    for name in (checkpoints.LAST, checkpoints.PREVIOUS):
        try:
            saved = checkpoints.read(folder, name)
            if saved is None:
                continue
            rows = _rows_up_to(run, saved, coach)
        except InputError as error:
            follows = "its previous one is used" if name == checkpoints.LAST else "the run begins anew"
            _set_checkpoint_aside(folder, name, f"{error}; {follows}, if there is one")
            continue
        _check_data(run.path, saved, coach)
        coach.restore(saved)
        if name == checkpoints.PREVIOUS:
            checkpoints.previous_is_last(folder)
        return rows, _timing(run, coach.epoch)
    return [], []


def restore_from(source: Path, coach: Coach) -> tuple[Rows, Rows]:
    """As `restore`, from another run's folder, in which nothing is changed. Raises InputError without a whole checkpoint there."""
    run, damage = results.RunFolder.open(source, reading=True), ""
    for name in (checkpoints.LAST, checkpoints.PREVIOUS):
        try:
            saved = checkpoints.read(source / "checkpoint", name)
        except InputError as error:
            damage = f" that is whole: {error}"
            continue
        if saved is not None:
            _check_data(source, saved, coach)
            coach.restore(saved)
            rows = [row for row in run.history_rows() if row["epoch"] <= coach.epoch]
            return rows, [row for row in run.timing_rows() if row["epoch"] <= coach.epoch]
    raise InputError(
        f"fork={source}: expected a run with a checkpoint{damage}, found none; train it for an epoch first"
    )


def _rows_up_to(run: results.RunFolder, saved: checkpoints.Checkpoint, coach: Coach) -> Rows:
    """The history's rows up to a checkpoint of the run's own. Raises InputError where the two do not belong together."""
    if saved.state.get("config_hash") != coach.stamp["config_hash"]:
        raise InputError(f"{run.path}: its checkpoint belongs to another configuration")
    epoch = saved.state.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool):
        raise InputError(f"{run.path}: its checkpoint does not say of which epoch it is")
    rows = [row for row in run.history_rows() if row["epoch"] <= epoch]
    evaluations = sum(row["split"] == "dev" for row in rows)
    if evaluations != epoch * coach.settings.training.evaluations_per_epoch:
        raise InputError(
            f"{run.path}: its checkpoint is of epoch {epoch}, its history has {evaluations} evaluations until then"
        )
    return rows


def _check_data(folder: Path, saved: checkpoints.Checkpoint, coach: Coach) -> None:
    if saved.state.get("data") != coach.stamp["data"]:
        raise InputError(
            f"{folder}: the data are not those that the run was trained on (digest {saved.state.get('data')}, now "
            f"{coach.stamp['data']}); give the same data, or begin a new run"
        )


def _timing(run: results.RunFolder, epoch: int) -> Rows:
    try:
        rows = run.timing_rows()
    except InputError as error:
        set_aside(run.path / results.TIMING, f"{error}; the run goes on without its times so far")
        return []
    return [row for row in rows if row["epoch"] <= epoch]


def _check_best(folder: Path) -> None:
    """The run does not need it to go on, but whoever wants the best model does."""
    try:
        checkpoints.read(folder, checkpoints.BEST)
    except InputError as error:
        _set_checkpoint_aside(folder, checkpoints.BEST, f"{error}; the run goes on, and writes the next better one")


def _set_checkpoint_aside(folder: Path, name: str, why: str) -> None:
    others = checkpoints.named_tensors(folder, without=name)
    for path in sorted(folder.glob(f"{checkpoints.tensors_of(name)}-*.safetensors")):
        if path.name not in others:
            set_aside(path, "it belongs to a damaged checkpoint")
    set_aside(folder / f"{name}.json", why)


def _check_own_hash(path: Path, info: dict[str, Any], header: dict[str, Any]) -> None:
    """Raises InputError where run.json names another configuration than it holds."""
    if info.get("config_hash") in (None, header["config_hash"]):
        return
    try:
        own = config_hash(check(info.get("config") or {}))
    except InputError:
        return  # settings of another version, perhaps: the difference will be shown
    if own == header["config_hash"]:
        raise InputError(
            f"{path}: its config_hash is not that of its configuration; it was changed after it was written"
        )


def _check_objective(run: results.RunFolder) -> None:
    """Raises InputError where a complete run's objective is not the best of its history."""
    if run.info["status"] == "completed":
        best = max((row["f1_weighted"] for row in run.history_rows() if row["split"] == "dev"), default=None)
        if best != run.info["objective"]:
            raise InputError(
                f"{run.path / results.RUN}: its objective is {run.info['objective']}, the best of its history {best}; one of "
                "the two was changed after it was written"
            )


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _other_version(path: Path) -> bool:
    """Whether it is a whole run.json of another version of this program."""
    try:
        schema = json.loads(path.read_bytes())["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(schema, int) and schema != results.SCHEMA
