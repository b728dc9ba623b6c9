"""The statistics tested on themselves: simulated sweeps of which the truth is known.

    python -m joyful.analysis.simulation [--sweeps 4000] [--seed 1]

prints the tables of docs/CONVERGENCE_ANALYSIS.md. Each simulated sweep has n pairs of runs; what a run measures goes
through the functions that judge real sweeps (pair_differences, paired_t, decide), or, for the stability, through
`spread` of whole curves first.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis.claims import FEWEST_PAIRS, decide
from joyful.analysis.claims_file import Claim, Metric
from joyful.analysis.measures import difference, effect, pair_differences
from joyful.analysis.stability import spread_of_rows
from joyful.analysis.statistics import BOOTSTRAP_FROM, bca, paired_t

PAIRS = (6, 10, 20, 30)

#: The bars: coverage of the nominal 95 % interval from 10 pairs on, and false "supported" at the claim's lower edge.
COVERAGE_BAR, COVERAGE_FROM, FALSE_BAR = 0.93, 10, 0.05

SPEED = Claim("convergence_speed", "", (Metric("time_to_target", "dev", "f1_weighted"),), 15, 25, "percent", "increase")
STABILITY = Claim("convergence_stability", "", (Metric("spread", "dev", "f1_weighted"),), 30, 40, "percent", "increase")

#: Runs of which a truth without a formula is worked out, once for each setting.
_TRUTH_RUNS, _TRUTH_CURVES = 400_000, 40_000
_CURVE_EPOCHS = 20


@dataclass(frozen=True)
class Setting:
    """One kind of sweep.

    noise: of each arm's ln T (times) or of each epoch (curves), "normal" or "gamma(2)" (skewness 1.41), standardised.
    sd: of the paired difference. correlation: of the two runs of a pair. censored: share of the baseline's times beyond
    the budget. grid: evaluations per epoch on which times are read; 0: as they are. noisier: standard deviation of the
    new arm's noise / the baseline's. curves: spreads of whole curves in place of times.
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
        return STABILITY if self.curves else SPEED


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
    """Pairs of standardised noise (mean 0, sd 1, this correlation): size + (2,).

    normal: √ρ · shared + √(1-ρ) · own. gamma(2): (g - 2) / √2 with g = shared gamma(2ρ) + own gamma(2(1-ρ)), so that each
    is gamma(2) whatever ρ is.
    """
    if kind == "normal":
        shared, own = rng.standard_normal((*size, 1)), rng.standard_normal((*size, 2))
        return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    shared = rng.gamma(2 * correlation, size=(*size, 1)) if correlation else np.zeros((*size, 1))
    own = rng.gamma(2 * (1 - correlation), size=(*size, 2)) if correlation < 1 else np.zeros((*size, 2))
    return (shared + own - 2) / math.sqrt(2)


