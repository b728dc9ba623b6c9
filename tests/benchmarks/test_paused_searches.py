"""Searches with TPE on interpolated curves: the curves, the epochs, and what the sampler sees of paused trials."""

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from benchmarks.paused_searches import compare, figures_of, fit, propose, search, strategies
from benchmarks.recorded import Recorded

NAMES = ("weights.encoder_loss_weight", "weights.cl_loss_weight", "weights.gate_reg_weight", "optimizer.learning_rate")


def recorded(n=12, epochs=8):
    rates = np.geomspace(0.0002, 0.01, n)
    return [
        Recorded(
            dict(zip(NAMES, (0.03, 0.05, 0.01, float(rate)), strict=True)),
            tuple(0.5 - 0.01 * abs(place - n / 2) - 0.3 / epoch for epoch in range(1, epochs + 1)),
        )
        for place, rate in enumerate(rates)
    ]


def test_curves_go_through_the_recorded_ones_and_only_what_varies_is_searched():
    runs = recorded()
    curve_of, space = fit(runs)
    assert list(space) == ["optimizer.learning_rate"]
    for one in runs[1:-1]:
        assert curve_of(one.settings) == pytest.approx(one.curve, abs=0.01)


def test_every_strategy_trains_its_epochs_and_pausing_fewer():
    curve_of, space = fit(recorded())
    trained = {}
    for name, strategy in strategies().items():
        trained[name], best = search(curve_of, space, strategy, 8, 2, seed=0)
        assert best <= max(one.curve[-1] for one in recorded())
    assert trained["none"] == 8 * 8
    # 8 trials to step 2, 4 of them to step 4, and 2 of them to step 8
    assert trained["paused, new trials first, seen as running"] == 8 * 2 + 4 * 2 + 2 * 4


@pytest.mark.parametrize(("state", "near"), [(TrialState.RUNNING, False), (TrialState.PRUNED, True)])
def test_tpe_learns_from_pruned_trials_and_not_from_running_ones(state, near):
    space = {"x": FloatDistribution(0.0, 1.0)}
    params = [{"x": place / 29} for place in range(30)]
    curves = [(1 - abs(one["x"] - 0.9),) for one in params]
    proposed = [propose(TPESampler(seed=s, constant_liar=True), space, params, curves, [state] * 30) for s in range(20)]
    distance = np.mean([abs(one["x"] - 0.9) for one in proposed])
    assert (distance < 0.15) == near


@pytest.mark.slow
def test_figures_have_the_difference_to_the_first():
    found = compare(recorded(), seeds=2, budget=4, n_workers=2)
    figures = {one.name: one.value for one in figures_of("c", found)}
    assert figures["c, none, minus none"] == 0
    difference = (found["percentile"] - found["none"])[:, 2].mean()
    assert figures["c, percentile, minus none"] == pytest.approx(difference)
    assert figures["c, none, trials"] == 4
