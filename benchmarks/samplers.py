"""Benchmark of the samplers on recorded searches: how good the best setting is that each finds.

    python -m benchmarks.samplers [ARCHIVE.parquet ...]

ARCHIVE is a search of study/archives (default: all twelve). The benchmark fits a surface through the best dev F1 of its
trials: a linear radial basis function of the searched settings, each scaled to 0..1, never above the best trial nor
below the worst. Samplers search this surface for `--trials` trials with `--workers` workers in simulated time, in which
the time of a trial is between 0.8 and 1.2. The benchmark compares TPE with the defaults of hydra-optuna-sweeper's file
(`multivariate=false`, `constant_liar=false`) to TPE with those of Optuna, with the same seeds.
"""

from __future__ import annotations

import heapq
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from scipy.interpolate import RBFInterpolator
from scipy.stats import t

from benchmarks.figures import Figure, figure, parser, report
from joyful.compat import parse_search_space
from joyful.sweeper.study import silence_logs
from study import archive, select_trial

STUDY = Path(__file__).resolve().parents[1] / "study"

#: Name of each sampler -> how to build it from a seed.
SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "stock": lambda seed: TPESampler(seed=seed, multivariate=False, constant_liar=False),
    "optuna": lambda seed: TPESampler(seed=seed),
}


@dataclass(frozen=True)
class Surface:
    """The dev F1 of every setting of a search.

    Attributes:
        name: Name of the search.
        space: Parameter -> distribution.
        predict: Maps a scaled point to dev F1.
        low: Dev F1 of the worst trial.
        high: Dev F1 of the best trial.
    """

    name: str
    space: Mapping[str, BaseDistribution]
    predict: Callable[[np.ndarray], np.ndarray]
    low: float
    high: float

    def __call__(self, params: Mapping[str, object]) -> float:
        """Return the dev F1 of a setting, as a fraction."""
        value = float(self.predict(scaled(params, self.space)[None])[0])
        return min(max(value, self.low), self.high)


def scaled(params: Mapping[str, object], space: Mapping[str, BaseDistribution]) -> np.ndarray:
    """Return a setting as numbers from 0 to 1: a position in each range, and a 0 or 1 for each choice.

    Two settings that differ only in one choice have the distance 1.
    """
    numbers: list[float] = []
    for name, distribution in space.items():
        value = params[name]
        if isinstance(distribution, CategoricalDistribution):
            numbers += [0.5**0.5 * (str(choice) == str(value)) for choice in distribution.choices]
            continue
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        ends = np.array([distribution.low, float(str(value)), distribution.high])
        low, here, high = np.log(ends) if distribution.log else ends
        numbers.append(float((here - low) / (high - low)))
    return np.array(numbers)


def fit(
    name: str, space: Mapping[str, BaseDistribution], points: Sequence[Mapping[str, object]], f1: Sequence[float]
) -> Surface:
    """Fit the surface of a search.

    Args:
        name: Name of the search.
        space: Parameter -> distribution.
        points: Settings of the trials.
        f1: Best dev F1 of each, as a fraction.
    """
    places = np.array([scaled(point, space) for point in points])
    # a little smoothing, so that trials at nearly the same place do not make a cliff
    predict = RBFInterpolator(places, np.array(f1), kernel="linear", degree=0, smoothing=0.05)
    return Surface(name, space, predict, min(f1), max(f1))


