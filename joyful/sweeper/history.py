"""The measurements that a program gives to `trial.report(..., metrics=...)`, as a run in the results format.

While the trial runs, its rows are appended to a journal (JSON Lines). At the end of the trial they become
history.parquet. A trial that is resumed continues its journal from the first step that it reports again.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyful import results
from joyful.records import SPLITS, InputError
from joyful.results.lock import require_lock
from joyful.results.provenance import GitState
from joyful.results.schema import is_column_name
from joyful.sweeper.current_trial import Target
from joyful.sweeper.job_config import pop_key

if TYPE_CHECKING:
    from joyful.sweeper.settings import SweepSettings

JOURNAL = "history.jsonl"

#: Prefix of a metric's name -> split of its rows.
_SPLITS = {
    "train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "eval": "dev", "test": "test"
}  # fmt: skip

#: Seconds that a trial waits for its former process to release the folder, before it takes the lock.
TAKE_OVER_AFTER = 5.0


class History:
    """The run of a trial. It is created with the first measurements.

    Args:
        folder: The folder of the trial.
        header: The keys of run.json, see `joyful.results.RunFolder.create`.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self._folder, self._header = folder, header
        self._rows: dict[tuple[int, str], dict[str, Any]] = {}
        self._lock: results.RunLock | None = None
        self._run: results.RunFolder | None = None

    def add(self, step: int, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
        """Add measurements at a step. Those of an earlier report of the step are replaced.

        Returns:
            Their rows, see `split_rows`.

        Raises:
            InputError: If a name is not valid, two names give the same column, or a value is not a number.
            ResultsError: If a file cannot be written.
            LockLostError: If another process has taken over the trial.
        """
        rows = split_rows(step, metrics)
        if self._run is None:
            self._open(step)
        self._rows.update({(step, str(row["split"])): row for row in rows})
        self._append(rows)
        return rows

    def has_reached(self, targets: Sequence[Target]) -> bool:
        """Return whether the run has reached all of some targets."""
        return all(target.is_reached(self._rows.values()) for target in targets)

    def finish(self, status: str, reason: str | None = None, objective: float | None = None) -> None:
        """Write history.parquet and the status of the run, if there were any measurements.

        Args:
            status: "completed", "pruned", "failed" or "interrupted".
            reason: Why the run ended as it did.
            objective: Value of the objective.
        """
        if self._run is None or self._lock is None:
            return
        self._run.write_history(_ordered(self._rows))
        self._run.set_status(status, reason, objective)
        if status != "interrupted":
            (self._folder / JOURNAL).unlink(missing_ok=True)
        self._lock.release()
        self._run = None

    def _open(self, step: int) -> None:
        """Open the run, or create it. Of an earlier process, keep the rows before `step`."""
        self._lock = results.lock(self._folder, TAKE_OVER_AFTER)
        if (self._folder / results.RUN).exists():
            self._run = results.RunFolder.open(self._folder)
            self._rows = {(int(row["step"]), str(row["split"])): row for row in self._run.history_rows()}
            self._run.update(self._header)
            self._run.set_status("running")
        else:
            self._run = results.RunFolder.create(self._folder, self._header)
        self._rows |= {(row["step"], row["split"]): row for row in _lines(self._folder / JOURNAL)}
        self._rows = {key: row for key, row in self._rows.items() if key[0] < step}
        results.write_bytes(self._folder / JOURNAL, _json_lines(self._rows.values()))

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        require_lock(self._folder)
        try:
            with (self._folder / JOURNAL).open("ab") as journal:
                journal.write(_json_lines(rows))
        except OSError as error:
            raise results.ResultsError(
                error.errno, f"{self._folder / JOURNAL} cannot be written ({error.strerror})"
            ) from error


def split_rows(step: int, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of history.parquet for measurements at a step, one for each split.

    Args:
        step: The step.
        metrics: Name -> value. A prefix of the name gives the split, see `CurrentTrial.report`.

    Raises:
        InputError: If a name is not valid, two names give the same column, or a value is not a number.

    Example:
        >>> split_rows(3, {"train_loss": 0.5, "val/Loss": 0.7, "accuracy": 0.8})
        [{'step': 3, 'split': 'train', 'loss': 0.5}, {'step': 3, 'split': 'dev', 'loss': 0.7, 'accuracy': 0.8}]
    """
    rows: dict[str, dict[str, Any]] = {}
    for given, value in metrics.items():
        name = re.sub(r"[^a-z0-9]+", "_", str(given).lower()).strip("_")
        prefix, _, rest = name.partition("_")
        split, column = (_SPLITS[prefix], rest) if rest and prefix in _SPLITS else ("dev", name)
        if not is_column_name(column):
            raise InputError(
                f"trial.report: metrics: expected names that start with a letter and are not reserved (run, status, seed, "
                f"role), got {given!r}"
            )
        row = rows.setdefault(split, {"step": step, "split": split})
        if column in row:
            raise InputError(
                f"trial.report: metrics: expected different names, got two that give {column} of {split}: {given!r}"
            )
        try:
            row[column] = float(value)
        except (TypeError, ValueError):
            raise InputError(f"trial.report: metrics: {given}: expected a number, got {value!r}") from None
    return [rows[split] for split in SPLITS if split in rows]


def _ordered(rows: Mapping[tuple[int, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[key] for key in sorted(rows, key=lambda key: (key[0], SPLITS.index(key[1])))]


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the intact lines of the journal. After a power failure the last one may be cut."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def run_header(
    settings: SweepSettings,
    role: str,
    git: GitState,
    choices: Mapping[str, str],
    config: Mapping[str, Any],
    digest: str,
) -> dict[str, Any]:
    """Return run.json of a trial, see `joyful.results.RunFolder.create`.

    Args:
        settings: The settings of the sweep.
        role: Role of the trial.
        git: The state of the repository of the program.
        choices: Hydra's group choices.
        config: The configuration of the trial, see `job_config.identity`.
        digest: Its digest.
    """
    own = copy.deepcopy(dict(config))
    seed = pop_key(own, settings.seed_key)
    fold = pop_key(own, settings.fold_key) if settings.folds is not None else None
    if fold is not None:
        own["data"] = {**(own.get("data") or {}), "fold": fold}  # where reports look for it
    for key in settings.may_differ:
        pop_key(own, key)
    return {
        "objective_name": (settings.metric_names or ["objective"])[0],
        "seed": seed if isinstance(seed, int) and not isinstance(seed, bool) else None, "role": role,
        "epochs": None, "config_hash": digest, "git": git, "device": None, "threads": None,
        "choices": {k: v for k, v in choices.items() if not k.startswith("hydra/")}, "config": results.plain(own),
    }  # fmt: skip


def mark_ended(folder: Path, status: str, reason: str) -> None:
    """Set the final status of an unfinished run, if there is such a run and the folder can be written.

    Args:
        folder: The folder of the trial.
        status: "failed" or "pruned".
        reason: Why it has ended.
    """
    try:
        with results.lock(folder, TAKE_OVER_AFTER):
            run = results.RunFolder.open(folder)
            if run.info["status"] in ("running", "interrupted"):
                outcome = {key: run.info[key] for key in results.OUTCOME_KEYS if key in run.info}
                run.set_status(status, reason, run.info["objective"], outcome)
                (folder / JOURNAL).unlink(missing_ok=True)
    except (InputError, OSError):
        pass  # the study records the failure as well
