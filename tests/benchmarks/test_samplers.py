"""The replay of samplers: scaled settings, surfaces, searches in simulated time, and paired differences."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler

from benchmarks.samplers import STUDY, figures_of, fit, main, read_surface, scaled, search

SPACE = {"rate": FloatDistribution(0.01, 1.0, log=True), "loss": CategoricalDistribution(("a", "b"))}


def test_settings_are_scaled_to_ranges_and_choices():
    assert scaled({"rate": 0.1, "loss": "b"}, SPACE) == pytest.approx([0.5, 0.0, 0.5**0.5])
    distance = np.linalg.norm(scaled({"rate": 0.1, "loss": "a"}, SPACE) - scaled({"rate": 0.1, "loss": "b"}, SPACE))
    assert distance == pytest.approx(1.0)


def test_a_surface_is_near_its_trials_and_between_their_values():
    points = [{"rate": rate, "loss": loss} for rate in (0.01, 0.1, 1.0) for loss in "ab"]
    f1 = [0.1, 0.2, 0.5, 0.6, 0.3, 0.4]
    surface = fit("s", SPACE, points, f1)
    assert [surface(point) for point in points] == pytest.approx(f1, abs=0.03)
    assert 0.1 < surface({"rate": 0.03, "loss": "a"}) < 0.5
    assert surface.high == 0.6


class Recorder(BaseSampler):
    """Asks for 0, 1, 2, ... and notes how many trials were finished and running at each."""

    def __init__(self):
        self.seen = []

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        states = [other.state.name for other in study.get_trials(deepcopy=False)]
        self.seen.append((states.count("COMPLETE"), states.count("RUNNING")))
        return float(trial.number)


@pytest.mark.parametrize("n_workers", [1, 3, 9])
def test_workers_ask_as_soon_as_they_are_free(n_workers):
    sampler, space = Recorder(), {"x": FloatDistribution(0.0, 100.0)}
    best = search(lambda params: -abs(params["x"] - 4.0), space, sampler, n_trials=6, n_workers=n_workers, seed=0)
    assert best == 0.0
    # the trial that asks counts as running
    assert sampler.seen == [(max(0, i + 1 - n_workers), min(i + 1, n_workers)) for i in range(6)]


def test_differences_are_paired_by_seed():
    found = np.array([[[50.0, 60.0], [70.0, 70.0]], [[51.0, 62.0], [70.0, 69.0]]])
    figures = {one.name.partition(", ")[2]: one.value for one in figures_of(found, [61.0, 71.0], 1)}
    assert figures["stock, dev F1 below the recorded best"] == pytest.approx(3.5)
    assert figures["optuna minus stock, mean"] == pytest.approx(0.5)
    assert figures["optuna minus stock, 95 % interval, low"] == pytest.approx(0.5)
    assert figures["optuna minus stock, median search"] == pytest.approx(0.5)
    assert (figures["optuna better"], figures["stock better"]) == (2, 1)


@pytest.mark.slow
def test_the_recorded_searches_are_searched(measured):
    file = STUDY / "archives/search_mosi_weights.parquet"
    surface = read_surface(file)
    assert len(surface.space) == 6
    assert 0.5 < surface.low < surface.high < 0.8
    random = search(surface, surface.space, RandomSampler(seed=1), 20, 1, 1)
    assert surface.low < random <= surface.high
    figures, document = measured(main, str(file), "--seeds", "2", "--trials", "12", "--workers", "4")
    assert document["searches"] == ["mosi_weights"]
    assert "4 workers, optuna minus stock, mean" in figures
