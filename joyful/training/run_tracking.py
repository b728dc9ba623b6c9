"""The trackers of a run of the trainer: the curves of its history, and its final scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from joyful.config import Settings
from joyful.records import InputError, Request
from joyful.results import LockLostError, RunFolder
from joyful.results.arms import flatten
from joyful.runtime.signals import RaisingSignals
from joyful.trackers import STATE, TrackedRun, Tracking, by_step


class RunTracking:
    """Passes the rows of a history on to the trackers of a run, after the run has written them.

    As a context, it ends the run in the trackers with the status of the run.

    Args:
        settings: The settings of the run.
        run: The folder of the run, whose lock this process holds.
        request: The request of the run.
        signals: The signals that end the run. One that a tracker has swallowed is raised after it.
    """

    def __init__(self, settings: Settings, run: RunFolder, request: Request, signals: RaisingSignals) -> None:
        self._run, self._signals = run, signals
        self._tracking: Tracking | None = None
        if not settings.trackers and not (run.path / STATE).exists():
            return
        folder, sweep = run.path.absolute(), None if request.sweep is None else request.sweep.absolute()
        inside = sweep is not None and folder.is_relative_to(sweep)
        parameters, varied = flatten(run.info["config"] or {}), frozenset(request.overridden)
        tracked = TrackedRun(folder, parameters, sweep if inside else None, varied)
        finished = run.info["status"] == "completed"
        self._tracking = Tracking(settings.trackers, tracked, unfinished_only=finished)
        self._raise_signal()

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Pass on rows of the history. A step that a tracker has already is left out."""
        if self._tracking is not None:
            for step, values in by_step(rows).items():
                self._tracking.log(values, step)
            self._raise_signal()

    def finish(self) -> None:
        """Pass on the whole history, the final scores and the status of the run. A second call does nothing."""
        tracking, self._tracking = self._tracking, None
        if tracking is None:
            return
        try:
            rows = self._run.history_rows()
        except (InputError, OSError):  # the run itself ends with this error
            rows = []
        for step, values in by_step(rows).items():
            tracking.log(values, step)
        status = str(self._run.info["status"])
        tracking.finish("interrupted" if status == "running" else status, final_scores(rows))
        self._raise_signal()

    def _raise_signal(self) -> None:
        if self._signals.raised is not None:
            raise self._signals.raised

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, LockLostError):  # the run belongs to another process then
            self.finish()


def final_scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores of a history at its best dev weighted F1, and where that is.

    Args:
        rows: Rows of history.parquet.

    Returns:
        "best_dev_f1_weighted", "best_epoch", and the test scores there ("test_f1_weighted" and so on); empty if there is
        no dev row.
    """
    rows = list(rows)
    dev = [row for row in rows if row["split"] == "dev"]
    if not dev:
        return {}
    best = max(dev, key=lambda row: float(row["f1_weighted"]))
    test = next((row for row in rows if row["split"] == "test" and row["step"] == best["step"]), {})
    scores = {f"test_{name}": test[name] for name in ("f1_weighted", "f1_macro", "accuracy") if name in test}
    return {"best_dev_f1_weighted": best["f1_weighted"], "best_epoch": best["epoch"], **scores}
