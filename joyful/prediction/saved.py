"""Trained models on disk: the folder of a run, or a folder that `joyful export` wrote. Their weights are not read here.

This module does not import torch, so that wrong arguments are refused at once.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from joyful.data.description import FROM_FILE
from joyful.records import MODALITIES, InputError, one_line
from joyful.results import RUN, STATUSES, find_runs, read_run
from joyful.results.files import read_bounded

#: The files of an exported model.
CONFIG, WEIGHTS = "config.json", "model.safetensors"

#: Kind and version of an exported model, in its config.json.
KIND, VERSION = "joyful model", 1

#: Largest config.json that is read, in bytes.
MAXIMUM_CONFIG = 4 * 2**20

#: Number of runs that a message lists.
_LISTED = 5


@dataclass(frozen=True)
class ModelData:
    """What a model knows of the data that it was trained on.

    Attributes:
        labels: Class names, in the order of the class indices.
        dimensions: Modality -> feature width.
        text_encoder: Name of the encoder of the text vectors; "file" if they came from a file; None without text.
        text_encoder_digest: Digest of that encoder; None if it was not recorded.
        speakers: Largest number of speakers in a dialogue; None if it was not recorded.
        multilabel: Whether an utterance can have several labels.
    """

    labels: tuple[str, ...]
    dimensions: dict[str, int]
    text_encoder: str | None
    text_encoder_digest: str | None
    speakers: int | None
    multilabel: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any], multilabel: bool | None) -> Self:
        """Return the content of `data` in run.json.

        Args:
            data: The mapping.
            multilabel: The value for runs that did not record it; None if it is not known.

        Raises:
            ValueError: If a value is missing or has a wrong type.
        """
        labels, dimensions = data["labels"], data["dimensions"]
        encoder, digest = data.get("text_encoder"), data.get("text_encoder_digest")
        speakers, several = data.get("speakers"), data.get("multilabel", multilabel)
        valid = (
            _is_list_of_text(labels) and len(labels) > 1
            and isinstance(dimensions, dict) and dimensions and set(dimensions) <= set(MODALITIES.values())
            and all(type(width) is int and width > 0 for width in dimensions.values())
            and isinstance(encoder, str | None) and isinstance(digest, str | None)
            and (speakers is None or (type(speakers) is int and 0 < speakers <= 10_000))
        )  # fmt: skip
        if not valid or not isinstance(several, bool):
            raise ValueError("its description of the data is not that of a run of joyful")
        ordered = {name: dimensions[name] for name in MODALITIES.values() if name in dimensions}
        return cls(tuple(labels), ordered, encoder, digest, speakers, several)

    def to_json(self) -> dict[str, Any]:
        """Return the mapping that `from_json` reads."""
        return {
            "labels": list(self.labels),
            "dimensions": self.dimensions,
            "text_encoder": self.text_encoder,
            "text_encoder_digest": self.text_encoder_digest,
            "speakers": self.speakers,
            "multilabel": self.multilabel,
        }

    @property
    def encodes_text(self) -> bool:
        """Whether the text vectors come from a text encoder."""
        return "text" in self.dimensions and self.text_encoder not in (None, FROM_FILE)


@dataclass(frozen=True)
class SavedModel:
    """A trained model on disk.

    Attributes:
        folder: Its folder.
        config: The configuration of the run.
        data: What it knows of its data.
        exported: Whether it was exported. Otherwise the folder is that of a run.
        tensors: Of an exported model, the SHA-256 of its weights.
        notes: What the user should know of it.
        status: Status of the run, of an exported model when it was exported.
    """

    folder: Path
    config: dict[str, Any]
    data: ModelData
    exported: bool = False
    tensors: str = ""
    notes: tuple[str, ...] = ()
    status: str = "completed"


def find_models(names: Sequence[str | Path], best: bool = False) -> list[Path]:
    """Return the folders of the models that names on the command line mean.

    Args:
        names: Folders of runs, of exported models, or of sweeps, or patterns of such folders (multirun/mine/*).
        best: Whether a sweep means its completed run with the best dev weighted F1.

    Raises:
        InputError: If a name means no model, or a sweep has several runs and `best` is not set.
    """
    return list(dict.fromkeys(folder for name in names for folder in _models_of(str(name), best)))


def _models_of(name: str, best: bool) -> list[Path]:
    folder = Path(name).expanduser()
    if not folder.exists() and glob.has_magic(name):
        found = [Path(path) for path in sorted(glob.glob(str(folder))) if is_model(Path(path))]
        if not found:
            raise InputError(f"{name}: expected folders of runs, found none with {RUN}; check the pattern")
        return found
    if is_model(folder):
        return [folder]
    runs = find_runs(folder) if folder.is_dir() else []
    if not runs:
        raise InputError(
            f"{name}: expected the folder of a run or of an exported model, found no {RUN} or {CONFIG} in it"
        )
    if best:
        return [_best(name, [run for _, run in runs])]
    if len(runs) == 1:
        return [runs[0][1]]
    shown = ", ".join(str(run) for _, run in runs[:_LISTED]) + (", ..." if len(runs) > _LISTED else "")
    raise InputError(
        f"{name} holds {len(runs)} runs ({shown}); give one of them, several or '{name}/*' for the mean of their"
        " probabilities, or add --best for the one with the best dev F1"
    )


def is_model(folder: Path) -> bool:
    """Return whether a folder is that of a run or of an exported model."""
    return (folder / RUN).exists() or ((folder / CONFIG).exists() and (folder / WEIGHTS).exists())


def _best(name: str, folders: Sequence[Path]) -> Path:
    """Return the completed run with the largest objective, the best dev weighted F1."""
    scores = {}
    for folder in folders:
        try:
            info = read_run(folder)
        except (InputError, OSError):
            continue  # a damaged run is not the best one
        if info["status"] == "completed" and isinstance(info.get("objective"), float) and _is_trained_by_joyful(info):
            scores[folder] = info["objective"]
    if not scores:
        raise InputError(f"{name}: expected a completed run that joyful trained, found none among {len(folders)} runs")
    return max(scores, key=lambda folder: scores[folder])


def open_model(folder: Path) -> SavedModel:
    """Read what is known of a model, without its weights.

    Args:
        folder: Folder of a run or of an exported model.

    Raises:
        InputError: If it is damaged, was not trained by joyful, or has no evaluation yet.
    """
    try:
        return _open_run(folder) if (folder / RUN).exists() else _open_exported(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check its permissions") from None


def _open_run(folder: Path) -> SavedModel:
    info = read_run(folder)
    if not _is_trained_by_joyful(info):
        raise InputError(f"{folder}: expected a run that joyful trained, got one of another program; it has no model")
    if not isinstance(info.get("data"), dict):
        raise InputError(f"{folder}: expected a run that describes its data, got one of version 0.1; train it again")
    try:
        data = ModelData.from_json(info["data"], _multilabel_of_old_run(info))
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{folder / RUN}: expected labels, dimensions and speakers of its data; train it again"
        ) from None
    if not (folder / "checkpoint" / "best.json").exists():
        completed = info["status"] == "completed"  # such a run is not trained any further
        remedy = f"resume it with joyful train resume={folder}, or wait for its first evaluation"
        raise InputError(
            f"{folder}: expected a run with an evaluated model, got one without checkpoint/best.json (status"
            f" {info['status']}); {'restore its checkpoint from a copy, or train it again' if completed else remedy}"
        )
    status = info["status"]
    so_far = " so far" if status == "running" else ""
    note = f"{folder} has the status {status}; its best evaluation{so_far} is used"
    notes = () if status == "completed" else (note,)
    return SavedModel(folder, info["config"], data, notes=notes, status=status)


def _is_trained_by_joyful(info: Mapping[str, Any]) -> bool:
    config = info.get("config")
    return isinstance(config, dict) and all(
        isinstance(config.get(name), dict) for name in ("data", "model", "training")
    )


def _multilabel_of_old_run(info: Mapping[str, Any]) -> bool | None:
    """Return whether a run that did not record it is multi-label, None if that is not known."""
    settings = info["config"]["data"]
    if "confusion" in info:  # only written where each utterance has one label
        return False
    if settings.get("source") == "prepared":
        return None
    return bool(settings.get("emotion") == "multilabel")


def _open_exported(folder: Path) -> SavedModel:
    try:
        document = json.loads(read_bounded(folder / CONFIG, MAXIMUM_CONFIG))
        kind, version = document["kind"], document["version"]
        if (kind, version) != (KIND, VERSION):
            raise InputError(
                f"expected {KIND} {VERSION}, got {str(kind)[:40]} {str(version)[:10]}; export it with this version of joyful"
            )
        config, digest = document["config"], document["sha256"]
        if not _is_trained_by_joyful(document) or not isinstance(digest, str):
            raise ValueError("config or sha256 is not what joyful writes")
        data, status = ModelData.from_json(document["data"], None), document.get("status", "completed")
        if status not in STATUSES:
            raise ValueError("its status is not one of a run")
        notes = (f"{folder} was exported from a run with the status {status}",) if status != "completed" else ()
        return SavedModel(folder, config, data, exported=True, tensors=digest, notes=notes, status=status)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder / CONFIG}: expected a model that joyful exported, got a damaged one ({one_line(error)}); export it again"
        ) from None


def check_same_kind(models: Sequence[SavedModel]) -> None:
    """Check that the predictions of several models can be averaged.

    Raises:
        InputError: If two differ in labels, dimensions or text encoder. The message has both values.
    """
    # earlier versions recorded no digest of the text encoder
    recorded = next((model for model in models if model.data.text_encoder_digest is not None), models[0])
    for other in models[1:]:
        for name in ("labels", "dimensions", "multilabel", "text_encoder_digest", "text_encoder"):
            first = recorded if name == "text_encoder_digest" else models[0]
            a, b = getattr(first.data, name), getattr(other.data, name)
            if name == "text_encoder_digest" and None in (a, b):
                continue
            if name == "text_encoder" and first.data.text_encoder_digest == other.data.text_encoder_digest is not None:
                continue  # the same encoder under two names
            if a != b or (name == "dimensions" and list(a) != list(b)):
                raise InputError(
                    f"{first.folder} and {other.folder}: expected models with the same {name}, got {_shown(a)} and"
                    f" {_shown(b)}; average models that were trained on the same kind of data"
                )


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return one_line(text)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
