"""Reading a sweep for a comparison: its runs, arms and factors, and the runs that are left out with their reasons."""

from __future__ import annotations

import functools
import os
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd

from joyful.analysis.arms import Arm, check_comparable, choose_baseline, find_arms, is_number, parse_override
from joyful.analysis.formatting import listing
from joyful.results import InputError, RunHeader, read_runs
from joyful.results.arms import FOLD, data_settings

__all__ = ["REPORT_COLUMNS", "Arm", "Sweep", "read_sweep"]

P = ParamSpec("P")
T = TypeVar("T")

#: Columns of the histories that a report needs.
REPORT_COLUMNS: tuple[str, ...] = (
    "f1_weighted", "f1_macro", "accuracy", "nll", "recon_mse", "recon_mae", "loss_total",
    "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg",
    "share_classification", "share_contrastive", "share_encoder", "share_gate_reg",
    "encoder_gradient_ratio", "encoder_gradient_cosine",
)  # fmt: skip

#: Roles of runs that are compared or set the target. Runs of a search are not used.
ROLES = ("comparison", "calibration")

#: Columns of `Sweep.runs` -> their types.
_RUNS: dict[str, Any] = {
    "run": object, "arm": object, "seed": "Int64", "role": object, "fold": float, "status": object, "reason": object,
    "epochs": float, "budget": float, "used": bool,
}  # fmt: skip

#: Largest distance from a whole number at which an epoch counts as whole.
EPOCH_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)  # Compared by identity, so that results can be cached per sweep.
class Sweep:
    """All runs below a folder.

    Attributes:
        path: The folder.
        frame: One row per run, evaluation and split, for the runs that are used: `run`, `arm`, `seed`, `role`, `fold`
            (NaN without folds), `step`, `epoch`, `split` and the columns of the histories (NaN if not measured). Scores
            are fractions from 0 to 1, as in the files.
        runs: One row per run, used or not: `run`, `arm` (None if the run could not be read or belongs to a search),
            `seed`, `role`, `fold`, `status`, `reason` (why the run ended or is left out, or None), `epochs` (epochs
            reached), `budget` (epochs configured) and `used`.
        arms: The arms, the baseline first and the others in the order of their runs.
        factors: Dotted names of the settings that differ between the arms, or a group such as "loss" (see
            `joyful.analysis.arms.find_factors`).
        left_out: The rows of `runs` that are not used. `status` is "running", "interrupted", "pruned", "failed",
            "damaged", "unknown" or "completed". A completed run is left out because of early stopping, a missing fold
            or a repeated seed, for example.
        study: Path of the Optuna study (study.db), or None.
        notes: Sentences for the report, such as the choice of the baseline or the number of failed runs of an arm.
    """

    path: Path
    frame: pd.DataFrame
    runs: pd.DataFrame
    arms: tuple[Arm, ...]
    factors: tuple[str, ...]
    left_out: pd.DataFrame
    study: Path | None
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> Arm | None:
        """The arm that the others are compared with, or None if the sweep has no arms."""
        return self.arms[0] if self.arms else None

    @property
    def others(self) -> tuple[Arm, ...]:
        """All arms except the baseline."""
        return self.arms[1:]

    @property
    def budget(self) -> float:
        """Number of epochs of the used runs, or NaN if no run is used."""
        return float(self.runs.loc[self.runs["used"], "budget"].max())

    def seeds(self, arm: Arm, role: str = "comparison") -> list[int]:
        """Return the sorted seeds of the used runs of an arm."""
        selected = self.runs["used"] & (self.runs["arm"] == arm.name) & (self.runs["role"] == role)
        return sorted(int(seed) for seed in self.runs.loc[selected, "seed"].unique())

    def pairs(self, arm: Arm) -> list[int]:
        """Return the sorted seeds for which the baseline and `arm` have complete comparison runs of every fold."""
        if self.baseline is None:
            return []
        return sorted(set(self.seeds(self.baseline)) & set(self.seeds(arm)))


