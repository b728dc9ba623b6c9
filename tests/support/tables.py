"""Small tables of dialogues, as files of each format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from joyful.config import DataSettings
from joyful.data.dialogues import read
from joyful.records import DialogueDataset
from tests.support.datasets import data_settings, fake_encode

Row = Mapping[str, Any]


def chat(n_dialogues: int = 6, length: int = 4) -> list[dict[str, Any]]:
    """Return rows of a chat: two speakers, three labels, and audio and visual features of 3 and 2 numbers."""
    rows: list[dict[str, Any]] = []
    for dialogue in range(n_dialogues):
        for place in range(length):
            n = len(rows)
            row = {"dialogue": f"d{dialogue}", "place": place, "speaker": "AB"[n % 2], "text": f"message {n}"}
            row |= {"label": ("joy", "anger", "neutral")[n % 3]}
            row |= {f"audio_{i}": n + i / 4 for i in range(3)} | {f"visual_{i}": n - i / 2 for i in range(2)}
            rows.append(row)
    return rows


def write(path: Path, rows: Sequence[Row], separator: str = ",", encoding: str = "utf-8") -> Path:
    """Write rows with pandas, in the format of the file's ending. Missing cells are empty."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        frame.to_csv(path, index=False, sep=separator, encoding=encoding)
    return path


def settings(root: Path, **table: Any) -> DataSettings:
    """Return the settings of data=dialogues with changes of data.table, whose mappings are merged."""
    plain = data_settings("dialogues", root=str(root)).model_dump()
    for name, value in table.items():
        plain["table"][name] = plain["table"][name] | value if isinstance(value, dict) else value
    return DataSettings.model_validate(plain)


def dataset(root: Path, encode: Any = fake_encode, **table: Any) -> DialogueDataset:
    """Read a table with changes of data.table."""
    return read(settings(root, **table), encode)


def without(rows: Sequence[Row], *names: str) -> list[dict[str, Any]]:
    """Return the rows without some columns."""
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def all_rows(data: DialogueDataset) -> list[tuple[str, str, Any, int]]:
    """Return (dialogue, text, class name or names or None, speaker slot) of each utterance, sorted by dialogue."""
    found: list[tuple[str, str, Any, int]] = []
    for part in data.splits.values():
        names = np.repeat(part.ids, part.lengths)
        texts = part.sentences or ()
        for name, text, label, speaker in zip(names, texts, part.labels, part.speakers, strict=True):
            if data.multilabel:
                own: Any = None if label[0] < 0 else tuple(np.array(data.labels)[label > 0].tolist())
            else:
                own = None if label < 0 else data.labels[label]
            found.append((str(name), text, own, int(speaker)))
    return sorted(found, key=lambda row: row[0])
