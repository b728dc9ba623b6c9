"""The pickles of COGMEN and JOYFUL: IEMOCAP (6 or 4 emotions), CMU-MOSEI and MELD with precomputed features.

The file `<data.root>/<folder>/data_<folder>.pkl` contains a dict of train, dev and test, each a list of `Sample`
objects, one per dialogue, or of dicts with the same keys. The reader uses the attributes vid, speaker, label, audio,
visual, sentence and, for text, `sbert_sentence_embeddings`.

Modalities. The widths of the features are those of the file, and all dialogues must have the same. A file may lack a
modality, but then all its dialogues must lack it. If no dialogue has text vectors, the text encoder encodes the
sentences of the file. Vectors of two encoders are never mixed.

`_DATASETS` has the properties of each dataset. Files of CMU-MOSEI have labels of several kinds. data.emotion is the
kind:

    null        One number: the class 0 or 1, or a sentiment from -3 to 3, where 0 counts as positive. If all numbers of
                the file are 0 or 1, they are classes.
    7class      One number: the class 0 to 6 (integers, none negative), or a sentiment from -3 to 3, which is rounded.
    multilabel  Six intensities: happiness, sadness, anger, surprise, disgust, fear. An emotion is present if its
                intensity is positive.
    happiness   (or another of the six) The same six intensities, or one number for this emotion: 0 or 1, or an
                intensity. The label is whether this emotion is present.

COGMEN writes a file for each kind of label, such as data_mosei_happiness.pkl for data.emotion=happiness. If it exists,
it is read; otherwise data_mosei.pkl.

The utterances of all dialogues fill a `joyful.data.dialogue_table.DialogueTable`, with names for speakers and classes. The
table makes the arrays, as for all sources.

Shape letters: N utterances, D features, C classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from joyful.config import DataSettings
from joyful.data.cogmen import restricted_pickle
from joyful.data.cogmen.modalities import checked_encoder, modalities_of
from joyful.data.cogmen.sample import CogmenDialogue, read_sample
from joyful.data.dialogue_table import DialogueTable, Encode, concatenate, to_dataset
from joyful.data.sources import SOURCES, Source
from joyful.data.text_repair import log_repairs, repair
from joyful.records import SPLITS, DialogueDataset, InputError

# (all labels of the file (N, columns) float64, whether all are integers) -> (labels, whether each is valid (N,),
# description of valid labels)
_Convert = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray, str]]

_log = logging.getLogger(__name__)
_MOSEI_EMOTIONS = ("happiness", "sadness", "anger", "surprise", "disgust", "fear")
_MOSEI_SENTIMENTS = ("-3", "-2", "-1", "0", "+1", "+2", "+3")


@dataclass(frozen=True)
class _Scheme:
    """A label set: C class names, the numbers that a label in the file may have, and the conversion from them."""

    labels: tuple[str, ...]
    convert: _Convert
    columns: tuple[int, ...] = (1,)
    multilabel: bool = False


@dataclass(frozen=True)
class _Dataset:
    """The properties of one dataset. schemes: data.emotion -> label set."""

    folder: str
    n_speakers: int
    schemes: Mapping[str | None, _Scheme]


def _classes(n_classes: int, values: np.ndarray, _: bool) -> tuple[np.ndarray, np.ndarray, str]:
    index = values[:, 0]
    return index, (index >= 0) & (index < n_classes) & (index == np.rint(index)), f"a class 0 to {n_classes - 1}"


def _sentiment_sign(values: np.ndarray, integers: bool) -> tuple[np.ndarray, np.ndarray, str]:
    if integers or np.isin(values, (0, 1)).all():
        return _classes(2, values, integers)
    return values[:, 0] >= 0, abs(values[:, 0]) <= 3, "a sentiment from -3 to 3"


def _rounded_sentiment(values: np.ndarray, integers: bool) -> tuple[np.ndarray, np.ndarray, str]:
    if integers and values.min() >= 0:
        return _classes(7, values, integers)
    return np.rint(values[:, 0]) + 3, abs(values[:, 0]) <= 3, "a sentiment from -3 to 3"


def _presence(values: np.ndarray, _: bool, column: int | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    valid = (np.isfinite(values) & (values >= 0)).all(axis=1)
    if values.shape[1] == 1:
        return values[:, 0] > 0, valid & (values[:, 0] <= 3), "0 or 1, or an intensity up to 3"
    return (values if column is None else values[:, column]) > 0, valid, "six intensities, none negative"


def _single(*labels: str) -> dict[str | None, _Scheme]:
    return {None: _Scheme(labels, partial(_classes, len(labels)))}


def _mosei() -> dict[str | None, _Scheme]:
    schemes: dict[str | None, _Scheme] = {
        None: _Scheme(("negative", "positive"), _sentiment_sign),
        "7class": _Scheme(_MOSEI_SENTIMENTS, _rounded_sentiment),
        "multilabel": _Scheme(_MOSEI_EMOTIONS, _presence, columns=(6,), multilabel=True),
    }
    for column, emotion in enumerate(_MOSEI_EMOTIONS):
        schemes[emotion] = _Scheme((f"no {emotion}", emotion), partial(_presence, column=column), columns=(6, 1))
    return schemes


_MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_DATASETS = {
    "iemocap": _Dataset("iemocap", 2, _single("hap", "sad", "neu", "ang", "exc", "fru")),
    "iemocap_4": _Dataset("iemocap_4", 2, _single("hap", "sad", "neu", "ang")),
    "mosei": _Dataset("mosei", 1, _mosei()),
    "meld_cogmen": _Dataset("meld", 9, _single(*_MELD_LABELS)),
}


def source_files(settings: DataSettings) -> list[Path]:
    """Return a list with the path of the pickle.

    Raises:
        InputError: If the settings do not fit the dataset, data.root is not set, or the file is missing.
    """
    dataset, _ = _choose(settings)
    names = _file_names(dataset, settings.emotion)
    remedy = "set data.root=FOLDER to its location, or run without it: python run.py data=synthetic"
    needed = f"data={settings.name} needs {{}}/{' or '.join(names)}, a pickle that COGMEN or JOYFUL wrote"
    if settings.root is None:
        raise InputError(f"{needed.format(f'FOLDER/{dataset.folder}')}; {remedy}")
    folder = Path(settings.root).expanduser() / dataset.folder
    try:
        existing = [folder / name for name in names if (folder / name).exists()]
        emotions = [
            name for name in dataset.schemes if name and (folder / f"data_{dataset.folder}_{name}.pkl").exists()
        ]
    except OSError as error:
        raise InputError(
            f"{folder / names[0]} cannot be read ({error.strerror}); check its permissions, or {remedy}"
        ) from None
    if not existing:
        hint = f"; for the files that are there, set data.emotion={' or '.join(emotions)}" if emotions else ""
        raise InputError(f"{needed.format(folder)}, but the file does not exist{hint}; {remedy}")
    return existing[:1]


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Read a dataset.

    Args:
        settings: The data settings; `name` is iemocap, iemocap_4, mosei or meld_cogmen.
        encode: The sentence encoder. It is called once, and only if the file has no sentence vectors. If it is None in
            that case, and data.text_encoder is set, text was not requested and the dataset has no text.

    Returns:
        The dataset, with the modalities of the file and their widths.

    Raises:
        InputError: If the file is missing or invalid, a feature is NaN or infinite, only some dialogues have a modality,
            or an encoder is needed and data.text_encoder is null. The message has the file, the dialogue and the row,
            counted from 0.
    """
    dataset, scheme = _choose(settings)
    (path,) = source_files(settings)
    splits = _read_splits(path, dataset, scheme)
    dialogues = [dialogue for members in splits.values() for dialogue in members]
    modalities = modalities_of(dialogues, settings, encode, path)
    table = concatenate([_table(each, split, modalities) for split, members in splits.items() for each in members])
    table = replace(table, labels=_class_names(table, dialogues, scheme), multilabel=scheme.multilabel)
    if scheme.columns == (6, 1) and dialogues[0].labels.shape[1] == 1:
        _log.info("%s: labels of one number are read as %s (data.emotion)", path, " or ".join(scheme.labels))
    encode = checked_encoder(encode, path) if encode else None
    return to_dataset(table, settings.name, scheme.labels, dataset.n_speakers, encode, settings.text_encoder)


