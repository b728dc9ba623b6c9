"""Simulation of the statistics: coverage, error rates and power of verdicts on sweeps whose true effects are known.

    python -m study.simulation [--sweeps 4000] [--seed 1] [--only TEXT] [--csv FILE]

This command prints the tables of docs/CONVERGENCE_ANALYSIS.md. Simulated sweeps (`study.simulated_sweeps`) go through the
functions that judge real ones: curves on a grid, the times between two evaluations, the differences of the pairs, the
interval, the effect and the verdict. The true effect is the lower edge of the claim.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.censored_means import mean_over_tasks, paired_interval, two_sample_interval
from joyful.analysis.statistics import Estimate, minimum_detectable, paired_t, proportion, spread_warning, welch
from joyful.analysis.verdict import MINIMUM_PAIRS, decide
from study.simulated_sweeps import SPEED, STABILITY, Array, Setting, Sweeps, draw

#: Bars: smallest coverage of the nominal 95 % interval, the number of pairs from which it applies, and the largest rates of
#: "supported" and of "contradicted" where the true effect is the edge of the claim.
COVERAGE_BAR, COVERAGE_FROM, FALSE_BAR = 0.93, 10, 0.05

#: Confidence of the Wilson interval of a rate. A rate fails where this interval lies beyond the bar.
CONFIDENCE = 0.99

GRID, STEP, CENSORED, NOISE, UNPAIRED, TASKS, EXACT, KINDS, JITTER = (
    "Evaluations and times", "One rare step", "Censoring", "Noise", "Unpaired", "Several tasks", "Stability", "Margins",
    "Noise of evaluations",
)  # fmt: skip

_WITHIN = replace(SPEED, lower=-15.0, upper=15.0, kind="within")
_NO_WORSE = replace(SPEED, lower=-10.0, upper=math.inf, kind="no_worse_than")

#: The median T of the baseline where that of the new arm is just below an evaluation, which one run in twelve misses.
_BEFORE_STEP = 4 * 1.15 * math.exp(-0.02 * 1.383)

SETTINGS = (
    *(
        Setting(GRID, label, evaluations=evaluations, median=median)
        for label, evaluations, median in (
            ("1 per epoch, T 0.5", 1, 0.5),
            ("1, T 1; 2, T 0.5", 1, 1.0),
            ("1, T 2; 2, T 1; 4, T 0.5", 1, 2.0),
            ("1, T 4; 2, T 2; 4, T 1", 1, 4.0),
            ("2, T 4; 4, T 2", 2, 4.0),
            ("1, T 10; 20, T 0.5", 1, 10.0),
            ("4, T 4", 4, 4.0),
            ("2, T 10; 20, T 1", 2, 10.0),
            ("4, T 10; 20, T 2", 4, 10.0),
            ("20, T 4", 20, 4.0),
            ("20, T 10", 20, 10.0),
        )
    ),
    Setting(STEP, "T just before an evaluation", sd=0.02 * math.sqrt(2), correlation=0, median=_BEFORE_STEP, evaluations=1),
    Setting(STEP, "new arm slower by a step", noise="step", sd=math.sqrt(11) / 12 * math.log(5 / 4), median=4.45, evaluations=1),
    *(Setting(CENSORED, f"left {share:.0%}", left=share) for share in (0.4, 0.8)),
    *(Setting(CENSORED, f"right {share:.0%}", right=share) for share in (0.25, 0.5, 0.8)),
    Setting(NOISE, "t3", noise="t3"),
    Setting(NOISE, "gamma(2)", noise="gamma(2)"),
    Setting(NOISE, "normal, new arm 3 times as noisy", noisier=3.0, correlation=0),
    Setting(NOISE, "t3, new arm 3 times as noisy", noise="t3", noisier=3.0, correlation=0),
    Setting(NOISE, "gamma(2), new arm twice as noisy", noise="gamma(2)", noisier=2.0, correlation=0),
    Setting(NOISE, "gamma(2), new arm 3 times as noisy", noise="gamma(2)", noisier=3.0, correlation=0),
    Setting(NOISE, "gamma(2), baseline 3 times as noisy", noise="gamma(2)", noisier=1 / 3, correlation=0),
    Setting(UNPAIRED, "times, equal spreads", unpaired=True),
    Setting(UNPAIRED, "times, new arm 3 times as noisy", unpaired=True, noisier=3.0),
    Setting(UNPAIRED, "exact values, equal spreads", unpaired=True, exact=True),
    Setting(UNPAIRED, "exact values, new arm 3 times as noisy", unpaired=True, noisier=3.0, exact=True),
    Setting(UNPAIRED, "exact values, gamma(2), new arm 3 times as noisy", noise="gamma(2)", unpaired=True, noisier=3.0, exact=True),
    Setting(TASKS, "3 tasks, pairs", tasks=3, pairs=(6, 10)),
    Setting(TASKS, "3 tasks, pairs, 1 per epoch", tasks=3, evaluations=1, pairs=(6, 10)),
    Setting(TASKS, "3 tasks, unpaired", tasks=3, unpaired=True, pairs=(6, 10)),
    Setting(TASKS, "6 tasks, pairs, exact values", tasks=6, exact=True),
    Setting(TASKS, "6 tasks, unpaired, exact values", tasks=6, unpaired=True, exact=True),
    Setting(EXACT, "spread, normal noise", STABILITY, spread=True),
    Setting(EXACT, "spread, gamma(2) noise", STABILITY, noise="gamma(2)", spread=True),
    Setting(KINDS, "within 15 %", _WITHIN, pairs=(6, 10, 20)),
    Setting(KINDS, "no worse than 10 %", _NO_WORSE, pairs=(6, 10, 20)),
    Setting(JITTER, "sd 0.002", evaluations=4, jitter=0.002, bound=False, pairs=(6, 10, 20)),
    Setting(JITTER, "sd 0.01", evaluations=4, jitter=0.01, bound=False, pairs=(6, 10, 20)),
)  # fmt: skip

#: Settings in which the smallest detectable effect is checked, with the numbers of pairs.
POWER = (
    *(replace(s, pairs=(6, 20)) for s in SETTINGS if s.label in (
        "20, T 4", "4, T 4", "1, T 4; 2, T 2; 4, T 1", "1, T 2; 2, T 1; 4, T 0.5",
        "right 50%", "times, equal spreads",
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Intervals:
    """The intervals of simulated sweeps, on the scale of d.

    Attributes:
        low: Lower limits, one for each sweep.
        high: Upper limits.
        testable: Whether the pairs suffice for a verdict.
    """

    low: Array
    high: Array
    testable: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rate:
    """A rate over sweeps.

    Attributes:
        hits: Number of sweeps that are counted.
        of: Number of sweeps.
    """

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The rate, from 0 to 1. NaN without sweeps."""
        return self.hits / self.of if self.of else math.nan

    def lies_below(self, bar: float) -> bool:
        """Return whether the Wilson interval of the rate lies below a bar."""
        return proportion(self.hits, self.of, CONFIDENCE).high < bar

    def lies_above(self, bar: float) -> bool:
        """Return whether the Wilson interval of the rate lies above a bar."""
        return proportion(self.hits, self.of, CONFIDENCE).low > bar


