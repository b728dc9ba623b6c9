"""The trainer as a program of the sweeper: its trials, their objectives, and the check before a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from joyful import results
from joyful.config import check
from joyful.data.loading import load
from joyful.model.joyful import FUSIONS
from joyful.records import EpochRecord, InputError, Request
from joyful.runtime.disk import DiskNeed
from joyful.runtime.hydra_request import LOCAL_LAUNCHERS, launcher_name, resolved_config
from joyful.runtime.job_check import check_choices
from joyful.sweeper import trial
from joyful.sweeper.history import TAKE_OVER_AFTER
from joyful.training import experiment
from joyful.training.disk_need import DataSizes


class TrialObserver:
    """Reports the best dev weighted F1 up to the end of each epoch to the sweep.

    Args:
        epochs: Epochs of the run. A run that has trained all of them is not pruned.
        folder: The folder of the run.
    """

    def __init__(self, epochs: int, folder: Path) -> None:
        self._epochs, self._folder = epochs, folder
        self.reported = self.paused = False

    def evaluated(self, record: EpochRecord, best: Mapping[str, float]) -> bool:
        """Report the end of an epoch. Return whether the run continues."""
        if not float(record.epoch).is_integer():
            return True
        return self.report(int(record.epoch), best["f1_weighted"]) and not self._has_reached_targets(record)

    def _has_reached_targets(self, record: EpochRecord) -> bool:
        """Return whether the sweep needs no more epochs, because the run has reached the targets before its end."""
        if not trial.targets or record.epoch >= self._epochs:
            return False
        rows = [*results.RunFolder.open(self._folder, reading=True).history_rows(), *record.rows]
        return all(target.is_reached(rows) for target in trial.targets)

    def report(self, epoch: int, best: float) -> bool:
        """Report a value. Return whether the run continues."""
        from optuna import TrialPruned

        from joyful.sweeper import TrialPaused

        self.reported = True
        try:
            trial.report(best, epoch)
        except TrialPruned as error:
            self.paused = isinstance(error, TrialPaused)
            return epoch >= self._epochs
        return True


def train_trial(request: Request) -> float | list[float]:
    """Train the run of the current trial of a sweep, or resume it.

    Args:
        request: The request of the run.

    Returns:
        The value of the objective, or a list of several (see `objective_values`).

    Raises:
        optuna.TrialPruned: If the sweep has pruned the run.
        Exception: The errors of `joyful.training.experiment.train_run`.
    """
    from optuna import TrialPruned

    settings = check(request.config)
    observer = TrialObserver(settings.training.epochs, request.folder)
    try:
        best = experiment.train_run(replace(request, take_over_after=TAKE_OVER_AFTER), observer)
    except experiment.PrunedError as error:
        raise TrialPruned(str(error)) from None
    if not observer.reported:  # the run was completed before, by a process that could not record it in the study
        for epoch, value in best_by_epoch(request.folder).items():
            observer.report(epoch, value)
    return objective_values(request, best)


def objective_values(request: Request, best_dev_f1: float) -> float | list[float]:
    """Return the value of the objective of a completed run, or a list of the values of several.

    Args:
        request: The request of the run; its setting `objectives` names the objectives.
        best_dev_f1: The best dev weighted F1 of the run, in 0 to 1.
    """
    settings = check(request.config, names=False)
    objectives, values = settings.objectives or ["dev_f1"], {"dev_f1": best_dev_f1}
    if "epochs_to_target" in objectives:
        assert settings.target is not None
        values["epochs_to_target"] = epochs_to_target(request.folder, settings.target)
    chosen = [values[name] for name in objectives]
    return chosen[0] if len(chosen) == 1 else chosen


def epochs_to_target(folder: Path, target: float) -> float:
    """Return the epochs until dev weighted F1 first reaches a target.

    Args:
        folder: The folder of the run.
        target: The target, in 0 to 1.

    Returns:
        The epoch of the first evaluation at or above the target, or the epochs of the whole run if there is none.
    """
    run = results.RunFolder.open(folder, reading=True)
    rows = [row for row in run.history_rows() if row["split"] == "dev"]
    reached = [float(row["epoch"]) for row in rows if row["f1_weighted"] >= target]
    return min(reached) if reached else float(run.info["epochs"])


def best_by_epoch(folder: Path) -> dict[int, float]:
    """Return for each whole epoch of a run the best dev weighted F1 up to its end."""
    rows = [row for row in results.RunFolder.open(folder, reading=True).history_rows() if row["split"] == "dev"]
    epochs = [int(row["epoch"]) for row in rows if float(row["epoch"]).is_integer()]
    return {epoch: max(row["f1_weighted"] for row in rows if row["epoch"] <= epoch) for epoch in epochs}


class TrialCheck:
    """Checks trials before a sweep starts: their settings, their data, and the disk space (`hydra.sweeper.check`)."""

    def __init__(self) -> None:
        self._loaded: dict[str, DataSizes] = {}

    def __call__(self, config: DictConfig, varied: frozenset[str]) -> tuple[DiskNeed, int] | None:
        """Check the configuration of a trial.

        Args:
            config: The composed configuration, with the section hydra.
            varied: Names of the settings and groups that differ between trials.

        Returns:
            The disk space and the number of epochs of the trial; None if the trials run on other machines, where the
            data may be in another folder. Then the data are not checked.

        Raises:
            InputError: If a setting or the data are invalid.
        """
        check_choices(config)
        settings, gate_weight = check(resolved_config(config)), "weights.gate_reg_weight"
        if gate_weight in varied and not FUSIONS[settings.fusion.name].has_gates:
            raise InputError(
                f"{gate_weight} is varied, but fusion={settings.fusion.name} has no gates; "
                f"set fusion=hierarchical or remove {gate_weight}"
            )
        pruner = str(config.hydra.sweeper.pruner.get("_target_")).rpartition(".")[2]
        if settings.objectives == ["epochs_to_target"] and pruner != "NopPruner":
            raise InputError(
                f"hydra/sweeper/pruner: expected none with the objective epochs_to_target, got {pruner}; the objective has "
                "no value before the target is reached; set hydra/sweeper/pruner=none"
            )
        if names := list(config.hydra.sweeper.track):
            raise InputError(
                f"hydra.sweeper.track: expected [], because joyful's trainer tracks its runs itself, got {names}; set "
                f"track=[{','.join(names)}] instead"
            )
        if launcher_name(config) not in LOCAL_LAUNCHERS:
            return None
        key = f"{settings.data.model_dump_json()} {settings.modality_names}"
        if key not in self._loaded:
            self._loaded[key] = DataSizes.of(load(settings.data, settings.modality_names))
        return experiment.run_need(settings, self._loaded[key]), settings.training.epochs
