"""Comparison of a recorded run with the same run trained again: by digest, else by its curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joyful.results import HISTORY, PREDICTIONS, RunFolder

EQUAL, CLOSE, DIFFERENT = "equal", "close", "different"

#: Largest difference of two curves that counts as close: 3 points of a score, or 3 % of the largest value of another column.
#: Four runs of the study, recorded with other code on an unknown machine and trained again, differ by up to 0.020, and one with
#: another seed by 0.126.
TOLERANCE = 0.03

#: Beginnings of the names of columns that the tolerance does not limit: gradients of one batch, which differ more between two
#: processors than any score.
_LEFT_OUT = ("grad_norm_", "encoder_gradient_")

#: Beginnings of the names of columns that are fractions from 0 to 1.
_FRACTIONS = ("accuracy", "f1")

_KEYS = ("step", "epoch", "split")

Rows = Mapping[tuple[int, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """The result of a comparison.

    Attributes:
        kind: EQUAL, CLOSE (not equal to the bit, and within the tolerance) or DIFFERENT.
        text: The result in words.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class _Largest:
    """The largest difference of two curves.

    Attributes:
        relative: Difference as a share of the size of its curve, which the tolerance limits.
        absolute: The same difference in the unit of the column.
        place: Its split, column and step.
    """

    relative: float = 0.0
    absolute: float = 0.0
    place: str = ""


def compare(recorded: Path, trained: Path, tolerance: float = TOLERANCE) -> Outcome:
    """Compare the history of a run with the history of the same run trained again.

    Histories with the same digest are equal, if their predictions are, too. A run that a sweep ended at the target is
    compared up to its last step. Equal too are the histories of an archive, which keeps some columns, rounded to float32:
    every recorded value is then the float32 of the value trained again. Otherwise the runs are different, unless the two
    were trained on other devices, processors, threads, versions or code. Then the curves may differ by the tolerance,
    except those of gradients, which is a weaker check.

    Args:
        recorded: Folder of the recorded run.
        trained: Folder of the run that was trained again.
        tolerance: Largest difference of scores, which are fractions. For other columns it is multiplied by the largest
            absolute value of the recorded curve.

    Raises:
        InputError: If a run is damaged.
    """
    runs = [RunFolder.open(folder, reading=True) for folder in (recorded, trained)]
    if (recorded / HISTORY).read_bytes() == (trained / HISTORY).read_bytes():
        predictions = [folder / PREDICTIONS for folder in (recorded, trained)]
        if all(path.exists() for path in predictions) and predictions[0].read_bytes() != predictions[1].read_bytes():
            return Outcome(DIFFERENT, f"the history is equal, and {PREDICTIONS} is different")
        return Outcome(EQUAL, "equal")
    old, new = ({(row["step"], row["split"]): row for row in run.history_rows()} for run in runs)
    if runs[0].info["status"] == "pruned":  # the sweep ended it, and the run trained again goes on
        last = max((step for step, _ in old), default=0)
        new = {key: row for key, row in new.items() if key[0] <= last}
        if old == new:
            return Outcome(EQUAL, f"equal up to step {last}, at which the sweep ended it")
    if _equal_as_float32(old, new):
        kept = sum(name not in _KEYS for row in old.values() for name in row)
        return Outcome(EQUAL, f"equal in all {kept} values that were kept, to the seven digits of an archive")
    largest = _largest_difference(old, new)
    by = (
        f"largest difference {largest.absolute:.3g} in {largest.place}"
        if largest.relative
        else "no recorded curve differs"
    )
    reasons = surroundings(runs[0].info, runs[1].info)
    if reasons and largest.relative <= tolerance:
        text = f"not equal to the bit ({'; '.join(reasons)}), curves within {tolerance:g} ({by}): a weaker check"
        return Outcome(CLOSE, text)
    scores = [_score(run.info, rows) for run, rows in zip(runs, (old, new), strict=True)]
    beyond = f"; beyond the tolerance {tolerance:g} ({'; '.join(reasons)})" if reasons else ""
    return Outcome(DIFFERENT, f"different: {scores[0]} recorded, {scores[1]} trained again; {by}{beyond}")


def surroundings(recorded: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """Return in what the surroundings of two trainings differ that can change the last bits.

    Args:
        recorded: Content of run.json of the recorded run.
        trained: The same of the run that was trained again.
    """
    reasons = []
    known, here = (info.get("versions") or {} for info in (recorded, trained))
    for name in known:
        if known[name] != here.get(name):
            reasons.append(f"recorded with {name} {known[name]}, here {here.get(name)}")
    for name in ("device", "threads"):
        if recorded.get(name) != trained.get(name):
            reasons.append(f"{name} {recorded.get(name)}, here {trained.get(name)}")
    codes = [_code(info.get("git") or {}) for info in (recorded, trained)]
    if codes[0] != codes[1]:
        reasons.append(f"code {codes[0]}, here {codes[1]}")
    if recorded.get("host") != trained.get("host"):  # its processor may be of another kind
        reasons.append("another machine" if recorded.get("host") else "its machine is not recorded")
    return reasons


def _code(git: Mapping[str, Any]) -> str:
    return f"{str(git.get('commit'))[:10]}{' with changes' if git.get('dirty') else ''}"


def _score(info: Mapping[str, Any], rows: Rows) -> str:
    scores = [row["f1_weighted"] for (_, split), row in rows.items() if split == "dev" and "f1_weighted" in row]
    if scores:
        return f"best dev f1_weighted {max(scores):.4f}"
    return f"{info.get('objective_name') or 'objective'} {info.get('objective')}"


def _equal_as_float32(old: Rows, new: Rows) -> bool:
    """Return whether every recorded value is the float32 of the value trained again, and no evaluation is missing."""
    return old.keys() == new.keys() and all(
        _same(value, row.get(name) if name in _KEYS else _float32(row.get(name)))
        for key, row in new.items()
        for name, value in old[key].items()
    )


def _float32(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


def _same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b and b is not None))


def _largest_difference(old: Rows, new: Rows) -> _Largest:
    """Return the largest difference of the curves. It is infinite if an evaluation or a value is missing in one of them."""
    if missing := sorted(old.keys() ^ new.keys()):
        step, split = missing[0]
        return _Largest(math.inf, math.inf, f"the number of evaluations, from {split} at step {step} on")
    largest = _Largest()
    for (name, split), values in _curves(old).items():
        size = 1.0 if name.startswith(_FRACTIONS) else _size(values.values())
        for step, value in values.items():
            again = float(new[step, split].get(name, math.nan))
            if _same(value, again):
                continue
            absolute = abs(value - again) if math.isfinite(value) and math.isfinite(again) else math.inf
            relative = absolute / size if size else math.inf
            if relative > largest.relative:
                largest = _Largest(relative, absolute, f"{split} {name} at step {step}")
    return largest


def _curves(rows: Rows) -> dict[tuple[str, str], dict[int, float]]:
    """Return the curves that the tolerance limits: column and split -> step -> value."""
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for (step, split), row in rows.items():
        for name, value in row.items():
            if name not in _KEYS and not name.startswith(_LEFT_OUT):
                curves.setdefault((name, split), {})[step] = float(value)
    return curves


def _size(values: Iterable[float]) -> float:
    return max((abs(value) for value in values if math.isfinite(value)), default=0.0)
