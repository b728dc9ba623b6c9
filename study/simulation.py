"""Simulation of the statistics: error rates, coverage and power of verdicts on sweeps whose true effects are known.

    python -m study.simulation [--sweeps 4000] [--seed 1]

This command prints the table of docs/CONVERGENCE_ANALYSIS.md. Each simulated sweep has n pairs of runs. The simulated
values are judged with the functions that judge real sweeps: `Scale.differences`, `paired_t` and `decide`. For the
stability, whole curves are simulated, and `spread_of_rows` is applied first.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis.claims import MINIMUM_PAIRS, decide
from joyful.analysis.claims_file import Claim
from joyful.analysis.measures import Metric, Scale
from joyful.analysis.stability import spread_of_rows
from joyful.analysis.statistics import BOOTSTRAP_FROM, bca, paired_t

#: Numbers of pairs that are simulated.
PAIRS = (6, 10, 20, 30)

#: Requirements: smallest coverage of the nominal 95 % interval, fewest pairs to which this applies, and largest rate
#: of the verdict "supported" at the lower edge of the claim.
COVERAGE_BAR, COVERAGE_FROM, FALSE_BAR = 0.93, 10, 0.05

SPEED = Claim("convergence_speed", "", (Metric("time_to_target", "dev", "f1_weighted"),), 15, 25, "percent", "increase")
STABILITY = Claim("convergence_stability", "", (Metric("spread", "dev", "f1_weighted"),), 30, 40, "percent", "increase")

#: Numbers of simulated pairs from which the true mean of d is computed where it has no formula.
_TRUTH_RUNS, _TRUTH_CURVES = 400_000, 40_000
_CURVE_EPOCHS = 20


@dataclass(frozen=True)
class Setting:
    """Parameters of simulated sweeps.

    Attributes:
        label: Label of the setting in the table.
        noise: Distribution of ln T of a run (times) or of the jitter at each epoch (curves): "normal" or "gamma(2)",
            which has skewness 1.41. Both are standardised.
        sd: Standard deviation of the paired difference of ln T.
        correlation: Correlation of the noise of the two runs of a pair.
        censored: Share of the baseline's times that exceed the budget.
        grid: Evaluations per epoch. Times are rounded up to an evaluation. 0 means no rounding.
        noisier: Standard deviation of the noise of the new arm, divided by that of the baseline.
        curves: Whether to simulate curves and measure their spreads, instead of times.
    """

    label: str
    noise: str = "normal"
    sd: float = 0.15
    correlation: float = 0.5
    censored: float = 0.0
    grid: int = 0
    noisier: float = 1.0
    curves: bool = False

    @property
    def claim(self) -> Claim:
        """The claim that is judged."""
        return STABILITY if self.curves else SPEED

    @property
    def scale(self) -> Scale:
        """The scale of the claim."""
        return self.claim.metrics[0].scale(self.claim.unit, self.claim.direction)


#: Settings of the table.
SETTINGS = (
    Setting("times, normal noise"),
    Setting("times, gamma(2) noise", noise="gamma(2)"),
    Setting("times, normal, unpaired luck (correlation 0)", correlation=0.0),
    Setting("times, gamma(2), strong pairs (correlation 0.9)", noise="gamma(2)", correlation=0.9),
    Setting("times, normal, read at 4 evaluations per epoch", grid=4),
    Setting("times, normal, 25 % of the baseline censored", censored=0.25),
    Setting("times, gamma(2), 25 % of the baseline censored", noise="gamma(2)", censored=0.25),
    Setting("times, normal, 45 % of the baseline censored", censored=0.45),
    Setting("curves' spread, normal jitter", curves=True),
    Setting("curves' spread, gamma(2) jitter", noise="gamma(2)", curves=True),
    Setting("times, gamma(2), new arm twice as noisy (stress)", noise="gamma(2)", noisier=2.0),
)


def standard_noise(kind: str, correlation: float, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw pairs of correlated noise with mean 0 and standard deviation 1.

    Normal noise is √ρ · shared + √(1-ρ) · own. Gamma noise is (g - 2) / √2, where g is the sum of a shared gamma(2ρ)
    and an own gamma(2(1-ρ)) variable. Such a sum has a gamma(2) distribution for any ρ.

    Args:
        kind: "normal" or "gamma(2)".
        correlation: Correlation ρ of a pair, from 0 to 1.
        size: Shape of the array of pairs.
        rng: The generator.

    Returns:
        An array of shape size + (2,).
    """
    if kind == "normal":
        shared, own = rng.standard_normal((*size, 1)), rng.standard_normal((*size, 2))
        return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    shared = rng.gamma(2 * correlation, size=(*size, 1)) if correlation else np.zeros((*size, 1))
    own = rng.gamma(2 * (1 - correlation), size=(*size, 2)) if correlation < 1 else np.zeros((*size, 2))
    return (shared + own - 2) / math.sqrt(2)


