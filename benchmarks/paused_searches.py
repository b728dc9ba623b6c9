"""Benchmark of TPE with rules that end or pause trials: the best dev F1 that a search finds for the same epochs.

    python -m benchmarks.paused_searches [ARCHIVE ...]

ARCHIVE is a file of recorded curves (default: the `curves_*` of study/archives). The curve of any setting is interpolated
between the recorded ones: a linear radial basis function of the searched settings, each scaled to 0..1, for each epoch. It
has no noise. TPE with `constant_liar=true` searches this surface with `--workers` workers in simulated time. TPE sees a paused
trial as running, or as pruned at its rung: both are compared. Each rule gets the number of trials with which it trains about
`--budget` times the length of a trial; it is found by five searches of 27 trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from hydra.utils import instantiate
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from scipy.interpolate import RBFInterpolator
from scipy.stats import t

from benchmarks.figures import Figure, figure, parser, report
from benchmarks.pruners import ARCHIVES
from benchmarks.recorded import Curve, Recorded, read_recorded
from benchmarks.rules import InOrder, MakeRule, Paused, Pruned
from benchmarks.samplers import scaled
from joyful.sweeper.pausing import PromotionPruner
from joyful.sweeper.plugin import PRUNERS
from joyful.sweeper.study import silence_logs

#: The searched settings of the recorded curves. Those that do not vary in an archive are left out.
SPACE: Mapping[str, BaseDistribution] = {
    "weights.encoder_loss_weight": FloatDistribution(0.001, 1.0, log=True),
    "weights.cl_loss_weight": FloatDistribution(0.005, 0.5, log=True),
    "weights.gate_reg_weight": FloatDistribution(0.001, 0.1, log=True),
    "optimizer.learning_rate": FloatDistribution(0.0002, 0.01, log=True),
}

CurveOf = Callable[[Mapping[str, object]], Curve]


def fit(recorded: Sequence[Recorded]) -> tuple[CurveOf, dict[str, BaseDistribution]]:
    """Return the curve of any setting, and the search space.

    Args:
        recorded: Recorded configurations, all of the same number of epochs.
    """
    space = {name: SPACE[name] for name in SPACE if len({one.settings[name] for one in recorded}) > 1}
    places = np.array([scaled(one.settings, space) for one in recorded])
    curves = np.array([one.curve for one in recorded])
    predict = RBFInterpolator(places, curves, kernel="linear", degree=0, smoothing=0.05)

    def curve_of(params: Mapping[str, object]) -> Curve:
        values = np.clip(predict(scaled(params, space)[None])[0], curves.min(axis=0), curves.max(axis=0))
        return tuple(map(float, np.maximum.accumulate(values)))

    return curve_of, space


def search(
    curve_of: CurveOf,
    space: Mapping[str, BaseDistribution],
    strategy: Strategy,
    n_trials: int,
    n_workers: int,
    seed: int,
) -> tuple[int, float]:
    """Search with TPE. Each worker trains an epoch in each unit of time.

    Returns:
        The epochs trained, and the best value of the complete trials.
    """
    sampler = TPESampler(seed=seed, constant_liar=True)
    params: list[dict[str, object]] = []
    curves: list[Curve] = []
    steps: list[int] = []
    stopped: list[TrialState] = []
    last = len(curve_of(dict.fromkeys(space, 0.01)))
    rule = strategy.make(n_trials, last)
    busy: list[int] = []
    while True:
        while len(busy) < n_workers and (number := rule.next_trial()) is not None:
            if number == len(params):
                seen = [curve[:step] for curve, step in zip(curves, steps, strict=True)]
                params.append(propose(sampler, space, params, seen, stopped))
                curves.append(curve_of(params[-1]))
                steps.append(0)
                stopped.append(TrialState.RUNNING)
            stopped[number] = TrialState.RUNNING
            busy.append(number)
        if not busy:
            return sum(steps), max(curve[-1] for curve, step in zip(curves, steps, strict=True) if step == last)
        still = []
        for number in busy:
            steps[number] += 1
            if rule.continues(number, curves[number][: steps[number]]):
                still.append(number)
            else:
                stopped[number] = TrialState.COMPLETE if steps[number] == last else strategy.seen_as
        busy = still


def propose(
    sampler: TPESampler,
    space: Mapping[str, BaseDistribution],
    params: Sequence[dict[str, object]],
    curves: Sequence[Curve],
    states: Sequence[TrialState],
) -> dict[str, object]:
    """Return the next setting that a sampler proposes.

    Args:
        sampler: The sampler.
        space: The search space.
        params: Settings of the trials up to now.
        curves: The reported values of each.
        states: What the sampler sees of each.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for setting, curve, state in zip(params, curves, states, strict=True):
        study.add_trial(
            optuna.create_trial(
                state=state, value=curve[-1] if state == TrialState.COMPLETE else None, params=setting,
                distributions=dict(space), intermediate_values=dict(enumerate(curve, start=1)),
            )
        )  # fmt: skip
    return study.ask(dict(space)).params


