"""A Lightning callback that reports to the sweep.

    trainer = lightning.Trainer(max_epochs=10, callbacks=[ReportCallback(monitor="val_loss")])

Only this module imports Lightning, which the extra `lightning` installs.
"""

from __future__ import annotations

import lightning
import optuna

from joyful.sweeper.current_trial import trial


class ReportCallback(lightning.Callback):
    """Reports metrics of the module at the end of each epoch.

    A trial that the pruner ends or pauses leaves `Trainer.fit` with the exception of `trial.report`, after the callbacks
    that save a checkpoint of the epoch. The step of an epoch is its number, from 1. Epochs without validation are not
    reported, unless there is none at all. When the sweep ends, training stops after the epoch, or earlier on a signal.
    Outside a sweep the callback does nothing. A trial trains in one process: the processes of a distributed strategy do
    not report.

    Args:
        monitor: Name of the metric that is the value of the objective so far, such as "val_loss". All logged metrics
            are reported as measurements: train_NAME for the training split, val_NAME for the dev split.
    """

    def __init__(self, monitor: str) -> None:
        self._monitor, self._validated = monitor, False
        self._pruned: optuna.TrialPruned | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that this epoch has been validated."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report the epoch.

        Raises:
            KeyError: If the module has not logged the metric `monitor`.
        """
        if self._validated or not trainer.enable_validation:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if self._monitor not in metrics:
                raise KeyError(f"monitor={self._monitor!r}: expected a logged metric, one of {sorted(metrics)}")
            try:
                trial.report(metrics[self._monitor], trainer.current_epoch + 1, metrics=metrics)
            except optuna.TrialPruned as error:  # Lightning calls the callbacks of checkpoints last
                self._pruned = error
        self._validated = False
        if trial.should_stop:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave training if the pruner has ended the trial.

        Raises:
            optuna.TrialPruned: If the pruner has ended or paused the trial.
        """
        if self._pruned is not None:
            raise self._pruned

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Do the same after the last epoch. See `on_train_epoch_start`."""
        self.on_train_epoch_start(trainer, pl_module)
