"""EmoryNLP: its peculiarities, on small files and (if JOYFUL_DATA is set) on the real files."""

from __future__ import annotations

import numpy as np
import pytest

from joyful.data.emorynlp import FILES, LABELS
from joyful.data.sources import SOURCES
from joyful.records import InputError
from tests.support.datasets import check_source, data_settings, fake_encode, real_data

HEADER = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time"


def row(text="Well.", speaker="['Ann']", emotion="Joyful", scene=1, position=1, season=1, episode=1):
    return f'"{text}","{speaker}",{emotion},{scene},{position},{season},{episode},00:00:01.250,00:00:02.500'


@pytest.fixture
def root(tmp_path):
    """A small corpus. Scene 1 exists in two episodes, and two people speak together, in both orders of their names."""
    rows = [
        row("C", "['Bob', 'Ann']", "Mad", position=9),
        row("A", "['Ann']", "Neutral", position=2),
        row("B", "['Ann', 'Bob']", "Sad", position=4),
        row("D", "['Bob']", "Peaceful", position=2, episode=2),
    ]
    for name in FILES:
        (tmp_path / name).write_text("\n".join([HEADER, *rows]) + "\n", "utf-8")
    return tmp_path


def test_small(root, tmp_path):
    train = check_source(data_settings("emorynlp", root=str(root)), tmp_path / "out").splits["train"]
    assert train.ids == ("s01_e01_c01", "s01_e02_c01")
    assert train.sentences == ("A", "B", "C", "D")
    assert [LABELS[label] for label in train.labels] == ["neutral", "sad", "mad", "peaceful"]
    np.testing.assert_array_equal(train.speakers, [0, 1, 1, 0])
    np.testing.assert_array_equal(train.lengths, [3, 1])


HOSTILE_SPEAKERS = ["Ann", "[]", "['']", "[1]", "['A'", "{'A'}", "[['A']]", "__import__('os')", "[" * 900, "-" * 900]


@pytest.mark.parametrize("speaker", [*HOSTILE_SPEAKERS, "(" * 100_000, "['" + "A" * 2000 + "']"])
def test_speakers_that_are_not_a_list_of_names(root, speaker):
    (root / FILES[1]).write_text(f"{HEADER}\n{row(speaker=speaker)}\n", "utf-8")
    with pytest.raises(InputError, match=r"emorynlp_dev_final.csv, line 2: Speaker must be a list of names"):
        SOURCES["emorynlp"].read(data_settings("emorynlp", root=str(root)), fake_encode)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(), r"line 3: utterance 1 of 's01_e01_c01' is already in line 2"),
        (row(emotion="joy", position=2), r"line 3: Emotion must be one of neutral, joyful, .*, got 'joy'"),
        (row(season="x", position=2), r"line 3: Season must be an integer"),
        (row(text="", position=2), r"line 3: Utterance is empty"),
    ],
)
def test_bad_rows(root, bad, message):
    (root / FILES[0]).write_text(f"{HEADER}\n{row()}\n{bad}\n", "utf-8")
    with pytest.raises(InputError, match=message):
        SOURCES["emorynlp"].read(data_settings("emorynlp", root=str(root)), fake_encode)


def test_real(tmp_path):
    """The counts of the published corpus. n_speakers is the maximum in the data."""
    dataset = check_source(data_settings("emorynlp", root=real_data("emorynlp")), tmp_path)
    assert {s: (len(p.lengths), len(p.labels)) for s, p in dataset.splits.items()} == {
        "train": (659, 7551),
        "dev": (89, 954),
        "test": (79, 984),
    }
    counts = np.bincount(dataset.splits["train"].labels)
    assert (np.diff(counts) < 0).all()  # the documented order: by frequency in train
    assert max(int(part.speakers.max()) for part in dataset.splits.values()) + 1 == dataset.n_speakers
    train = dataset.splits["train"]
    labels: dict[str, set[int]] = {}
    for sentence, label in zip(train.sentences or (), train.labels.tolist(), strict=True):
        labels.setdefault(sentence, set()).add(label)
    assert max(map(len, labels.values())) > 1  # the same text with different labels stays
