"""Embedded data: generated dialogues with the sizes of IEMOCAP, whose labels need context and all three modalities.

Emotions. Each speaker has an emotion. At each turn of the speaker, it stays the same (inertia), becomes the emotion of
the previous utterance (contagion), or is drawn from the emotion distribution of the dialogue, which is a Dirichlet
draw. The first turn of a speaker has no inertia; its probability is added to that of contagion.

Features. An emotion consists of two bits: arousal (high for happy and angry) and valence (high for happy and neutral).
Audio depends on arousal, visual on valence, and text weakly on both. Each modality of an utterance has a code of 6
numbers: heavy-tailed noise (Student's t with 4 degrees of freedom) plus an offset of the speaker. The two bits are
added to the first two numbers, except in a fraction of the utterances, where they are missing. A fixed random matrix
maps the code to the D features, and normal noise is added.

Therefore audio or visual alone leaves one bit unknown, and the neighbouring utterances help where a modality is noisy
or missing. The data depend only on `data.synthetic.seed` and the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from joyful.data.sources import SOURCES, Source
from joyful.data_settings import DataSettings, SyntheticSettings
from joyful.randomness import host_generator
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError

LABELS = ("hap", "sad", "neu", "ang")
#: (arousal, valence) of each emotion.
BITS = np.array([[1, 1], [-1, -1], [-1, 1], [1, -1]], dtype=np.float64)
#: Strength of (arousal, valence) in the code of each modality, in units of the scale of its noise.
STRENGTH = {"audio": (1.3, 0.0), "text": (0.7, 0.7), "visual": (0.0, 1.3)}

#: Probabilities of inertia and of contagion. The remaining probability is that of a new draw.
INERTIA, CONTAGION = 0.62, 0.23
#: Fraction of utterances without the bits.
MISSING = {"audio": 0.2, "text": 0.1, "visual": 0.3}
#: Length of a code, degrees of freedom of its noise, and standard deviations of feature noise and speaker offsets.
CODE_SIZE, TAIL, FEATURE_NOISE, SPEAKER_OFFSET = 6, 4.0, 0.3, 0.4


def read(settings: DataSettings, encode: Callable[[Sequence[str]], np.ndarray] | None = None) -> DialogueDataset:
    """Generate the three splits.

    Args:
        settings: The data settings; `synthetic` has the seed and the sizes.
        encode: Not used. All sources have the same signature.

    Raises:
        InputError: If `synthetic` is missing, or has no sizes for a split or no modality.
    """
    s = settings.synthetic
    if s is None or set(s.dialogues) != set(SPLITS) or not s.dimensions:
        raise InputError(
            f"data.synthetic: expected dialogues for {', '.join(SPLITS)} and at least one modality in dimensions, got "
            f"{None if s is None else s.model_dump()}; set data=synthetic"
        )
    sizes: dict[str, int] = {str(m): d for m, d in s.dimensions.items()}
    dimensions = {m: sizes[m] for m in MODALITIES.values() if m in sizes}
    spread = {
        m: host_generator(s.seed, "synthetic", place=f"matrix.{m}").normal(size=(CODE_SIZE, d)) / np.sqrt(CODE_SIZE)
        for m, d in dimensions.items()
    }
    splits = {split: _split(s, split, spread) for split in SPLITS}
    return DialogueDataset(settings.name, dimensions, LABELS, s.speakers, False, splits)


def _split(s: SyntheticSettings, split: str, spread: dict[str, np.ndarray]) -> Dialogues:
    rng = host_generator(s.seed, "synthetic", place=split)
    lengths = np.maximum(2, rng.poisson(s.utterances, size=s.dialogues[split]))  # type: ignore[index]
    emotions, speakers = zip(*(_emotions(rng, int(n), s.speakers) for n in lengths), strict=True)
    labels, speaker = np.concatenate(emotions), np.concatenate(speakers)
    dialogue = np.repeat(np.arange(len(lengths)), lengths)
    features = {}
    for modality, matrix in spread.items():
        code = rng.standard_t(TAIL, size=(len(labels), CODE_SIZE))
        code[:, :2] += BITS[labels] * STRENGTH[modality] * (rng.random(len(labels)) >= MISSING[modality])[:, None]
        offsets = rng.normal(scale=SPEAKER_OFFSET, size=(len(lengths), s.speakers, CODE_SIZE))
        noise = rng.standard_normal((len(labels), matrix.shape[1]), dtype=np.float32)
        features[modality] = ((code + offsets[dialogue, speaker]) @ matrix).astype(np.float32) + np.float32(
            FEATURE_NOISE
        ) * noise
    # number the speaker slots by first appearance, as the other sources do
    slots = np.concatenate([_by_first_appearance(part) for part in speakers])
    ids = tuple(f"{split}-{number}" for number in range(len(lengths)))
    return Dialogues(features, labels, slots, lengths.astype(np.int64), ids)


def _emotions(rng: np.random.Generator, length: int, n_speakers: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the labels and the speakers of one dialogue, (T,) each."""
    distribution = rng.dirichlet(np.full(len(LABELS), 1.5))
    turns = rng.random(length)
    chance = rng.random(length)
    draws = rng.choice(len(LABELS), size=length, p=distribution)
    others = rng.integers(1, n_speakers, size=length) if n_speakers > 1 else np.zeros(length, dtype=np.int64)
    labels, speakers = np.empty(length, dtype=np.int64), np.empty(length, dtype=np.int64)
    state: dict[int, int] = {}
    speaker = int(rng.integers(n_speakers))
    for t in range(length):
        if t and turns[t] < 0.75:
            speaker = int((speaker + others[t]) % n_speakers)
        if speaker in state and chance[t] < INERTIA:
            label = state[speaker]
        elif t and chance[t] < INERTIA + CONTAGION:
            label = int(labels[t - 1])
        else:
            label = int(draws[t])
        labels[t], speakers[t], state[speaker] = label, speaker, label
    return labels, speakers


def _by_first_appearance(speakers: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(speakers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


SOURCES.register("synthetic", "generated dialogues, included")(Source(read, lambda settings: []))
