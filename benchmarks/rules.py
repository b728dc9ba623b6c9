"""Rules that end or pause the trials of a search early, in a form that recorded curves can be replayed through.

Larger values are better, all trials have the same last step, and values are the best so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from scipy.stats import t

from joyful.sweeper.promotion import Ladder, Policy, State


class Rule(Protocol):
    """A rule during one search. Trials are numbered from 0 in the order of their start."""

    def next_trial(self) -> int | None:
        """Return the trial that a free worker trains: a new one or a paused one. None: none at the moment."""

    def continues(self, number: int, values: Sequence[float]) -> bool:
        """Take the report of a trial. Return whether its worker trains it further.

        Args:
            number: The trial.
            values: Its values after each epoch up to now.
        """


#: Makes a rule from the number of trials and their last step.
MakeRule = Callable[[int, int], Rule]


class InOrder:
    """Starts the trials in order. A base of the rules that do not pause."""

    def __init__(self, n_trials: int, last_step: int) -> None:
        self.n_trials, self.last_step, self.started = n_trials, last_step, 0

    def next_trial(self) -> int | None:
        """Return the next new trial."""
        if self.started == self.n_trials:
            return None
        self.started += 1
        return self.started - 1

    def continues(self, number: int, values: Sequence[float]) -> bool:
        """Return True until the last step."""
        return len(values) < self.last_step


class Fewer(InOrder):
    """Trains a part of the trials to their ends, and none of the others.

    Args:
        share: Share of the trials, above 0 and up to 1.
    """

    def __init__(self, n_trials: int, last_step: int, share: float) -> None:
        super().__init__(max(1, round(share * n_trials)), last_step)


class Pruned(InOrder):
    """Asks a pruner of Optuna after each epoch."""

    def __init__(self, n_trials: int, last_step: int, pruner: BasePruner) -> None:
        super().__init__(n_trials, last_step)
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}

    def next_trial(self) -> int | None:
        """Return the next new trial."""
        number = super().next_trial()
        if number is not None:
            self._trials[number] = self._study.ask()
        return number

    def continues(self, number: int, values: Sequence[float]) -> bool:
        """Report the value, and return whether the trial is neither complete nor pruned."""
        trial = self._trials[number]
        trial.report(values[-1], len(values))
        if len(values) == self.last_step:
            self._study.tell(trial, values[-1])
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        return False


class Paused:
    """Asynchronous successive halving that pauses trials at rungs, by the same code as the sweeper.

    Args:
        first: Step of the first rung.
        factor: Reduction factor.
        breadth_first: Whether new trials go before promotions.
    """

    def __init__(self, n_trials: int, last_step: int, first: int, factor: int, breadth_first: bool) -> None:
        self._last = last_step
        self._ladder = Ladder(Policy(first, factor, True, breadth_first, last_step))
        self._values: dict[int, dict[int, float]] = {number: {} for number in range(n_trials)}
        for number in self._values:
            self._ladder.put(number, State.WAITING, {})

    def next_trial(self) -> int | None:
        """Return a promoted or a new trial."""
        action = self._ladder.next_action()
        if action.kind not in ("start", "promote"):
            return None
        number = action.numbers[0]
        self._ladder.put(number, State.HELD, self._values[number])
        return number

    def continues(self, number: int, values: Sequence[float]) -> bool:
        """Return whether the trial is neither complete nor paused."""
        self._values[number][len(values)] = values[-1]
        self._ladder.put(number, State.HELD, self._values[number])
        if len(values) < self._last and not self._ladder.pauses(number):
            return True
        self._ladder.put(number, State.COMPLETE if len(values) == self._last else State.FREE, self._values[number])
        return False


class Risk(InOrder):
    """Ends a trial when the chance that it ends above the best value so far is below `risk`.

    The chance is that of the t distribution predicted from the complete trials: each has gained something between the
    current step and its end. Those who gain most are not known before they are complete, so the rule waits for `startup`
    trials.

    Args:
        risk: Chance below which a trial ends, between 0 and 0.5.
        startup: Complete trials before the first decision, at least 2.
        warmup: Steps of a trial before a decision.
    """

    def __init__(self, n_trials: int, last_step: int, risk: float, startup: int = 3, warmup: int = 0) -> None:
        super().__init__(n_trials, last_step)
        self._risk, self._startup, self._warmup = risk, startup, warmup
        self._best = float("-inf")
        self._complete: list[Sequence[float]] = []

    def continues(self, number: int, values: Sequence[float]) -> bool:
        """Return whether the trial is not complete, and may still end above the best."""
        self._best = max(self._best, values[-1])
        if len(values) == self.last_step:
            self._complete.append(tuple(values))
            return False
        if len(values) <= self._warmup or len(self._complete) < self._startup:
            return True
        return self.chance(values) >= self._risk

    def chance(self, values: Sequence[float]) -> float:
        """Return the chance that a trial ends above the best value so far; 1 if it is the best."""
        missing = self._best - values[-1]
        if missing <= 0:
            return 1.0
        gains = [curve[-1] - curve[len(values) - 1] for curve in self._complete]
        spread = stdev(gains) * (1 + 1 / len(gains)) ** 0.5
        if spread == 0:
            return float(fmean(gains) >= missing)
        return float(t.sf((missing - fmean(gains)) / spread, len(gains) - 1))


@dataclass(frozen=True)
class Candidate:
    """A rule to replay.

    Attributes:
        name: Its name with its settings.
        family: Its kind, for the frontier.
        make: Makes the rule.
    """

    name: str
    family: str
    make: MakeRule
