"""CMU-MOSI: folds by video, rows that refer to another file, and (if JOYFUL_DATA is set) the real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from joyful.data.mosi import FILES, FOLDS, read
from joyful.records import InputError
from tests.support.datasets import check_source, data_settings, fake_encode, real_data


def write_corpus(folder: Path, **changes: list[str]) -> Path:
    """Write seven videos of two utterances, 10 before 9 in the file. Each audio feature is the row of its transcript."""
    ids = [f"v_{video}_{n}" for video in "abcdefg" for n in (10, 9)]
    labels = [i % 2 for i in range(14)]
    order = list(range(13, -1, -1))  # the feature rows are in the reverse order of the transcripts
    content = {
        "transcripts": [f'"{name}","TEXT {i}","3","{labels[i]}"' for i, name in enumerate(ids)],
        "rows_test": [str(i) for i in order],
        "audio_test": [",".join([str(float(i))] * 73 + [str(labels[i])]) for i in order],
        "video_test": [",".join([str(-i)] * 100 + [f'"{labels[i]}"']) for i in order],
        **changes,
    }
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text("\r\n".join(content[name.removesuffix(".csv")]) + "\r\n", "utf-8")
    return folder


def settings(root: Path, fold: int | None = 0):
    return data_settings("mosi", root=str(root), fold=fold)


def test_small(tmp_path):
    dataset = check_source(settings(write_corpus(tmp_path / "data")), tmp_path / "out")
    assert dataset.dimensions == {"audio": 73, "text": 8, "visual": 100}
    # by hand: videos a to g have numbers 0 to 6; fold 0 tests 0 and 5, dev is 1 and 6
    ids = {split: [name[-1] for name in part.ids] for split, part in dataset.splits.items()}
    assert ids == {"train": ["c", "d", "e"], "dev": ["b", "g"], "test": ["a", "f"]}
    test = dataset.splits["test"]
    assert test.sentences == ("TEXT 1", "TEXT 0", "TEXT 11", "TEXT 10")  # utterance 9 before 10
    np.testing.assert_array_equal(test.features["audio"][:, 0], [1, 0, 11, 10])
    np.testing.assert_array_equal(test.features["visual"][:, 99], [-1, 0, -11, -10])
    np.testing.assert_array_equal(test.labels, [1, 0, 1, 0])


def test_folds_are_disjoint_and_cover_every_video(tmp_path):
    root = write_corpus(tmp_path)
    folds = [read(settings(root, fold), None).splits for fold in range(FOLDS)]
    names = [name for splits in folds for name in splits["test"].ids]
    assert len(names) == len(set(names)) == 7
    for fold, splits in enumerate(folds):
        assert splits["dev"].ids == folds[(fold + 1) % FOLDS]["test"].ids
        assert sum(len(part.ids) for part in splits.values()) == 7


def test_without_an_encoder_there_is_no_text(tmp_path):
    assert read(settings(write_corpus(tmp_path)), None).dimensions == {"audio": 73, "visual": 100}


def test_the_training_files_are_not_needed(tmp_path):
    assert not [path for path in write_corpus(tmp_path).iterdir() if "train" in path.name]


AUDIO = ",".join(["1"] * 73)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows_test": ["99"] * 14}, r"rows_test.csv, line 1: expected a row of transcripts.csv from 0 to 13, got 99"),
        ({"rows_test": ["-1"] * 14}, r"line 1: row must be an integer >= 0, got '-1'"),
        ({"rows_test": ["3"] * 14}, r"rows_test.csv, line 2: row 3 is already in line 1"),
        (
            {"transcripts": ['"v_1","A","1","0"'] * 14},
            r"transcripts.csv, line 13: utterance 1 of 'v' is already in line 14",
        ),
        ({"rows_test": ["0", "1"]}, r"audio_test.csv has 14 rows, but rows_test.csv has 2"),
        ({"audio_test": [AUDIO + ",2"] * 14}, r"audio_test.csv, line 1: the label is 2, but transcripts.csv, line 14,"),
        ({"audio_test": [AUDIO + ",nan"] * 14}, r"audio_test.csv, line 1: column 74 must be a finite number"),
        ({"audio_test": [AUDIO] * 14}, r"audio_test.csv, line 1: expected 74 columns, got 73"),
        ({"video_test": [""]}, r"video_test.csv has no rows"),
        ({"transcripts": ['"nounderscore","A","1","0"'] * 14}, r"transcripts.csv, line 14: the id must be VIDEO_n"),
        ({"transcripts": ['"v_1","A","1","2"'] * 14}, r"line 14: label must be one of 0, 1, got '2'"),
        ({"transcripts": ['"v_1"," ","1","1"'] * 14}, r"line 14: text is empty"),
        ({"transcripts": ['"v_1","A","1"'] * 14}, r"line 1: expected 4 columns, got 3"),
    ],
)
def test_bad_files(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read(settings(write_corpus(tmp_path, **changes)), fake_encode)


def test_no_fold_and_too_few_videos(tmp_path):
    with pytest.raises(InputError, match=r"set data.fold=0"):
        read(settings(write_corpus(tmp_path), fold=None), fake_encode)
    few = {
        "rows_test": ["0", "1"],
        "audio_test": [AUDIO + ",0", AUDIO + ",1"],
        "video_test": [",".join(["1"] * 100) + ",0", ",".join(["1"] * 100) + ",1"],
    }
    with pytest.raises(InputError, match="expected at least 5 videos for 5 folds, got 1"):
        read(settings(write_corpus(tmp_path, **few)), fake_encode)


def test_real(tmp_path):
    root = real_data("mosi")
    folds = [check_source(settings(root, fold), tmp_path / str(fold)) for fold in range(FOLDS)]
    assert [len(fold.splits["test"].ids) for fold in folds] == [7, 6, 6, 6, 6]
    assert sum(len(fold.splits["test"].labels) for fold in folds) == 752
    assert sum(int(fold.splits["test"].labels.sum()) for fold in folds) == 467
    together = np.concatenate([part.features["visual"] for part in folds[0].splits.values()])
    assert int((together.min(axis=0) == together.max(axis=0)).sum()) == 32