class Simulator:
    """Simulate the paired differences d under one setting.

    The parameter `shift` is the true change: the difference of the logarithms of the uncensored times, or of the
    standard deviation of the jitter. The quantity that is estimated is the mean of d, `estimand(shift)`. It is smaller
    than the shift under censoring, because the measured time is min(T, budget). It is also smaller for spreads, because
    the trend of the curve contributes to them at the edges of the median window.

    Args:
        setting: The setting.
        rng: Generator for the noise from which the estimand is computed.
    """

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting = setting
        self._base = math.log(8.0)  # Median time in epochs. The scale matters only with a grid.
        unit = math.sqrt(1 + setting.noisier**2 - 2 * setting.correlation * setting.noisier)
        self._sd = setting.sd / unit
        self._budget = math.inf
        self._reference = self._noise(_TRUTH_CURVES if setting.curves else _TRUTH_RUNS, rng)
        self._shifts: dict[float, float] = {}
        #: Whether the mean of d equals the true change.
        self.shift_is_estimand = not (setting.censored or setting.grid or setting.curves)
        if setting.censored:
            self._budget = float(np.exp(np.quantile(self._base + self._reference[:, 0], 1 - setting.censored)))

    def differences(
        self, shift: float, sweeps: int, pairs: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Simulate sweeps.

        Args:
            shift: The true change.
            sweeps: Number of sweeps.
            pairs: Number of pairs of each sweep.
            rng: The generator.

        Returns:
            The differences, of shape (sweeps, pairs), and the share of censored times of each sweep in the arm with
            more of them, of shape (sweeps,).
        """
        measured, censored = self._measure(shift, self._noise(sweeps * pairs, rng))
        base, new = (pd.Series(measured[:, arm]) for arm in (0, 1))
        d = self.setting.scale.differences(new, base)
        shares = censored.reshape(sweeps, pairs, 2).mean(axis=1).max(axis=1)
        return d.to_numpy().reshape(sweeps, pairs), shares

    def estimand(self, shift: float) -> float:
        """Return the expected value of d for a true change."""
        if self.shift_is_estimand:
            return shift
        measured, _ = self._measure(shift, self._reference)
        return float(np.mean(np.log(measured[:, 0] / measured[:, 1])))

    def shift_for(self, estimand: float) -> float:
        """Return the true change for which d has a given expected value. This is the inverse of `estimand`."""
        if self.shift_is_estimand:
            return estimand
        if estimand not in self._shifts:
            low, high = estimand - 0.2, estimand + 1.0
            for _ in range(20):
                middle = (low + high) / 2
                low, high = (middle, high) if self.estimand(middle) < estimand else (low, middle)
            self._shifts[estimand] = (low + high) / 2
        return self._shifts[estimand]

    def _noise(self, pairs: int, rng: np.random.Generator) -> np.ndarray:
        size = (pairs, _CURVE_EPOCHS) if self.setting.curves else (pairs,)
        noise = standard_noise(self.setting.noise, self.setting.correlation, size, rng)
        return noise if self.setting.curves else self._sd * noise * np.array([1.0, self.setting.noisier])

    def _measure(self, shift: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the measured values and whether they are censored, both of shape (pairs, 2): baseline and new arm."""
        if self.setting.curves:  # 0.6 (1 - exp(-e / 4)) + jitter, where the runs of a pair have correlated jitter
            trend = 0.6 * (1 - np.exp(-np.arange(1, _CURVE_EPOCHS + 1) / 4))
            curves = trend[:, None] + 0.01 * noise * np.exp([0.0, -shift])
            measured = np.stack([spread_of_rows(curves[:, :, arm]) for arm in (0, 1)], axis=1)
            return measured, np.zeros(measured.shape, dtype=bool)
        times = np.exp(self._base + noise - np.array([0.0, shift]))
        if self.setting.grid:
            times = np.ceil(times * self.setting.grid) / self.setting.grid
        return np.minimum(times, self._budget), times > self._budget


def summarise(simulator: Simulator, pairs: int, sweeps: int, rng: np.random.Generator) -> dict[str, float]:
    """Return error rates, coverage and power over simulated sweeps.

    Args:
        simulator: The simulator.
        pairs: Number of pairs of each sweep.
        sweeps: Number of sweeps.
        rng: The generator.

    Returns:
        Rates from 0 to 1, where "middle" and "edges" refer to the claimed range:

        - `coverage`: The t interval covers the expected value of d, which is the middle.
        - `power_middle`, `power_upper`: Verdict "supported" if the expected value of d is the middle or the upper edge.
        - `seen`: The t interval lies above zero if the expected value of d is the middle.
        - `not_testable`: Verdict "not testable" if the expected value of d is the middle.
        - `bca`: The BCa interval covers the middle, on a tenth of the sweeps. NaN with too few pairs for the bootstrap.
        - `wrong`: Verdict "contradicted" if the true change is the middle.
        - `false_edge`: Verdict "supported" if the expected value of d is the lower edge.
        - `false_change`: Verdict "supported" if the true change is the lower edge.
    """
    claim, scale = simulator.setting.claim, simulator.setting.scale
    edge, upper = scale.difference(claim.lower), scale.difference(claim.upper)
    middle = (edge + upper) / 2

    def run(shift: float) -> tuple[np.ndarray, np.ndarray, Callable[[str], float]]:
        """Return the differences, the limits of their intervals, and a function for the rate of a verdict."""
        d, censored = simulator.differences(shift, sweeps, pairs, rng)
        intervals = list(map(paired_t, d))
        testable = (censored <= 0.5) & (pairs >= MINIMUM_PAIRS)
        verdicts = [
            decide(scale.effect(i.low), scale.effect(i.high), claim.lower, claim.upper)[0] if ok else "not testable"
            for i, ok in zip(intervals, testable, strict=True)
        ]
        return d, np.array([(i.low, i.high) for i in intervals]), lambda verdict: verdicts.count(verdict) / sweeps

    d, bounds, rate = run(simulator.shift_for(middle))
    exact = simulator.shift_is_estimand
    rates = {
        "coverage": float(np.mean((bounds[:, 0] <= middle) & (middle <= bounds[:, 1]))),
        "power_middle": rate("supported"),
        "seen": float(np.mean(bounds[:, 0] > 0)),
        "not_testable": rate("not testable"),
        "bca": _bca_coverage(d[: sweeps // 10], middle, rng),
        "wrong": rate("contradicted") if exact else run(middle)[2]("contradicted"),
        "false_edge": run(simulator.shift_for(edge))[2]("supported"),
        "power_upper": run(simulator.shift_for(upper))[2]("supported"),
    }
    return rates | {"false_change": rates["false_edge"] if exact else run(edge)[2]("supported")}


def run_all(sweeps: int, seed: int, settings: Sequence[Setting] = SETTINGS) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting and number of pairs: `setting`, `pairs` and the rates of `summarise`.

    Args:
        sweeps: Number of simulated sweeps per row.
        seed: Seed of the simulation.
        settings: The settings.
    """
    for number, setting in enumerate(settings):
        rng = np.random.default_rng([seed, number])
        simulator = Simulator(setting, rng)
        for pairs in PAIRS:
            yield {"setting": setting.label, "pairs": pairs} | summarise(simulator, pairs, sweeps, rng)


def misses_coverage(row: Mapping[str, Any]) -> bool:
    """Return whether the coverage of a row is below COVERAGE_BAR, for rows with at least COVERAGE_FROM pairs."""
    return bool(row["coverage"] < COVERAGE_BAR and row["pairs"] >= COVERAGE_FROM)


def misses_false(row: Mapping[str, Any]) -> bool:
    """Return whether the rate of false "supported" verdicts of a row exceeds FALSE_BAR."""
    return bool(max(row["false_edge"], row["false_change"]) > FALSE_BAR)


def markdown(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the Markdown table. Rates are in per cent. Rates that miss a requirement are in bold."""
    head = (
        "setting", "pairs", "coverage", "false supported", "supported, middle", "supported, upper edge", "above zero, middle",
        "wrongly contradicted", "not testable", "BCa coverage",
    )  # fmt: skip
    others = ("power_middle", "power_upper", "seen", "wrong", "not_testable", "bca")
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        false = _per_cent(row["false_edge"], misses_false(row))
        if row["false_change"] != row["false_edge"]:
            false += f" ({_per_cent(row['false_change'])})"
        cells = [row["setting"], str(row["pairs"]), _per_cent(row["coverage"], misses_coverage(row)), false]
        yield f"| {' | '.join(cells + [_per_cent(row[name]) for name in others])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and print the command, the standard error of the rates, and the table."""
    command, formatter = "python -m study.simulation", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(command, description=__doc__, formatter_class=formatter)
    parser.add_argument("--sweeps", type=int, default=4000, help="simulated sweeps for each row (default 4000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default 1)")
    options = parser.parse_args(arguments)
    sweeps, seed = options.sweeps, options.seed
    if sweeps < 100 or seed < 0:
        parser.error(f"expected --sweeps >= 100 and --seed >= 0, got --sweeps {sweeps} and --seed {seed}")
    error = math.sqrt(0.95 * 0.05 / sweeps) * 100
    print(f"`{command} --sweeps {sweeps} --seed {seed}`; all values are in per cent.")
    bca_error = error * math.sqrt(10)
    print(f"The standard error of a coverage of 95 is {error:.2f} points ({bca_error:.2f} for the BCa interval).\n")
    for line in markdown(run_all(sweeps, seed)):
        print(line, flush=True)


def _bca_coverage(d: np.ndarray, truth: float, rng: np.random.Generator) -> float:
    if d.shape[1] < BOOTSTRAP_FROM:
        return math.nan
    intervals = [bca(row, rng, resamples=1999) for row in d]
    return float(np.mean([i is not None and i.low <= truth <= i.high for i in intervals]))


def _per_cent(rate: float, bold: bool = False) -> str:
    text = "-" if math.isnan(rate) else f"{100 * rate:.1f}"
    return f"**{text}**" if bold else text


if __name__ == "__main__":
    main()
