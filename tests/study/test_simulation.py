"""The simulation of the statistics: its noise and true values, and that it detects an incorrect decision rule."""

import math

import numpy as np
import pytest
from scipy import stats

from joyful.analysis.statistics import Estimate
from study import simulation
from study.simulation import SETTINGS, Setting, Simulator, markdown, run_all, standard_noise, summarise


@pytest.mark.parametrize("kind", ["normal", "gamma(2)"])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_noise_has_its_moments(kind: str, correlation: float) -> None:
    noise = standard_noise(kind, correlation, (200_000,), np.random.default_rng(0))
    assert noise.mean(axis=0) == pytest.approx([0, 0], abs=0.01)
    assert noise.std(axis=0) == pytest.approx([1, 1], abs=0.02)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(correlation, abs=0.01)
    # skewness of gamma(k): 2 / √k
    assert stats.skew(noise[:, 0]) == pytest.approx(math.sqrt(2) if kind != "normal" else 0, abs=0.05)


def test_differences_have_the_stated_spread_and_mean() -> None:
    for setting in (SETTINGS[0], SETTINGS[3], SETTINGS[-1]):
        rng = np.random.default_rng(1)
        d, censored = Simulator(setting, rng).differences(0.2, 400, 100, rng)
        assert d.mean() == pytest.approx(0.2, abs=0.005)
        assert d.std() == pytest.approx(setting.sd, rel=0.05)
        assert not censored.any()


def test_censoring_reduces_the_estimand() -> None:
    simulator = Simulator(Setting("c", censored=0.25), np.random.default_rng(0))
    assert 0.1 < simulator.estimand(0.2) < 0.2
    assert simulator.estimand(simulator.shift_for(0.15)) == pytest.approx(0.15, abs=1e-4)
    _, shares = simulator.differences(0.0, 200, 30, np.random.default_rng(2))
    assert shares.mean() == pytest.approx(0.28, abs=0.05)  # the larger of two shares near 0.25


def test_the_trend_of_a_curve_contributes_to_its_spread() -> None:
    simulator = Simulator(Setting("s", curves=True), np.random.default_rng(0))
    assert 0.3 < simulator.estimand(0.4) < 0.4


def test_the_rule_meets_the_requirements_on_a_short_run() -> None:
    """This repeats part of the documented table with fewer sweeps, so three standard errors are allowed."""
    for row in run_all(400, 1, [SETTINGS[0], SETTINGS[1]]):
        if row["pairs"] >= 10:
            assert row["coverage"] >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / 400)
        assert row["false_edge"] <= 0.05
        assert row["power_middle"] < row["power_upper"]


def test_too_narrow_intervals_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With intervals that are too narrow, the rates miss the requirements and are in bold."""

    def too_narrow(d: np.ndarray) -> Estimate:
        half = d.std(ddof=1) / math.sqrt(len(d))
        return Estimate(d.mean(), d.mean() - half, d.mean() + half)

    monkeypatch.setattr(simulation, "paired_t", too_narrow)
    rng = np.random.default_rng(0)
    row = {"setting": "s", "pairs": 10} | summarise(Simulator(SETTINGS[0], rng), 10, 400, rng)
    assert simulation.misses_coverage(row)
    assert simulation.misses_false(row)
    assert list(markdown([row]))[2].count("**") == 4


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SETTINGS", SETTINGS[:1])
    monkeypatch.setattr(simulation.run_all, "__defaults__", (SETTINGS[:1],))
    simulation.main(["--sweeps", "100", "--seed", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("`python -m study.simulation --sweeps 100 --seed 3`")
    assert sum(line.startswith("| times, normal noise |") for line in lines) == 4
    with pytest.raises(SystemExit):
        simulation.main(["--sweeps", "10"])