class Simulator:
    """Differences d of simulated pairs under one setting, for a true change of any size.

    `shift` is the true change: the difference of the logarithms of the uncensored times, or of the jitter. What the
    design measures is the mean of d, `estimand(shift)`: smaller under censoring (T is min(T, budget)), and for spreads,
    into which the bend of the curve leaks at the edges of the median.
    """

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting = setting
        self._base = math.log(8.0)  # epochs; the scale matters to the grid alone
        unit = math.sqrt(1 + setting.noisier**2 - 2 * setting.correlation * setting.noisier)
        self._sd = setting.sd / unit
        self._budget = math.inf
        self._truth = self._noise(_TRUTH_CURVES if setting.curves else _TRUTH_RUNS, rng)
        self._shifts: dict[float, float] = {}
        #: Whether the mean of d is the true change itself.
        self.plain = not (setting.censored or setting.grid or setting.curves)
        if setting.censored:
            self._budget = float(np.exp(np.quantile(self._base + self._truth[:, 0], 1 - setting.censored)))

    def differences(
        self, shift: float, sweeps: int, pairs: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(d, censored): sweeps × pairs differences, and for each sweep the larger share of censored times of an arm."""
        measured, censored = self._measure(shift, self._noise(sweeps * pairs, rng))
        base, new = (pd.Series(measured[:, arm]) for arm in (0, 1))
        d = pair_differences(new, base, self.setting.claim, self.setting.claim.metrics[0])
        shares = censored.reshape(sweeps, pairs, 2).mean(axis=1).max(axis=1)
        return d.to_numpy().reshape(sweeps, pairs), shares

    def estimand(self, shift: float) -> float:
        """The mean of d over all pairs that there could be."""
        if self.plain:
            return shift
        measured, _ = self._measure(shift, self._truth)
        return float(np.mean(np.log(measured[:, 0] / measured[:, 1])))

    def shift_for(self, estimand: float) -> float:
        """The true change for which the mean of d is this."""
        if self.plain:
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
        """(what is measured, whether it is censored) of each run: pairs × 2 (baseline, new)."""
        if self.setting.curves:  # 0.6 (1 - exp(-e / 4)) + jitter; the two of a pair share part of each epoch's jitter
            trend = 0.6 * (1 - np.exp(-np.arange(1, _CURVE_EPOCHS + 1) / 4))
            curves = trend[:, None] + 0.01 * noise * np.exp([0.0, -shift])
            measured = np.stack([spread_of_rows(curves[:, :, arm]) for arm in (0, 1)], axis=1)
            return measured, np.zeros(measured.shape, dtype=bool)
        times = np.exp(self._base + noise - np.array([0.0, shift]))
        if self.setting.grid:
            times = np.ceil(times * self.setting.grid) / self.setting.grid
        return np.minimum(times, self._budget), times > self._budget


def summarise(simulator: Simulator, pairs: int, sweeps: int, rng: np.random.Generator) -> dict[str, float]:
    """Rates over `sweeps` simulated sweeps of `pairs` pairs, each from 0 to 1 (NaN: not worked out).

    coverage: of the true mean of d by the decision interval, where it is the middle of the claimed range. false_edge:
    "supported" where the mean of d is the claim's lower edge; false_change: where the true change (of uncensored times,
    of the jitter) is the edge. power_middle, power_upper: "supported" where the mean of d is the middle, the upper edge.
    seen: the interval lies above zero at the middle. wrong: "contradicted" where the true change is the middle.
    not_testable: at the middle. bca: coverage of the BCa interval, on a tenth of the sweeps.
    """
    claim = simulator.setting.claim
    edge, upper = (difference(bound, claim, claim.metrics[0]) for bound in (claim.lower, claim.upper))
    middle = (edge + upper) / 2

    def run(shift: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
        d, censored = simulator.differences(shift, sweeps, pairs, rng)
        bounds = np.array([(interval.low, interval.high) for interval in map(paired_t, d)])
        testable = (censored <= 0.5) & (pairs >= FEWEST_PAIRS)
        return (
            d,
            bounds,
            [
                _word(low, high, claim) if ok else "not testable"
                for (low, high), ok in zip(bounds, testable, strict=True)
            ],
        )

    def rate(word: str, shift: float) -> float:
        return run(shift)[2].count(word) / sweeps

    d, bounds, words = run(simulator.shift_for(middle))
    rates = {
        "coverage": float(np.mean((bounds[:, 0] <= middle) & (middle <= bounds[:, 1]))),
        "power_middle": words.count("supported") / sweeps,
        "seen": float(np.mean(bounds[:, 0] > 0)),
        "not_testable": words.count("not testable") / sweeps,
        "bca": _bca_coverage(d[: sweeps // 10], middle, rng),
        "wrong": words.count("contradicted") / sweeps if simulator.plain else rate("contradicted", middle),
        "false_edge": rate("supported", simulator.shift_for(edge)),
        "power_upper": rate("supported", simulator.shift_for(upper)),
    }
    return rates | {"false_change": rates["false_edge"] if simulator.plain else rate("supported", edge)}


def run_all(sweeps: int, seed: int, settings: Sequence[Setting] = SETTINGS) -> Iterator[dict[str, Any]]:
    """`summarise` of every setting and number of pairs, one row after another: setting, pairs, and the rates."""
    for number, setting in enumerate(settings):
        rng = np.random.default_rng([seed, number])
        simulator = Simulator(setting, rng)
        for pairs in PAIRS:
            yield {"setting": setting.label, "pairs": pairs} | summarise(simulator, pairs, sweeps, rng)


def misses_coverage(row: Mapping[str, Any]) -> bool:
    """Whether a row lies below the bar of coverage, where the bar holds."""
    return bool(row["coverage"] < COVERAGE_BAR and row["pairs"] >= COVERAGE_FROM)


def misses_false(row: Mapping[str, Any]) -> bool:
    """Whether a row calls more claims supported at their lower edge than the bar allows."""
    return bool(max(row["false_edge"], row["false_change"]) > FALSE_BAR)


def markdown(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The table's lines in per cent; what misses a bar is set in bold."""
    head = (
        "setting", "pairs", "coverage", "false supported", "supported, middle", "supported, upper edge", "above zero, middle",
        "wrongly contradicted", "not testable", "BCa coverage",
    )  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        false = _per_cent(row["false_edge"], misses_false(row))
        if row["false_change"] != row["false_edge"]:
            false += f" ({_per_cent(row['false_change'])})"
        cells = [row["setting"], str(row["pairs"]), _per_cent(row["coverage"], misses_coverage(row)), false]
        cells += [
            _per_cent(row[name]) for name in ("power_middle", "power_upper", "seen", "wrong", "not_testable", "bca")
        ]
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the command, the table, and the error of its rates."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m joyful.analysis.simulation", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--sweeps", type=int, default=4000, help="simulated sweeps for each row (default 4000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (default 1)")
    options = parser.parse_args(arguments)
    if options.sweeps < 100 or options.seed < 0:
        parser.error("expected --sweeps of at least 100 and --seed of at least 0")
    error = math.sqrt(0.95 * 0.05 / options.sweeps) * 100
    print(
        f"`python -m joyful.analysis.simulation --sweeps {options.sweeps} --seed {options.seed}`; all in per cent; the standard"
    )
    print(f"error of a coverage of 95 is {error:.2f} points ({error * math.sqrt(10):.2f} of BCa's).\n")
    for line in markdown(run_all(options.sweeps, options.seed)):
        print(line, flush=True)


def _word(low: float, high: float, claim: Claim) -> str:
    low, high = (effect(bound, claim, claim.metrics[0]) for bound in (low, high))
    return decide(low, high, claim.lower, claim.upper)[0]


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
