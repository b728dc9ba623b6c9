"""Export a trained model to a folder that can be shared: its weights, and all that prediction needs to know.

The folder has model.safetensors (the weights of the best evaluation) and config.json (the configuration of the run without
its paths, what the model knows of its data, and the SHA-256 of the weights). `joyful.prediction.load` reads it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joyful
from joyful.prediction.saved import CONFIG, KIND, VERSION, WEIGHTS, SavedModel, find_models, open_model
from joyful.records import InputError
from joyful.results import plain
from joyful.results.files import new_folder
from joyful.results.provenance import encoder_name

if TYPE_CHECKING:
    from torch import Tensor

#: Settings that name other runs and sweeps, which an exported model does not need.
_PLACES = ("resume", "fork", "sweep_name")


def export(run: str | Path, out: str | Path, *, best: bool = False) -> Path:
    """Write a trained model to a new folder, which needs nothing else of the run.

    Args:
        run: Folder of the run.
        out: The new folder.
        best: Whether the folder of a sweep means its completed run with the best dev weighted F1.

    Returns:
        The folder.

    Raises:
        InputError: If the run has no model, is damaged, or `out` exists or cannot be written.

    Warns:
        UserWarning: If the run is not completed.

    Example:
        >>> from joyful.prediction import export, load
        >>> model = load(export("outputs/run", "my-model"))  # doctest: +SKIP
    """
    folder, notes = export_with_notes(run, out, best=best)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return folder


def export_with_notes(run: str | Path, out: str | Path, *, best: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Do what `export` does, and return the folder and what the user should know."""
    folder = Path(out).expanduser()
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists; remove it, or choose another folder with --out FOLDER")
    found = find_models([run], best)
    if len(found) != 1:
        raise InputError(f"{run}: expected one run to export, got {len(found)}; give the folder of one")
    from joyful.prediction.network import read_weights

    saved = open_model(found[0])
    weights = {name: value.contiguous() for name, value in read_weights(saved).items()}
    try:
        _write(saved, weights, folder)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder} cannot be written ({reason}); choose another folder with --out FOLDER") from None
    return folder, saved.notes


def _write(saved: SavedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    from joyful.training.checkpoints import file_sha256

    with new_folder(folder) as temporary:
        save_file(dict(weights), temporary / WEIGHTS, metadata={"format": "pt"})
        document = {
            "kind": KIND,
            "version": VERSION,
            "joyful": joyful.__version__,
            "status": saved.status,
            "data": saved.data.to_json() | {"text_encoder": _shared_name(saved.data.text_encoder)},
            "sha256": file_sha256(temporary / WEIGHTS),
            "config": _without_places(saved.config),
        }
        (temporary / CONFIG).write_text(json.dumps(plain(document), indent=2) + "\n", encoding="utf-8")


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without paths of this machine."""
    data = config["data"] | {
        "root": None,
        "cache": None,
        "text_encoder": _shared_name(config["data"].get("text_encoder")),
    }
    return {name: None if name in _PLACES else value for name, value in config.items()} | {"data": data}


def _shared_name(encoder: str | None) -> str | None:
    return None if encoder is None else encoder_name(encoder)
