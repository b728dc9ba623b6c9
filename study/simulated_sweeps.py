"""Simulated sweeps whose true effects are known, as the values that the analysis derives from real sweeps.

Noise is between runs. The curve of a run is smooth: f(e) = c (1 - exp(-k e)), where k is such that f reaches TARGET at the
true time T of the run. It is sampled at the evaluations, and `convergence.read_times` reads from the samples between which
evaluations T lies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.claims_file import Claim
from joyful.analysis.convergence import read_times
from joyful.analysis.measures import Metric
from joyful.analysis.scales import Scale
from joyful.analysis.stability import spread_of_rows

Array = npt.NDArray[np.float64]

SPEED = Claim("convergence_speed", "", (Metric("time_to_target", "dev", "f1_weighted"),), 15, 25, "percent", "increase")
STABILITY = Claim("convergence_stability", "", (Metric("spread", "dev", "f1_weighted"),), 30, 40, "percent", "increase")

#: Numbers of pairs, or of runs of each arm, that are simulated.
PAIRS = (6, 10, 15, 20, 30)

#: The target, and the mean and standard deviation over runs of the limit c of a curve.
TARGET, _CEILING, _CEILING_SD = 0.5, 0.62, 0.005

#: The factors of the median time and of the noise, for each of several tasks.
_MEDIANS, _NOISES = (1.0, 0.5, 2.0, 0.75, 1.5, 1.25), (1.0, 1.5, 0.75, 1.0, 2.0, 0.5)

#: Probability of the rare step.
RARE = 1 / 12

#: Values of a matrix of curves that are held at once, and numbers of pairs that are drawn to find quantiles and means.
_BLOCK, _DRAWS, _CURVES = 4_000_000, 100_000, 100_000
_EPOCHS_OF_SPREAD = 20


@dataclass(frozen=True)
class Setting:
    """What sweeps are simulated.

    Attributes:
        group: Title of the table.
        label: Label of the row.
        claim: The claim that is judged. The true effect is its lower edge.
        noise: Distribution of ln T of a run, standardised: "normal", "t3" or "t5" (t with 3 or 5 degrees of freedom),
            "gamma(2)" or "gamma(4)" (with skewness 1.41 or 1), or "step": the new arm takes longer by a constant factor in one
            pair in twelve, and nothing else varies.
        sd: Standard deviation of d.
        correlation: Correlation of the noise of the two runs of a pair, from 0 to 1.
        noisier: Standard deviation of the noise of the new arm, divided by that of the baseline.
        median: Median T of the baseline in epochs.
        evaluations: Evaluations per epoch.
        left: Share of all runs that reach the target by the first evaluation. If it is 0, the first evaluation is after
            1 / `evaluations` epochs.
        right: Share of all runs that do not reach the target within the budget. If it is 0, the budget is more than twice
            the median.
        jitter: Standard deviation of the noise of an evaluation, as a fraction of a score.
        unpaired: Whether the runs of the two arms are independent.
        tasks: Number of tasks.
        exact: Whether T is known exactly. Always so for a claim in points, whose values are -ln T.
        spread: Whether the spread of curves with noise is measured, instead of T.
        bound: Whether the rates must keep the bars.
        pairs: Numbers of pairs that are simulated.
    """

    group: str
    label: str
    claim: Claim = SPEED
    noise: str = "normal"
    sd: float = 0.15
    correlation: float = 0.5
    noisier: float = 1.0
    median: float = 4.0
    evaluations: int = 4
    left: float = 0.0
    right: float = 0.0
    jitter: float = 0.0
    unpaired: bool = False
    tasks: int = 1
    exact: bool = False
    spread: bool = False
    bound: bool = True
    pairs: tuple[int, ...] = PAIRS

    @property
    def scale(self) -> Scale:
        """The scale of the claim."""
        return self.claim.metrics[0].scale(self.claim.unit, self.claim.direction)

    @functools.cached_property
    def truth(self) -> float:
        """The true mean of d. For spreads, whose mean has no formula, it is computed from many curves."""
        edge = self.scale.difference(self.claim.lower)
        if not self.spread:
            return edge
        d = self.scale.differences(*(pd.Series(x) for x in _spreads(self, edge, (_CURVES,), np.random.default_rng(0))))
        return float(d.mean())

    @property
    def lower(self) -> float:
        """Lower edge of the claim: the true effect."""
        return self.scale.effect(self.truth) if self.spread else self.claim.lower


@dataclass(frozen=True)
class Sweeps:
    """Simulated sweeps of one task.

    Attributes:
        new: `low` and `high` of the values of the new arm, of shape (sweeps, runs).
        base: The same for the baseline.
        d: `low` and `high` of the differences of the pairs, of shape (sweeps, pairs).
        samples: `low` and `high` of the values of the new arm and of the baseline on the axis of d.
    """

    new: tuple[Array, Array]
    base: tuple[Array, Array]
    d: tuple[Array, Array]
    samples: tuple[tuple[Array, Array], tuple[Array, Array]]


def standard_noise(kind: str, correlation: float, size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw pairs of correlated noise with mean 0 and standard deviation 1.

    Normal noise is √ρ · shared + √(1-ρ) · own. t noise is normal noise divided by one chi variable for the pair, so the
    difference of a pair has a t distribution. Gamma noise of shape k is (g - k) / √k, where g is the sum of a shared gamma(kρ)
    and an own gamma(k(1-ρ)) variable. Such a sum has a gamma(k) distribution for any ρ, with skewness 2 / √k.

    Args:
        kind: "normal", "t3" or "t5", "gamma(2)" or "gamma(4)", or "step". With "step" the second run has the rare step, and
            the first has no noise.
        correlation: Correlation ρ of a pair, from 0 to 1.
        size: Shape of the array of pairs.
        rng: The generator.

    Returns:
        An array of shape size + (2,).
    """
    if kind == "step":
        steps = (rng.uniform(size=size) < RARE) - RARE
        return np.stack([np.zeros(size), steps / math.sqrt(RARE * (1 - RARE))], axis=-1)
    if kind in ("normal", "t3", "t5"):
        shared, own = rng.standard_normal((*size, 1)), rng.standard_normal((*size, 2))
        normal: Array = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        if kind == "normal":
            return normal
        freedom = int(kind.removeprefix("t"))
        return normal * math.sqrt(freedom - 2) / np.sqrt(rng.chisquare(freedom, (*size, 1)))
    shape = int(kind.removeprefix("gamma(").removesuffix(")"))
    shared = rng.gamma(shape * correlation, size=(*size, 1)) if correlation else np.zeros((*size, 1))
    own = rng.gamma(shape * (1 - correlation), size=(*size, 2)) if correlation < 1 else np.zeros((*size, 2))
    return np.asarray((shared + own - shape) / math.sqrt(shape))


