"""The replay of curves: epochs trained, best configurations lost and regret for several rules."""

import json
from functools import partial
from pathlib import Path

import pytest
from optuna.pruners import MedianPruner, NopPruner, ThresholdPruner

from benchmarks.pruners import ARCHIVES, main, measure, others, replay, shipped
from benchmarks.recorded import read_recorded
from benchmarks.rules import Candidate, Fewer, Paused, Pruned, Risk
from joyful.results import InputError

CURVES = [(0.1, 0.2, 0.3), (0.2, 0.4, 0.5), (0.3, 0.3, 0.4), (0.05, 0.06, 0.07)]


def pruned(pruner):
    return partial(Pruned, pruner=pruner)


@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_without_pruning_every_epoch_is_trained(n_workers):
    trained, completed = replay(CURVES, pruned(NopPruner()), n_workers)
    assert trained == 12
    assert sorted(completed) == [0, 1, 2, 3]


def test_what_is_below_a_bound_ends_at_once():
    trained, completed = replay(CURVES, pruned(ThresholdPruner(lower=0.15)), 2)
    assert trained == 3 + 3 + 1 + 1
    assert sorted(completed) == [1, 2]


def test_the_median_of_completed_trials_is_what_counts():
    # By hand, with one worker: 0.1 0.2 0.3 completes; then 0.2 at epoch 1 >= median 0.1, ...; the last, 0.05 < 0.2, is
    # pruned.
    trained, completed = replay(CURVES, pruned(MedianPruner(n_startup_trials=1, n_warmup_steps=0)), 1)
    assert completed[:2] == [0, 1]
    assert 3 not in completed
    assert trained < 12


@pytest.mark.parametrize("n_workers", [1, 2])
def test_new_trials_first_pauses_all_and_finishes_the_best_half(n_workers):
    make = partial(Paused, first=1, factor=2, breadth_first=True)
    # Values at rung 1: 0.1 0.2 0.3 0.05, of which the best two go to rung 2: 0.4 and 0.3. The best of them goes to the end.
    assert replay(CURVES, make, n_workers) == (4 + 2 + 1, [1])


def test_promotions_first_promotes_as_soon_as_two_are_at_the_rung():
    make = partial(Paused, first=1, factor=2, breadth_first=False)
    # With one worker: 0 pauses; 1 is the better half of two and goes to rung 2, where it pauses as the only one there;
    # 2 is the best at rung 1 and is not paused as 1 of 3; at rung 2 it has 0.3 < 0.4, so 1 is promoted to its end.
    assert replay(CURVES, make, 1) == (1 + 3 + 2 + 1, [1])


def test_fewer_trials_are_the_first_ones():
    assert replay(CURVES, partial(Fewer, share=0.5), 2) == (6, [0, 1])


def test_the_chance_is_that_of_the_t_distribution():
    rule = Risk(4, 3, risk=0.1, startup=2)
    for number, curve in enumerate([(0.1, 0.2, 0.3), (0.2, 0.4, 0.5)]):
        assert not rule.continues(number, curve)
    # Gains after epoch 1: 0.2 and 0.3, of which mean 0.25 and prediction spread 0.0707 * sqrt(1.5) = 0.0866. A trial at 0.25
    # misses 0.25: one half. One at 0.1634 misses 0.3366, one spread more; of t with 1 degree of freedom, 1/4 is above 1.
    assert rule.chance((0.25,)) == pytest.approx(0.5)
    assert rule.chance((0.5 - 0.25 - 0.0866025,)) == pytest.approx(0.25, abs=1e-5)
    assert rule.chance((0.5,)) == 1.0
    assert rule.continues(2, (0.25,))
    assert not Risk.continues(rule, 3, (-0.5,))


def test_risk_decides_after_its_first_complete_trials():
    # Trial 2 at epoch 1 misses 0.2, less than the mean gain of 0.25; at epoch 2 both have gained 0.1, and it misses 0.2.
    assert replay(CURVES, partial(Risk, risk=0.4, startup=2), 1) == (3 + 3 + 2 + 1, [0, 1])


def test_shares_losses_and_regrets_over_draws():
    calm = measure(CURVES, Candidate("none", "none", pruned(NopPruner())), draws=5, n_trials=3, n_workers=2, seed=0)
    assert (calm.epochs_share, calm.best_lost, calm.regret_points) == (1.0, 0, 0.0)
    # The best (0.5) is below 0.25 at first and is always pruned, so the best completed trial is 0.4.
    harsh = Candidate("harsh", "threshold", pruned(ThresholdPruner(lower=0.25)))
    outcome = measure(CURVES[1:3], harsh, draws=5, n_trials=2, n_workers=1, seed=0)
    assert outcome.best_lost == 5
    assert outcome.regret_points == pytest.approx(10.0)
    assert outcome.epochs_share == pytest.approx(4 / 6)


def test_every_rule_replays_and_has_its_own_name():
    candidates = shipped() + others()
    assert len({one.name for one in candidates}) == len(candidates)
    assert {"asha", "median", "none", "percentile"} <= {one.name for one in candidates}
    long = [tuple(0.01 * (place + 1) * epoch for epoch in range(1, 13)) for place in range(6)]
    for one in candidates:
        trained, completed = replay(long, one.make, 2)
        assert 0 < trained <= 72, one.name
        assert completed, one.name


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(ARCHIVES.glob("curves_*.parquet")), ids=lambda file: file.stem)
def test_archived_curves_are_the_best_so_far_of_27_configurations_or_more(file):
    recorded = read_recorded(file)
    assert len(recorded) >= 27
    for one in recorded:
        assert list(one.curve) == sorted(one.curve)
        assert len(one.curve) == one.settings["training.epochs"]
    assert len({one.settings["weights.encoder_loss_weight"] for one in recorded}) == len(recorded)


def test_the_command_prints_a_line_for_each_figure(tmp_path, capsys):
    file = tmp_path / "figures.json"
    main([str(ARCHIVES / "curves_synthetic.parquet"), "--draws", "2", "--json", str(file)])
    assert "curves_synthetic, percentile, epochs trained" in capsys.readouterr().out
    document = json.loads(file.read_text())
    assert document["curves"] == {"curves_synthetic": 36}
    assert len(document["figures"]) == 3 * len(shipped())


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_text("no archive")
    with pytest.raises(InputError, match=r"x\.parquet: expected an archive"):
        read_recorded(Path(tmp_path / "x.parquet"))
