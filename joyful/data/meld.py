"""MELD: dialogues of the series *Friends*, 7 emotions, official split. Text only.

Source: S. Poria et al., 2019, arXiv:1810.02508.

Files in data.root: train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv.

The reader does not change these properties of the files:

- Utterance ids have gaps, and 10 training dialogues start at 1. Only the order of the ids is used.
- Many dialogues have one speaker.
- One test dialogue is also in train. All published results on the official split include it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from joyful.config import DataSettings
from joyful.data.sources import SOURCES, Source
from joyful.data.tables import Encode, Utterance, find_files, read_table, read_text_corpus
from joyful.records import DialogueDataset

FILES = ("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv")
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: Largest number of speakers in a dialogue. The reference uses the same number.
N_SPEAKERS = 9


def source_files(settings: DataSettings) -> list[Path]:
    """Return the paths of the three files.

    Raises:
        InputError: If data.root is not set or a file is missing.
    """
    return find_files(settings, FILES)


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Read the official split: dialogues in the order of the file, utterances in the order of Utterance_ID.

    Args:
        settings: The data settings.
        encode: The sentence encoder. None is an error.

    Raises:
        InputError: If there is no encoder, or a file is missing or invalid.
    """
    return read_text_corpus(settings, encode, source_files(settings), _utterances, LABELS, N_SPEAKERS)


def _utterances(path: Path) -> Iterator[Utterance]:
    for row in read_table(path, ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")):
        yield Utterance(
            line=row.line,
            dialogue=f"dia{row.integer('Dialogue_ID')}",
            position=row.integer("Utterance_ID"),
            speaker=row.text("Speaker"),
            label=row.index("Emotion", LABELS),
            sentence=row.text("Utterance"),
        )


SOURCES.register("meld", "MELD, 7 emotions, text")(Source(read, source_files, modalities=("text",)))
