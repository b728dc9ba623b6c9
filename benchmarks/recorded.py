"""Recorded configurations: settings and learning curve of each complete trial of a sweep or of an archive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from joyful.results import InputError
from joyful.results.arms import flatten
from joyful.sweeper.status import open_sweep

#: Best dev weighted F1 so far of one configuration, after each epoch.
Curve = tuple[float, ...]


@dataclass(frozen=True)
class Recorded:
    """A configuration that was trained to its end.

    Attributes:
        settings: The settings of the run by dotted name; those of the search only, if it was read from a sweep.
        curve: Best dev weighted F1 so far, after each epoch.
    """

    settings: dict[str, Any]
    curve: Curve


def read_recorded(place: Path) -> list[Recorded]:
    """Return the complete trials of a sweep folder, or the runs of an archive of `study.archive`.

    Raises:
        InputError: If the folder holds no sweep, the file is not an archive, or the runs differ in length.
    """
    recorded = _read_archive(place) if place.suffix == ".parquet" else _read_sweep(place)
    lengths = sorted({len(one.curve) for one in recorded})
    if len(lengths) > 1:
        raise InputError(f"{place}: expected trials of the same number of epochs, got {lengths}; record them again")
    return recorded


def _read_sweep(folder: Path) -> list[Recorded]:
    with open_sweep(folder) as sweep:
        trials = sweep.open().get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [
        Recorded(dict(trial.params), tuple(value for _, value in sorted(trial.intermediate_values.items())))
        for trial in trials
    ]


def _read_archive(file: Path) -> list[Recorded]:
    """Read an archive. Its last digits are those of float32."""
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file, columns=["run", "header", "split", "step", "epoch", "f1_weighted"]).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: expected an archive of study.archive, got another file ({error})") from None
    runs: dict[str, tuple[str, list[tuple[float, float]]]] = {}
    for row in sorted((row for row in rows if row["split"] == "dev"), key=lambda row: row["step"]):
        runs.setdefault(row["run"], (row["header"], []))[1].append((row["epoch"], row["f1_weighted"]))
    recorded = []
    for name in sorted(runs, key=int):
        header, scores = runs[name]
        best = accumulate((f1 for _, f1 in scores), max)
        curve = tuple(f1 for (epoch, _), f1 in zip(scores, best, strict=True) if float(epoch).is_integer())
        recorded.append(Recorded(flatten(json.loads(header)["config"]), curve))
    return recorded
