"""The predictions as a table, in memory or as a file.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyful.data.dialogue_table import DialogueTable
from joyful.records import InputError
from joyful.results.arms import printable
from joyful.results.files import temporary_beside
from joyful.results.predictions import class_names
from joyful.results.schema import HISTORY, PREDICTIONS, PROBABILITY, RUN, TIMING

if TYPE_CHECKING:
    import pandas as pd

#: Text between several labels in a cell of a CSV file.
SEPARATOR = "|"

#: Endings of the files that can be written.
ENDINGS = (".csv", ".jsonl", ".parquet")

#: Names of the files in the folder of a run that have such an ending.
_OF_RUNS = (HISTORY, PREDICTIONS, TIMING)


def chosen_classes(probabilities_NC: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return which classes are predicted, (N, C) bool.

    Args:
        probabilities_NC: The probabilities.
        multilabel: Whether every class of a probability above 0.5 is predicted. Otherwise the most probable one is.
    """
    if multilabel:
        return np.asarray(probabilities_NC > 0.5)
    classes = np.arange(probabilities_NC.shape[1])
    return np.asarray(probabilities_NC.argmax(axis=1)[:, None] == classes)


def to_frame(
    table: DialogueTable, probabilities_NC: np.ndarray, labels: Sequence[str], multilabel: bool
) -> pd.DataFrame:
    """Return the predictions as a frame, in the order of the table.

    Args:
        table: The table.
        probabilities_NC: The probabilities, in the order of the table.
        labels: C class names.
        multilabel: Whether an utterance can have several labels.

    Returns:
        The columns dialogue, place, speaker, text, label if the table has labels, predicted, and a probability_NAME for each
        class. For multi-label data, label and predicted are lists of names.
    """
    import pandas as pd

    names = class_names(labels)
    columns: dict[str, Any] = {
        "dialogue": [printable(name) for name in table.dialogue],
        "place": _whole(table.place),
        "speaker": [printable(name) for name in table.speaker],
        "text": [None if text is None else printable(text) for text in table.text],
    }
    if any(own is not None for own in table.labels):
        columns["label"] = [_names(own, multilabel) for own in table.labels]
    chosen = chosen_classes(probabilities_NC, multilabel)
    if multilabel:
        columns["predicted"] = [[name for name, on in zip(names, row, strict=True) if on] for row in chosen.tolist()]
    else:
        columns["predicted"] = [names[index] for index in chosen.argmax(axis=1).tolist()]
    values = probabilities_NC.astype(np.float32)
    return pd.DataFrame(columns | {f"{PROBABILITY}{name}": values[:, c] for c, name in enumerate(names)})


def _whole(places: Sequence[float]) -> list[Any]:
    """Return numbers, as integers if all are whole."""
    return [int(place) for place in places] if all(float(place).is_integer() for place in places) else list(places)


def _names(own: tuple[str, ...] | None, multilabel: bool) -> Any:
    if own is None:
        return None
    names = [printable(name) for name in own]
    return names if multilabel or len(names) != 1 else names[0]


def check_output(out: Path, source: Path) -> None:
    """Check the name of the file of predictions, before anything is read.

    Raises:
        InputError: If its ending is unknown, it is the file that is read or one that a run has written, or its folder does
            not exist.
    """
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"--out {out}: expected a file {', '.join(ENDINGS)}, got {out.suffix or 'no ending'!r}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: expected an existing folder, found no {out.parent}; create it")
    if out.exists() and (not out.is_file() or (source.exists() and out.samefile(source))):
        raise InputError(f"--out {out}: expected a new file, got {'a folder' if out.is_dir() else 'the table itself'}")
    if out.name.lower() in _OF_RUNS and (out.parent / RUN).exists():
        raise InputError(f"--out {out}: expected a new file, got one of the run in {out.parent}; choose another name")


def write(frame: pd.DataFrame, out: Path) -> None:
    """Write predictions to a file, atomically. The ending of its name is its format.

    Raises:
        InputError: If the file cannot be written.
    """
    temporary = temporary_beside(out)
    try:
        temporary.write_bytes(to_bytes(frame, out.suffix.lower()))
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"--out {out} cannot be written ({error.strerror}); choose another file") from None


def to_bytes(frame: pd.DataFrame, ending: str) -> bytes:
    """Return the content of a file of predictions.

    Args:
        frame: The frame of `to_frame`.
        ending: One of ENDINGS. A CSV file has lists as text, separated by "|".
    """
    if ending == ".parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if ending == ".jsonl":
        text: str = frame.to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
        return text.encode()
    flat = frame.copy()
    for name in ("label", "predicted"):
        if name in flat:
            flat[name] = [SEPARATOR.join(cell) if isinstance(cell, list) else cell for cell in flat[name]]
    csv: str = flat.to_csv(index=False, lineterminator="\n")
    return csv.encode()
