"""Checkpoints without pickle: tensors in safetensors, the rest in JSON that vouches for the tensors by SHA-256.

A checkpoint NAME ("last" or "best") is NAME.json, which names its tensor file NAME-<step>.safetensors. The tensor file is put in
place first and the JSON after it, both whole or not at all, so a kill at any moment leaves the old checkpoint or the new one.
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
from joyful.results import remove_leftovers, write_file, write_json
from joyful.results.files import open_plain, read_bounded

#: Bytes of a checkpoint's JSON, and of the header of its tensors, that are read at most; ours have a hundredth of it.
MAXIMUM_STATE = MAXIMUM_HEADER = 2**22

#: Names of tensor files: nothing that leads out of the folder.
_TENSORS = re.compile(r"[a-z]+-\d{1,12}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """tensors: by name, on the host. state: what JSON can hold."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: Path, name: str, step: int, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in place and remove the tensor files of older ones by that name. Raises OSError where the disk refuses."""
    folder.mkdir(exist_ok=True)
    values = {key: value.detach().contiguous().cpu() for key, value in checkpoint.tensors.items()}
    tensors = f"{name}-{step}.safetensors"
    digest = ""

    def save(temporary: Path) -> None:
        nonlocal digest
        mode = temporary.stat().st_mode
        try:
            save_file(
                values, temporary
            )  # straight from the tensors' memory: a checkpoint costs no second copy of the model
        except SafetensorError as error:
            raise OSError(errno.ENOSPC if "No space" in str(error) else errno.EIO, str(error)) from error
        temporary.chmod(mode)  # (safetensors puts a file of its own there, which nobody else may read)
        digest = _sha256(temporary)

    write_file(folder / tensors, save, sum(value.nbytes for value in values.values()))
    document = {"tensors": tensors, "sha256": digest, "state": checkpoint.state}
    write_json(folder / f"{name}.json", document)
    for old in folder.glob(f"{name}-*.safetensors"):
        if old.name != tensors:
            old.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove what writers left that were killed: half-written files, and tensors that no JSON names. For its writer."""
    if not folder.is_dir():
        return
    remove_leftovers(folder)
    for path in folder.glob(".tmp??????"):  # safetensors' own, beside which ours lies
        path.unlink(missing_ok=True)
    for path in folder.glob("*-*.safetensors"):
        try:
            named = json.loads(read_bounded(folder / f"{path.name.rpartition('-')[0]}.json", MAXIMUM_STATE))["tensors"]
        except FileNotFoundError:
            named = None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # a damaged one is for `read` to name
        if named != path.name:
            path.unlink(missing_ok=True)


def read(folder: Path, name: str) -> Checkpoint | None:
    """The checkpoint of that name, None where there is none. Raises InputError where it is damaged."""
    path = folder / f"{name}.json"
    if not os.path.lexists(path):
        return None
    try:
        document = json.loads(read_bounded(path, MAXIMUM_STATE))
        tensors, digest, state = document["tensors"], document["sha256"], document["state"]
        if not _TENSORS.fullmatch(tensors) or not isinstance(state, dict):
            raise ValueError("it names a file outside its folder, or holds no state")
        _check_header(folder / tensors)
        if _sha256(folder / tensors) != digest:
            raise ValueError(f"{tensors} is not the file that was written (its SHA-256 differs)")
        return Checkpoint(load_file(folder / tensors), state)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(
            f"checkpoint {path}: expected a checkpoint written by joyful, got a damaged one ({one_line(error)}); "
            "remove its files to begin from the start, or restore them"
        ) from None


def _check_header(path: Path) -> None:
    """Raises ValueError for a header that would take much more memory than the tensors that it names."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAXIMUM_HEADER:
        raise ValueError(f"{path.name} announces a header of {length} bytes; at most {MAXIMUM_HEADER} are read")


def _sha256(path: Path) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
