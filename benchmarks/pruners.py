"""Benchmark of the pruners on recorded learning curves: the epochs that each saves, and the score that it loses.

    python -m benchmarks.pruners [PLACE ...]

PLACE is an archive, or the folder of a sweep without pruning (default: the three `curves_*` of study/archives). They are
from such sweeps as

    python run.py -m +sweeps=weights sweep_name=curves hydra.sweeper.n_trials=36 \\
        hydra/sweeper/sampler=random hydra/sweeper/pruner=none

The benchmark replays the values of the trials after each epoch. It draws `--trials` of the recorded configurations in a
random order, as a random sampler would, and trains them by `--workers` workers in simulated time, in which every epoch
takes the same time. It repeats this `--draws` times for each rule: the pruners of conf/, and with `--all` others, such as
successive halving that pauses trials. It prints for each rule the epochs trained relative to full length, the number of
draws whose best configuration was ended early, and by how much the best completed trial was worse than it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from hydra.utils import instantiate
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner

from benchmarks.figures import Figure, figure, parser, report
from benchmarks.recorded import Curve, read_recorded
from benchmarks.rules import Candidate, Fewer, MakeRule, Paused, Pruned, Risk
from joyful.sweeper.plugin import PRUNERS
from joyful.sweeper.study import silence_logs

ARCHIVES = Path(__file__).resolve().parents[1] / "study/archives"


@dataclass(frozen=True)
class Outcome:
    """Result of one rule over some draws.

    Attributes:
        rule: Name of the rule.
        draws: Number of draws.
        epochs_share: Epochs trained divided by epochs at full length, mean over the draws.
        best_lost: Number of draws whose best configuration was ended early.
        regret_points: Dev F1 of the best configuration minus that of the best completed trial, in points, mean over the
            draws.
    """

    rule: str
    draws: int
    epochs_share: float
    best_lost: int
    regret_points: float


def shipped() -> list[Candidate]:
    """Return the pruners of conf/, without the one that pauses trials (see `others`)."""
    return [
        Candidate(name, name, partial(Pruned, pruner=instantiate(settings, _execution_whitelist_="optuna.pruners.*")))
        for name, settings in sorted(PRUNERS.items())
        if settings["_target_"].startswith("optuna.")
    ]


def others() -> list[Candidate]:
    """Return the rules that are not shipped as pruners, each with several settings."""
    found = []
    for first in (1, 2, 3, 4, 5, 6, 8):
        for factor in (2, 3, 4, 5, 6):
            for breadth_first in (False, True):
                order = "new trials first" if breadth_first else "promotions first"
                make: MakeRule = partial(Paused, first=first, factor=factor, breadth_first=breadth_first)
                found.append(Candidate(f"paused halving {first}, {factor}, {order}", "paused halving", make))
    for risk in (0.01, 0.02, 0.05, 0.1, 0.2):
        for startup in (3, 5):
            found.append(Candidate(f"risk {risk:g}, {startup}", "risk", partial(Risk, risk=risk, startup=startup)))
    for share in (0.2, 0.35, 0.5, 0.65, 0.8):
        found.append(Candidate(f"fewer trials {share:g}", "fewer trials", partial(Fewer, share=share)))
    for family, name, pruner in _pruners():
        found.append(Candidate(name, family, partial(Pruned, pruner=pruner)))
    return found


def _pruners() -> list[tuple[str, str, BasePruner]]:
    """Return family, name and pruner of other settings of Optuna's pruners."""
    found: list[tuple[str, str, BasePruner]] = []
    for startup, warmup in ((5, 5), (5, 8), (8, 2)):
        settings = {"n_startup_trials": startup, "n_warmup_steps": warmup}
        found.append(("median", f"median, {startup}, {warmup}", MedianPruner(**settings)))
        for kept in (60, 70, 80, 90):
            found.append(("percentile", f"percentile {kept}, {startup}, {warmup}", PercentilePruner(kept, **settings)))
    for first, factor in ((2, 2), (3, 2), (5, 2), (5, 3)):
        halving = SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        found.append(("asha", f"asha {first}, {factor}", halving))
    for factor in (2, 3):
        brackets = HyperbandPruner(min_resource=2, max_resource=20, reduction_factor=factor)
        found.append(("hyperband", f"hyperband {factor}", brackets))
    return found


