"""MELD: dialogues of the series *Friends*, 7 emotions, official split (Poria et al. 2019, arXiv:1810.02508). Text only.

Files in data.root: train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv. Known traits that are kept as they are:
utterance ids have gaps and 10 training dialogues begin at 1 (their order is what counts), many dialogues have one
speaker, and one test dialogue also stands in train, as in every published figure on the official split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from joyful.config import DataSettings
from joyful.data.tables import Encode, Utterance, find_files, read_table, read_text_corpus
from joyful.records import DialogueDataset

SOURCE_MODALITIES = ("text",)
FILES = ("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv")
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: The most speakers of a dialogue, also in the reference.
N_SPEAKERS = 9


def source_files(settings: DataSettings) -> list[Path]:
    """The three files. Raises InputError if one is not there."""
    return find_files(settings, FILES)


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Return the official split, dialogues in file order, utterances by Utterance_ID. Raises InputError."""
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
