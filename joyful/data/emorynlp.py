"""EmoryNLP: scenes of the series *Friends*, 7 emotions, official split. Text only.

Source: S. Zahiri and J. Choi, 2018, arXiv:1708.04299.

Files in data.root: emorynlp_train_final.csv, emorynlp_dev_final.csv, emorynlp_test_final.csv.

Properties of the files:

- Scene_ID starts again in every episode, so a dialogue is (Season, Episode, Scene_ID).
- Speaker is a list written as text. People who speak together count as one additional speaker.
- Utterance ids have gaps.
- The same text can have different labels in different places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from joyful.data.dialogue_table import Utterance
from joyful.data.sources import SOURCES
from joyful.data.tables import Row, read_rows, text_corpus
from joyful.results.csv_text import quoted

FILES = ("emorynlp_train_final.csv", "emorynlp_dev_final.csv", "emorynlp_test_final.csv")
#: Sorted by frequency in the training split, most frequent first.
LABELS = ("neutral", "joyful", "scared", "mad", "peaceful", "powerful", "sad")
#: Largest number of speakers in a scene of train (dev 8, test 7).
N_SPEAKERS = 9

_MAX_SPEAKER_CHARACTERS = 1000  # deep nesting in a long text would exhaust the stack of ast.literal_eval


def _utterances(path: Path) -> Iterator[Utterance]:
    columns = ("Utterance", "Speaker", "Emotion", "Scene_ID", "Utterance_ID", "Season", "Episode")
    for row in read_rows(path, columns):
        season, episode, scene = (row.integer(column) for column in ("Season", "Episode", "Scene_ID"))
        yield Utterance(
            line=row.line,
            dialogue=f"s{season:02d}_e{episode:02d}_c{scene:02d}",
            place=row.integer("Utterance_ID"),
            speaker=_speaker(row),
            label=LABELS[row.index("Emotion", LABELS)],
            text=row.text("Utterance"),
        )


def _speaker(row: Row) -> str:
    """Return one name for the list of speakers. It does not depend on their order."""
    text = row.text("Speaker")
    try:
        names = ast.literal_eval(text) if len(text) <= _MAX_SPEAKER_CHARACTERS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        names = None
    if not (isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)):
        raise row.error(f"Speaker must be a list of names such as ['A', 'B'], got {quoted(text)}")
    return " & ".join(sorted(name.strip() for name in names))


SOURCES.register("emorynlp", "EmoryNLP, 7 emotions, text")(text_corpus(FILES, LABELS, N_SPEAKERS, _utterances))
