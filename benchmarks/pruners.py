"""What each pruner saves and what it loses, on learning curves recorded once: `python -m benchmarks.pruners FOLDER`.

FOLDER is a sweep without pruning, such as that of

    python run.py -m +sweeps=weights sweep_name=curves hydra.sweeper.n_trials=54 \\
        hydra/sweeper/sampler=random hydra/sweeper/pruner=none

Its trials' values after each epoch are replayed: `--draws` times, `--trials` of the recorded configurations are drawn in a random
order (as a random sampler would) and trained by `--workers` workers in simulated time, an epoch of any trial taking the same
time, under each pruner of conf/. Printed for each pruner: the epochs trained against full length, in how many draws the best
configuration of the draw was ended early, and how much worse than it the best completed trial was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import optuna
import yaml
from hydra.utils import instantiate
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks.figures import Figure, figure, parser, report
from joyful.sweeper.status import open_sweep
from joyful.sweeper.study import quiet

PRUNERS = Path(__file__).resolve().parents[1] / "conf/hydra/sweeper/pruner"

#: The best value so far of one configuration, after each epoch, dev weighted F1.
Curve = tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """Of some draws: epochs trained / epochs at full length; draws whose best was lost; mean loss of dev F1, points."""

    pruner: str
    draws: int
    epochs_share: float
    best_lost: int
    regret_points: float


def recorded(folder: Path) -> list[Curve]:
    """The curves of a sweep's complete trials. Raises InputError where there is no sweep."""
    with open_sweep(folder) as sweep:
        trials = sweep.access.open().get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [tuple(value for _, value in sorted(trial.intermediate_values.items())) for trial in trials]


def replay(curves: Sequence[Curve], pruner: BasePruner, n_workers: int) -> tuple[int, list[int]]:
    """Train the curves in order, each by the next free worker; returns the epochs trained and the places of those completed.

    In each unit of time every busy worker trains one epoch and reports; the pruner sees what was reported until then.
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
    """Replay `draws` random orders of `n_trials` of the curves under one pruner."""
    chance, shares, lost, regrets = random.Random(seed), [], 0, []
    for _ in range(draws):
        drawn = chance.sample(curves, n_trials)
        best = max(curve[-1] for curve in drawn)
        trained, completed = replay(drawn, pruner, n_workers)
        found = max(drawn[place][-1] for place in completed)
        shares.append(trained / sum(map(len, drawn)))
        lost += found < best
        regrets.append(100 * (best - found))
    return Outcome(name, draws, fmean(shares), lost, fmean(regrets))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per figure."""
    p = parser("pruners", __doc__)
    p.add_argument("folder", type=Path, help="a sweep without pruning")
    p.add_argument("--draws", type=int, default=100, help="random orders (default: %(default)s)")
    p.add_argument("--trials", type=int, default=27, help="configurations in each (default: %(default)s)")
    p.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    p.add_argument("--seed", type=int, default=0, help="of the orders (default: %(default)s)")
    given = p.parse_args(arguments)
    quiet()
    curves = recorded(given.folder)
    if len(curves) < given.trials:
        p.error(f"{given.folder}: expected at least {given.trials} complete trials, got {len(curves)}; lower --trials")
    figures = []
    for file in sorted(PRUNERS.glob("*.yaml")):
        pruner = instantiate(yaml.safe_load(file.read_text(encoding="utf-8")), _execution_whitelist_="optuna.pruners.*")
        outcome = measure(curves, file.stem, pruner, given.draws, given.trials, given.workers, given.seed)
        figures += figures_of(outcome, given.trials)
    about = {"curves": len(curves), "draws": given.draws, "trials": given.trials, "workers": given.workers}
    report(f"{len(curves)} recorded curves, {given.draws} draws of {given.trials} trials", figures, about, given.json)


def figures_of(outcome: Outcome, n_trials: int) -> list[Figure]:
    """The outcome of one pruner as figures. n_trials: of a draw."""
    of_draws, whole = f"{outcome.draws} draws", f"{n_trials} trials at full length"
    return [
        figure(f"{outcome.pruner}, epochs trained", n_trials * outcome.epochs_share, "full trials", n_trials, whole),
        figure(f"{outcome.pruner}, best ended early", outcome.best_lost, "draws", outcome.draws, of_draws),
        figure(f"{outcome.pruner}, dev F1 below the draw's best", outcome.regret_points, "points", 100, "100 points"),
    ]


if __name__ == "__main__":
    main()