@dataclass(frozen=True)
class Cell:
    """The rates of a setting and a number of pairs.

    Attributes:
        setting: The setting.
        pairs: Number of pairs, or of runs of each arm.
        coverage: The interval holds the true mean of d, over sweeps with a verdict.
        supported: Verdict "supported" although the true effect is the edge, over sweeps with a verdict.
        contradicted: Verdict "contradicted" although the true effect is the edge, over sweeps with a verdict.
        not_testable: Verdict "not testable".
        one_sided: One limit of the interval is infinite, over sweeps with a verdict.
        warned: The verdict carries the warning about spreads. None where it does not apply.
    """

    setting: Setting
    pairs: int
    coverage: Rate
    supported: Rate
    contradicted: Rate
    not_testable: Rate
    one_sided: Rate
    warned: Rate | None

    @property
    def misses(self) -> list[str]:
        """The names of the rates that fail."""
        if not self.setting.bound:
            return []
        failing = {
            "coverage": self.pairs >= COVERAGE_FROM and self.coverage.lies_below(COVERAGE_BAR),
            "supported": self.supported.lies_above(FALSE_BAR),
            "contradicted": self.contradicted.lies_above(FALSE_BAR),
        }
        return [name for name, fails in failing.items() if fails]


#: Names of the rates of a cell -> heads of their columns.
RATES = {
    "coverage": "coverage", "supported": "false supported", "contradicted": "false contradicted",
    "not_testable": "not testable", "one_sided": "one-sided", "warned": "warned",
}  # fmt: skip


def intervals(setting: Setting, tasks: Sequence[Sweeps]) -> Intervals:
    """Return the intervals that decide the verdicts, computed as `joyful.analysis.designs` does.

    Args:
        setting: The setting.
        tasks: The sweeps of each task.
    """
    judged = [sample for task in tasks for sample in (task.samples if setting.unpaired else (task.d,))]
    known = [np.isfinite(low) | np.isfinite(high) for low, high in judged]
    testable = np.min([rows.sum(axis=1) for rows in known], axis=0) >= MINIMUM_PAIRS
    if setting.tasks > 1:
        arms = ([task.samples[arm] for task in tasks] for arm in (0, 1))
        _, low, high = mean_over_tasks(*arms, paired=not setting.unpaired)
        return Intervals(low, high, testable)
    (one,) = tasks
    if setting.exact or setting.spread:
        rows = zip(one.samples[0][0], one.samples[1][0], strict=True)
        found = [welch(new, base) for new, base in rows] if setting.unpaired else list(map(paired_t, one.d[0]))
        low, high = (np.array([getattr(estimate, name) for estimate in found]) for name in ("low", "high"))
    else:
        samples, of_sweep = _distinct(one.samples)
        _, low, high = (two_sample_interval if setting.unpaired else paired_interval)(*samples)
        low, high = low[of_sweep], high[of_sweep]
    return Intervals(low, high, testable)