def read_surface(file: Path) -> Surface:
    """Read an archived search of the study, and fit its surface."""
    kind = file.stem.rpartition("_")[2]
    params = yaml.safe_load((STUDY / f"sweeps/search_{kind}.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"][
        "params"
    ]
    space = parse_search_space([f"{name}={text}" for name, text in params.items()]).space
    with tempfile.TemporaryDirectory() as folder:
        archive.unpack(file, Path(folder) / file.stem)
        trials, _ = select_trial.read_trials(Path(folder) / file.stem, target=1.0)
    columns = {name: name if name in trials else f"{name}.name" for name in space}  # a group is named by its `name`
    points = [{name: row[column] for name, column in columns.items()} for _, row in trials.iterrows()]
    return fit(file.stem.removeprefix("search_"), space, points, [float(value) for value in trials["f1"]])


def search(
    surface: Callable[[Mapping[str, object]], float],
    space: Mapping[str, BaseDistribution],
    sampler: BaseSampler,
    n_trials: int,
    n_workers: int,
    seed: int,
) -> float:
    """Search a surface with workers in simulated time.

    Returns:
        The best value of the trials.
    """
    times, study = random.Random(seed), optuna.create_study(direction="maximize", sampler=sampler)
    running: list[tuple[float, int, optuna.Trial]] = []
    now, best = 0.0, -np.inf
    for number in range(n_trials + n_workers):
        if number >= n_workers and running:
            now, _, trial = heapq.heappop(running)
            value = surface(trial.params)
            best = max(best, value)
            study.tell(trial, value)
        if number < n_trials:
            heapq.heappush(running, (now + times.uniform(0.8, 1.2), number, study.ask(dict(space))))
    return best


def compare(surfaces: Sequence[Surface], seeds: int, n_trials: int, n_workers: int) -> np.ndarray:
    """Search each surface with each sampler and seed.

    Returns:
        Best dev F1 by sampler, surface and seed, in points.
    """
    found = np.empty((len(SAMPLERS), len(surfaces), seeds))
    for i, build in enumerate(SAMPLERS.values()):
        for j, surface in enumerate(surfaces):
            for seed in range(seeds):
                found[i, j, seed] = 100 * search(surface, surface.space, build(seed), n_trials, n_workers, seed)
    return found


def figures_of(found: np.ndarray, best: Sequence[float], n_workers: int) -> list[Figure]:
    """Return the figures of one number of workers.

    Args:
        found: Best dev F1 by sampler, surface and seed, in points.
        best: Best dev F1 of the trials of each surface, in points.
        n_workers: Number of workers.
    """
    about, (stock, optuna_) = f"{n_workers} worker{'s' if n_workers > 1 else ''}", found
    figures = []
    for name, values in zip(SAMPLERS, found, strict=True):
        regret = float((np.array(best)[:, None] - values).mean())
        figures.append(figure(f"{about}, {name}, dev F1 below the recorded best", regret, "points", 100, "100 points"))
    by_seed = (optuna_ - stock).mean(axis=0)
    half = float(t.ppf(0.975, len(by_seed) - 1) * by_seed.std(ddof=1) / len(by_seed) ** 0.5)
    mean, whole = float(by_seed.mean()), "100 points"
    differences = (optuna_ - stock).ravel()
    return [
        *figures,
        figure(f"{about}, optuna minus stock, mean", mean, "points", 100, whole),
        figure(f"{about}, optuna minus stock, 95 % interval, low", mean - half, "points", 100, whole),
        figure(f"{about}, optuna minus stock, 95 % interval, high", mean + half, "points", 100, whole),
        figure(f"{about}, optuna minus stock, median search", float(median(differences)), "points", 100, whole),
        figure(f"{about}, optuna better", int((differences > 0).sum()), "searches", differences.size, "all searches"),
        figure(f"{about}, stock better", int((differences < 0).sum()), "searches", differences.size, "all searches"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Search the surfaces, and print the figures."""
    command_line = parser("samplers", __doc__)
    command_line.add_argument("archives", type=Path, nargs="*", help="archived searches of the study (default: all)")
    command_line.add_argument(
        "--seeds", type=int, default=100, help="seeds per surface, 2 or more (default: %(default)s)"
    )
    command_line.add_argument("--trials", type=int, default=24, help="trials of a search (default: %(default)s)")
    command_line.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="simulated workers (default: 1 4)")
    options = command_line.parse_args(arguments)
    if options.seeds < 2:
        command_line.error(f"--seeds: expected 2 or more, got {options.seeds}; set --seeds 100")
    silence_logs()
    surfaces = [
        read_surface(file) for file in options.archives or sorted((STUDY / "archives").glob("search_*.parquet"))
    ]
    figures: list[Figure] = []
    for n_workers in options.workers:
        found = compare(surfaces, options.seeds, options.trials, n_workers)
        figures += figures_of(found, [100 * surface.high for surface in surfaces], n_workers)
    about = {"searches": [surface.name for surface in surfaces], "seeds": options.seeds, "trials": options.trials}
    title = f"{len(surfaces)} recorded searches, {options.seeds} seeds, {options.trials} trials"
    report(title, figures, about, options.json)


if __name__ == "__main__":
    main()
