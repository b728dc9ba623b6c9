"""Statistics over several tasks (datasets, environments), by the stratified bootstrap of Agarwal et al.

Scores are given in one of two forms: a two-dimensional array of shape (runs, tasks), or a list with one array of values
for each task. In the list, the tasks may have different numbers of runs. NaN marks a run without a value and is dropped.
Each task needs at least one value. In paired designs the "scores" are the differences of the pairs.

The stratified bootstrap draws the runs of each task with replacement, independently of the other tasks. The tasks stay the
same: the intervals hold for these tasks, not for a population of tasks. The limits are percentiles, so with few runs per
task the intervals are slightly too narrow. For the mean over 6 tasks of normal values, the 95 % interval covers 90 % with
5 runs per task, 93 % with 10, and 94 % with 30.

Source:
    Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), Deep Reinforcement Learning at the Edge of the Statistical
    Precipice, NeurIPS 34. The results are those of its library, rliable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from joyful.analysis.statistics import Estimate
from joyful.results import InputError

Array = npt.NDArray[np.float64]

#: An array of shape (runs, tasks), or one array of values for each task.
Scores = npt.NDArray[np.float64] | Sequence[npt.ArrayLike]

#: Number of bootstrap resamples.
RESAMPLES = 2000


@dataclass(frozen=True)
class OverTasks:
    """Two summaries over tasks.

    Attributes:
        mean: Mean over tasks of the mean of a task.
        interquartile_mean: Interquartile mean over the values of all tasks.
    """

    mean: Estimate
    interquartile_mean: Estimate


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of the new arm has a higher score than a run of the baseline.

    Attributes:
        overall: Mean over the tasks, from 0 to 1.
        tasks: One estimate for each task.
    """

    overall: Estimate
    tasks: tuple[Estimate, ...]


@dataclass(frozen=True)
class Profile:
    """A performance profile.

    Attributes:
        thresholds: Thresholds of the score.
        share: Share of the runs above each threshold, averaged over tasks, from 0 to 1.
        low: Lower limits, one for each threshold.
        high: Upper limits, one for each threshold.
    """

    thresholds: Array
    share: Array
    low: Array
    high: Array


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all values.

    The values of all tasks are sorted together. A quarter of them, rounded down, is dropped at each end.

    Args:
        scores: Scores of the runs of each task.

    Returns:
        The interquartile mean, in the unit of the scores.

    Raises:
        InputError: If a task has no value.

    Source:
        Agarwal et al. (2021). Computed by `scipy.stats.trim_mean`.

    Example:
        >>> interquartile_mean([[0.0, 1.0, 2.0], [3.0, 100.0]])
        2.0
    """
    return float(_interquartile_mean(_tasks(scores)))


def stratified_bootstrap(
    statistic: Callable[..., Array],
    *samples: Scores,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a statistic and its percentile interval from the stratified bootstrap.

    Args:
        statistic: Function of one list of arrays for each sample. A list holds one array for each task, with the runs in the
            last axis. The function returns one value for each index of the leading axes.
        *samples: Scores of each sample. The samples are drawn independently of one another.
        rng: Generator for the resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The estimate, in the unit of the statistic.

    Raises:
        InputError: If a task has no value.

    Source:
        Agarwal et al. (2021), section 4.1.

    Example:
        >>> def largest_mean(tasks):
        ...     return np.max([task.mean(axis=-1) for task in tasks], axis=0)
        >>> rng = np.random.default_rng(0)
        >>> stratified_bootstrap(largest_mean, [[1.0, 2.0, 3.0], [5.0, 5.0]], rng=rng)
        Estimate(estimate=5.0, low=5.0, high=5.0)
    """
    estimate, low, high = _bootstrap(statistic, samples, rng, confidence, resamples)
    return Estimate(float(estimate), float(low), float(high))


