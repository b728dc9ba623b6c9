"""The model of a card: the completed runs of one configuration, with one seed or several."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from joyful.analysis.arms import find_arm, find_arms
from joyful.analysis.formatting import listing
from joyful.analysis.sweep import check_same_data
from joyful.results import InputError, read_run, read_runs
from joyful.results.class_scores import SCORES
from joyful.results.files import open_plain, read_bounded
from joyful.results.one_run import RunHeader

_MAXIMUM_HEADER = 2**22

#: Endings of tensors that are not trained, and the part of the model whose tensors are not.
_NOT_TRAINED, _FIXED = (".running_mean", ".running_var", ".num_batches_tracked"), "model.standardise."


@dataclass(frozen=True)
class Run:
    """A completed run.

    Attributes:
        name: Its folder below the given one, "." for that folder itself.
        folder: Its folder.
        info: Content of its run.json.
        seed: Its seed.
        best: "epoch" of its best dev evaluation and the number of "evaluations".
        scores: Split -> score -> value at the best dev evaluation, a fraction.
    """

    name: str
    folder: Path
    info: Mapping[str, Any]
    seed: int | None
    best: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]

    @property
    def multilabel(self) -> bool:
        """Whether an utterance can have several labels. Runs of earlier versions show it by what they did not record."""
        data = self.info.get("data")
        recorded = data.get("multilabel") if isinstance(data, Mapping) else None
        return recorded if isinstance(recorded, bool) else "per_class" in self.info and "confusion" not in self.info


@dataclass(frozen=True)
class Model:
    """A configuration and its completed runs.

    Attributes:
        folder: The given folder.
        arm: Name of the configuration, "" if the folder holds no other.
        runs: The runs, sorted by name.
        left_out: Number of its runs that are not complete.
    """

    folder: Path
    arm: str
    runs: tuple[Run, ...]
    left_out: int

    @property
    def best(self) -> Run:
        """The run with the best dev weighted F1."""
        return max(self.runs, key=lambda run: run.scores["dev"]["f1_weighted"])

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted({run.seed for run in self.runs if run.seed is not None})


def read_model(folder: Path, arm: str | None = None) -> Model:
    """Read the runs of a card.

    Args:
        folder: Folder of a run, or of a sweep.
        arm: Name of the configuration or overrides that it matches, for a sweep with several configurations.

    Raises:
        InputError: If there is no completed run of joyful's trainer, there are several configurations and `arm` names none of
            them, or runs with the same settings of the data were trained on different data.
    """
    found = read_runs(folder, list(SCORES), absent_as_nan=True)
    alone = [header for header in found.headers if header.name == "."]  # the folder itself is a run
    headers = alone or found.headers
    if not headers:
        damage = f" that can be read ({found.damaged[0].damage})" if found.damaged else " (run.json)"
        raise InputError(f"{folder}: expected the folder of a run or of a sweep, got a folder without a run{damage}")
    complete = [header for header in headers if header.status == "completed"]
    if not complete:
        states = listing(sorted({header.status for header in headers}))
        hint = "wait for its end, or resume it with python run.py resume=FOLDER"
        raise InputError(f"{folder}: expected a completed run, got {states}; {hint}")
    arms, arm_of, _ = find_arms(complete)
    chosen = _choose(folder, [header.name for header in complete], arms, arm)
    used = [header for header, index in zip(complete, arm_of, strict=True) if index == chosen]
    if any(header.role == "comparison" for header in used):
        used = [header for header in used if header.role == "comparison"]  # without calibration runs
    try:
        check_same_data(used)
    except InputError as error:
        raise InputError(f"{folder}: {error}, or give the folder of one run") from None
    frames = dict(list(found.frame.groupby("run", observed=True)))
    runs = tuple(_run(folder, header, frames.get(header.name)) for header in used)
    left_out = len(headers) - len(complete) if len(arms) == 1 else 0
    return Model(folder, arms[chosen].name if len(arms) > 1 else "", runs, left_out)


def _choose(folder: Path, names: Sequence[str], arms: Sequence[Any], text: str | None) -> int:
    if text is not None:
        try:
            return find_arm(arms, text)
        except InputError as error:
            raise InputError(f"--arm: {re.sub(r'^(--compare|baseline): ', '', str(error))}") from None
    if len(arms) == 1:
        return 0
    known = listing([textwrap.shorten(arm.name, 60, placeholder=" …") for arm in arms], 3)
    raise InputError(
        f"{folder}: expected runs of one configuration, got {len(arms)} ({known}); choose one with --arm, or give the folder of "
        f"one run, such as {folder / names[0]}"
    )


def _run(folder: Path, header: RunHeader, frame: pd.DataFrame | None) -> Run:
    place = folder / header.name
    info = read_run(place)
    config = info.get("config")
    if not isinstance(config, dict) or not {"modalities", "fusion", "model"} <= config.keys():
        raise InputError(
            f"{place}: expected a run of joyful train, got one of another program; its own tools describe it"
        )
    dev = None if frame is None else frame[frame["split"] == "dev"]
    if frame is None or dev is None or dev["f1_weighted"].isna().all():
        raise InputError(f"{place}: expected a history with dev f1_weighted, got one without; give another run")
    best = dev.iloc[int(dev["f1_weighted"].to_numpy(na_value=-math.inf).argmax())]  # of equals, the first
    scores = {}
    for split in ("dev", "test"):
        row = frame[(frame["split"] == split) & (frame["step"] == best["step"])]
        scores[split] = {name: float(row[name].iloc[0]) if len(row) else math.nan for name in SCORES}
    at = {"epoch": float(best["epoch"]), "evaluations": float(len(dev))}
    return Run(header.name, place, info, header.seed, at, scores)


def n_parameters(folder: Path) -> int | None:
    """Return the number of trained parameters in the checkpoint "best" of a run; None if it cannot be read.

    The names and shapes are read from the header of the tensor file, not the tensors.

    Args:
        folder: Folder of the run.
    """
    place = folder / "checkpoint"
    try:
        tensors = json.loads(read_bounded(place / "best.json", _MAXIMUM_HEADER))["tensors"]
        if Path(tensors).name != tensors:
            return None
        with open_plain(place / tensors) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MAXIMUM_HEADER)))
        trained = [
            entry["shape"]
            for name, entry in header.items()
            if name.startswith("model.") and not name.startswith(_FIXED) and not name.endswith(_NOT_TRAINED)
        ]
        return int(sum(math.prod(shape) for shape in trained))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