def replay(curves: Sequence[Curve], make: MakeRule, n_workers: int) -> tuple[int, list[int]]:
    """Replay the curves in order, each on the next free worker.

    In each unit of time every busy worker trains one epoch and reports. The rule sees all reports up to then.

    Returns:
        The number of epochs trained, and the indices of the completed curves.
    """
    rule = make(len(curves), max(map(len, curves)))
    trained = [0] * len(curves)
    completed: list[int] = []
    busy: list[int] = []
    while True:
        while len(busy) < n_workers and (number := rule.next_trial()) is not None:
            busy.append(number)
        if not busy:
            return sum(trained), completed
        still = []
        for number in busy:
            trained[number] += 1
            if rule.continues(number, curves[number][: trained[number]]):
                still.append(number)
            elif trained[number] == len(curves[number]):
                completed.append(number)
        busy = still


def measure(
    curves: Sequence[Curve], candidate: Candidate, draws: int, n_trials: int, n_workers: int, seed: int
) -> Outcome:
    """Replay `draws` random orders of `n_trials` of the curves with one rule. A search that completes none has the regret
    of one that stops at 0."""
    rng, shares, lost, regrets = random.Random(seed), [], 0, []
    for _ in range(draws):
        drawn = rng.sample(curves, n_trials)
        best = max(curve[-1] for curve in drawn)
        trained, completed = replay(drawn, candidate.make, n_workers)
        best_completed = max((drawn[place][-1] for place in completed), default=0.0)
        shares.append(trained / sum(map(len, drawn)))
        lost += best_completed < best
        regrets.append(100 * (best - best_completed))
    return Outcome(candidate.name, draws, fmean(shares), lost, fmean(regrets))


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the curves, and print the figures."""
    command_line = parser("pruners", __doc__)
    command_line.add_argument("places", type=Path, nargs="*", help="archives or folders (default: three archives)")
    command_line.add_argument("--all", action="store_true", help="also replay rules that are not pruners of conf/")
    command_line.add_argument("--draws", type=int, default=100, help="number of random orders (default: %(default)s)")
    command_line.add_argument("--trials", type=int, default=27, help="configurations per order (default: %(default)s)")
    command_line.add_argument("--workers", type=int, default=2, help="simulated workers (default: %(default)s)")
    command_line.add_argument("--seed", type=int, default=0, help="seed of the orders (default: %(default)s)")
    options = command_line.parse_args(arguments)
    silence_logs()
    figures: list[Figure] = []
    count = {}
    for place in options.places or sorted(ARCHIVES.glob("curves_*.parquet")):
        curves = [one.curve for one in read_recorded(place)]
        if len(curves) < options.trials:
            command_line.error(
                f"{place}: expected at least {options.trials} complete trials, got {len(curves)}; lower --trials"
            )
        count[place.stem] = len(curves)
        for candidate in shipped() + (others() if options.all else []):
            outcome = measure(curves, candidate, options.draws, options.trials, options.workers, options.seed)
            figures += figures_of(place.stem, outcome, options.trials)
    about = {"curves": count, "draws": options.draws, "trials": options.trials, "workers": options.workers}
    report(f"{options.draws} draws of {options.trials} recorded trials", figures, about, options.json)


def figures_of(place: str, outcome: Outcome, n_trials: int) -> list[Figure]:
    """Return the figures of one rule.

    Args:
        place: Name of the recorded curves.
        outcome: The result.
        n_trials: Number of trials per draw.
    """
    of_draws, whole = f"{outcome.draws} draws", f"{n_trials} trials at full length"
    name = f"{place}, {outcome.rule}"
    return [
        figure(f"{name}, epochs trained", n_trials * outcome.epochs_share, "full trials", n_trials, whole),
        figure(f"{name}, best ended early", outcome.best_lost, "draws", outcome.draws, of_draws),
        figure(f"{name}, dev F1 below the draw's best", outcome.regret_points, "points", 100, "100 points"),
    ]


if __name__ == "__main__":
    main()