def over_tasks(
    scores: Scores, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> OverTasks:
    """Return the mean and the interquartile mean over tasks, with stratified bootstrap intervals.

    Use it for the effect of a paired design, with the differences of the pairs of each task. Then pairs are drawn. Use it
    also for the scores of one arm.

    Args:
        scores: Differences of the pairs of each task, or scores of the runs of each task.
        rng: Generator for the resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The estimates, in the unit of the scores.

    Raises:
        InputError: If a task has no value, or if a value is infinite.

    Source:
        Agarwal et al. (2021), sections 4.1 and 4.3.

    Example:
        >>> effect = over_tasks([[0.1, 0.2, 0.3], [0.4, 0.6]], np.random.default_rng(0))
        >>> round(effect.mean.estimate, 3), round(effect.interquartile_mean.estimate, 3)
        (0.35, 0.3)
    """
    return _summaries(_both, (scores,), rng, confidence, resamples)


def difference_over_tasks(
    new: Scores, base: Scores, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> OverTasks:
    """Return the differences of two independent arms in the mean and the interquartile mean over tasks.

    Use it for designs without pairs. The runs of each arm are drawn independently.

    Args:
        new: Scores of the new arm.
        base: Scores of the baseline, for the same tasks in the same order.
        rng: Generator for the resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The estimates of new minus baseline, in the unit of the scores.

    Raises:
        InputError: If a task has no value, if a value is infinite, or if the arms differ in the number of tasks.
    """
    _same_tasks(new, base)
    return _summaries(lambda new, base: _both(new) - _both(base), (new, base), rng, confidence, resamples)


def probability_of_improvement(
    new: Scores, base: Scores, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Improvement:
    """Return the probability that a run of the new arm has a higher score than a run of the baseline.

    In each task, each run of the new arm is compared with each run of the baseline. A tie counts as half. The probability is
    U / (n m), with the Mann-Whitney statistic U and n and m runs. For pairs, use `statistics.probability_better`.

    Args:
        new: Scores of the new arm. Higher is better. They may be infinite.
        base: Scores of the baseline, for the same tasks in the same order.
        rng: Generator for the resamples.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The estimates, from 0 to 1.

    Raises:
        InputError: If a task has no value, or if the arms differ in the number of tasks.

    Source:
        Agarwal et al. (2021), section 4.3; Mann and Whitney (1947), Ann. Math. Stat. 18(1).

    Example:
        >>> new, base = [[1.0, 2.0, 3.0], [5.0, 6.0]], [[0.0, 2.0], [5.0, 5.0]]
        >>> result = probability_of_improvement(new, base, np.random.default_rng(0))
        >>> round(result.overall.estimate, 3), [task.estimate for task in result.tasks]
        (0.75, [0.75, 0.75])
    """
    _same_tasks(new, base)

    def statistic(new: list[Array], base: list[Array]) -> Array:
        tasks = np.stack([_probability(x, y) for x, y in zip(new, base, strict=True)], axis=-1)
        return np.concatenate([tasks.mean(axis=-1, keepdims=True), tasks], axis=-1)

    overall, *tasks = _estimates(_bootstrap(statistic, (new, base), rng, confidence, resamples))
    return Improvement(overall, tuple(tasks))


def performance_profile(
    scores: Scores,
    thresholds: npt.ArrayLike,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Profile:
    """Return the share of runs above each threshold, averaged over tasks, with pointwise intervals.

    Args:
        scores: Scores of the runs of each task. They may be infinite.
        thresholds: Thresholds of the score, in its unit.
        rng: Generator for the resamples.
        confidence: Confidence level at each threshold, between 0 and 1.
        resamples: Number of resamples.

    Returns:
        The profile.

    Raises:
        InputError: If a task has no value.

    Source:
        Agarwal et al. (2021), section 4.2 (the run-score distribution).

    Example:
        >>> profile = performance_profile([[0.0, 1.0], [1.0, 2.0]], [0.5, 1.5], np.random.default_rng(0))
        >>> profile.share.tolist()
        [0.75, 0.25]
    """
    points = np.asarray(thresholds, dtype=float)

    def statistic(tasks: list[Array]) -> Array:
        return np.asarray(np.mean([(task[..., None] > points).mean(axis=-2) for task in tasks], axis=0))

    return Profile(points, *_bootstrap(statistic, (scores,), rng, confidence, resamples))


def _tasks(scores: Scores) -> list[Array]:
    """Return the known values of each task."""
    columns = scores.T if isinstance(scores, np.ndarray) and scores.ndim == 2 else scores
    tasks = [np.asarray(task, dtype=float).ravel() for task in columns]
    tasks = [task[~np.isnan(task)] for task in tasks]
    empty = [number for number, task in enumerate(tasks) if not len(task)]
    if empty or not tasks:
        found = f"task {empty[0]} (counted from 0) has none" if empty else "there are no tasks"
        raise InputError(f"scores: expected at least one value in each task, but {found}")
    return tasks


def _same_tasks(new: Scores, base: Scores) -> None:
    numbers = [len(_tasks(scores)) for scores in (new, base)]
    if numbers[0] != numbers[1]:
        raise InputError(f"scores: expected the same tasks in both arms, but there are {numbers[0]} and {numbers[1]}")


def _interquartile_mean(tasks: list[Array]) -> Array:
    return np.asarray(stats.trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1))


def _both(tasks: list[Array]) -> Array:
    """Return the mean and the interquartile mean over tasks, in the last axis."""
    mean = np.mean([task.mean(axis=-1) for task in tasks], axis=0)
    return np.stack([mean, _interquartile_mean(tasks)], axis=-1)


def _probability(x: Array, y: Array) -> Array:
    """Return P(X > Y) + P(X = Y) / 2 over all pairs of values, by the ranks of X."""
    n, m = x.shape[-1], y.shape[-1]
    ranks = stats.rankdata(np.concatenate([x, y], axis=-1), axis=-1)[..., :n]
    return np.asarray((ranks.sum(axis=-1) - n * (n + 1) / 2) / (n * m))


def _summaries(
    statistic: Callable[..., Array],
    samples: tuple[Scores, ...],
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> OverTasks:
    if any(np.isinf(task).any() for scores in samples for task in _tasks(scores)):
        raise InputError("scores: expected finite values or NaN, but a value is infinite; a mean needs finite values")
    return OverTasks(*_estimates(_bootstrap(statistic, samples, rng, confidence, resamples)))


def _bootstrap(
    statistic: Callable[..., Array],
    samples: tuple[Scores, ...],
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> tuple[Array, Array, Array]:
    """Return a statistic with its percentile limits. The first axis of the statistic of resamples counts the resamples."""
    tasks = [_tasks(scores) for scores in samples]
    drawn = [[task[rng.integers(len(task), size=(resamples, len(task)))] for task in sample] for sample in tasks]
    low, high = np.quantile(statistic(*drawn), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return np.asarray(statistic(*tasks)), low, high


def _estimates(values: tuple[Array, Array, Array]) -> list[Estimate]:
    return [Estimate(*(float(x) for x in row)) for row in zip(*values, strict=True)]