def draw(
    setting: Setting, pairs: int, sweeps: int, rng: np.random.Generator, truth: float | None = None
) -> Iterator[Sweeps]:
    """Yield simulated sweeps, once for each task.

    Args:
        setting: The setting.
        pairs: Number of pairs, or of runs of each arm, of each task.
        sweeps: Number of sweeps.
        rng: The generator.
        truth: True mean of d, by default that of the setting. For the spreads of curves it is the log ratio of the noise of
            the two arms, from which the mean of d differs a little. Its default is the lower edge of the claim.
    """
    shape, change = (sweeps, pairs), setting.scale.difference(setting.claim.lower) if truth is None else truth
    truth = setting.truth if truth is None else truth
    for task in range(setting.tasks):
        own = truth + (0.05 * (2 * task / (setting.tasks - 1) - 1) if setting.tasks > 1 else 0)
        if setting.spread:
            new, base = ((x, x) for x in _spreads(setting, change, shape, rng))
        else:
            logs = log_times(setting, own, shape, rng, task)
            times = -logs if setting.claim.unit == "points" else np.exp(logs)
            if setting.exact:
                base, new = ((times[..., arm], times[..., arm]) for arm in (0, 1))
            else:
                low, high = brackets(setting, times, rng)
                base, new = ((low[..., arm], high[..., arm]) for arm in (0, 1))
        tables = [pd.DataFrame({"low": low.ravel(), "high": high.ravel()}) for low, high in (new, base)]
        if setting.spread or setting.exact:
            exact = setting.scale.differences(tables[0]["low"], tables[1]["low"])
            d = pd.DataFrame({"low": exact, "high": exact})
        else:
            d = setting.scale.bounds(*tables)
        ends = [_ends(table, shape) for table in (d, *map(setting.scale.of_arm_bounds, tables))]
        yield Sweeps(new, base, ends[0], (ends[1], ends[2]))


