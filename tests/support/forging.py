"""Changes to runs and reports that an audit must find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from joyful.results import HISTORY, RUN


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2))


def change_history(run: Path, column: str, split: str, amount: float, row: int = -1) -> None:
    """Add an amount to one value of a history, and write the new digest to run.json, so that the run is intact."""
    table = pq.read_table(run / HISTORY)
    rows = [i for i, name in enumerate(table["split"].to_pylist()) if name == split]
    values = table[column].to_pylist()
    values[rows[row]] += amount
    place = table.column_names.index(column)
    pq.write_table(
        table.set_column(place, table.schema.field(column), pa.array(values, table[column].type)), run / HISTORY
    )
    digest = hashlib.sha256((run / HISTORY).read_bytes()).hexdigest()
    change_json(run / RUN, lambda info: info.update(history_sha256=[digest]))


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that occurs in a file, where it occurs first."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
