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

from joyful.data.dialogue_table import Utterance
from joyful.data.sources import SOURCES
from joyful.data.tables import read_rows, text_corpus

FILES = ("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv")
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: Largest number of speakers in a dialogue. The reference uses the same number.
N_SPEAKERS = 9


def _utterances(path: Path) -> Iterator[Utterance]:
    for row in read_rows(path, ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")):
        yield Utterance(
            line=row.line,
            dialogue=f"dia{row.integer('Dialogue_ID')}",
            place=row.integer("Utterance_ID"),
            speaker=row.text("Speaker"),
            label=LABELS[row.index("Emotion", LABELS)],
            text=row.text("Utterance"),
        )


SOURCES.register("meld", "MELD, 7 emotions, text")(text_corpus(FILES, LABELS, N_SPEAKERS, _utterances))
