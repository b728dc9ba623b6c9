"""Simulation of sweeps that buy pairs until their claims are decided: coverage, wrong verdicts and pairs used.

    python -m study.sequential [--sweeps 4000] [--seed 1] [--only TEXT] [--csv FILE]
    python -m study.sequential --replay [--csv FILE]

The first command prints the tables of docs/CONVERGENCE_ANALYSIS.md, "Pairs until the claims are decided". A simulated sweep
(`study.simulated_sweeps`) is looked at after each pair from FIRST to LAST. Its claim is decided at the first look whose
verdict is "supported" or "contradicted". The second command judges the study's archives in the same way
(`study.sequential_replay`).
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from joyful.analysis.censored_means import paired_interval
from joyful.analysis.claims_file import Claim
from joyful.analysis.measures import Metric
from joyful.analysis.page.markdown import table as markdown_table
from joyful.analysis.rules import ANY_SIZE, FIXED, Rule
from joyful.analysis.verdict import MINIMUM_PAIRS, decide
from study import sequential_replay
from study.simulated_sweeps import STABILITY, Array, Setting, Sweeps, draw
from study.simulation import FALSE_BAR, Rate, generator

#: Numbers of pairs of the first and the last look.
FIRST, LAST = MINIMUM_PAIRS, 60

#: Bars: smallest share of sweeps whose intervals all hold the true effect, for normal noise and for other noise.
NORMAL_BAR, OTHER_BAR = 0.95, 0.94

#: Sweeps with times on an evaluation grid, whose likelihood takes long, as a fraction of the others.
_GRID_SHARE = 4

#: On a grid of at least _FINE evaluations before the target, an interval differs by about 1 % from the one for the middles
#: between the evaluations. A look is computed only where the latter reaches this close to the edge of the claim.
_FINE, _NEAR = 16, 0.7

TRUTHS = ("0", "edge", "middle", "twice")

F1 = Claim("f1", "", (Metric("best", "dev", "f1_weighted"),), 1, 2, "points", "increase")

#: Noise in one arm only, so that d is as skewed as the noise of a run.
_ONE_ARM = 100.0

SPEED_EXACT, SPEED_GRID, OTHERS = "Speed, exact times", "Speed, times on a grid", "Other claims"

GRID = Setting(SPEED_GRID, "normal, 4 per epoch")

SETTINGS = (
    Setting(SPEED_EXACT, "normal", exact=True),
    Setting(SPEED_EXACT, "t5", noise="t5", exact=True),
    Setting(SPEED_EXACT, "gamma(4)", noise="gamma(4)", exact=True),
    Setting(SPEED_EXACT, "gamma(4), new arm only", noise="gamma(4)", noisier=_ONE_ARM, correlation=0, exact=True),
    Setting(SPEED_EXACT, "gamma(4), baseline only", noise="gamma(4)", noisier=1 / _ONE_ARM, correlation=0, exact=True),
    GRID,
    Setting(SPEED_GRID, "t5, 4 per epoch", noise="t5"),
    Setting(SPEED_GRID, "gamma(4), 4 per epoch", noise="gamma(4)"),
    Setting(SPEED_GRID, "normal, 1 per epoch", evaluations=1),
    Setting(OTHERS, "F1, sd 0.7 points", F1, sd=0.007, exact=True),
    Setting(OTHERS, "spread, normal noise", STABILITY, spread=True),
    Setting(OTHERS, "spread, gamma(4) noise", STABILITY, noise="gamma(4)", spread=True),
)


@dataclass(frozen=True)
class Looks:
    """What the looks at simulated sweeps found.

    Attributes:
        words: The first verdict of each sweep that decides, or "" if none does.
        used: Pairs of that look, or LAST.
    """

    words: npt.NDArray[np.str_]
    used: npt.NDArray[np.int_]


@dataclass(frozen=True)
class Rates:
    """Rates of sweeps.

    Attributes:
        covered: All intervals of a sweep hold the truth. None unless the truth is the edge of the claim. There an interval
            that does not hold the truth decides, so these are the sweeps that are not decided.
        supported: Sweeps decided as "supported".
        contradicted: Sweeps decided as "contradicted".
    """

    covered: Rate | None
    supported: Rate
    contradicted: Rate


@dataclass(frozen=True)
class Cell:
    """The rates and the pairs used for a setting and a true effect.

    Attributes:
        setting: The setting.
        truth: One of TRUTHS.
        rates: The rates of the confidence sequence.
        plain: Those of the t interval, looked at after each pair. None where they are not simulated.
        median: Median of the pairs used. LAST + 1 stands for more than LAST.
        quantile_80: Their 80 % quantile.
        fixed: Smallest fixed number of pairs with which the t interval gives the right verdict as often, or None at the edge.
        fixed_80: Smallest fixed number of pairs with which the t interval gives it in 80 % of sweeps.
    """

    setting: Setting
    truth: str
    rates: Rates
    plain: Rates | None
    median: int
    quantile_80: int
    fixed: int | None
    fixed_80: int | None

    @property
    def misses(self) -> list[str]:
        """The names of the rates that fail."""
        rates, bar = self.rates, NORMAL_BAR if self.setting.noise == "normal" else OTHER_BAR
        failing = {
            "covered": rates.covered is not None and rates.covered.lies_below(bar),
            "supported": self.truth in ("0", "edge") and rates.supported.lies_above(FALSE_BAR),
            "contradicted": self.truth != "0" and rates.contradicted.lies_above(FALSE_BAR),
        }
        return [name for name, fails in failing.items() if fails]


def on_grid(setting: Setting) -> bool:
    """Return whether values are known only to the evaluations, so that an interval takes long to compute."""
    return not (setting.exact or setting.spread)


def truths(setting: Setting) -> tuple[str, ...]:
    """Return the true effects that are simulated: on a grid all of them only for the first setting."""
    return TRUTHS if not on_grid(setting) or setting == GRID else ("edge",)


def true_difference(setting: Setting, truth: str) -> float:
    """Return the truth that is given to `draw`. "twice" is twice the middle of the claim."""
    middle = (setting.claim.lower + setting.claim.upper) / 2
    effects = {"0": 0.0, "edge": setting.claim.lower, "middle": middle, "twice": 2 * middle}
    return setting.scale.difference(effects[truth])


def interval(
    setting: Setting, drawn: Sweeps, rows: npt.NDArray[np.intp], pairs: int, rule: Rule
) -> tuple[Array, Array]:
    """Return the limits of the mean of d for the first pairs of some sweeps, computed as `joyful.analysis.designs` does."""
    if on_grid(setting):
        new, base = ((low[rows, :pairs], high[rows, :pairs]) for low, high in drawn.samples)
        return paired_interval(new, base, rule)[1:]
    d = drawn.d[0][rows, :pairs]
    half = rule.quantile(pairs - 1) * d.std(axis=1, ddof=1) / math.sqrt(pairs)
    return d.mean(axis=1) - half, d.mean(axis=1) + half


def look(setting: Setting, drawn: Sweeps, rule: Rule) -> Looks:
    """Look at sweeps after each pair until their claim is decided, with the intervals of a rule."""
    sweeps = len(drawn.d[0])
    words, used = np.full(sweeps, "", dtype="<U12"), np.full(sweeps, LAST)
    known = (np.isfinite(drawn.d[0]) | np.isfinite(drawn.d[1])).cumsum(axis=1)
    for pairs in range(FIRST, LAST + 1):
        wanted = (words == "") & (known[:, pairs - 1] >= MINIMUM_PAIRS)
        rows = np.flatnonzero(wanted & _near_edge(setting, drawn, pairs, rule))
        low, high = interval(setting, drawn, rows, pairs, rule)
        for row, word in zip(rows, verdicts(setting, low, high), strict=True):
            if word in sequential_replay.DECIDED:
                words[row], used[row] = word, pairs
    return Looks(words, used)


def verdicts(setting: Setting, low: Array, high: Array) -> list[str]:
    """Return the verdict of each interval."""
    effect, lower, claim = setting.scale.effect, setting.lower, setting.claim
    limits = zip(low.tolist(), high.tolist(), strict=True)
    return [decide(effect(a), effect(b), lower, claim.upper, claim.kind)[0] for a, b in limits]


def _near_edge(setting: Setting, drawn: Sweeps, pairs: int, rule: Rule) -> npt.NDArray[np.bool_]:
    """Return whether the interval of the first pairs may not hold the edge of the claim. True where this is not clear."""
    if not on_grid(setting) or setting.evaluations * setting.median < _FINE:
        return np.ones(len(drawn.d[0]), dtype=bool)
    (a, b), (c, d) = ([end[:, :pairs] for end in arm] for arm in drawn.samples)
    with np.errstate(invalid="ignore"):
        middle = (a + b - c - d) / 2
        distance = np.abs(middle.mean(axis=1) - setting.truth) / (middle.std(axis=1, ddof=1) / math.sqrt(pairs))
    return np.asarray(~(distance < _NEAR * float(rule.quantile(pairs - 1))))


def fixed_pairs(setting: Setting, drawn: Sweeps, word: str, shares: Sequence[float]) -> list[int]:
    """Return the smallest number of pairs with which the t interval gives a verdict in each share of sweeps, or LAST + 1."""

    @functools.cache
    def hits(pairs: int) -> int:
        rows = np.flatnonzero(_near_edge(setting, drawn, pairs, FIXED))
        return verdicts(setting, *interval(setting, drawn, rows, pairs, FIXED)).count(word)

    found = []
    for share in shares:
        low, high = FIRST, LAST + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if hits(middle) >= share * len(drawn.d[0]) else (middle + 1, high)
        found.append(low)
    return found


def simulate(setting: Setting, truth: str, sweeps: int, seed: int) -> Cell:
    """Return the rates and the pairs used for a setting and a true effect over simulated sweeps."""
    rng, at_edge = generator(setting, TRUTHS.index(truth), seed), truth == "edge"
    (drawn,) = draw(setting, LAST, sweeps, rng, None if at_edge else true_difference(setting, truth))
    found = look(setting, drawn, ANY_SIZE)
    plain = look(setting, drawn, FIXED) if at_edge and truths(setting) == TRUTHS else None
    fixed, fixed_80 = None, None
    if not at_edge:
        right = "contradicted" if truth == "0" else "supported"
        fixed, fixed_80 = fixed_pairs(setting, drawn, right, (float((found.words == right).mean()), 0.8))
    pairs = np.sort(np.where(found.words == "", LAST + 1, found.used))
    median, quantile_80 = (int(pairs[math.ceil(share * sweeps) - 1]) for share in (0.5, 0.8))

    def rates(looks: Looks) -> Rates:
        words = ("", *sequential_replay.DECIDED)
        undecided, supported, contradicted = (Rate(int((looks.words == word).sum()), sweeps) for word in words)
        return Rates(undecided if at_edge else None, supported, contradicted)

    rates_of_t = None if plain is None else rates(plain)
    return Cell(setting, truth, rates(found), rates_of_t, median, quantile_80, fixed, fixed_80)


#: Names of the rates of a cell.
RATES = ("covered", "supported", "contradicted", "t_covered", "t_supported", "t_contradicted")


def table(cells: Iterable[Cell]) -> pd.DataFrame:
    """Return the rates in per cent, with one row for each cell, and in `misses` the names of those that fail."""
    rows = []
    for cell in cells:
        rates = {
            prefix + name: math.nan if rate is None else round(100 * rate.value, 2)
            for prefix, found in (("", cell.rates), ("t_", cell.plain))
            for name, rate in ({} if found is None else vars(found)).items()
        }
        rows.append(
            {"group": cell.setting.group, "setting": cell.setting.label, "truth": cell.truth}
            | {name: rates.get(name, math.nan) for name in RATES}
            | {name: getattr(cell, name) for name in ("median", "quantile_80", "fixed", "fixed_80")}
            | {"sweeps": cell.rates.supported.of, "misses": " ".join(cell.misses)}
        )
    return pd.DataFrame(rows).astype({"fixed": "Int64", "fixed_80": "Int64"})


def markdown(rates: pd.DataFrame) -> str:
    """Return the Markdown tables of coverage and of pairs used, and the list of cells that fail.

    Args:
        rates: A table as returned by `table`. Rates that fail are bold. So are numbers of pairs above the fixed number.
    """
    return "\n\n".join([_coverage(rates), _pairs_used(rates), _failing(rates)])


def _coverage(rates: pd.DataFrame) -> str:
    columns = [
        "claim and noise", "covered at once", "wrongly supported", "wrongly contradicted", "t: covered at once",
        "t: wrongly supported", "t: wrongly contradicted",
    ]  # fmt: skip
    rows = [
        [_label(row), *(_bold(_rate(row[name]), name in row["misses"].split()) for name in RATES)]
        for _, row in rates[rates["truth"] == "edge"].iterrows()
    ]
    return markdown_table(columns, rows)


def _pairs_used(rates: pd.DataFrame) -> str:
    columns = [
        "claim and noise", "truth", "supported", "contradicted", "median pairs", "80 % quantile", "fixed, same power",
        "fixed, 80 % power",
    ]  # fmt: skip
    rows = []
    whole = rates[rates["setting"].isin(rates.loc[rates["truth"] == "0", "setting"])]
    for _, row in whole.iterrows():
        fixed = row["fixed"]
        words = [_bold(_rate(row[w]), w in row["misses"].split()) for w in ("supported", "contradicted")]
        used = [
            _bold(_count(row[name]), bool(pd.notna(fixed) and row[name] > fixed)) for name in ("median", "quantile_80")
        ]
        rows.append([_label(row), row["truth"], *words, *used, _count(fixed), _count(row["fixed_80"])])
    return markdown_table(columns, rows)


def _failing(rates: pd.DataFrame) -> str:
    failing = rates[rates["misses"] != ""]
    lines = [
        f"- {_label(row)}, truth {row['truth']}: "
        + ", ".join(f"{name} {row[name]:.1f} %" for name in row["misses"].split())
        for _, row in failing.iterrows()
    ]
    return "\n\n".join(["Cells that fail:", "\n".join(lines)]) if lines else "Cells that fail: none."


def _label(row: pd.Series) -> str:
    return f"{row['group'].lower()}, {row['setting']}" if row["group"] != OTHERS else str(row["setting"])


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _rate(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{rate:.1f}"


def _count(pairs: int | None) -> str:
    if pairs is None or pd.isna(pairs):
        return "-"
    return str(pairs) if pairs <= LAST else f"> {LAST}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation or the replay, and print the tables. Progress goes to stderr."""
    command, formatter = "python -m study.sequential", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(command, description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--sweeps", type=int, default=4000, help="sweeps for each cell, a quarter on grids (default 4000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only settings whose group or label holds this text")
    parser.add_argument("--replay", action="store_true", help="judge the study's archives instead")
    parser.add_argument(
        "--csv", metavar="FILE", help="write the rates of all cells, or the lines of the replay, to this file too"
    )
    options = parser.parse_args(arguments)
    sweeps, seed = options.sweeps, options.seed
    if sweeps < 100 or seed < 0:
        parser.error(f"expected --sweeps >= 100 and --seed >= 0, got --sweeps {sweeps} and --seed {seed}")
    chosen = [s for s in SETTINGS if options.only in f"{s.group}: {s.label}"]
    if not chosen:
        parser.error(f"--only: no setting holds {options.only!r}")
    if options.replay:
        lines = pd.concat(list(sequential_replay.replay_all()), ignore_index=True)
        if options.csv:
            lines.to_csv(options.csv, index=False)
        print(sequential_replay.markdown(lines))
        return
    rates = table(_cells(chosen, sweeps, seed))
    if options.csv:
        rates.to_csv(options.csv, index=False)
    print(f"`{command} --sweeps {sweeps} --seed {seed}`; all rates are in per cent.\n\n{markdown(rates)}")


def _cells(chosen: Sequence[Setting], sweeps: int, seed: int) -> Iterator[Cell]:
    started = time.monotonic()
    for setting in chosen:
        for truth in truths(setting):
            print(f"{time.monotonic() - started:6.0f} s  {setting.group}: {setting.label}, {truth}", file=sys.stderr)
            yield simulate(setting, truth, sweeps // _GRID_SHARE if on_grid(setting) else sweeps, seed)


if __name__ == "__main__":
    main()