def _file_names(dataset: _Dataset, emotion: str | None) -> list[str]:
    """Return the names that the file may have, the preferred one first."""
    usual = f"data_{dataset.folder}.pkl"
    if emotion:
        return [f"data_{dataset.folder}_{emotion}.pkl", usual]
    return [usual, f"data_{dataset.folder}_2class.pkl"] if dataset.folder == "mosei" else [usual]


def _choose(settings: DataSettings) -> tuple[_Dataset, _Scheme]:
    if settings.name not in _DATASETS:
        raise InputError(f"data.name: expected one of {', '.join(_DATASETS)}, got {settings.name}; set data=NAME")
    dataset = _DATASETS[settings.name]
    if settings.emotion not in dataset.schemes:
        choices = ", ".join(name or "null" for name in dataset.schemes)
        raise InputError(
            f"data.emotion: expected one of {choices} for data={settings.name}, got {settings.emotion!a}; "
            "set data.emotion=VALUE"
        )
    if settings.fold is not None:
        raise InputError(f"data.fold: data={settings.name} has no folds, got {settings.fold}; set data.fold=null")
    return dataset, dataset.schemes[settings.emotion]


def _read_splits(path: Path, dataset: _Dataset, scheme: _Scheme) -> dict[str, list[CogmenDialogue]]:
    content = restricted_pickle.load(path)
    lists = [content.get(split) for split in SPLITS] if type(content) is dict else [None]
    if not all(type(samples) in (list, tuple) for samples in lists):
        got = ", ".join(ascii(key[:20]) for key in list(content)[:8]) if type(content) is dict else "something else"
        raise InputError(
            f"{path}: expected a dict of train, dev and test, each a list of Sample objects or dicts, got {got}; "
            f"use the data_{dataset.folder}.pkl that COGMEN or JOYFUL wrote"
        )
    splits = {}
    for split, samples in zip(SPLITS, lists, strict=True):
        where = f"{path}: {split}"
        if not samples:
            raise InputError(f"{where}: expected one dialogue or more, got none; create the file again")
        splits[split] = [
            read_sample(sample, index, where, scheme.columns, dataset.n_speakers)
            for index, sample in enumerate(samples)
        ]
    return _repaired(splits, path)


