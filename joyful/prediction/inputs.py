"""The dialogues to be labelled: a table, checked against what a model needs before anything is encoded.

Shape letters: N utterances, D features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyful.data.dialogue_table import DialogueTable, to_dialogues
from joyful.data.dialogues import default_settings, read_table
from joyful.data_settings import TableSettings
from joyful.messages import expected_one_of
from joyful.prediction.saved import ModelData
from joyful.records import Dialogues, InputError
from joyful.results.csv_text import quoted
from joyful.validation import setting_names, validate

if TYPE_CHECKING:
    import pandas as pd

#: Roles of columns that new names can be given for.
ROLES = ("dialogue", "place", "speaker", "text", "label")

#: Settings of data.table that say how a file is read. The others are for training.
_OF_FILES = ("columns", "features", "label_prefix", "label_separator", "encoding", "separator")

#: Name of a DataFrame in messages.
_FRAME = "the DataFrame"


def table_settings(config: Mapping[str, Any], changes: Mapping[str, Any]) -> TableSettings:
    """Return how a table of new dialogues is read.

    Args:
        config: The configuration of the run. Trained on data=dialogues, it has the names of the columns; otherwise they are
            those of conf/data/dialogues.yaml.
        changes: Setting below data.table (such as "columns.text" or "encoding") -> value in place of the run's.

    Raises:
        InputError: If a setting is unknown or only for training, or a value is not valid.
    """
    recorded = config["data"].get("table")
    values = default_settings().model_dump() if recorded is None else dict(recorded)
    values["columns"] = {**values["columns"], "split": None}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if section not in _OF_FILES or (section, key) == ("columns", "split"):
            settings = [other for other in setting_names(TableSettings) if other.partition(".")[0] in _OF_FILES]
            raise InputError(f"data.table: {expected_one_of(name, [n for n in settings if n != 'columns.split'])}")
        values |= {section: {**(values[section] or {}), key: value} if key else value}
    return validate(TableSettings, values, "data.table.")


def changes_of(columns: Mapping[str, str | None] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return new names of columns and other options as settings below data.table.

    Args:
        columns: Role -> name of the column; None: there is no such column.
        options: Other settings, such as encoding.

    Raises:
        InputError: If a role is unknown.
    """
    for role in columns or {}:
        if role not in ROLES:
            raise InputError(f"columns: {expected_one_of(role, list(ROLES))}")
    return {f"columns.{role}": name for role, name in (columns or {}).items()} | dict(options)