_Samples = tuple[tuple[Array, Array], tuple[Array, Array]]


def _distinct(samples: _Samples) -> tuple[_Samples, npt.NDArray[np.intp]]:
    """Return the sweeps that differ in more than the order of their pairs, and the number of each sweep among them."""
    (a, b), (c, d) = samples
    pairs, codes = np.unique(np.stack([a, b, c, d], axis=-1).reshape(-1, 4), axis=0, return_inverse=True)
    sweeps, of_sweep = np.unique(np.sort(codes.reshape(a.shape), axis=1), axis=0, return_inverse=True)
    a, b, c, d = np.moveaxis(pairs[sweeps], -1, 0)
    return ((a, b), (c, d)), of_sweep.reshape(-1)


def verdicts(setting: Setting, found: Intervals) -> list[str]:
    """Return the verdict on each sweep."""
    effect, claim = setting.scale.effect, setting.claim
    return [
        decide(effect(low), effect(high), setting.lower, claim.upper, claim.kind)[0] if ok else "not testable"
        for low, high, ok in zip(found.low.tolist(), found.high.tolist(), found.testable, strict=True)
    ]


def simulate(setting: Setting, pairs: int, sweeps: int, seed: int) -> Cell:
    """Return the rates of a setting and a number of pairs over simulated sweeps."""
    tasks = list(draw(setting, pairs, sweeps, generator(setting, pairs, seed)))
    found = intervals(setting, tasks)
    words = np.array(verdicts(setting, found))
    judged = words != "not testable"
    number = int(judged.sum())

    def rate(hits: npt.NDArray[np.bool_]) -> Rate:
        return Rate(int((hits & judged).sum()), number)

    one_sided = np.isinf(found.low) | np.isinf(found.high)
    with_warnings = setting.group in (NOISE, UNPAIRED)
    warned = Rate(sum(map(bool, _warnings(setting, tasks[0]))), sweeps) if with_warnings else None
    return Cell(
        setting, pairs, rate((found.low <= setting.truth) & (setting.truth <= found.high)),
        rate(words == "supported"), rate(words == "contradicted"), Rate(sweeps - number, sweeps), rate(one_sided), warned,
    )  # fmt: skip


def generator(setting: Setting, pairs: int, seed: int) -> np.random.Generator:
    """Return the generator of a cell, which does not depend on the other cells."""
    return np.random.default_rng([seed, zlib.crc32(f"{setting.group}: {setting.label}".encode()), pairs])


def _warnings(setting: Setting, task: Sweeps) -> Iterator[str]:
    """Yield the warning about spreads of each sweep, from the runs whose value is bounded on both sides."""
    for a, b in zip(*((low + high) / 2 for low, high in task.samples), strict=True):
        if setting.unpaired:
            yield spread_warning(a[np.isfinite(a)], b[np.isfinite(b)], paired=False)
        else:
            bounded = np.isfinite(a) & np.isfinite(b)
            yield spread_warning(a[bounded], b[bounded])


@dataclass(frozen=True)
class Detection:
    """How often an effect is detected that should be detected in 80 % of sweeps.

    Attributes:
        setting: The setting.
        pairs: Number of pairs, or of runs of each arm.
        effect: Mean over sweeps of the smallest detectable effect, on the scale of d, in the unit of the claim.
        infinite: Sweeps in which it is infinite.
        detected: Sweeps whose interval lies above zero if this effect is true.
    """

    setting: Setting
    pairs: int
    effect: float
    infinite: Rate
    detected: Rate


def detect(setting: Setting, pairs: int, sweeps: int, seed: int) -> Detection:
    """Return the smallest detectable effect, and how often it is detected."""
    rng = generator(setting, pairs, seed + 1)
    found = intervals(setting, list(draw(setting, pairs, sweeps, rng)))
    size = 2 * pairs - 1 if setting.unpaired else pairs
    smallest = np.array(
        [minimum_detectable(Estimate(0.0, low, high), size) for low, high in zip(found.low, found.high, strict=True)]
    )
    finite = np.isfinite(smallest)
    truth = float(smallest[finite].mean()) if finite.any() else math.nan
    again = intervals(setting, list(draw(setting, pairs, sweeps, rng, truth)))
    seen = Rate(int((again.low > 0).sum()), sweeps)
    return Detection(setting, pairs, setting.scale.effect(truth), Rate(int((~finite).sum()), sweeps), seen)