def log_times(setting: Setting, truth: float, shape: tuple[int, ...], rng: np.random.Generator, task: int = 0) -> Array:
    """Return ln T of pairs of runs, baseline first, of shape shape + (2,). The mean of their difference is `truth`."""
    correlation = 0.0 if setting.unpaired else setting.correlation
    unit = math.sqrt(1 + setting.noisier**2 - 2 * correlation * setting.noisier) if setting.noise != "step" else 1.0
    noise = standard_noise(setting.noise, correlation, shape, rng) * np.array([1.0, setting.noisier])
    scaled: Array = noise * setting.sd / unit * _NOISES[task]
    return np.asarray(math.log(setting.median * _MEDIANS[task]) + scaled - np.array([0.0, truth]))


@functools.cache
def evaluations(setting: Setting) -> Array:
    """Return the epochs of the evaluations.

    The first evaluation or the last is at the quantile of T of both arms that gives the shares `left` or `right`.
    """
    step, last = 1 / setting.evaluations, math.ceil(2 * setting.median * max(_MEDIANS[: setting.tasks]) + 1)
    times = np.exp(log_times(setting, setting.truth, (_DRAWS,), np.random.default_rng(0)))
    if setting.right:
        budget = float(np.quantile(times, 1 - setting.right))
        return np.sort(np.arange(budget, 0, -step))
    first = float(np.quantile(times, setting.left)) if setting.left else step
    return np.arange(first, last + step / 2, step)


def curves_of(setting: Setting, times: Array, rng: np.random.Generator) -> pd.DataFrame:
    """Return the dev curve of each run, one per row, for the true times T of the runs."""
    x = evaluations(setting)
    ceiling = rng.normal(_CEILING, _CEILING_SD, len(times))
    rates = -np.log1p(-TARGET / ceiling) / times
    values = -ceiling[:, None] * np.expm1(-rates[:, None] * x)
    if setting.jitter:
        values += rng.normal(0, setting.jitter, values.shape)
    return pd.DataFrame(values, columns=x)


def brackets(setting: Setting, times: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return between which evaluations the curves of runs reach the target, as `low` and `high` of the shape of `times`."""
    flat = times.reshape(-1)
    rows = max(1, _BLOCK // len(evaluations(setting)))
    read = [
        read_times(curves_of(setting, flat[start : start + rows], rng), TARGET) for start in range(0, len(flat), rows)
    ]
    low, high = (np.concatenate([part[name].to_numpy(dtype=float) for part in read]) for name in ("after", "by"))
    return low.reshape(times.shape), high.reshape(times.shape)


def _spreads(setting: Setting, change: float, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the spreads of the curves of both arms, new first. The noise of the new arm is smaller by exp(-change)."""
    epochs = np.arange(1, _EPOCHS_OF_SPREAD + 1)
    trend = _CEILING * (1 - np.exp(-epochs / setting.median))
    found: list[list[Array]] = [[], []]
    rows = max(1, _BLOCK // _EPOCHS_OF_SPREAD // 2)
    count = math.prod(shape)
    for start in range(0, count, rows):
        size = (min(rows, count - start), _EPOCHS_OF_SPREAD)
        noise = standard_noise(setting.noise, setting.correlation, size, rng)
        for arm, factor in enumerate((math.exp(-change), 1.0)):
            found[arm].append(spread_of_rows(trend + 0.01 * factor * noise[..., 1 - arm]))
    new, base = (np.concatenate(parts).reshape(shape) for parts in found)
    return new, base


def _ends(table: pd.DataFrame, shape: tuple[int, ...]) -> tuple[Array, Array]:
    low, high = (table[name].to_numpy(dtype=float).reshape(shape) for name in ("low", "high"))
    return low, high
