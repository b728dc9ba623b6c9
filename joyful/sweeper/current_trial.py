"""The trial that this process works on, for programs that a sweep runs.

    from joyful.sweeper import trial

    @hydra.main(config_path="conf", config_name="config")
    def main(cfg):
        for step in range(cfg.steps):
            ...
            trial.report(loss, step)
        return loss

Outside a sweep, and in processes that the program starts, the trial does nothing: `report` returns at once, `number` is
None, and `resumed` and `should_stop` are False. This module imports neither Optuna nor Hydra.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Target:
    """A dev value at which a trial has shown all that its sweep needs.

    Attributes:
        metric: Column of the histories, such as "f1_weighted".
        value: The value.
        higher_is_better: Whether the target is reached from below.
    """

    metric: str
    value: float
    higher_is_better: bool

    def is_reached(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether a dev row of a history has reached the target."""
        values = (row.get(self.metric) for row in rows if row["split"] == "dev")
        sign = 1.0 if self.higher_is_better else -1.0
        return any(value is not None and sign * value >= sign * self.value for value in values)


class Session(Protocol):
    """The connection of a running trial to its worker. `joyful.sweeper.trainer` implements it."""

    number: int
    folder: Path
    resumed: bool
    targets: tuple[Target, ...]

    @property
    def stopping(self) -> bool:
        """See `CurrentTrial.should_stop`."""

    def report(self, value: float, step: int, metrics: Mapping[str, float] | None) -> None:
        """See `CurrentTrial.report`."""


class CurrentTrial:
    """The trial that this process works on. Use the object `joyful.sweeper.trial`.

    Example:
        >>> from joyful.sweeper import trial
        >>> trial.number, trial.resumed, trial.should_stop  # outside a sweep
        (None, False, False)
        >>> trial.report(0.5, step=1)
    """

    def __init__(self) -> None:
        self._session: Session | None = None
        self._pid = 0

    @property
    def number(self) -> int | None:
        """Number of the trial in its study, from 0. None outside a sweep."""
        session = self._current()
        return session.number if session is not None else None

    @property
    def folder(self) -> Path:
        """The output folder of the trial: an absolute path. Outside a sweep, Hydra's output folder of the job.

        A trial keeps its folder when it is resumed, so a program that keeps a checkpoint here can continue from it.
        """
        session = self._current()
        return session.folder if session is not None else _hydra_folder()

    @property
    def resumed(self) -> bool:
        """Whether an earlier process has worked on this trial, so that its folder may hold a checkpoint."""
        session = self._current()
        return session is not None and session.resumed

    @property
    def should_stop(self) -> bool:
        """Whether the sweep is ending, after Ctrl-C for example. The program should save its state and return soon.

        About two seconds after it becomes true, KeyboardInterrupt is raised in the main thread, and four seconds after
        it the process is killed. What the program returns is not used, and the trial is resumed by the next command.
        """
        session = self._current()
        return session is not None and session.stopping

    @property
    def targets(self) -> tuple[Target, ...]:
        """The dev values after which the sweep needs no more steps of this trial, () to train it to its end.

        `report` ends a trial that has reached all of them, as far as it gets their metrics. Only a program that keeps its
        own history needs to look at them.
        """
        session = self._current()
        return session.targets if session is not None else ()

    def report(self, value: float, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Report the value of the objective at a step.

        Args:
            value: The value of the objective so far, in the direction of `hydra.sweeper.direction`. The pruner compares
                it with the values of other trials at the same step. A value that is not finite is not stored.
            step: The step: epochs, evaluations or whatever the program counts, an integer >= 0. A resumed trial may
                report steps again; the last value counts.
            metrics: Other measurements at this step, name -> value. They become rows of history.parquet in the folder
                of the trial, which `joyful report` reads. A prefix train_, dev_, val_, valid_, validation_ or test_
                names the split; without one it is dev. Other characters than letters and digits become underscores.

        Raises:
            optuna.TrialPruned: If the pruner ends the trial. Let it leave the main function.
            TrialPaused: If the pruner pauses the trial, a subclass of optuna.TrialPruned. Save a checkpoint before the
                report, or catch the exception, save and raise it again. The trial is run again if it is promoted.
            TypeError: If the value is not a number, or the step is not an integer.
            ValueError: If the step is negative.
        """
        session = self._current()
        if session is None:
            return
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"trial.report: value: expected a number, got {value!r}") from None
        session.report(number, _as_step(step), metrics)

    @contextmanager
    def running(self, session: Session) -> Iterator[None]:
        """Context in which this process works on a trial. For the training process of a worker."""
        self._session, self._pid = session, os.getpid()
        try:
            yield
        finally:
            self._session = None

    def _current(self) -> Session | None:
        return self._session if self._pid == os.getpid() else None  # a forked child has no trial


def paused_error(message: str) -> Exception:
    """Return the exception `TrialPaused`."""
    error: Exception = _trial_paused()(message)
    return error


@functools.cache
def _trial_paused() -> type[Any]:
    import optuna

    class TrialPaused(optuna.TrialPruned):
        """The pruner pauses the trial. It is run again with the same folder if it is promoted."""

    TrialPaused.__module__, TrialPaused.__qualname__ = "joyful.sweeper", "TrialPaused"
    return TrialPaused


def __getattr__(name: str) -> Any:
    if name == "TrialPaused":  # its base class is Optuna's, which this module does not import before it is needed
        return _trial_paused()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _as_step(step: Any) -> int:
    if isinstance(step, float) and math.isfinite(step) and step == int(step):
        step = int(step)
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"trial.report: step: expected an integer >= 0, got {step!r}") from None
    if number < 0:
        raise ValueError(f"trial.report: step: expected an integer >= 0, got {number}")
    return number


def _hydra_folder() -> Path:
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        return Path(HydraConfig.get().runtime.output_dir)
    return Path.cwd()


#: The trial that this process works on.
trial = CurrentTrial()
