"""Embedded data: a generator of IEMOCAP-shaped dialogues in which context and all three modalities are needed.

Emotions. Each speaker has an emotion. From one turn of a speaker to the next it stays (inertia), or becomes the emotion of the
utterance before by whoever spoke (contagion), or is drawn anew from the dialogue's mood (a Dirichlet draw).

Views. An emotion is two bits, arousal (happy, angry: high) and valence (happy, neutral: high). Audio shows arousal, visual shows
valence, text shows both faintly. A view is a code of a few numbers: the bits it shows, the speaker's own offset, and heavy-tailed
noise (Student's t with 4 degrees of freedom); for a share of the utterances the view is missing (noise alone). A fixed random
matrix spreads the code over the D features, and a little noise is added to each.

So one modality leaves the other bit open, and noise and missing views make the neighbours' emotions worth knowing.
Everything is a function of `data.synthetic.seed` and the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from joyful.config import DataSettings, SyntheticSettings
from joyful.randomness import host_generator
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError

LABELS = ("hap", "sad", "neu", "ang")
#: (arousal, valence) of each emotion, and how far the two poles of a bit lie apart in units of the noise.
BITS = np.array([[1, 1], [-1, -1], [-1, 1], [1, -1]], dtype=np.float64)
SHOWN = {"audio": (1.3, 0.0), "text": (0.7, 0.7), "visual": (0.0, 1.3)}

INERTIA, CONTAGION = 0.62, 0.23
MISSING = {"audio": 0.2, "text": 0.1, "visual": 0.3}
CODE_SIZE, TAIL, FEATURE_NOISE, SPEAKER_OFFSET = 6, 4.0, 0.3, 0.4


def source_files(settings: DataSettings) -> list[Path]:
    """No files: the data are made here."""
    return []


def read(settings: DataSettings, encode: Callable[[Sequence[str]], np.ndarray] | None = None) -> DialogueDataset:
    """The three splits. Raises InputError where the generator's settings or one of the splits are missing."""
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
        code[:, :2] += BITS[labels] * SHOWN[modality] * (rng.random(len(labels)) >= MISSING[modality])[:, None]
        offsets = rng.normal(scale=SPEAKER_OFFSET, size=(len(lengths), s.speakers, CODE_SIZE))
        noise = rng.standard_normal((len(labels), matrix.shape[1]), dtype=np.float32)
        features[modality] = ((code + offsets[dialogue, speaker]) @ matrix).astype(np.float32) + np.float32(
            FEATURE_NOISE
        ) * noise
    # speaker slots are counted by first appearance, as in every other source
    slots = np.concatenate([_by_first_appearance(part) for part in speakers])
    ids = tuple(f"{split}-{number}" for number in range(len(lengths)))
    return Dialogues(features, labels, slots, lengths.astype(np.int64), ids)


def _emotions(rng: np.random.Generator, length: int, n_speakers: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and speakers, (T,) each, of one dialogue."""
    mood = rng.dirichlet(np.full(len(LABELS), 1.5))
    turns = rng.random(length)
    chance = rng.random(length)
    fresh = rng.choice(len(LABELS), size=length, p=mood)
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
            label = int(fresh[t])
        labels[t], speakers[t], state[speaker] = label, speaker, label
    return labels, speakers


def _by_first_appearance(speakers: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(speakers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