def optional_roles(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the roles whose columns may be absent: the label, unless the changes of `table_settings` name its column."""
    return () if {"columns", "columns.label"} & set(changes) else ("label",)


def read_dialogues(
    source: str | Path | pd.DataFrame, settings: TableSettings, optional: Collection[str] = ()
) -> DialogueTable:
    """Read a table of dialogues from a file or a DataFrame.

    Args:
        source: A file, or a DataFrame with the same columns.
        settings: How it is read.
        optional: Roles whose columns may be absent even if the settings name them.

    Raises:
        InputError: If it is not a valid table, or a folder.
    """
    if isinstance(source, (str, Path)):
        if Path(source).expanduser().is_dir():
            raise InputError(
                f"{source}: expected one file with a table of dialogues, got a folder; predict its files one by one"
            )
        return read_table(source, settings, optional)
    with tempfile.TemporaryDirectory(prefix="joyful-") as folder:
        path = Path(folder) / "frame.parquet"
        try:
            _write_frame(source, path)
            return read_table(path, settings, optional)
        except InputError as error:
            raise InputError(str(error).replace(str(path), _FRAME)) from None


def _write_frame(frame: pd.DataFrame, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    if not hasattr(frame, "columns"):
        raise InputError(f"expected a file or a pandas DataFrame, got {type(frame).__name__}")
    if not len(frame):
        raise InputError(f"{_FRAME} has no rows; expected at least one utterance")
    try:
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"{_FRAME}: expected columns of text, numbers or lists ({' '.join(str(error).split())})"
        ) from None


def check_fits(table: DialogueTable, data: ModelData, speakers: int) -> list[str]:
    """Check that a model can predict the utterances of a table. Nothing is encoded.

    Args:
        table: The table.
        data: What the model knows of its data.
        speakers: Largest number of speakers in a dialogue that the model can have.

    Returns:
        What the user should know.

    Raises:
        InputError: If a modality is not there or has another width, or a dialogue has too many speakers.
    """
    notes = []
    for name, width in data.dimensions.items():
        if name == "text" and "text" not in table.features:
            _check_text(table, data, width)
        else:
            _check_features(table, name, width)
    if "text" in table.features and data.encodes_text:
        notes.append(
            f"{_source(table)} has vectors of text; they are used as they are, and expected from {data.text_encoder}"
        )
    _check_speakers(table, speakers)
    for name in data.dimensions:
        lacking = int(table.missing[name].sum()) if name in table.features else sum(text is None for text in table.text)
        if lacking:
            notes.append(f"{lacking} of {len(table)} utterances lack {name}; it is filled as in training")
    return notes


def _check_text(table: DialogueTable, data: ModelData, width: int) -> None:
    if not data.encodes_text:
        raise InputError(
            f"{_source(table)}: expected vectors of text, because the model was trained on vectors from a file"
            f" ({width} numbers) and not on those of a text encoder; add columns text_0 to text_{width - 1}"
        )
    if all(text is None for text in table.text):
        raise InputError(
            f"{_source(table)}: expected text, which the model needs, got none; set data.table.columns.text=NAME to its column"
        )


def _check_features(table: DialogueTable, name: str, width: int) -> None:
    values = table.features.get(name)
    remedy = f"add columns {name}_0 to {name}_{width - 1}, or a file NAME.{name}.npy beside the table"
    if values is None:
        raise InputError(
            f"{_source(table)}: expected features of the modality {name}, which the model needs ({width} numbers), got none;"
            f" {remedy}, or take a model that was trained without {name}"
        )
    if values.shape[1] != width:
        raise InputError(
            f"{_source(table)}: expected {width} numbers of {name}, as in training, got {values.shape[1]}; {remedy} from the same"
            " extractor"
        )
    if table.missing[name].all():
        raise InputError(
            f"{_source(table)}: {name} is missing in all utterances, but the model needs it ({width} numbers); {remedy}, or take a"
            f" model that was trained without {name}"
        )


def _check_speakers(table: DialogueTable, speakers: int) -> None:
    for rows in table.order():
        count = len({table.speaker[row] for row in rows})
        if count > speakers:
            first = int(rows.min())
            raise table.error(
                first,
                f"expected at most {speakers} speakers in a dialogue, as in training, got {count} in"
                f" {quoted(table.dialogue[first])}; give rare speakers one name, or train with data.table.speakers={count}",
            )


def labels_of(table: DialogueTable, data: ModelData) -> tuple[np.ndarray | None, str | None]:
    """Return the labels of a table as class indices, in the order of its dialogues.

    Args:
        table: The table.
        data: What the model knows of its data.

    Returns:
        The labels as in `joyful.records.Dialogues`, None if there are none or they are of other classes; and for other
        classes a line that says so.
    """
    if all(labels is None for labels in table.labels):
        return None, None
    try:
        return to_dialogues(table, data.labels, len(table), multilabel=data.multilabel).labels, None
    except InputError as error:
        return None, f"no scores, because the labels are not those of the model: {error}"


def unlabelled_dialogues(table: DialogueTable, data: ModelData) -> Dialogues:
    """Return the dialogues of a table, whose text is encoded, without their labels."""
    return to_dialogues(table.without_labels(), data.labels, len(table), multilabel=data.multilabel)


def _source(table: DialogueTable) -> str:
    return table.sources[0].rpartition(",")[0]
