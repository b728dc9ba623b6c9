"""Checkpoints without pickle: tensors in safetensors, everything else in JSON with the SHA-256 of the tensor file.

A checkpoint NAME ("last" or "best") consists of NAME.json and the tensor file NAME-<step>.safetensors, which the JSON
names. The tensor file is written first, then the JSON, both atomically. A process that is killed at any moment
therefore leaves either the old checkpoint or the new one. Until a run is complete, the checkpoint before the last one
is kept as "previous", in case the last one is damaged later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from joyful.records import InputError, one_line
from joyful.results import plain, remove_leftovers, write_file, write_json
from joyful.results.files import open_plain, read_bounded
from joyful.results.lock import require_lock

#: Largest JSON file and largest header of a tensor file that are read, in bytes. Ours are about a hundredth of that.
MAXIMUM_STATE = MAXIMUM_HEADER = 2**22

#: Names of tensor files. The pattern excludes path separators.
_TENSORS = re.compile(r"[a-z]+-\d{1,12}\.safetensors")

LAST, PREVIOUS, BEST = "last", "previous", "best"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        tensors: Name -> tensor; on the host after `read`.
        state: All other values, of types that JSON can represent.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix, under the rest of their names."""
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}


def write(folder: Path, name: str, step: int, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove older ones of the same name. One older "last" is kept as "previous".

    Args:
        folder: The folder of checkpoints; created if it is missing.
        name: "last" or "best".
        step: Number of optimizer steps, part of the name of the tensor file.
        checkpoint: The content. Tensors may be on any device.

    Raises:
        ResultsError: If a file cannot be written, for example because the disk is full (a subclass of OSError).
        LockLostError: If another process has taken over the run.
    """
    folder.mkdir(exist_ok=True)
    if name == LAST and (folder / f"{LAST}.json").exists():
        drop_previous(folder)  # first, to free disk space for the new tensors
    values = {key: value.detach().contiguous().cpu() for key, value in checkpoint.tensors.items()}
    tensors = f"{name}-{step}.safetensors"
    digest = ""

    def save(temporary: Path) -> None:
        nonlocal digest
        mode = temporary.stat().st_mode
        try:
            save_file(values, temporary)  # writes from the tensors' memory, without a second copy of the model
        except SafetensorError as error:
            raise OSError(errno.ENOSPC if "No space" in str(error) else errno.EIO, str(error)) from error
        temporary.chmod(mode)  # safetensors replaces the file by one that only its owner can read
        digest = file_sha256(temporary)

    write_file(folder / tensors, save, sum(value.nbytes for value in values.values()))
    state = plain(checkpoint.state)
    document = {"tensors": tensors, "sha256": digest, "state": state, "state_sha256": _state_digest(state)}
    if name == LAST and (folder / f"{LAST}.json").exists():
        require_lock(folder)
        os.replace(folder / f"{LAST}.json", folder / f"{PREVIOUS}.json")
    write_json(folder / f"{name}.json", document)
    _remove_unnamed(folder, name)


def drop_previous(folder: Path) -> None:
    """Remove the checkpoint "previous", if there is one."""
    require_lock(folder)
    (folder / f"{PREVIOUS}.json").unlink(missing_ok=True)
    _remove_unnamed(folder, LAST)


def _remove_unnamed(folder: Path, name: str) -> None:
    """Remove the tensor files of the checkpoint `name` that no JSON file names."""
    require_lock(folder)
    referenced = referenced_tensors(folder)
    for old in folder.glob(f"{name}-*.safetensors"):
        if old.name not in referenced:
            old.unlink(missing_ok=True)


def promote_previous(folder: Path) -> None:
    """Rename the checkpoint "previous" to "last", which must be missing."""
    require_lock(folder)
    os.replace(folder / f"{PREVIOUS}.json", folder / f"{LAST}.json")


def tensor_prefix(name: str) -> str:
    """Return the prefix of the tensor files of a checkpoint. "previous" shares it with "last"."""
    return LAST if name == PREVIOUS else name


def referenced_tensors(folder: Path, without: str = "") -> set[str]:
    """Return the names of the tensor files that the checkpoints of a folder refer to.

    Args:
        folder: The folder of checkpoints. Damaged JSON files are skipped.
        without: Name of a checkpoint to leave out.
    """
    names = set()
    for path in folder.glob("*.json"):
        try:
            name = json.loads(read_bounded(path, MAXIMUM_STATE))["tensors"] if path.stem != without else ""
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        names.add(str(name))
    return names


def clean_up(folder: Path) -> None:
    """Remove the files that killed writers left: temporary files, and tensor files that no JSON file names.

    Only the process that holds the lock of the run may call this function.
    """
    if not folder.is_dir():
        return
    remove_leftovers(folder)
    for path in folder.glob(".tmp??????"):  # the temporary files of safetensors
        path.unlink(missing_ok=True)
    referenced = referenced_tensors(folder)
    for path in folder.glob("*-*.safetensors"):
        if path.name not in referenced and _is_intact_or_missing(folder / f"{path.name.rpartition('-')[0]}.json"):
            path.unlink(missing_ok=True)


def _is_intact_or_missing(path: Path) -> bool:
    """Whether a checkpoint's JSON is readable or missing. The tensors of a damaged checkpoint are not removed."""
    try:
        return "tensors" in json.loads(read_bounded(path, MAXIMUM_STATE))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read(folder: Path, name: str) -> Checkpoint | None:
    """Read a checkpoint and verify its digests.

    Args:
        folder: The folder of checkpoints.
        name: "last", "previous" or "best".

    Returns:
        The checkpoint with its tensors on the host, or None if there is no checkpoint of that name.

    Raises:
        InputError: If the checkpoint is damaged.
        PermissionError: If a file may not be read. Such a checkpoint may still be intact.
    """
    path = folder / f"{name}.json"
    if not os.path.lexists(path):
        return None
    try:
        document = json.loads(read_bounded(path, MAXIMUM_STATE))
        tensors, digest, state = document["tensors"], document["sha256"], document["state"]
        if not _TENSORS.fullmatch(tensors) or not isinstance(state, dict):
            raise ValueError("its tensor file is outside its folder, or its state is missing")
        if document.get("state_sha256", _state_digest(state)) != _state_digest(state):
            raise ValueError("its state has changed since it was written (its SHA-256 differs)")
        return Checkpoint(read_tensors(folder / tensors, digest), state)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(
            f"checkpoint {path}: expected a checkpoint written by joyful, got a damaged one ({one_line(error)}); "
            "restore its files, or remove them to start again"
        ) from None


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a tensor file and verify its digest.

    Args:
        path: The file.
        sha256: Its SHA-256.

    Raises:
        ValueError: If the file is not the one that was written, or is no tensor file.
        SafetensorError: If it is damaged in spite of its digest.
        OSError: If it cannot be read.
    """
    _check_header(path)
    if file_sha256(path) != sha256:
        raise ValueError(f"{path.name} has changed since it was written (its SHA-256 differs)")
    return load_file(path)


def _check_header(path: Path) -> None:
    """Raise ValueError if the header announces more than MAXIMUM_HEADER bytes, which could exhaust the memory."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAXIMUM_HEADER:
        raise ValueError(f"{path.name} announces a header of {length} bytes; expected at most {MAXIMUM_HEADER}")


def _state_digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
