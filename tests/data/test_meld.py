"""MELD: its peculiarities, on small files and (if JOYFUL_DATA is set) on the real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from joyful.data.meld import FILES, LABELS
from joyful.data.sources import SOURCES
from joyful.data.tables import read_rows
from joyful.records import InputError
from tests.support.datasets import check_source, data_settings, fake_encode, real_data

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def row(text="Well.", speaker="Ann", emotion="joy", dialogue=0, position=0):
    return f'1,"{text}",{speaker},{emotion},positive,{dialogue},{position},1,1,"00:00:01,250","00:00:02,500"'


@pytest.fixture
def root(tmp_path):
    """A small corpus. Dialogue 4 is out of order, starts at 1 and has a gap."""
    rows = [row("B", "Bob", "anger", 4, 3), row("A", "Ann", "neutral", 4, 1), row("C", "Ann", "fear", 4, 7), row()]
    for name in FILES:
        (tmp_path / name).write_bytes("\r\n".join([HEADER, *rows, ""]).encode())
    return tmp_path


def replace_rows(root, *rows, header=HEADER):
    (root / FILES[0]).write_text("\n".join([header, *rows]) + "\n", "utf-8")


def test_small(root, tmp_path):
    dataset = check_source(data_settings("meld", root=str(root)), tmp_path / "out")
    train = dataset.splits["train"]
    assert dataset.labels == LABELS
    assert train.ids == ("dia4", "dia0")
    assert train.sentences == ("A", "B", "C", "Well.")
    np.testing.assert_array_equal(train.labels, [0, 6, 2, 4])
    np.testing.assert_array_equal(train.speakers, [0, 1, 0, 0])
    np.testing.assert_array_equal(train.lengths, [3, 1])


def test_control_characters_are_read_as_the_characters_that_were_meant(root):
    replace_rows(root, row(text="It\x92s \x93so\x94\x85"), row(position=1))
    train = SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode).splits["train"]
    assert train.sentences == ("It\u2019s \u201cso\u201d\u2026", "Well.")
    replace_rows(root, row(text="It\u2019s \u201cso\u201d\u2026"), row(position=1))
    written_well = SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode).splits["train"]
    np.testing.assert_array_equal(train.features["text"], written_well.features["text"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(emotion="happy"), r"train_sent_emo.csv, line 3: Emotion must be one of neutral, .*, got 'happy'"),
        (row(position=0), r"line 3: utterance 0 of 'dia0' is already in line 2; remove one"),
        (row(text="  "), r"line 3: Utterance is empty; fill it in or remove the row"),
        (row(speaker=""), r"line 3: Speaker is empty"),
        (row(position="x"), r"line 3: Utterance_ID must be an integer >= 0, got 'x'"),
        (row(dialogue="1.5"), r"line 3: Dialogue_ID must be an integer"),
        (row() + ",more", r"line 3: expected 11 columns, got 12"),
    ],
)
def test_bad_rows(root, bad, message):
    replace_rows(root, row(), bad)
    with pytest.raises(InputError, match=message):
        SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode)


def test_missing_column(root):
    replace_rows(root, row(), header=HEADER.replace("Emotion", "Feeling"))
    with pytest.raises(InputError, match=r"line 1: the header lacks the columns Emotion; it has 'Sr No.', 'Utterance'"):
        SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode)


def test_too_many_speakers(root):
    replace_rows(root, *(row(speaker=f"P{i}", position=i) for i in range(10)))
    with pytest.raises(InputError, match="expected at most 9 speakers in a dialogue, got 10 in 'dia0'"):
        SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode)


def test_no_root_no_file_no_encoder(root):
    with pytest.raises(
        InputError, match=r"data=meld needs the folder of train_sent_emo.csv, dev.* set data.root=FOLDER"
    ):
        SOURCES["meld"].read(data_settings("meld"), fake_encode)
    with pytest.raises(InputError, match="is not a folder"):
        SOURCES["meld"].read(data_settings("meld", root=str(root / "none")), fake_encode)
    with pytest.raises(InputError, match="has only text"):
        SOURCES["meld"].read(data_settings("meld", root=str(root)), None)
    (root / FILES[2]).unlink()
    with pytest.raises(InputError, match=r"has no test_sent_emo.csv"):
        SOURCES["meld"].read(data_settings("meld", root=str(root)), fake_encode)


def test_real(tmp_path):
    """The counts of the published corpus, which the reference also uses."""
    settings = data_settings("meld", root=real_data("meld"))
    dataset = check_source(settings, tmp_path)
    splits = dataset.splits
    assert {s: (len(p.lengths), len(p.labels)) for s, p in splits.items()} == {
        "train": (1038, 9989),
        "dev": (114, 1109),
        "test": (280, 2610),
    }
    counts = dict(zip(LABELS, np.bincount(splits["train"].labels).tolist(), strict=True))
    assert counts == {
        "neutral": 4710,
        "joy": 1743,
        "surprise": 1205,
        "anger": 1109,
        "sadness": 683,
        "disgust": 271,
        "fear": 268,
    }
    assert max(int(part.speakers.max()) for part in splits.values()) + 1 == dataset.n_speakers == 9
    assert {int(bound) for p in splits.values() for bound in (p.lengths.min(), p.lengths.max())} == {1, 23, 24, 33}
    assert sum(speakers.max() == 0 for speakers in by_dialogue(splits["train"], splits["train"].speakers)) == 96
    texts = {split: {tuple(d) for d in by_dialogue(part, np.array(part.sentences))} for split, part in splits.items()}
    assert len(texts["train"] & texts["test"]) == 1
    first: dict[str, int] = {}
    for line in read_rows(Path(settings.root or "") / FILES[0], ("Dialogue_ID", "Utterance_ID")):
        first.setdefault(line.fields["Dialogue_ID"], line.integer("Utterance_ID"))
    assert sorted(first.values())[-11:] == [0] + [1] * 10


def by_dialogue(part, values):
    return np.split(values, np.cumsum(part.lengths)[:-1])
