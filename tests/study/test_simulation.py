"""The simulation of the statistics: its noise, its path through real files, its bars, and methods that do not keep them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from joyful.analysis.claims import Claim, Metric, judge
from joyful.analysis.statistics import Estimate, paired_t
from joyful.analysis.sweep import read_sweep
from study import simulation
from study.simulated_sweeps import (
    SPEED,
    STABILITY,
    TARGET,
    Setting,
    brackets,
    curves_of,
    draw,
    evaluations,
    log_times,
    standard_noise,
)
from study.simulation import (
    COVERAGE_BAR,
    FALSE_BAR,
    SETTINGS,
    Intervals,
    Rate,
    detect,
    generator,
    intervals,
    markdown,
    simulate,
    table,
    verdicts,
)
from tests.support.analysis import write_run

STABILITY_SETTING = Setting("g", "spread", STABILITY, spread=True)
ONE_EVALUATION = Setting("grid", "one evaluation per epoch", evaluations=1)


@pytest.mark.parametrize("kind", ["normal", "gamma(2)", "gamma(4)", "t3", "t5", "step"])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_noise_has_its_moments(kind: str, correlation: float) -> None:
    noise = standard_noise(kind, correlation, (400_000,), np.random.default_rng(0))
    assert noise.mean(axis=0) == pytest.approx([0, 0], abs=0.01)
    if kind == "step":
        values, counts = np.unique(noise[:, 1], return_counts=True)
        assert (len(values), counts[1] / counts.sum()) == (2, pytest.approx(1 / 12, abs=0.003))
        assert noise.std(axis=0) == pytest.approx([0, 1], abs=0.02)
        return
    assert noise.std(axis=0) == pytest.approx([1, 1], abs=0.05)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(correlation, abs=0.03)
    if freedom := {"t3": 3, "t5": 5}.get(kind):
        assert np.quantile(noise[:, 0], 0.975) == pytest.approx(
            stats.t.ppf(0.975, freedom) / math.sqrt(freedom / (freedom - 2)), abs=0.02
        )
    else:  # skewness of gamma(k): 2 / √k
        assert stats.skew(noise[:, 0]) == pytest.approx(
            {"gamma(2)": math.sqrt(2), "gamma(4)": 1}.get(kind, 0), abs=0.05
        )


@pytest.mark.slow
def test_spreads_have_the_stated_change() -> None:
    setting, rng = STABILITY_SETTING, np.random.default_rng(0)
    means = [next(draw(setting, 10, 1000, rng, truth)).d[0].mean() for truth in (0.0, None, 1.0)]
    assert means[:2] == pytest.approx([0, setting.truth], abs=0.03)
    assert 0.85 < means[2] < 1  # the trend adds to both spreads


def test_values_of_a_claim_in_points_differ_by_the_truth() -> None:
    f1 = Claim("f1", "", (Metric("best", "dev", "f1_weighted"),), 1, 2, "points", "increase")
    (drawn,) = draw(Setting("g", "f1", f1, sd=0.007, exact=True), 100, 100, np.random.default_rng(0))
    assert drawn.d[0].mean() == pytest.approx(0.01, abs=0.0003)
    assert drawn.d[0].std() == pytest.approx(0.007, abs=0.0002)


@pytest.mark.parametrize("noisier", [1.0, 3.0])
def test_differences_have_the_stated_mean_and_spread(noisier: float) -> None:
    setting = Setting("g", "s", noisier=noisier)
    times = log_times(setting, 0.2, (100_000,), np.random.default_rng(1))
    d = times[:, 0] - times[:, 1]
    assert d.mean() == pytest.approx(0.2, abs=0.002)
    assert d.std() == pytest.approx(0.15, abs=0.002)
    assert times[:, 1].std() == pytest.approx(noisier * times[:, 0].std(), rel=0.02)


def test_curves_reach_the_target_at_their_time() -> None:
    setting, rng = Setting("g", "s", evaluations=20), np.random.default_rng(0)
    times = np.exp(log_times(setting, 0.2, (50,), rng))
    low, high = brackets(setting, times, rng)
    assert (low < times).all()
    assert (times <= high).all()
    assert high - low == pytest.approx(1 / 20)
    curves = curves_of(setting, times[:, 0], rng)
    assert (np.diff(curves, axis=1) > 0).all()
    assert ((curves >= TARGET).to_numpy() == (curves.columns.to_numpy() >= times[:, :1])).all()


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_stated_share_of_runs_is_censored(share: float) -> None:
    for setting in (Setting("g", "s", left=share), Setting("g", "s", right=share)):
        rng = np.random.default_rng(1)
        times = np.exp(log_times(setting, setting.truth, (20_000,), rng))
        low, high = brackets(setting, times, rng)
        assert ((low == 0) if setting.left else np.isinf(high)).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.slow
@pytest.mark.soak("takes 4 s; the next test judges sweeps in files too")
def test_sweeps_in_files_get_the_same_verdicts(tmp_path) -> None:
    """Three sweeps are written as runs, read and judged: paired, with censored runs, and unpaired."""
    for setting in (
        Setting("g", "paired", evaluations=2),
        Setting("g", "censored", evaluations=2, right=0.3),
        Setting("g", "unpaired", evaluations=2, unpaired=True),
    ):
        pairs, rng = 12, generator(setting, 12, 0)
        (drawn,) = draw(setting, pairs, 1, rng)
        found = intervals(setting, [drawn])
        times = np.exp(log_times(setting, setting.truth, (1, pairs), generator(setting, pairs, 0)))[0]
        folder = tmp_path / setting.label
        for arm, loss in enumerate(("mse", "smoothl1")):
            curves = curves_of(setting, times[:, arm], rng)
            x = evaluations(setting)
            for seed, dev in enumerate(curves.to_numpy()):
                columns = {"step": list(range(len(x))), "epoch": x, "split": ["dev"] * len(x), "f1_weighted": dev}
                run = folder / f"{loss}{seed}"
                write_run(run, columns, {"loss": loss}, seed=seed)
        sweep = read_sweep(folder, columns=["f1_weighted", "nll"], design="unpaired" if setting.unpaired else "paired")
        (one,) = judge(sweep, [SPEED], f"dev_f1={TARGET}", rng=rng)
        assert [one.verdict] == verdicts(setting, found)
        effect = setting.scale.effect
        assert (one.low, one.high) == pytest.approx((effect(found.low[0]), effect(found.high[0])), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("unpaired", [pytest.param(False, marks=pytest.mark.soak("the other design")), True])
def test_sweeps_of_several_tasks_in_files_get_the_same_verdict(tmp_path, unpaired: bool) -> None:
    setting, rng = Setting("g", "tasks", tasks=3, unpaired=unpaired), np.random.default_rng(0)
    tasks = list(draw(setting, 8, 1, rng))
    found, x = intervals(setting, tasks), evaluations(setting)
    for number, task in enumerate(tasks):
        for loss, (low, high) in (("mse", task.base), ("smoothl1", task.new)):
            for seed, dev in enumerate(curves_of(setting, (low[0] + high[0]) / 2, rng).to_numpy()):
                columns = {"step": list(range(len(x))), "epoch": x, "split": ["dev"] * len(x), "f1_weighted": dev}
                write_run(tmp_path / f"{number}{loss}{seed}", columns, {"loss": loss, "task": str(number)}, seed=seed)
    sweep = read_sweep(tmp_path, columns=["f1_weighted", "nll"], design="unpaired" if unpaired else "paired")
    *_, one = judge(sweep, [SPEED], f"dev_f1={TARGET}", rng=rng)
    assert one.task == "all tasks"
    assert [one.verdict] == verdicts(setting, found)
    effect = setting.scale.effect
    assert (one.low, one.high) == pytest.approx((effect(found.low[0]), effect(found.high[0])), rel=1e-6)
    assert (one.p_lower_edge < 0.05) == (not one.low <= setting.lower <= one.high)
    published = {measure.name: measure for measure in one.secondary}
    assert len(published) == 2
    mean = published["mean of the effect over tasks, with the bootstrap interval of rliable"]
    assert mean.estimate == pytest.approx(one.estimate, abs=1)


# --- bars


def test_a_rate_fails_where_its_interval_lies_beyond_the_bar() -> None:
    assert Rate(360, 4000).lies_above(0.05)
    assert not Rate(230, 4000).lies_above(0.05)  # 5.75 %, with an interval from 4.9 %
    assert Rate(3670, 4000).lies_below(0.93)
    assert not Rate(3700, 4000).lies_below(0.93)
    assert math.isnan(Rate(0, 0).value)
    assert not Rate(0, 0).lies_above(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        ONE_EVALUATION,
        Setting("censored", "right", right=0.5),
        Setting("censored", "left", left=0.4),
        *(s for s in SETTINGS if s.group == simulation.STEP),
        Setting("unpaired", "3 times", unpaired=True, noisier=3.0),
        Setting("tasks", "3 tasks", tasks=3, exact=True),
        *(s for s in SETTINGS if s.label == "spread, normal noise"),
        *(s for s in SETTINGS if s.group == simulation.KINDS),
    ],
    ids=lambda setting: setting.label,
)
@pytest.mark.soak("takes 20 s; simulates coverage, which the study has recorded")
def test_the_method_keeps_the_bars_on_a_short_run(setting: Setting) -> None:
    cell = simulate(setting, 12, 300, 1)
    assert cell.misses == []
    assert cell.coverage.value >= 0.92
    assert max(cell.supported.value, cell.contradicted.value) <= 0.05
    assert cell.coverage.of >= 200


# --- methods that do not keep the bars


def with_method(monkeypatch, method) -> None:
    """Replace the interval of the mean of d, for pairs."""

    def replaced(setting, tasks):
        found = [method(tasks[0], row) for row in range(len(tasks[0].d[0]))]
        low, high = (np.array([getattr(estimate, name) for estimate in found]) for name in ("low", "high"))
        return Intervals(low, high, np.ones(len(low), dtype=bool))

    monkeypatch.setattr(simulation, "intervals", replaced)


def points_on_the_grid(task, row) -> Estimate:
    """Take the first evaluation at which the target is reached as T."""
    return paired_t(np.log(task.base[1][row] / task.new[1][row]))


def too_narrow(task, row) -> Estimate:
    d = (task.d[0][row] + task.d[1][row]) / 2
    half = d.std(ddof=1) / math.sqrt(len(d))
    return Estimate(d.mean(), d.mean() - half, d.mean() + half)


@pytest.mark.parametrize("label", ["T just before an evaluation", "new arm slower by a step"])
def test_points_on_the_grid_fail_at_a_rare_step(monkeypatch, label: str) -> None:
    setting = next(s for s in SETTINGS if s.label == label)
    assert simulate(setting, 12, 200, 1).coverage.value >= COVERAGE_BAR
    with_method(monkeypatch, points_on_the_grid)
    cell = simulate(setting, 12, 200, 1)
    assert cell.coverage.value < 0.8
    assert "coverage" in cell.misses


@pytest.mark.parametrize("median", [0.8, 1.0])
def test_points_on_the_grid_fail_at_one_evaluation_per_epoch(monkeypatch, median: float) -> None:
    with_method(monkeypatch, points_on_the_grid)
    cell = simulate(replace(ONE_EVALUATION, median=median), 20, 300, 1)
    assert cell.coverage.value < 0.9
    assert "coverage" in cell.misses


def test_intervals_that_are_too_narrow_miss_all_bars(monkeypatch) -> None:
    with_method(monkeypatch, too_narrow)
    cell = simulate(Setting("g", "s"), 12, 400, 1)
    assert cell.misses == ["coverage", "supported", "contradicted"]
    lines = list(markdown(table([cell])))
    assert lines[3].count("**") == 6
    assert lines[-1].startswith("- g, s, 12 pairs: coverage ")
    assert simulate(Setting("g", "s", bound=False), 12, 400, 1).misses == []


# --- power and the command


@pytest.mark.slow
@pytest.mark.soak("simulates coverage for 4 s")
def test_the_smallest_detectable_effect_is_detected_in_80_per_cent() -> None:
    found = detect(Setting("g", "s", evaluations=20), 12, 600, 1)
    assert found.detected.value == pytest.approx(0.8, abs=0.06)
    assert found.effect == pytest.approx(13.5, abs=1)
    coarse = detect(ONE_EVALUATION, 12, 300, 1)
    assert coarse.effect > 1.2 * found.effect


@pytest.mark.slow
def test_the_command_prints_tables(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(simulation, "SETTINGS", (Setting("Noise", "a", pairs=(6, 10)), Setting("Noise", "b")))
    monkeypatch.setattr(simulation, "POWER", (Setting("Noise", "p", exact=True, pairs=(6,)),))
    simulation.main(["--sweeps", "100", "--seed", "3", "--only", "a", "--csv", str(tmp_path / "rates.csv")])
    out, err = capsys.readouterr()
    assert out.startswith("`python -m study.simulation --sweeps 100 --seed 3`")
    assert "| a | 6 / 10 | " in out
    assert "| b |" not in out
    assert err.count("\n") == 2
    assert len((tmp_path / "rates.csv").read_text().splitlines()) == 3
    simulation.main(["--sweeps", "100", "--only", "Power"])
    assert "| p | 6 | " in capsys.readouterr().out
    for wrong in (["--sweeps", "10"], ["--only", "nothing"]):
        with pytest.raises(SystemExit):
            simulation.main(wrong)


def test_figures_do_not_depend_on_the_other_cells() -> None:
    setting = Setting("g", "s", exact=True)
    assert simulate(setting, 6, 200, 1) == simulate(setting, 6, 200, 1)
    assert simulate(setting, 6, 200, 1).coverage != simulate(setting, 6, 200, 2).coverage


def test_the_bars_are_those_of_the_document() -> None:
    assert (COVERAGE_BAR, FALSE_BAR, simulation.CONFIDENCE) == (0.93, 0.05, 0.99)
