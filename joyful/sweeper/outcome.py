"""Results of a finished trial, read from its run folder."""

from __future__ import annotations

from pathlib import Path

from joyful import results
from joyful.records import InputError
from joyful.sweeper.settings import SweepSettings


def objectives(settings: SweepSettings, folder: Path, best_dev_f1: float) -> list[float]:
    """Return the values of the sweep's objectives, in the order of the settings.

    Args:
        settings: The settings of the sweep.
        folder: The run folder of the trial.
        best_dev_f1: The best dev weighted F1 of the run, in 0 to 1.
    """
    values = {"dev_f1": best_dev_f1}
    if "epochs_to_target" in settings.objectives:
        assert settings.target is not None
        values["epochs_to_target"] = epochs_to_target(folder, settings.target)
    return [values[name] for name in settings.objectives]


def epochs_to_target(folder: Path, target: float) -> float:
    """Return the epochs until dev weighted F1 first reaches a target.

    Args:
        folder: The run folder of the trial.
        target: The target, in 0 to 1.

    Returns:
        The epoch of the first evaluation at or above the target, or the epochs of the whole run if there is none.
    """
    run = results.RunFolder.open(folder, reading=True)
    rows = [row for row in run.history_rows() if row["split"] == "dev"]
    reached = [float(row["epoch"]) for row in rows if row["f1_weighted"] >= target]
    return min(reached) if reached else float(run.info["epochs"])


def best_by_epoch(folder: Path) -> dict[int, float]:
    """Return for each whole epoch the best dev weighted F1 up to its end."""
    rows = [row for row in results.RunFolder.open(folder, reading=True).history_rows() if row["split"] == "dev"]
    epochs = [int(row["epoch"]) for row in rows if float(row["epoch"]).is_integer()]
    return {epoch: max(row["f1_weighted"] for row in rows if row["epoch"] <= epoch) for epoch in epochs}


def mark_failed(folder: Path, reason: str) -> None:
    """Set the status of an unfinished run to failed, if there is such a run and the folder can be written."""
    try:
        with results.lock(folder, take_over_after=5.0):
            run = results.RunFolder.open(folder)
            if run.info["status"] in ("running", "interrupted"):
                run.set_status("failed", reason)
    except (InputError, OSError):
        pass  # the study records the failure as well
