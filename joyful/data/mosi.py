"""CMU-MOSI: review videos with one speaker each, binary sentiment; audio, text and video features.

Source: A. Zadeh et al., 2016, arXiv:1606.06259.

Files in data.root, without headers, as distributed with bc-LSTM:

    transcripts.csv   VIDEO_n, text, word count, label; all videos
    rows_test.csv     row of transcripts.csv, counted from 0, for each row of the feature files
    audio_test.csv    73 features and the label; the 31 test videos
    video_test.csv    100 features and the label; the 31 test videos

The reader does not use the training videos, because the labels leaked into their video features: a dev set taken from
them scores 94 %, and test scores 54 %. Instead it uses five-fold cross-validation by video within the test videos. The
videos are sorted by name and numbered. In fold k, those with number k modulo 5 are test, those with k + 1 are dev, and
the others are train. Results therefore cannot be compared with published ones.

The reader does not scale the features. The scales of the audio columns differ widely, with heavy tails, and 32 video
columns are constant. model.standardise=true scales them by the training split.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.dialogue_table import Encode, Utterance, to_dataset, to_table
from joyful.data.sources import SOURCES, Source
from joyful.data.tables import find_files, read_matrix, read_rows
from joyful.records import DialogueDataset, InputError
from joyful.results.csv_text import line_error, quoted

FILES = ("transcripts.csv", "rows_test.csv", "audio_test.csv", "video_test.csv")
LABELS = ("negative", "positive")
N_SPEAKERS = 1
FOLDS = 5
AUDIO, VISUAL = 73, 100


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Read one fold.

    Args:
        settings: The data settings; `fold` is a number from 0 to 4.
        encode: The sentence encoder. Without it, the dataset has no text.

    Raises:
        InputError: If data.fold is null, or a file is missing or invalid.
    """
    transcripts, rows, audio, video = find_files(settings, FILES)
    if settings.fold is None:
        raise InputError("data.fold: expected a fold from 0 to 4 for data=mosi, got null; set data.fold=0")
    utterances = _utterances(transcripts, rows)
    table = to_table(transcripts, utterances)
    videos = sorted(table.order(), key=lambda video: table.dialogue[video[0]])
    features = {
        "audio": _features(audio, AUDIO, utterances),
        "visual": _features(video, VISUAL, utterances),
    }
    if len(videos) < FOLDS:
        raise InputError(
            f"{rows}: expected at least {FOLDS} videos for {FOLDS} folds, got {len(videos)}; use the complete files"
        )
    split = ["train"] * len(table)
    for number, utterances_of_video in enumerate(videos):
        for row in utterances_of_video:
            split[row] = {0: "test", 1: "dev"}.get((number - settings.fold) % FOLDS, "train")
    missing = {name: np.zeros(len(table), bool) for name in features}
    table = replace(table, features=features, missing=missing, split=tuple(split)).take(np.concatenate(videos))
    return to_dataset(table, settings, LABELS, N_SPEAKERS, encode)


def _utterances(transcripts: Path, rows: Path) -> list[Utterance]:
    """Return the utterances that have features, in the order of the feature rows."""
    table = list(read_rows(transcripts, ("id", "text", "words", "label"), header=False))
    utterances: list[Utterance] = []
    seen: dict[int, int] = {}
    for entry in read_rows(rows, ("row",), header=False):
        number = entry.integer("row")
        if number >= len(table):
            message = f"expected a row of {transcripts.name} from 0 to {len(table) - 1}, got {number}"
            raise entry.error(f"{message}; use files of one distribution")
        if (first := seen.setdefault(number, entry.line)) != entry.line:
            raise entry.error(f"row {number} is already in line {first}; remove one of the two")
        row = table[number]
        # names of videos can contain underscores: "AB_1_12" is utterance 12 of video "AB_1"
        match = re.fullmatch(r"(.+)_([0-9]{1,9})", row.text("id"))
        if match is None:
            raise row.error(f"the id must be VIDEO_n with an integer n, got {quoted(row.text('id'))}")
        utterances.append(
            Utterance(
                line=row.line,
                dialogue=match[1],
                place=int(match[2]),
                speaker=match[1],
                label=LABELS[row.index("label", ("0", "1"))],
                text=row.text("text"),
            )
        )
    return utterances


def _features(path: Path, width: int, utterances: list[Utterance]) -> np.ndarray:
    """Read features, (N, width) float32. The last column of the file must agree with the labels of the transcripts."""
    values, lines = read_matrix(path, width + 1)
    if len(values) != len(utterances):
        raise InputError(
            f"{path} has {len(values)} rows, but rows_test.csv has {len(utterances)}; use files of one distribution"
        )
    for utterance, label, line in zip(utterances, values[:, -1], lines, strict=True):
        if label != (expected := LABELS.index(utterance.label)):
            message = f"the label is {label:g}, but transcripts.csv, line {utterance.line}, has {expected}"
            raise line_error(path, line, f"{message}; use files of one distribution")
    return np.ascontiguousarray(values[:, :-1])


SOURCES.register("mosi", "CMU-MOSI, 2 sentiments, audio, text and visual")(
    Source(read, functools.partial(find_files, names=FILES), modalities=("audio", "text", "visual"))
)
