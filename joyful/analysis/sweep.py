"""A sweep as read for a comparison: runs, arms, factors, and what was left out, each with its reason."""

from __future__ import annotations

import functools
import os
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from joyful.analysis.arms import Arm, check_comparable, choose_baseline, find_arms, parse_override
from joyful.results import InputError, RunHeader, read_runs
from joyful.results.arms import FOLD

__all__ = ["REPORT_COLUMNS", "Arm", "Sweep", "read_sweep"]

P = ParamSpec("P")
T = TypeVar("T")

#: The columns of histories that a report needs.
REPORT_COLUMNS: tuple[str, ...] = (
    "f1_weighted", "f1_macro", "accuracy", "nll", "recon_mse", "recon_mae", "loss_total",
    "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg",
    "share_classification", "share_contrastive", "share_encoder", "share_gate_reg",
    "encoder_gradient_ratio", "encoder_gradient_cosine",
)  # fmt: skip

#: Roles of runs that are compared or set the target; a search's runs are neither.
ROLES = ("comparison", "calibration")

#: Epochs are whole but for rounding where they lie this near a whole number.
WHOLE = 1e-6


@dataclass(frozen=True, eq=False)  # equal to itself alone, so that measures can be remembered by sweep
class Sweep:
    """All runs below a folder.

    frame: a row per run, evaluation and split of the runs that are used: `run`, `arm`, `seed`, `role`, `fold` (NaN where
        there is none), `step`, `epoch`, `split` and the history's columns (NaN: not measured). Runs that were left out
        have no rows here. Fractions from 0 to 1, as in the files.
    runs: a row per run, used or not: `run`, `arm` (None where its files could not be read, or it is of a search),
        `seed`, `role`, `fold`, `status`, `reason` (why it ended so, or why it is left out; None), `epochs` (reached),
        `budget` (asked for), `used`.
    arms: the baseline first, then the others in the order of their runs.
    factors: the settings that differ between the arms, dotted names; a group choice where it says it all ("loss").
    left_out: the rows of `runs` that are not used, each with its reason; `status` is running, interrupted, pruned,
        failed, damaged, or completed (for reasons such as early stopping, a missing fold, a second run of one seed).
    study: the sweep's Optuna study (study.db), None where there is none.
    notes: sentences that a reader of the page must know (how the baseline was found, failed runs of an arm, ...).
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
        """The arm that the others are compared with; None in a sweep without any run."""
        return self.arms[0] if self.arms else None

    @property
    def others(self) -> tuple[Arm, ...]:
        """Every arm but the baseline."""
        return self.arms[1:]

    @property
    def budget(self) -> float:
        """Epochs that the compared runs were given; NaN in a sweep without a run that is used."""
        return float(self.runs.loc[self.runs["used"], "budget"].max())

    def seeds(self, arm: Arm, role: str = "comparison") -> list[int]:
        """Seeds of the runs of an arm that are used."""
        chosen = self.runs["used"] & (self.runs["arm"] == arm.name) & (self.runs["role"] == role)
        return sorted(int(seed) for seed in self.runs.loc[chosen, "seed"].unique())

    def pairs(self, arm: Arm) -> list[int]:
        """Seeds that both the baseline and `arm` have a complete comparison run of (with folds: of every fold)."""
        if self.baseline is None:
            return []
        return sorted(set(self.seeds(self.baseline)) & set(self.seeds(arm)))


def read_sweep(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, baseline: Sequence[str] | None = None
) -> Sweep:
    """Read all runs below `path` and find the arms.

    columns: those of the histories to read; None: REPORT_COLUMNS. Absent ones are NaN.
    baseline: overrides as on the command line (["loss=mse", "weights=baseline"]), matched against group choices and
        settings; then these are the factors named, and arms that differ from the baseline in anything else are refused.
        None: the arm of the calibration runs, else MSE with encoder weight 0.05, else the first arm.

    Raises InputError where `path` is no folder, where `baseline` fits no arm or several, where arms differ in more than
    the factors named, or in what no comparison may differ in (data, epochs, evaluations per epoch).
    """
    folder = Path(path)
    loaded = read_runs(folder, REPORT_COLUMNS if columns is None else columns, absent_as_nan=True)
    headers = loaded.headers
    roles = [header.role or "comparison" for header in headers]
    chosen = [index for index, role in enumerate(roles) if role in ROLES]
    told = loaded.differences if len(chosen) == len(headers) else None
    arms, of_run, factors = find_arms([headers[index] for index in chosen], told)
    arm_of = dict(zip(chosen, of_run, strict=True))
    runs = _runs(headers, roles, {index: arms[number].name for index, number in arm_of.items()})
    runs["epochs"] = _reached(loaded.frame, len(headers))
    runs["budget"] = runs["budget"].fillna(runs["epochs"].max())
    _leave_out(runs, headers)
    notes: list[str] = []
    order = list(range(len(arms)))
    if arms:
        counted = Counter((roles[index], arm_of[index]) for index in chosen)
        comparisons, calibrations = ([counted[role, number] for number in order] for role in ROLES)
        first, how = choose_baseline(arms, comparisons, calibrations, baseline)
        order = [first, *(number for number in order if number != first)]
        used = set(runs.loc[runs["used"], "arm"])
        named = [parse_override(text)[0] for text in baseline or ()]
        check_comparable([arm for arm in arms if arm.name in used], arms[first], named)
        if len(arms) > 1:
            notes.append(f"The baseline is '{arms[first].name}': {how}.")
    frame = _used_frame(loaded.frame, runs, [arms[number].name for number in order])
    damaged = [{"run": h.name, "status": "damaged", "reason": h.damage, "used": False} for h in loaded.damaged]
    if damaged:
        runs = pd.concat([runs, pd.DataFrame(damaged).reindex(columns=runs.columns)], ignore_index=True)
        runs["used"] = runs["used"].astype(bool)
    runs = runs.astype({"seed": "Int64", "arm": object, "role": object, "reason": object})
    runs["arm"] = runs["arm"].where(runs["arm"].notna(), None)
    notes += _notes(runs, arms)
    study = folder / "study.db"
    return Sweep(
        path=folder,
        frame=frame,
        runs=runs,
        arms=tuple(replace(arms[number], is_baseline=number == order[0]) for number in order),
        factors=factors,
        left_out=runs[~runs["used"]].drop(columns="used").reset_index(drop=True),
        study=study if study.is_file() else None,
        notes=tuple(notes),
    )


def _runs(headers: Sequence[RunHeader], roles: Sequence[str], arm_of: dict[int, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": pd.Series([header.name for header in headers], dtype=object),
            "arm": pd.Series([arm_of.get(index) for index in range(len(headers))], dtype=object),
            "seed": pd.Series([header.seed for header in headers], dtype="Int64"),
            "role": pd.Series(list(roles), dtype=object),
            "fold": pd.Series([_number(header.settings.get(FOLD)) for header in headers], dtype=float),
            "status": pd.Series([header.status for header in headers], dtype=object),
            "reason": pd.Series([header.reason for header in headers], dtype=object),
            "epochs": pd.Series(0.0, index=range(len(headers))),
            "budget": pd.Series([header.epochs for header in headers], dtype=float),
            "used": pd.Series(True, index=range(len(headers))),
        }
    )


def _reached(frame: pd.DataFrame, runs: int) -> np.ndarray:
    """The last epoch of every run that is in the frame; 0 where it has no row."""
    reached = np.zeros(runs)
    np.maximum.at(reached, frame["run"].cat.codes.to_numpy(), frame["epoch"].to_numpy())
    return reached


def _leave_out(runs: pd.DataFrame, headers: Sequence[RunHeader]) -> None:
    """Set `used` and `reason` of every run that would bias a comparison."""
    seen: dict[Any, str] = {}
    for index, (header, run) in enumerate(zip(headers, runs.to_dict("records"), strict=True)):
        reason = _why_not(header, run)
        if reason is None:
            key = (run["arm"], run["role"], header.seed, _number(header.settings.get(FOLD), missing=-1.0))
            first = seen.setdefault(key, header.name)
            if first != header.name:
                reason = f"a second run of this arm and seed, beside {first}"
        if reason is not None:
            runs.loc[index, ["used", "reason"]] = False, reason
    used = runs[runs["used"] & runs["fold"].notna()]
    folds = set(used["fold"])
    for _, group in used.groupby(["arm", "role", "seed"], dropna=False):
        missing = sorted(folds - set(group["fold"]))
        if missing:
            words = f"fold {', '.join(f'{fold:g}' for fold in missing)} of this arm and seed is missing"
            runs.loc[group.index, "used"] = False
            runs.loc[group.index, "reason"] = words


def _why_not(header: RunHeader, run: Mapping[Hashable, Any]) -> str | None:
    """Why a run by itself is left out; None: it is used."""
    far = f"{run['epochs']:g} of {run['budget']:g} epochs" if run["budget"] > 0 else f"{run['epochs']:g} epochs"
    if header.status not in ("completed", "unknown"):
        return f"{header.reason or header.status} ({far})"
    if run["role"] not in ROLES:
        return f"role={run['role']}: its seed and settings are not those of a comparison"
    if header.rows == 0:
        return "it has no evaluation"
    if header.seed is None:
        return "it has no seed, so there is nothing to pair it by"
    if header.settings.get("training.early_stopping"):
        return (
            f"training.early_stopping={header.settings['training.early_stopping']}: comparisons need the whole budget"
        )
    if run["epochs"] < run["budget"] - WHOLE:
        return f"it ended after {far}"
    return None


def _used_frame(frame: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    codes = frame["run"].cat.codes.to_numpy()
    kept = runs["used"].to_numpy(dtype=bool)[codes] if len(frame) else np.zeros(0, dtype=bool)
    first = [name for name in ("run", "step", "epoch", "split") if name in frame]
    told = {"status", "seed", "role", "fold", "arm"}
    start = list(frame.columns).index("step")
    others = [name for name in frame.columns[start:] if name not in first and name not in told]
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
        mine = runs[compared & (runs["arm"] == arm.name)]
        failed = int((mine["status"] == "failed").sum())
        if failed:
            notes.append(
                f"{failed} of {len(mine)} runs of '{arm.name}' failed and are left out; that they failed is a result too."
            )
    searched = int((~runs["role"].isin(ROLES) & runs["role"].notna()).sum())
    if searched:
        notes.append(f"{searched} runs of a search are left out: what a search chose is no fair comparison.")
    return notes


def _number(value: Any, missing: float = np.nan) -> float:
    return missing if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)


def cached(function: Callable[Concatenate[Sweep, P], T]) -> Callable[Concatenate[Sweep, P], T]:
    """A measure of a sweep that is worked out once for each sweep and arguments; callers must not change the answer."""
    memory: weakref.WeakKeyDictionary[Sweep, dict[Any, T]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def recall(sweep: Sweep, *args: P.args, **kwargs: P.kwargs) -> T:
        answers = memory.setdefault(sweep, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in answers:
            answers[key] = function(sweep, *args, **kwargs)
        return answers[key]

    return recall


def require(sweep: Sweep, column: str) -> None:
    """Raises InputError where the sweep was read without this column of histories."""
    if column not in sweep.frame.columns:
        raise InputError(f"the sweep was read without the column {column!r}; name it in read_sweep(columns=...)")