def read_sweep(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, baseline: Sequence[str] | None = None
) -> Sweep:
    """Read all runs below a folder and group them into arms.

    Args:
        path: Folder with runs in it or below it.
        columns: Columns of the histories to read, by default REPORT_COLUMNS. A column that a history lacks is NaN.
        baseline: Overrides that the baseline must match, such as ["loss=mse", "weights=baseline"]. They are matched
            against group choices and settings. The arms may then differ in these groups and settings only. By default
            the baseline is the arm of the calibration runs, else the arm with MSE and encoder weight 0.05, else the
            first arm.

    Returns:
        The sweep.

    Raises:
        InputError: If `path` is not a folder, if `baseline` matches no arm or several arms, or if the arms differ in a
            setting in which compared arms must agree (such as data, epochs or evaluations per epoch), or if runs with
            the same settings of the data were trained on different data.
    """
    folder = Path(path)
    loaded = read_runs(folder, REPORT_COLUMNS if columns is None else columns, absent_as_nan=True)
    headers = loaded.headers
    roles = [header.role or "comparison" for header in headers]
    selected = [index for index, role in enumerate(roles) if role in ROLES]
    differences = loaded.differences if len(selected) == len(headers) else None
    found, arm_of_selected, factors = find_arms([headers[index] for index in selected], differences)
    arm_of = dict(zip(selected, arm_of_selected, strict=True))
    runs = _runs(headers, roles, {index: found[number].name for index, number in arm_of.items()})
    runs["epochs"] = _reached(loaded.frame, len(headers))
    runs["budget"] = runs["budget"].fillna(runs["epochs"].max())
    _leave_out(runs, headers)
    notes: list[str] = []
    arms = found
    if found:
        counts = Counter((roles[index], arm_of[index]) for index in selected)
        comparisons, calibrations = ([counts[role, number] for number in range(len(found))] for role in ROLES)
        first, reason = choose_baseline(found, comparisons, calibrations, baseline)
        arms = [replace(found[first], is_baseline=True), *found[:first], *found[first + 1 :]]
        used = set(runs.loc[runs["used"], "arm"])
        _check_same_data([header for header, kept in zip(headers, runs["used"], strict=True) if kept])
        named = [parse_override(text)[0] for text in baseline or ()]
        check_comparable([arm for arm in found if arm.name in used], found[first], named)
        if len(arms) > 1:
            notes.append(f"The baseline is '{arms[0].name}': {reason}.")
    frame = _used_frame(loaded.frame, runs, [arm.name for arm in arms])
    damaged = [{"run": h.name, "status": "damaged", "reason": h.damage, "used": False} for h in loaded.damaged]
    if damaged:
        runs = pd.concat([runs, pd.DataFrame(damaged).reindex(columns=runs.columns)], ignore_index=True)
        runs["used"] = runs["used"].astype(bool)
    runs = runs.astype({"seed": "Int64", "arm": object, "role": object, "reason": object})
    runs["arm"] = runs["arm"].where(runs["arm"].notna(), None)
    notes += _notes(runs, found)
    if len(arms) > 1:
        notes += _unmatched(runs, arms[0], arms[1:])
    left_out = runs[~runs["used"]].drop(columns="used").reset_index(drop=True)
    study = folder / "study.db" if (folder / "study.db").is_file() else None
    return Sweep(folder, frame, runs, tuple(arms), factors, left_out, study, tuple(notes))


def _runs(headers: Sequence[RunHeader], roles: Sequence[str], arm_of: dict[int, str]) -> pd.DataFrame:
    rows = [
        (
            h.name,
            arm_of.get(i),
            h.seed,
            roles[i],
            _number(h.settings.get(FOLD)),
            h.status,
            h.reason,
            0.0,
            h.epochs,
            True,
        )
        for i, h in enumerate(headers)
    ]
    return pd.DataFrame(rows, columns=list(_RUNS), dtype=object).astype(_RUNS)


def _reached(frame: pd.DataFrame, runs: int) -> np.ndarray:
    """Return the last epoch of each run in the frame, or 0 for a run without rows."""
    reached = np.zeros(runs)
    np.maximum.at(reached, frame["run"].cat.codes.to_numpy(), frame["epoch"].to_numpy())
    return reached


def _leave_out(runs: pd.DataFrame, headers: Sequence[RunHeader]) -> None:
    """Set `used` and `reason` of each run that cannot be compared."""
    seen: dict[Any, str] = {}
    for index, (header, run) in enumerate(zip(headers, runs.to_dict("records"), strict=True)):
        reason = _reason_left_out(header, run)
        if reason is None:
            key = (run["arm"], run["role"], header.seed, _number(header.settings.get(FOLD), missing=-1.0))
            first = seen.setdefault(key, header.name)
            if first != header.name:
                reason = f"a second run of this arm and seed, in addition to {first}"
        if reason is not None:
            runs.loc[index, ["used", "reason"]] = False, reason
    used = runs[runs["used"] & runs["fold"].notna()]
    folds = set(used["fold"])
    for _, group in used.groupby(["arm", "role", "seed"], dropna=False):
        missing = sorted(folds - set(group["fold"]))
        if missing:
            reason = f"fold {', '.join(f'{fold:g}' for fold in missing)} of this arm and seed is missing"
            runs.loc[group.index, "used"] = False
            runs.loc[group.index, "reason"] = reason


def _reason_left_out(header: RunHeader, run: Mapping[Hashable, Any]) -> str | None:
    """Return why a run cannot be compared, or None. This does not consider other runs."""
    progress = f"{run['epochs']:g} of {run['budget']:g} epochs" if run["budget"] > 0 else f"{run['epochs']:g} epochs"
    if header.status not in ("completed", "unknown"):
        return f"{header.reason or header.status} ({progress})"
    if run["role"] not in ROLES:
        return f"role={run['role']}: the run is not part of a comparison"
    if header.rows == 0:
        return "it has no evaluation"
    if header.seed is None:
        return "it has no seed, so it cannot be paired"
    stopping = header.settings.get("training.early_stopping")
    if stopping:
        return f"training.early_stopping={stopping}: compared runs must not stop early"
    if run["epochs"] < run["budget"] - EPOCH_TOLERANCE:
        return f"it ended after {progress}"
    return None


