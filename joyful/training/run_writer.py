"""The writer of a run: history, timing, checkpoints and predictions in its folder, and the right to write them.

The coach trains and yields records; `RunWriter` writes them. A run can be resumed from what it wrote, see `restoring`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joyful.records import DialogueDataset, EpochRecord, InputError, print_error
from joyful.results import RunFolder
from joyful.results.predictions import predictions_bytes
from joyful.training import checkpoints, predictions, restoring
from joyful.training.checkpoints import Checkpoint
from joyful.training.coach import Coach

log = logging.getLogger(__name__)


class RunWriter:
    """Writes the records and checkpoints of one run. No other object writes to the folder of the run.

    Args:
        run: The folder of the run, whose lock this process holds.
        data: The dataset.
        fingerprint: "config_hash" and "data", the digests of the configuration and of the data. They are stored in the
            checkpoints, and compared when the run is resumed.
    """

    def __init__(self, run: RunFolder, data: DialogueDataset, fingerprint: Mapping[str, str]) -> None:
        self.run, self._data, self._fingerprint = run, data, dict(fingerprint)
        self._checkpoints = run.path / "checkpoint"
        self._history: restoring.Rows = []
        self._timing: restoring.Rows = []

    def restore(self, coach: Coach, source: Path | None = None) -> None:
        """Continue from the last intact checkpoint of the run. Without one, the run starts at the beginning.

        Args:
            coach: The coach to restore.
            source: Folder of another run, from whose last checkpoint this run starts if it has none itself, or a file of
                weights.

        Raises:
            InputError: If the run or the source was trained on different data, the checkpoint or the weights do not fit
                the model, or the source has no intact checkpoint.
        """
        evaluations = coach.settings.training.evaluations_per_epoch
        saved = restoring.last_checkpoint(self.run, self._fingerprint, evaluations)
        if saved is None and source is not None:
            if not source.is_dir():
                coach.load_weights(source)
                return
            saved = restoring.checkpoint_of(source, self._fingerprint, self._data.labels)
        if saved is not None:
            coach.load_state_dict(saved.checkpoint)
            self._history, self._timing = saved.history, saved.timing
            self._restore_best(coach, source)

    def _restore_best(self, coach: Coach, source: Path | None) -> None:
        """Copy the best model of the source of a fork, and evaluate it if an earlier version kept no logits of it."""
        own = checkpoints.read(self._checkpoints, checkpoints.BEST)
        best, damage = own, ""
        if own is None and source is not None:
            try:
                best = checkpoints.read(source / "checkpoint", checkpoints.BEST)
            except (InputError, PermissionError) as error:
                damage = f" ({error})"
        fits = best is not None and best.state.get("best") == coach.best
        if best is None or not fits:
            if own is None:
                _report(
                    f"{self.run.path}: the model of the best evaluation so far is lost{damage}; until there is a better one, "
                    f"the run has no best model{'' if coach.best_logits else ', and no predictions and scores per class'}"
                )
            return  # its own is of an epoch that was not completed, which is trained again
        if own is None:
            self._write_checkpoint(checkpoints.BEST, int(coach.best["step"]), best)
        if not coach.best_logits:
            coach.restore_best_logits(best)

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the history so far."""
        return self._history

    def write(self, record: EpochRecord, coach: Coach) -> None:
        """Write a record of the coach, the checkpoint "best" if it is the best so far, and "last" after an epoch.

        Args:
            record: The last record that the coach has yielded.
            coach: The coach.

        Raises:
            ResultsError: If a file cannot be written.
            LockLostError: If another process has taken over the run.
        """
        clock = time.monotonic()
        if record.improved:
            self._write_checkpoint(checkpoints.BEST, coach.step, coach.best_state_dict())
        self._history += record.rows
        self.run.write_history(self._history)
        seconds = record.seconds | {"write": time.monotonic() - clock}
        if record.epoch == coach.epoch:
            clock = time.monotonic()
            saved = coach.state_dict()
            state = {**self._fingerprint, **saved.state}
            self._write_checkpoint(checkpoints.LAST, coach.step, Checkpoint(saved.tensors, state))
            seconds["checkpoint"] = time.monotonic() - clock
        self._timing += [{"epoch": record.epoch, "phase": phase, "seconds": value} for phase, value in seconds.items()]
        self.run.write_timing(self._timing)

    def finish(self, status: str, coach: Coach, reason: str | None = None) -> None:
        """Write the final status, after which nothing is written before the run is resumed.

        Args:
            status: "completed" or "pruned"; "interrupted" if the run may be resumed.
            coach: The coach, whose best evaluation has the objective and the predictions.
            reason: Why the run was pruned.
        """
        if status != "interrupted":
            checkpoints.drop_previous(self._checkpoints)
        outcome: dict[str, Any] = {}
        if coach.best_logits:
            predicted = predictions.predict(self._data, coach.best_logits)
            digest = self.run.write_predictions(predictions_bytes(predicted, self._data.labels, self._data.multilabel))
            outcome = {**predictions.scores(self._data, predicted), "predictions_sha256": digest}
        self.run.set_status(status, reason, coach.best["f1_weighted"], outcome)

    def _write_checkpoint(self, name: str, step: int, checkpoint: Checkpoint) -> None:
        checkpoints.write(self._checkpoints, name, step, checkpoint)


def _report(text: str) -> None:
    """Write a line to standard error and to the log of the run."""
    print_error(text)
    log.info("%s", text)