def _repaired(splits: dict[str, list[CogmenDialogue]], path: Path) -> dict[str, list[CogmenDialogue]]:
    """Map control characters of Windows-1252 in the sentences, and log their number."""
    total = 0
    for members in splits.values():
        for index, dialogue in enumerate(members):
            sentences, count = repair(dialogue.sentences or ())
            if count:
                members[index] = replace(dialogue, sentences=sentences)
                total += count
    log_repairs(path, total)
    return splits


def _table(dialogue: CogmenDialogue, split: str, modalities: Sequence[str]) -> DialogueTable:
    """Return the utterances of a dialogue, whose labels `read` adds. Rows are counted from 0.

    The dialogue is a source of its own, because dialogues of one split can have the same name.
    """
    n = len(dialogue.labels)
    return DialogueTable(
        sources=(f"{dialogue.place}, row",),
        source=np.zeros(n, np.int64),
        line=np.arange(n, dtype=np.int64),
        dialogue=(dialogue.name,) * n,
        place=tuple(range(n)),
        speaker=dialogue.speakers,
        text=(None,) * n if dialogue.sentences is None else dialogue.sentences,
        labels=(None,) * n,
        split=(split,) * n,
        features={name: dialogue.features[name] for name in modalities},
        missing={name: np.zeros(n, bool) for name in modalities},
        separate_sources=True,
    )


def _class_names(
    table: DialogueTable, dialogues: Sequence[CogmenDialogue], scheme: _Scheme
) -> tuple[tuple[str, ...], ...]:
    """Return the class names of each utterance.

    The conversion gets the labels of all splits at once, because their kind follows from all values together.
    """
    columns = dialogues[0].labels.shape[1]
    for dialogue in dialogues:
        if (got := dialogue.labels.shape[1]) != columns:
            expected = f"expected {columns} numbers for each utterance, as in dialogue {dialogues[0].name}"
            raise InputError(f"{dialogue.place}: label: {expected}, got {got}; create the file again")
    values = np.concatenate([dialogue.labels for dialogue in dialogues])
    labels, valid, expected = scheme.convert(values.astype(np.float64), values.dtype.kind in "biu")
    if not valid.all():
        row = int(np.argmin(valid))
        place = f"{dialogues[table.source[row]].place}: label row {table.line[row]}"
        raise InputError(
            f"{place}: expected {expected}, got {', '.join(map(str, values[row].tolist()))}; "
            "check that data=NAME is the dataset of this file and data.emotion is the kind of its labels"
        )
    if scheme.multilabel:
        return tuple(tuple(itertools.compress(scheme.labels, present)) for present in labels.tolist())
    return tuple((scheme.labels[index],) for index in labels.astype(np.int64).tolist())


SOURCES.register("cogmen", "pickles of COGMEN and JOYFUL: IEMOCAP, MOSEI, MELD")(
    Source(read, source_files, complete=True)
)
