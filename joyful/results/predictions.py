"""predictions.parquet: what the best model of a run predicts for each utterance of the dev and the test split.

The columns are split, dialogue, place, label, predicted, and a probability for each class (see `read_predictions`).
run.json has the SHA-256 of the file. The file is written when a run ends, so a run that was interrupted has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyful.records import InputError
from joyful.results import tables
from joyful.results.arms import printable
from joyful.results.files import read_bounded
from joyful.results.run_folder import read_run
from joyful.results.schema import PREDICTIONS, PROBABILITY, RUN

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class SplitPredictions:
    """The predictions for one split. Utterances without padding, in the order of the dialogues.

    Shape letters: B dialogues, N utterances, C classes.

    Attributes:
        dialogues: B names of dialogues.
        lengths: (B,) int64, the number of utterances of each dialogue, sum N.
        true: (N, C) bool, the labels. An utterance without a label has none.
        labelled: (N,) bool, whether an utterance has a label. A label of multi-label data may be empty.
        predicted: (N, C) bool, the predictions; exactly one in a row unless the data are multi-label.
        probabilities: (N, C) float32.
    """

    dialogues: Sequence[str]
    lengths: np.ndarray
    true: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray


def class_names(labels: Sequence[object]) -> tuple[str, ...]:
    """Return the names of classes as files have them: text that UTF-8 can encode, each name once.

    Args:
        labels: The class names of the dataset (`data.labels` in run.json).

    Example:
        >>> class_names(["joy", "fear", "joy"])
        ('joy', 'fear', 'joy (2)')
    """
    names: dict[str, None] = {}
    for label in labels:
        name, number = printable(str(label)), 1
        while name in names:
            number += 1
            name = f"{printable(str(label))} ({number})"
        names[name] = None
    return tuple(names)


def predictions_bytes(splits: Mapping[str, SplitPredictions], labels: Sequence[str], multilabel: bool) -> bytes:
    """Return predictions.parquet. The bytes are a pure function of the arguments.

    Args:
        splits: "dev" and "test" -> predictions.
        labels: C class names.
        multilabel: Whether label and predicted are lists of names.
    """
    import pyarrow as pa

    parts = [_table(split, part, class_names(labels), multilabel) for split, part in splits.items()]
    element = ".list.element" if multilabel else ""
    texts = ["split", "dialogue", f"label{element}", f"predicted{element}"]
    return tables.parquet_bytes(pa.concat_tables(parts).combine_chunks(), dictionary=texts)


def _table(split: str, part: SplitPredictions, names: Sequence[str], multilabel: bool) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    n, starts = len(part.true), np.cumsum(part.lengths) - part.lengths
    place = np.arange(n) - np.repeat(starts, part.lengths)
    dialogues = np.repeat(np.array([printable(name) for name in part.dialogues], dtype=object), part.lengths)
    as_array = _lists if multilabel else _texts
    columns = {
        "split": pa.array([split] * n, pa.string()),
        "dialogue": pa.array(dialogues, pa.string()),
        "place": pa.array(place, pa.int32()),
        "label": as_array(part.true, part.labelled, names),
        "predicted": as_array(part.predicted, np.ones(n, dtype=bool), names),
    }
    columns |= {
        f"{PROBABILITY}{name}": pa.array(np.ascontiguousarray(part.probabilities[:, c]), pa.float32())
        for c, name in enumerate(names)
    }
    may_be_null = ("label",)
    fields = [pa.field(name, array.type, nullable=name in may_be_null) for name, array in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _texts(chosen: np.ndarray, known: np.ndarray, names: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    places = chosen.argmax(axis=1).tolist()
    return pa.array([names[c] if k else None for c, k in zip(places, known.tolist(), strict=True)], pa.string())


def _lists(chosen: np.ndarray, known: np.ndarray, names: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    rows = [
        [name for name, is_chosen in zip(names, row, strict=True) if is_chosen] if k else None
        for row, k in zip(chosen.tolist(), known.tolist(), strict=True)
    ]
    return pa.array(rows, pa.list_(pa.string()))


def read_predictions(folder: str | Path) -> pd.DataFrame | None:
    """Return the predictions of a run at its best evaluation, a row for each utterance of the dev and test splits.

    Args:
        folder: The folder of the run.

    Returns:
        A frame with these columns, or None if the run has no predictions: it has not ended, or an earlier version wrote it.

        - `split`: dev or test.
        - `dialogue`: Name of the dialogue.
        - `place`: Position of the utterance in its dialogue, from 0.
        - `label`: Name of the class; missing without a label. For multi-label data, the list of names.
        - `predicted`: Name of the predicted class, or the list of predicted names.
        - `probability_NAME`: Probability of a class from 0 to 1, for each class in their order.

        The probabilities of an utterance sum to 1 unless the data are multi-label. NAME is the class name; if the same
        name occurs again, a number follows it, as in `joy (2)`. Text is categorical.

    Raises:
        InputError: If run.json or the file is damaged, or the file is not the one that the run wrote.
        FileNotFoundError: If there is no run.json.

    Example:
        >>> predictions = read_predictions("outputs/2026-11-29/20-00-00")  # doctest: +SKIP
        >>> test = predictions[predictions["split"] == "test"]  # doctest: +SKIP
        >>> pd.crosstab(test["label"], test["predicted"])  # doctest: +SKIP
    """
    digest = read_run(folder).get("predictions_sha256")
    if digest is None:
        return None
    path = Path(folder) / PREDICTIONS
    try:
        data = read_bounded(path, tables.MAXIMUM_BYTES)
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(f"its SHA-256 is not in {RUN}; the file was changed after it was written")
        return _frame(tables.decode_predictions(data))
    except FileNotFoundError:
        raise InputError(f"{path}: it is missing; restore it from a copy") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = _names_of_rows(column) if pa.types.is_list(column.type) else column.to_pandas()
    return pd.DataFrame(columns)


def _names_of_rows(column: pa.ChunkedArray) -> list[list[str] | None]:
    """Return a column of lists. Equal names are one object, whatever a hostile file repeats."""
    rows: list[list[str] | None] = []
    for chunk in column.chunks:
        names = chunk.values.dictionary.to_pylist()
        indices, offsets = chunk.values.indices.to_pylist(), chunk.offsets.to_pylist()
        known = chunk.is_valid().to_pylist()
        rows += [
            [names[i] for i in indices[start:end]] if k else None
            for k, start, end in zip(known, offsets[:-1], offsets[1:], strict=True)
        ]
    return rows
