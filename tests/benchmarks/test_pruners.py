"""The replay of curves: epochs trained, best configurations lost and regret for several pruners."""

import pytest
from optuna.pruners import MedianPruner, NopPruner, ThresholdPruner

from benchmarks.pruners import measure, replay

CURVES = [(0.1, 0.2, 0.3), (0.2, 0.4, 0.5), (0.3, 0.3, 0.4), (0.05, 0.06, 0.07)]


@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_without_pruning_every_epoch_is_trained(n_workers):
    trained, completed = replay(CURVES, NopPruner(), n_workers)
    assert trained == 12
    assert sorted(completed) == [0, 1, 2, 3]


def test_what_is_below_a_bound_ends_at_once():
    trained, completed = replay(CURVES, ThresholdPruner(lower=0.15), 2)
    assert trained == 3 + 3 + 1 + 1
    assert sorted(completed) == [1, 2]


def test_the_median_of_completed_trials_is_what_counts():
    # By hand, with one worker: 0.1 0.2 0.3 completes; then 0.2 at epoch 1 >= median 0.1, ...; the last, 0.05 < 0.2, is
    # pruned.
    trained, completed = replay(CURVES, MedianPruner(n_startup_trials=1, n_warmup_steps=0), 1)
    assert completed[:2] == [0, 1]
    assert 3 not in completed
    assert trained < 12


def test_shares_losses_and_regrets_over_draws():
    calm = measure(CURVES, "none", NopPruner(), draws=5, n_trials=3, n_workers=2, seed=0)
    assert (calm.epochs_share, calm.best_lost, calm.regret_points) == (1.0, 0, 0.0)
    # The best (0.5) is below 0.25 at first and is always pruned, so the best completed trial is 0.4.
    harsh = measure(CURVES[1:3], "harsh", ThresholdPruner(lower=0.25), draws=5, n_trials=2, n_workers=1, seed=0)
    assert harsh.best_lost == 5
    assert harsh.regret_points == pytest.approx(10.0)
    assert harsh.epochs_share == pytest.approx(4 / 6)
