"""Reading a sweep for a comparison: its runs, arms and factors, and the runs that are left out with their reasons."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd

from joyful.analysis.arms import (
    Arm,
    check_comparable,
    choose_baseline,
    covers,
    find_arm,
    find_arms,
    format_value,
    is_number,
    parse_override,
)
from joyful.analysis.axis import AXES, EPOCH_TOLERANCE, with_axis
from joyful.analysis.formatting import listing
from joyful.messages import expected_one_of
from joyful.results import InputError, RunHeader, read_runs
from joyful.results.arms import FOLD, data_settings
from joyful.results.design import Decisions, Design, read_decisions, read_designs

__all__ = ["REPORT_COLUMNS", "Arm", "Sweep", "read_sweep"]

P = ParamSpec("P")
T = TypeVar("T")

#: Columns of the histories that a report needs.
REPORT_COLUMNS: tuple[str, ...] = (
    "f1_weighted", "f1_macro", "accuracy", "nll", "recon_mse", "recon_mae", "loss_total",
    "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg",
    "share_classification", "share_contrastive", "share_encoder", "share_gate_reg",
    "encoder_gradient_ratio", "encoder_gradient_cosine", "seconds",
)  # fmt: skip

#: Roles of runs that are compared or set the target. Runs of a search are not used.
ROLES = ("comparison", "calibration")

#: The setting that holds the task of a run by default.
TASK = "task"

DESIGNS = ("paired", "unpaired")

#: Columns of `Sweep.runs` -> their types.
_RUNS: dict[str, Any] = {
    "run": object, "arm": object, "task": object, "seed": "Int64", "role": object, "fold": float, "status": object,
    "reason": object, "epochs": float, "budget": float, "end": float, "used": bool, "cut": bool,
}  # fmt: skip


@dataclass(frozen=True, eq=False)  # Compared by identity, so that results can be cached per sweep.
class Sweep:
    """All runs below a folder.

    Attributes:
        path: The folder.
        frame: One row per run, evaluation and split, for the runs that are used: `run`, `arm`, `seed`, `role`, `fold`
            (NaN without folds), `step`, `epoch`, `split`, `x` (the position on the x axis) and the columns of the histories
            (NaN if not measured, infinite if measured and not finite). Scores are fractions from 0 to 1, as in the files.
        runs: One row per run, used or not: `run`, `arm` (None if the run could not be read or belongs to a search), `task`
            (None without tasks), `seed`, `role`, `fold`, `status`, `reason` (why the run ended or is left out, or None),
            `epochs` (epochs reached), `budget` (epochs configured), `end` (last x of a used run), `used`, and `cut` (whether
            the sweep ended the run at the target, because only its time to the target was needed; then it is not used).
        arms: The arms, the baseline first and the others in the order of their runs.
        factors: Dotted names of the settings that differ between the arms, or a group such as "loss" (see
            `joyful.analysis.arms.find_factors`).
        left_out: The rows of `runs` that are not used. `status` is "running", "interrupted", "pruned", "failed",
            "damaged", "unknown" or "completed". A completed run is left out because of a missing fold or a repeated seed,
            for example.
        study: Path of the Optuna study (study.db), or None.
        notes: Sentences for the report, such as the choice of the baseline or the number of failed runs of an arm.
        x: Column of the x axis: "epoch", "step", "seconds" or another column of the histories, such as "tokens".
        design: "paired" if two runs with the same seed form a pair, or "unpaired" if all runs are independent.
        tasks: The tasks (datasets or environments) of the runs, or () if there is one only. Functions of curves and
            measures need a sweep with one task (see `of_task`).
        cut_to_shared_span: Whether curves are cut to the span that they share (see `shared_span`).
        cut_frame: The rows of `cut` runs, as in `frame` (see `with_cut_runs`).
        designs: The designs that the sweep recorded, the first before its first run.
        decisions: What was decided while it ran.
    """

    path: Path
    frame: pd.DataFrame
    runs: pd.DataFrame
    arms: tuple[Arm, ...]
    factors: tuple[str, ...]
    left_out: pd.DataFrame
    study: Path | None
    notes: tuple[str, ...] = ()
    x: str = "epoch"
    design: str = "paired"
    tasks: tuple[str, ...] = ()
    cut_to_shared_span: bool = False
    cut_frame: pd.DataFrame | None = None
    designs: tuple[Design, ...] = ()
    decisions: Decisions = field(default_factory=Decisions)

    @property
    def baseline(self) -> Arm | None:
        """The arm that the others are compared with, or None if the sweep has no arms."""
        return self.arms[0] if self.arms else None

    @property
    def others(self) -> tuple[Arm, ...]:
        """All arms except the baseline."""
        return self.arms[1:]

    @property
    def unit(self) -> str:
        """Unit of the x axis in text, such as "epochs"."""
        return AXES.get(self.x, self.x)

    @property
    def lengths(self) -> tuple[float, float]:
        """The smallest and the largest last x of the used comparison runs, or NaN if there are none."""
        ends = self.runs.loc[self.runs["used"] & (self.runs["role"] == "comparison"), "end"]
        return float(ends.min()), float(ends.max())

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
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    baseline: Sequence[str] | None = None,
    *,
    x: str | None = None,
    design: str = "paired",
    task: str | None = None,
    compare: tuple[str, str] | None = None,
) -> Sweep:
    """Read all runs below a folder and group them into arms.

    Args:
        path: Folder with runs in it or below it.
        columns: Columns of the histories to read, by default REPORT_COLUMNS. A column that a history lacks is NaN.
        baseline: Overrides that the baseline must match, such as ["loss=mse", "weights=baseline"]. They are matched
            against group choices and settings. The arms may then differ in these groups and settings only. By default
            the baseline is the arm of the calibration runs, else the arm with MSE and encoder weight 0.05, else the
            first arm.
        x: Column of the x axis: "epoch", "step", "seconds" (wall-clock seconds) or another column of the histories, such
            as "tokens". By default "epoch", or "step" if epochs were not logged or do not tell evaluations apart.
        design: "paired" or "unpaired". See `Sweep`.
        task: Setting or group that holds the task of a run, by default TASK if the runs have this setting.
        compare: Names of an arm and of the arm that it is compared with. Other arms are dropped.

    Returns:
        The sweep.

    Raises:
        InputError: If `path` is not a folder, if `baseline` matches no arm or several arms, if the arms differ in a setting
            in which compared arms must agree (such as data, epochs or evaluations per epoch), if runs with the same
            settings of the data were trained on different data, or if the x axis or an arm or task is not in the runs.
    """
    folder = Path(path)
    wanted = list(REPORT_COLUMNS if columns is None else columns)
    wanted += [name for name in (x, "seconds") if name is not None and name not in (*wanted, "epoch", "step")]
    loaded = read_runs(folder, wanted, absent_as_nan=True, nan_as_infinity=True)
    headers, tasks = _tasks(loaded.headers, task)
    roles = [header.role or "comparison" for header in headers]
    selected = [index for index, role in enumerate(roles) if role in ROLES]
    unchanged = len(selected) == len(headers) and not any(tasks)
    found, arm_of_selected, factors = find_arms(
        [headers[index] for index in selected], loaded.differences if unchanged else None
    )
    arm_of = dict(zip(selected, arm_of_selected, strict=True))
    runs = _runs(headers, roles, tasks, {index: found[number].name for index, number in arm_of.items()})
    runs["epochs"] = _reached(loaded.frame, len(headers))
    designs = read_designs(folder)
    _leave_out(runs, headers)
    if any(plan.pairs is None for plan in designs):
        runs["cut"] = ~runs["used"] & (runs["status"] == "pruned") & (runs["role"] == "comparison")
    notes: list[str] = []
    arms = found
    if found:
        counts = Counter((roles[index], arm_of[index]) for index in selected)
        comparisons, calibrations = ([counts[role, number] for number in range(len(found))] for role in ROLES)
        first, reason = choose_baseline(found, comparisons, calibrations, baseline)
        if designs and not baseline and not any(calibrations):
            with contextlib.suppress(InputError):  # its overrides may not be recorded in the runs
                first, reason = find_arm(found, designs[0].arms[0]), "the first arm of the design"
        kept: Sequence[int] = range(len(found))
        if compare is not None:
            other, first = (find_arm(found, text) for text in compare)
            kept, reason = (first, other), "given"
            runs = _drop_arms(runs, [arm.name for index, arm in enumerate(found) if index not in kept])
        arms = [replace(found[first], is_baseline=True), *(found[index] for index in kept if index != first)]
        used = set(runs.loc[runs["used"], "arm"])
        check_same_data([header for header, kept in zip(headers, runs["used"], strict=True) if kept])
        named = [parse_override(text)[0] for text in baseline or ()]
        check_comparable([arm for arm in arms if arm.name in used], found[first], named)
        if len(arms) > 1:
            notes.append(f"The baseline is '{arms[0].name}': {reason}.")
    frame = _used_frame(loaded.frame, runs.assign(used=runs["used"] | runs["cut"]), [arm.name for arm in arms])
    axis, frame = with_axis(folder, frame, x)
    cut_frame = None
    if runs["cut"].any():
        cut = frame["run"].isin(runs.loc[runs["cut"], "run"])
        frame, cut_frame = frame[~cut], frame[cut]
    runs["end"] = frame.groupby("run", observed=False)["x"].max().reindex(runs["run"]).to_numpy()
    damaged = [
        {"run": h.name, "status": "damaged", "reason": h.damage, "used": False, "cut": False} for h in loaded.damaged
    ]
    if damaged:
        runs = pd.concat([runs, pd.DataFrame(damaged).reindex(columns=runs.columns)], ignore_index=True)
        runs = runs.astype({"used": bool, "cut": bool})
    runs = runs.astype({"seed": "Int64", "arm": object, "role": object, "reason": object, "task": object})
    for name in ("arm", "task"):
        runs[name] = runs[name].where(runs[name].notna(), None)
    notes += _notes(runs, arms)
    if len(arms) > 1 and design == "paired":
        notes += _unmatched(runs, arms[0], arms[1:])
    left_out = runs[~runs["used"]].drop(columns=["used", "end", "cut"]).reset_index(drop=True)
    study = folder / "study.db" if (folder / "study.db").is_file() else None
    names = tuple(dict.fromkeys(name for name in tasks if name))
    return Sweep(
        folder,
        frame,
        runs,
        tuple(arms),
        factors,
        left_out,
        study,
        tuple(notes),
        axis,
        design,
        names if len(names) > 1 else (),
        cut_frame=cut_frame,
        designs=designs,
        decisions=read_decisions(folder),
    )


def _tasks(headers: Sequence[RunHeader], task: str | None) -> tuple[list[RunHeader], list[str]]:
    """Return the headers without the settings of the task, and the task of each run, which is "" without tasks."""
    setting = task or TASK
    tasks, stripped = [], []
    for header in headers:
        values = {
            name: value
            for known in (header.choices, header.settings)
            for name, value in known.items()
            if (task or name.startswith(TASK)) and covers(setting, name)  # `covers` alone takes 1 s for 10,000 runs
        }
        tasks.append(" ".join(dict.fromkeys(format_value(value) for value in values.values())))
        others = ({n: v for n, v in known.items() if n not in values} for known in (header.choices, header.settings))
        choices, settings = others
        stripped.append(replace(header, choices=choices, settings=settings) if values else header)
    if task is not None and not any(tasks):
        known = sorted({name for header in headers for name in (*header.choices, *header.settings)})
        raise InputError(f"--task: {expected_one_of(task, known)}")
    if len(set(tasks)) > 1 and not all(tasks):
        run = next(header.name for header, name in zip(headers, tasks, strict=True) if not name)
        raise InputError(f"run {run}: expected a value of {setting}, as the other runs have, got none")
    return (stripped, tasks) if len(set(tasks)) > 1 else (list(headers), [""] * len(headers))


def _drop_arms(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    dropped = runs["arm"].isin(names) & runs["used"]
    return runs.assign(
        used=runs["used"] & ~dropped, reason=runs["reason"].mask(dropped, "its arm is not part of --compare")
    )


def _runs(
    headers: Sequence[RunHeader], roles: Sequence[str], tasks: Sequence[str], arm_of: dict[int, str]
) -> pd.DataFrame:
    rows = [
        {
            "run": h.name, "arm": arm_of.get(i), "task": tasks[i] or None, "seed": h.seed, "role": roles[i],
            "fold": _number(h.settings.get(FOLD)), "status": h.status, "reason": h.reason, "epochs": 0.0,
            "budget": h.epochs, "end": np.nan, "used": True, "cut": False,
        }
        for i, h in enumerate(headers)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(_RUNS), dtype=object).astype(_RUNS)


def _reached(frame: pd.DataFrame, runs: int) -> np.ndarray:
    """Return the last epoch of each run in the frame, or 0 for a run without epochs."""
    reached = np.zeros(runs)
    np.maximum.at(reached, frame["run"].cat.codes.to_numpy(), frame["epoch"].fillna(0.0).to_numpy())
    return reached


def _leave_out(runs: pd.DataFrame, headers: Sequence[RunHeader]) -> None:
    """Set `used` and `reason` of each run that cannot be compared."""
    seen: dict[Any, str] = {}
    for index, (header, run) in enumerate(zip(headers, runs.to_dict("records"), strict=True)):
        reason = _reason_left_out(header, run)
        if reason is None:
            fold = _number(header.settings.get(FOLD), missing=-1.0)
            key = (run["arm"], run["task"], run["role"], header.seed, fold)
            first = seen.setdefault(key, header.name)
            if first != header.name:
                reason = f"a second run of this arm and seed, in addition to {first}"
        if reason is not None:
            runs.loc[index, ["used", "reason"]] = False, reason
    used = runs[runs["used"] & runs["fold"].notna()]
    folds = set(used["fold"])
    for _, group in used.groupby(["arm", "task", "role", "seed"], dropna=False):
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
    if header.status == "unknown" and run["epochs"] < run["budget"] - EPOCH_TOLERANCE:
        return f"it ended after {progress}, and whether it was complete is not recorded"
    return None


def check_same_data(headers: Sequence[RunHeader]) -> None:
    """Raise InputError if runs with the same settings of the data have different data.

    Args:
        headers: The runs. Those without a digest of their data are not compared.
    """
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
    arm = pd.Categorical(runs["arm"].where(runs["arm"].isin(names)), categories=list(names))
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
    ends = runs.loc[runs["used"] & compared, "end"]
    if ends.min() < ends.max():
        text = f"The runs end at different points of the x axis, {ends.min():g} to {ends.max():g}"
        notes.append(f"{text}; two runs are compared on the span that they share.")
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
    if base and not any(base & seeds.get(arm.name, set()) for arm in others):
        return ["No seeds are shared, so there are no pairs. If the runs are independent, set --design unpaired."]
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


@cached
def of_task(sweep: Sweep, task: str) -> Sweep:
    """Return the sweep with the runs of one task."""
    runs = sweep.runs[sweep.runs["task"] == task]
    frame = sweep.frame[sweep.frame["run"].isin(runs.loc[runs["used"], "run"])]
    left_out = sweep.left_out[sweep.left_out["task"] == task]
    return replace(sweep, frame=frame, runs=runs, left_out=left_out, tasks=(), notes=())


@cached
def of_seeds(sweep: Sweep, seeds: tuple[int, ...]) -> Sweep:
    """Return the sweep with the comparison runs of some seeds, and its calibration runs."""
    others = (sweep.runs["role"] != "comparison") | sweep.runs["seed"].isin(seeds)
    frame = sweep.frame[(sweep.frame["role"] != "comparison") | sweep.frame["seed"].isin(seeds)]
    return replace(sweep, frame=frame, runs=sweep.runs[others])


@cached
def with_cut_runs(sweep: Sweep) -> Sweep:
    """Return the sweep with the runs that ended at the target, for times to it."""
    if sweep.cut_frame is None:
        return sweep
    frame = sweep.cut_frame[sweep.cut_frame["run"].isin(sweep.runs["run"])]  # of the same task and seeds
    runs = sweep.runs.assign(used=sweep.runs["used"] | sweep.runs["cut"])
    return replace(sweep, frame=pd.concat([sweep.frame, frame]), runs=runs, cut_frame=None)


@cached
def shared_span(sweep: Sweep, name: str) -> Sweep:
    """Return the sweep with the baseline and the arm of this name, whose `curves` are cut to the span that they share."""
    arms = (sweep.arms[0], *(arm for arm in sweep.others if arm.name == name))
    rows = sweep.frame[sweep.frame["arm"].isin([arm.name for arm in arms])] if len(sweep.arms) > 2 else sweep.frame
    return replace(sweep, frame=rows, arms=arms, cut_to_shared_span=True)
