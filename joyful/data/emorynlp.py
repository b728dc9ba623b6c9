"""EmoryNLP: scenes of the series *Friends*, 7 emotions, official split. Text only.

Zahiri and Choi 2018, arXiv:1708.04299.

Files in data.root: emorynlp_train_final.csv, emorynlp_dev_final.csv, emorynlp_test_final.csv. Scene_ID counts anew
in every episode, so a dialogue is (Season, Episode, Scene_ID). Speaker is a list written as text: people who speak
together count as one speaker of their own. Utterance ids have gaps; the same words can carry different emotions in
different places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from joyful.config import DataSettings
from joyful.data.tables import Encode, Row, Utterance, find_files, read_table, read_text_corpus, short
from joyful.records import DialogueDataset

SOURCE_MODALITIES = ("text",)
FILES = ("emorynlp_train_final.csv", "emorynlp_dev_final.csv", "emorynlp_test_final.csv")
#: By frequency in the training split, most frequent first.
LABELS = ("neutral", "joyful", "scared", "mad", "peaceful", "powerful", "sad")
#: The most speakers of a scene (in train; 8 in dev, 7 in test).
N_SPEAKERS = 9

_MAX_SPEAKER_CHARACTERS = 1000  # ast.literal_eval must not be given text of any length: deep nesting exhausts the stack


def source_files(settings: DataSettings) -> list[Path]:
    """The three files. Raises InputError if one is not there."""
    return find_files(settings, FILES)


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Return the official split, scenes in file order, utterances by Utterance_ID. Raises InputError."""
    return read_text_corpus(settings, encode, source_files(settings), _utterances, LABELS, N_SPEAKERS)


def _utterances(path: Path) -> Iterator[Utterance]:
    columns = ("Utterance", "Speaker", "Emotion", "Scene_ID", "Utterance_ID", "Season", "Episode")
    for row in read_table(path, columns):
        season, episode, scene = (row.integer(column) for column in ("Season", "Episode", "Scene_ID"))
        yield Utterance(
            line=row.line,
            dialogue=f"s{season:02d}_e{episode:02d}_c{scene:02d}",
            position=row.integer("Utterance_ID"),
            speaker=_speaker(row),
            label=row.index("Emotion", LABELS),
            sentence=row.text("Utterance"),
        )


def _speaker(row: Row) -> str:
    """One name for the list of speakers: the same people in another order are the same speaker."""
    text = row.text("Speaker")
    try:
        names = ast.literal_eval(text) if len(text) <= _MAX_SPEAKER_CHARACTERS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        names = None
    if not (isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)):
        raise row.problem(f"Speaker must be a list of names such as ['A', 'B'], got {short(text)}")
    return " & ".join(sorted(name.strip() for name in names))
