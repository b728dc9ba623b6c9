"""Finalists of a search: configurations that were trained on further seeds, and their means.

A sweep with `hydra.sweeper.seeds` trains its best configurations again with other seeds. These trials, the repeats, lie in
the same Optuna study. Their attribute REPEAT_OF has the number of the trial of the search with the same configuration.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Attribute of a repeat: number of the trial of the search that has its configuration.
REPEAT_OF = "repeat_of"

#: Attribute of a trial: its seed.
SEED = "seed"


@dataclass(frozen=True)
class Finalist:
    """A configuration with runs on several seeds.

    Attributes:
        trial: Number of its trial in the search.
        values: The objective on each seed whose run is complete. The first is that of the search.
    """

    trial: int
    values: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean, None for one seed or an infinite value."""
        if len(self.values) < 2 or not all(map(math.isfinite, self.values)):
            return None
        return statistics.stdev(self.values) / math.sqrt(len(self.values))


def is_repeat(trial: Any) -> bool:
    """Return whether an Optuna trial trains a finalist on a further seed."""
    return REPEAT_OF in trial.user_attrs


def finalists_of(trials: Iterable[Any], maximise: bool) -> list[Finalist]:
    """Return the configurations that have repeats, the best first.

    Those with runs on the most seeds come first, and among them the order is that of the means. So a configuration that
    failed on a seed is not the best because the other seeds were lucky.

    Args:
        trials: Optuna's trials, with the repeats and the trials of the search that they refer to.
        maximise: Whether larger values are better.
    """
    by_number = {trial.number: trial for trial in trials}
    values: dict[int, dict[Any, float]] = {}
    for repeat in filter(is_repeat, by_number.values()):
        first = by_number.get(repeat.user_attrs[REPEAT_OF])
        if first is None or first.state.name != "COMPLETE":
            continue
        of_seeds = values.setdefault(first.number, {"first": first.values[0]})
        if repeat.state.name == "COMPLETE":
            of_seeds[repeat.user_attrs[SEED]] = repeat.values[0]
    sign = -1.0 if maximise else 1.0
    found = [Finalist(number, tuple(of_seeds.values())) for number, of_seeds in values.items()]
    return sorted(found, key=lambda finalist: (-finalist.seeds, sign * finalist.mean, finalist.trial))


def best_finalist(trials: Sequence[Any], maximise: bool) -> Finalist | None:
    """Return the best finalist, None if there is none or a repeat is not finished yet. See `finalists_of`."""
    if any(trial.state.name in ("WAITING", "RUNNING") for trial in trials if is_repeat(trial)):
        return None
    return next(iter(finalists_of(trials, maximise)), None)
