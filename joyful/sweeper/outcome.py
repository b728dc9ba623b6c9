"""What a finished trial's folder says: its objectives; and marking one whose process died."""

from __future__ import annotations

from pathlib import Path

from joyful import results
from joyful.records import InputError
from joyful.sweeper.settings import SweepSettings


def objectives(settings: SweepSettings, folder: Path, best_dev_f1: float) -> list[float]:
    """The values of the sweep's objectives, in their order."""
    found = {"dev_f1": best_dev_f1}
    if "epochs_to_target" in settings.objectives:
        assert settings.target is not None
        found["epochs_to_target"] = epochs_to_target(folder, settings.target)
    return [found[name] for name in settings.objectives]


def epochs_to_target(folder: Path, target: float) -> float:
    """Passes over the training split until dev weighted F1 first is at least `target`; the run's budget where it never is."""
    run = results.RunFolder.open(folder, reading=True)
    rows = [row for row in run.history_rows() if row["split"] == "dev"]
    reached = [float(row["epoch"]) for row in rows if row["f1_weighted"] >= target]
    return min(reached) if reached else float(run.info["epochs"])


def best_by_epoch(folder: Path) -> dict[int, float]:
    """Whole epoch -> the best dev weighted F1 up to its end."""
    rows = [row for row in results.RunFolder.open(folder, reading=True).history_rows() if row["split"] == "dev"]
    whole = [int(row["epoch"]) for row in rows if float(row["epoch"]).is_integer()]
    return {epoch: max(row["f1_weighted"] for row in rows if row["epoch"] <= epoch) for epoch in whole}


def mark_failed(folder: Path, reason: str) -> None:
    """Write into a run's folder that it failed, where there is a run that says otherwise; nothing where it cannot be."""
    try:
        with results.lock(folder, take_over_after=5.0):
            run = results.RunFolder.open(folder)
            if run.info["status"] in ("running", "interrupted"):
                run.set_status("failed", reason)
    except (InputError, OSError):
        pass  # there is no run yet, or its disk is gone: the study says that the trial failed
