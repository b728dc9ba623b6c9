"""CMU-MOSI: review videos of one speaker, binary sentiment, audio, text and video features.

Zadeh et al. 2016, arXiv:1606.06259.

Files in data.root, as bc-LSTM distributed them: transcripts.csv (VIDEO_n, text, word count, label; no header), and
of the 31 test videos rows_test.csv (for each feature row the 0-based row of transcripts.csv), audio_test.csv (73
numbers and the label) and video_test.csv (100 numbers and the label).

The training videos are not read at all: whatever made their video features had seen their labels (a dev set cut from
them scores 94 per cent where test scores 54). Instead: five-fold cross-validation by video inside the test videos.
In fold k the videos with number k modulo 5, by name, are test, those with k + 1 are dev, the rest train. So figures
of this reader do not compare with published ones.

Features stay as they are, though the audio columns differ widely in scale, with heavy tails, and 32 video columns are
constant: model.standardise=true scales them by the training split.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.tables import (
    Encode,
    Utterance,
    assemble,
    encode_splits,
    find_files,
    group,
    problem,
    read_matrix,
    read_table,
    short,
)
from joyful.records import SPLITS, DialogueDataset, InputError

SOURCE_MODALITIES = ("audio", "text", "visual")
FILES = ("transcripts.csv", "rows_test.csv", "audio_test.csv", "video_test.csv")
LABELS = ("negative", "positive")
N_SPEAKERS = 1
FOLDS = 5
AUDIO, VISUAL = 73, 100


def source_files(settings: DataSettings) -> list[Path]:
    """The four files. Raises InputError if one is not there."""
    return find_files(settings, FILES)


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Return one fold. Without an encoder the dataset has no text. Raises InputError."""
    transcripts, rows, audio, video = source_files(settings)
    if settings.fold is None:
        raise InputError("data=mosi is read in five folds by video, and data.fold is null; set data.fold=0 (to 4)")
    utterances = _utterances(transcripts, rows)
    videos = sorted(group(transcripts, utterances, N_SPEAKERS), key=lambda video: video[0].dialogue)
    by_row = {
        "audio": _features(audio, AUDIO, utterances),
        "visual": _features(video, VISUAL, utterances),
    }
    if len(videos) < FOLDS:
        raise InputError(f"{rows} names {len(videos)} videos; five folds need at least {FOLDS}")
    splits: dict[str, list[list[Utterance]]] = {split: [] for split in SPLITS}
    for number, utterances_of_video in enumerate(videos):
        split = {0: "test", 1: "dev"}.get((number - settings.fold) % FOLDS, "train")
        splits[split].append(utterances_of_video)
    vectors = encode_splits(splits, encode) if encode is not None else None
    parts = {}
    for split in SPLITS:
        order = [utterance.row for video in splits[split] for utterance in video]
        features = {name: values[order] for name, values in by_row.items()}
        if vectors is not None:
            features["text"] = vectors[split]
        parts[split] = assemble(splits[split], features)
    return DialogueDataset(
        name=settings.name,
        dimensions={name: values.shape[1] for name, values in parts["train"].features.items()},
        labels=LABELS,
        n_speakers=N_SPEAKERS,
        multilabel=False,
        splits=parts,
    )


def _utterances(transcripts: Path, rows: Path) -> list[Utterance]:
    """The utterances that have features, in the order of the feature rows."""
    table = list(read_table(transcripts, ("id", "text", "words", "label"), header=False))
    utterances: list[Utterance] = []
    seen: dict[int, int] = {}
    for place, entry in enumerate(read_table(rows, ("row",), header=False)):
        number = entry.integer("row")
        if number >= len(table):
            raise entry.problem(f"row {number} is named, but {transcripts.name} has {len(table)} rows, counted from 0")
        if (first := seen.setdefault(number, entry.line)) != entry.line:
            raise entry.problem(f"row {number} is named in line {first} already; remove one of the two")
        row = table[number]
        # "AB_1_12" is utterance 12 of video "AB_1"; names of videos hold underscores themselves
        match = re.fullmatch(r"(.+)_([0-9]{1,9})", row.text("id"))
        if match is None:
            raise row.problem(f"the id must be VIDEO_n with an integer n, got {short(row.text('id'))}")
        utterances.append(
            Utterance(
                line=row.line,
                dialogue=match[1],
                position=int(match[2]),
                speaker=match[1],
                label=row.index("label", ("0", "1")),
                sentence=row.text("text"),
                row=place,
            )
        )
    return utterances


def _features(path: Path, width: int, utterances: list[Utterance]) -> np.ndarray:
    """(N, width) float32 in the order of the rows; the last column of the file must repeat the transcripts' labels."""
    values, lines = read_matrix(path, width + 1)
    if len(values) != len(utterances):
        raise InputError(
            f"{path} has {len(values)} rows, but rows_test.csv has {len(utterances)}; take files that belong together"
        )
    for utterance, label, line in zip(utterances, values[:, -1], lines, strict=True):
        if label != utterance.label:
            message = f"the label is {label:g}, but transcripts.csv, line {utterance.line}, has {utterance.label}"
            raise problem(path, line, f"{message}; take files that belong together")
    return np.ascontiguousarray(values[:, :-1])