@dataclass(frozen=True)
class Strategy:
    """A rule, and what the sampler sees of trials that it has stopped: RUNNING or PRUNED."""

    make: MakeRule
    seen_as: TrialState = TrialState.PRUNED


def strategies() -> dict[str, Strategy]:
    """Return the compared rules. The first is the reference."""
    percentile = instantiate(PRUNERS["percentile"], _execution_whitelist_="optuna.pruners.*")
    found = {"none": Strategy(InOrder), "percentile": Strategy(partial(Pruned, pruner=percentile))}
    for order, breadth_first in (("new trials first", True), ("promotions first", False)):
        make: MakeRule = partial(PausedAtAQuarter, breadth_first=breadth_first)
        found[f"paused, {order}, seen as running"] = Strategy(make, TrialState.RUNNING)
        found[f"paused, {order}, seen as pruned"] = Strategy(make, TrialState.PRUNED)
    return found


class PausedAtAQuarter(Paused):
    """Paused halving as `hydra/sweeper/pruner=asha_promotion` does it: rungs at a quarter and a half of the length."""

    def __init__(self, n_trials: int, last_step: int, breadth_first: bool) -> None:
        policy = PromotionPruner(max_resource=last_step, breadth_first=breadth_first).policy(maximize=True)
        super().__init__(n_trials, last_step, policy.first_rung, policy.reduction_factor, breadth_first)


def compare(recorded: Sequence[Recorded], seeds: int, budget: float, n_workers: int) -> dict[str, np.ndarray]:
    """Search with each rule and seed.

    Returns:
        By rule: for each seed the number of trials, the trials trained (in lengths) and the best dev F1 in points.
    """
    curve_of, space = fit(recorded)
    last = len(recorded[0].curve)
    found = {}
    for name, strategy in strategies().items():
        trained = np.mean([search(curve_of, space, strategy, 27, n_workers, 10_000 + seed)[0] for seed in range(5)])
        n_trials = round(27 * budget * last / float(trained))
        rows = [search(curve_of, space, strategy, n_trials, n_workers, seed) for seed in range(seeds)]
        found[name] = np.array([(n_trials, epochs / last, 100 * best) for epochs, best in rows])
    return found


def figures_of(place: str, found: Mapping[str, np.ndarray]) -> list[Figure]:
    """Return the figures of one archive: the trials, the epochs, and the difference to the first rule with its interval."""
    figures = []
    reference = next(iter(found.values()))[:, 2]
    for name, rows in found.items():
        difference = rows[:, 2] - reference
        half = float(t.ppf(0.975, len(rows) - 1) * difference.std(ddof=1) / len(rows) ** 0.5)
        mean, about = float(difference.mean()), f"{place}, {name}"
        figures += [
            figure(f"{about}, trials", float(rows[0, 0]), "trials", 27, "27 trials"),
            figure(f"{about}, trained", float(rows[:, 1].mean()), "full trials", 27, "27 trials"),
            figure(f"{about}, best dev F1", float(rows[:, 2].mean()), "points", 100, "100 points"),
            figure(f"{about}, minus none", mean, "points", 100, "100 points"),
            figure(f"{about}, minus none, 95 % interval, half", half, "points", 100, "100 points"),
        ]
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Search the surfaces, and print the figures."""
    command_line = parser("paused_searches", __doc__)
    command_line.add_argument("archives", type=Path, nargs="*", help="recorded curves (default: those of the study)")
    command_line.add_argument("--seeds", type=int, default=40, help="searches, 2 or more (default: %(default)s)")
    command_line.add_argument(
        "--budget", type=float, default=13.5, help="epochs in lengths of a trial (default: %(default)s)"
    )
    command_line.add_argument("--workers", type=int, default=2, help="simulated workers (default: %(default)s)")
    options = command_line.parse_args(arguments)
    if options.seeds < 2:
        command_line.error(f"--seeds: expected 2 or more, got {options.seeds}; set --seeds 40")
    silence_logs()
    figures: list[Figure] = []
    for file in options.archives or sorted(ARCHIVES.glob("curves_*.parquet")):
        figures += figures_of(file.stem, compare(read_recorded(file), options.seeds, options.budget, options.workers))
    about = {"seeds": options.seeds, "budget": options.budget, "workers": options.workers}
    report(f"{options.seeds} searches by TPE with each rule", figures, about, options.json)


if __name__ == "__main__":
    main()
