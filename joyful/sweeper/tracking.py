"""The trackers of a trial (`hydra.sweeper.track`). The worker writes them, so the process of the program stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from joyful.records import InputError, print_error
from joyful.results.arms import flatten
from joyful.sweeper.settings import SweepSettings
from joyful.trackers import TrackedRun, Tracking, by_step

_STATUSES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class TrialTracking:
    """Passes what a trial reports on to the trackers of the sweep. They start with its first report, or at its end.

    Args:
        settings: The settings of the sweep.
        folder: The output folder of the trial.
        sweep: The folder of the sweep.
        header: run.json of the trial, see `joyful.sweeper.history.run_header`.
        varied: Settings and groups that differ between the trials.
    """

    def __init__(
        self, settings: SweepSettings, folder: Path, sweep: Path, header: Mapping[str, Any], varied: Set[str]
    ) -> None:
        self._settings, self._folder, self._sweep, self._header = settings, folder, sweep.absolute(), header
        self._varied = frozenset(varied)
        self._tracking: Tracking | None = None

    @property
    def is_on(self) -> bool:
        """Whether the sweep has trackers."""
        return bool(self._settings.track)

    def report(self, message: Mapping[str, Any]) -> None:
        """Pass on a report: its value, and the rows of its measurements.

        Args:
            message: The message "report" of the training process.
        """
        if self.is_on:
            step = int(message["report"])
            values = by_step(message.get("rows", ())).get(step, {})
            self._start().log({self._header["objective_name"]: float(message["value"]), **values}, step)

    def finish(self, state: TrialState, values: Sequence[float] | None) -> None:
        """End the trial in its trackers, with its final values.

        Args:
            state: How it has ended.
            values: What the program has returned; None if it was pruned or failed.
        """
        if self.is_on and self._folder.is_dir():
            names = self._settings.metric_names or [f"objective_{i}" for i in range(len(self._settings.directions))]
            names = names if len(names) > 1 else [self._header["objective_name"]]
            scores = {f"final_{name}": value for name, value in zip(names, values or [], strict=False)}
            self._start().finish(_STATUSES[state], scores)
            self._tracking = None

    def close(self) -> None:
        """Close the trackers of a trial that another process or command resumes."""
        if self._tracking is not None:
            self._tracking.finish("interrupted")
            self._tracking = None

    def _start(self) -> Tracking:
        if self._tracking is None:
            inside = self._folder.is_relative_to(self._sweep)
            run = TrackedRun(self._folder, self._parameters(), self._sweep if inside else None, self._varied)
            self._tracking = Tracking(self._settings.track, run)
        return self._tracking

    def _parameters(self) -> dict[str, Any]:
        seed = self._header["seed"]
        try:
            return flatten(self._header["config"]) | ({} if seed is None else {self._settings.seed_key: seed})
        except InputError as error:
            print_error(f"hydra.sweeper.track: {error}; the trackers get no parameters")
            return {}