def table(cells: Iterable[Cell]) -> pd.DataFrame:
    """Return the rates in per cent, with one row for each cell, and in `misses` the names of those that fail."""
    rows = []
    for cell in cells:
        rates = {name: getattr(cell, name) for name in RATES}
        rows.append(
            {"group": cell.setting.group, "setting": cell.setting.label, "pairs": cell.pairs}
            | {name: math.nan if rate is None else round(100 * rate.value, 2) for name, rate in rates.items()}
            | {"sweeps_with_verdict": cell.coverage.of, "misses": " ".join(cell.misses)}
        )
    return pd.DataFrame(rows)


def markdown(rates: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of the Markdown tables, one for each group, and of the list of cells that fail.

    Args:
        rates: A table as returned by `table`. The rates of all numbers of pairs stand in one field. Those that fail are in
            bold.
    """
    for group, part in rates.groupby("group", sort=False):
        names = [name for name in RATES if part[name].notna().any() and (part[name] != 0).any()]
        yield f"{group}:\n"
        yield f"| setting | pairs | {' | '.join(RATES[name] for name in names)} |"
        yield f"|---|---|{'---|' * len(names)}"
        for label, rows in part.groupby("setting", sort=False):
            fields = [_numbers(rows["pairs"])]
            for name in names:
                bold = [name in str(misses).split() for misses in rows["misses"]]
                texts = ["-" if math.isnan(rate) else f"{rate:.1f}" for rate in rows[name]]
                fields.append(" / ".join(f"**{t}**" if b else t for t, b in zip(texts, bold, strict=True)))
            yield f"| {label} | {' | '.join(fields)} |"
        yield ""
    failing = rates[rates["misses"].fillna("") != ""]
    yield f"Cells that fail:{' none.' if failing.empty else ''}\n"
    for _, row in failing.iterrows():
        missed = ", ".join(f"{RATES[name]} {row[name]:.1f} %" for name in row["misses"].split())
        yield f"- {row['group']}, {row['setting']}, {row['pairs']} pairs: {missed}"


def power_markdown(detections: Iterable[Detection]) -> Iterator[str]:
    """Yield the lines of the table of smallest detectable effects."""
    yield "| setting | pairs | smallest detectable effect, % | infinite, % of sweeps | detected, % of sweeps |"
    yield "|---|---|---|---|---|"
    for d in detections:
        numbers = " | ".join(f"{x:.1f}" for x in (d.effect, 100 * d.infinite.value, 100 * d.detected.value))
        yield f"| {d.setting.label} | {d.pairs} | {numbers} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and print the tables. Progress goes to stderr."""
    command, formatter = "python -m study.simulation", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(command, description=__doc__, formatter_class=formatter)
    parser.add_argument("--sweeps", type=int, default=4000, help="simulated sweeps for each cell (default 4000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only settings whose group or label holds this text")
    parser.add_argument("--csv", metavar="FILE", help="write the rates of all cells to this file too")
    options = parser.parse_args(arguments)
    sweeps, seed = options.sweeps, options.seed
    if sweeps < 100 or seed < 0:
        parser.error(f"expected --sweeps >= 100 and --seed >= 0, got --sweeps {sweeps} and --seed {seed}")
    chosen = [s for s in SETTINGS if options.only in f"{s.group}: {s.label}"]
    powers = [s for s in POWER if options.only in f"Power: {s.label}"]
    if not (chosen or powers):
        parser.error(f"--only: no setting holds {options.only!r}")
    started = time.monotonic()

    def progress(setting: Setting, pairs: int) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {setting.group}: {setting.label}, {pairs} pairs", file=sys.stderr)

    def cells() -> Iterator[Cell]:
        for setting in chosen:
            for pairs in setting.pairs:
                progress(setting, pairs)
                yield simulate(setting, pairs, sweeps, seed)

    def detections() -> Iterator[Detection]:
        for setting in powers:
            for pairs in setting.pairs:
                progress(setting, pairs)
                yield detect(setting, pairs, sweeps, seed)

    print(f"`{command} --sweeps {sweeps} --seed {seed}`; all rates are in per cent.\n")
    if chosen:
        rates = table(cells())
        if options.csv:
            rates.to_csv(options.csv, index=False)
        for line in markdown(rates):
            print(line)
    if powers:
        print("\nSmallest detectable effects:\n")
        for line in power_markdown(detections()):
            print(line)


def _numbers(pairs: Iterable[int]) -> str:
    return " / ".join(map(str, pairs))


if __name__ == "__main__":
    main()