def _check_same_data(headers: Sequence[RunHeader]) -> None:
    """Raise InputError if runs with the same settings of the data have different data."""
    first: dict[tuple[tuple[str, Any], ...], RunHeader] = {}
    for header in headers:
        if header.data_digest is None:
            continue
        other = first.setdefault(tuple(data_settings(header.settings).items()), header)
        if other.data_digest != header.data_digest:
            raise InputError(
                f"runs {other.name} and {header.name} have the same settings of the data, but different data (digests "
                f"{other.data_digest} and {header.data_digest}); compare runs on the same data"
            )


def _used_frame(frame: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the used runs, with the columns of `Sweep.frame`."""
    codes = frame["run"].cat.codes.to_numpy()
    kept = runs["used"].to_numpy(dtype=bool)[codes] if len(frame) else np.zeros(0, dtype=bool)
    first = [name for name in ("run", "step", "epoch", "split") if name in frame]
    of_runs = {"status", "seed", "role", "fold", "arm"}
    start = list(frame.columns).index("step")
    others = [name for name in frame.columns[start:] if name not in first and name not in of_runs]
    if not kept.all():
        frame, codes = frame.loc[kept], codes[kept]
    arm = pd.Categorical(runs["arm"], categories=list(names))
    role = pd.Categorical(runs["role"].where(runs["role"].isin(ROLES)), categories=list(ROLES))
    columns: dict[str, Any] = {
        "run": frame["run"].array,
        "arm": pd.Categorical.from_codes(arm.codes[codes], dtype=arm.dtype),
        "seed": runs["seed"].fillna(-1).to_numpy(dtype=np.int64)[codes],
        "role": pd.Categorical.from_codes(role.codes[codes], dtype=role.dtype),
        "fold": runs["fold"].to_numpy(dtype=float)[codes],
    }
    columns |= {name: frame[name].array for name in (*first[1:], *others)}
    return pd.DataFrame(columns, copy=False)


def _notes(runs: pd.DataFrame, arms: Sequence[Arm]) -> list[str]:
    notes = []
    compared = runs["role"] == "comparison"
    for arm in arms:
        arm_runs = runs[compared & (runs["arm"] == arm.name)]
        failed = (arm_runs["status"] == "failed").sum()
        if failed:
            text = f"{failed} of {len(arm_runs)} runs of '{arm.name}' failed and are left out"
            notes.append(f"{text}; take this into account when comparing the arms.")
    searched = (~runs["role"].isin(ROLES) & runs["role"].notna()).sum()
    if searched:
        reason = "because comparing settings that a search chose is biased"
        notes.append(f"{searched} runs of a search are left out, {reason}.")
    return notes


def _unmatched(runs: pd.DataFrame, baseline: Arm, others: Sequence[Arm]) -> list[str]:
    """Return a sentence for each arm whose seeds and those of the baseline are not the same."""
    compared = runs[runs["used"] & (runs["role"] == "comparison")]
    seeds = {name: set(group["seed"].dropna().astype(int)) for name, group in compared.groupby("arm")}
    notes, base = [], seeds.get(baseline.name, set())
    for arm in others:
        own = seeds.get(arm.name, set())
        alone = [(arm.name, sorted(own - base)), (baseline.name, sorted(base - own))]
        listed = [f"seed{'s' * (len(s) > 1)} {listing([str(x) for x in s], 8)} of '{name}'" for name, s in alone if s]
        if own and listed:
            notes.append(f"Without a partner, and so in no pair of '{arm.name}': {' and '.join(listed)}.")
    return notes


def _number(value: Any, missing: float = np.nan) -> float:
    return float(value) if is_number(value) else missing


def cached(function: Callable[Concatenate[Sweep, P], T]) -> Callable[Concatenate[Sweep, P], T]:
    """Cache the results of a function of a sweep, per sweep and arguments. Callers must not modify a result."""
    cache: weakref.WeakKeyDictionary[Sweep, dict[Any, T]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def wrapper(sweep: Sweep, *args: P.args, **kwargs: P.kwargs) -> T:
        results = cache.setdefault(sweep, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = function(sweep, *args, **kwargs)
        return results[key]

    return cast(Callable[Concatenate[Sweep, P], T], wrapper)


def require(sweep: Sweep, column: str) -> None:
    """Raise InputError if the sweep was read without this column of the histories."""
    if column not in sweep.frame.columns:
        raise InputError(f"the sweep was read without the column {column!r}; name it in read_sweep(columns=...)")
