"""Benchmark of the pruners on recorded learning curves: the epochs that each saves, and the score that it loses.

    python -m benchmarks.pruners FOLDER

FOLDER is a sweep without pruning, such as that of

    python run.py -m +sweeps=weights sweep_name=curves hydra.sweeper.n_trials=54 \\
        hydra/sweeper/sampler=random hydra/sweeper/pruner=none

The benchmark replays the values of its trials after each epoch. It draws `--trials` of the recorded configurations in a
random order, as a random sampler would, and trains them by `--workers` workers in simulated time, in which every epoch
takes the same time. It repeats this `--draws` times for each pruner of conf/. It prints for each pruner the epochs
trained relative to full length, the number of draws whose best configuration was pruned, and by how much the best
completed trial was worse than it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import optuna
from hydra.utils import instantiate
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks.figures import Figure, figure, parser, report
from joyful.sweeper.plugin import PRUNERS
from joyful.sweeper.status import open_sweep
from joyful.sweeper.study import silence_logs

#: Best dev weighted F1 so far of one configuration, after each epoch.
Curve = tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """Result of one pruner over some draws.

    Attributes:
        pruner: Name of the pruner.
        draws: Number of draws.
        epochs_share: Epochs trained divided by epochs at full length, mean over the draws.
        best_lost: Number of draws whose best configuration was pruned.
        regret_points: Dev F1 of the best configuration minus that of the best completed trial, in points, mean over the
            draws.
    """

    pruner: str
    draws: int
    epochs_share: float
    best_lost: int
    regret_points: float


def read_curves(folder: Path) -> list[Curve]:
    """Return the curves of the complete trials of a sweep.

    Raises:
        InputError: If the folder holds no sweep.
    """
    with open_sweep(folder) as sweep:
        trials = sweep.open().get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [tuple(value for _, value in sorted(trial.intermediate_values.items())) for trial in trials]


def replay(curves: Sequence[Curve], pruner: BasePruner, n_workers: int) -> tuple[int, list[int]]:
    """Replay the curves in order, each on the next free worker.

    In each unit of time every busy worker trains one epoch and reports. The pruner sees all reports up to then.

    Returns:
        The number of epochs trained, and the indices of the completed curves.
    """
    study = optuna.create_study(direction="maximize", pruner=pruner)
    waiting = list(enumerate(curves))[::-1]
    busy: list[tuple[int, Curve, optuna.Trial, int]] = []
    trained, completed = 0, []
    while waiting or busy:
        while waiting and len(busy) < n_workers:
            place, curve = waiting.pop()
            busy.append((place, curve, study.ask(), 0))
        still = []
        for place, curve, trial, epoch in busy:
            trained += 1
            trial.report(curve[epoch], epoch + 1)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
            elif epoch + 1 == len(curve):
                study.tell(trial, curve[-1])
                completed.append(place)
            else:
                still.append((place, curve, trial, epoch + 1))
        busy = still
    return trained, completed


def measure(
    curves: Sequence[Curve], name: str, pruner: BasePruner, draws: int, n_trials: int, n_workers: int, seed: int
) -> Outcome:
    """Replay `draws` random orders of `n_trials` of the curves with one pruner."""
    rng, shares, lost, regrets = random.Random(seed), [], 0, []
    for _ in range(draws):
        drawn = rng.sample(curves, n_trials)
        best = max(curve[-1] for curve in drawn)
        trained, completed = replay(drawn, pruner, n_workers)
        best_completed = max(drawn[place][-1] for place in completed)
        shares.append(trained / sum(map(len, drawn)))
        lost += best_completed < best
        regrets.append(100 * (best - best_completed))
    return Outcome(name, draws, fmean(shares), lost, fmean(regrets))


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the curves, and print the figures."""
    command_line = parser("pruners", __doc__)
    command_line.add_argument("folder", type=Path, help="a sweep without pruning")
    command_line.add_argument("--draws", type=int, default=100, help="number of random orders (default: %(default)s)")
    command_line.add_argument("--trials", type=int, default=27, help="configurations per order (default: %(default)s)")
    command_line.add_argument("--workers", type=int, default=2, help="simulated workers (default: %(default)s)")
    command_line.add_argument("--seed", type=int, default=0, help="seed of the orders (default: %(default)s)")
    options = command_line.parse_args(arguments)
    silence_logs()
    curves = read_curves(options.folder)
    if len(curves) < options.trials:
        command_line.error(
            f"{options.folder}: expected at least {options.trials} complete trials, got {len(curves)}; lower --trials"
        )
    figures = []
    for name, settings in sorted(PRUNERS.items()):
        if not settings["_target_"].startswith("optuna."):
            continue  # a pruner that pauses trials decides in the workers, see joyful.sweeper.promotion
        pruner = instantiate(settings, _execution_whitelist_="optuna.pruners.*")
        outcome = measure(curves, name, pruner, options.draws, options.trials, options.workers, options.seed)
        figures += figures_of(outcome, options.trials)
    about = {"curves": len(curves), "draws": options.draws, "trials": options.trials, "workers": options.workers}
    report(
        f"{len(curves)} recorded curves, {options.draws} draws of {options.trials} trials", figures, about, options.json
    )


def figures_of(outcome: Outcome, n_trials: int) -> list[Figure]:
    """Return the figures of one pruner. n_trials: number of trials per draw."""
    of_draws, whole = f"{outcome.draws} draws", f"{n_trials} trials at full length"
    return [
        figure(f"{outcome.pruner}, epochs trained", n_trials * outcome.epochs_share, "full trials", n_trials, whole),
        figure(f"{outcome.pruner}, best ended early", outcome.best_lost, "draws", outcome.draws, of_draws),
        figure(f"{outcome.pruner}, dev F1 below the draw's best", outcome.regret_points, "points", 100, "100 points"),
    ]


if __name__ == "__main__":
    main()
