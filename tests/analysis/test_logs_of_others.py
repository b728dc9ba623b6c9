"""Curves of other trainers, imported and judged: each test stands for a kind of log that once got a wrong verdict."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.analysis import report
from joyful.analysis.claims import ALL_TASKS, Verdict
from joyful.analysis.importers.__main__ import main as import_curves
from joyful.analysis.page.parts import Page
from joyful.results import InputError
from tests.support.analysis import remarks
from tests.support.findings import findings_of

ARMS, SEEDS = ("old", "new"), range(8)


class Log:
    """A CSV file of curves, imported into a folder and judged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, header: str, rows: Iterable[tuple[object, ...]]) -> None:
        text = "\n".join([header, *(",".join(map(str, row)) for row in rows)])
        (self.folder / "log.csv").write_text(text)
        assert import_curves(["csv", str(self.folder / "log.csv"), "--out", str(self.folder / "runs")]) == 0

    def judge(self, claims: str = "", **options: object) -> list[Verdict]:
        path = self.folder / "claims.yaml"
        path.write_text(f"claims:\n{claims}" if claims else "")
        options = {"baseline": "arm=old", **options}
        self.findings = findings_of(self.folder / "runs", path, **options)
        return self.findings.verdicts

    @property
    def page(self) -> Page:
        return report.make_page(self.findings)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def noise() -> Callable[[float], float]:
    rng = np.random.default_rng(5)
    return lambda scale: float(rng.normal(0, scale))


def claim(measure: str, of: str, kind: str, unit: str = "percent", direction: str = "increase", name: str = "") -> str:
    column = of.partition(",")[0]
    return (
        f"  - claim: {name or f'{measure}_{column}'}\n"
        f"    metrics: [{{measure: {measure}, split: dev, of: {of}}}]\n    {kind}\n    unit: {unit}\n    direction: {direction}\n"
    )


def test_the_same_numbers_get_the_same_verdict_under_any_name(log: Log, noise) -> None:
    """A column that falls, under names that are known and names that are not."""
    rows = []
    for arm in ARMS:
        for seed in SEEDS:
            for epoch in range(1, 11):
                value = round(3 * math.exp(-epoch / 3) * (0.8 if arm == "new" else 1) + 0.5 + noise(0.01), 5)
                rows.append((arm, seed, epoch, "dev", value, value))
    log.write("arm,seed,epoch,split,loss,wer", rows)
    names = ("loss", "wer")
    best = "".join(claim("best", name, "between: [2, 5]", direction="decrease") for name in names)
    speed = "".join(claim("time_to_target", name, "at_least: 5") for name in names)
    with pytest.raises(InputError, match=r"line 8: .*of: wer: expected to know .* --better wer=lower \(or higher\)"):
        log.judge(best + speed)
    verdicts = log.judge(best + speed, better=["wer=lower"])
    for of_measure in (verdicts[:2], verdicts[2:]):
        assert len({(v.estimate, v.low, v.high, v.verdict, v.p_zero) for v in of_measure}) == 1
    assert 1 < verdicts[0].estimate < 5  # the best value is 0.607 against 0.586
    assert verdicts[2].estimate > 0
    (by_value,) = log.judge(claim("time_to_target", "loss", "at_least: 5"), target="dev_loss=0.8")
    assert by_value.low < 9 < by_value.high  # 6.9 epochs against 6.2


def test_scores_of_other_units_and_negative_rewards(log: Log, noise) -> None:
    rows = [
        (arm, s, e, "dev", 20 + e + 1.5 * (arm == "new") + noise(0.2), -10 + 0.3 * e + 0.1 * (arm == "new") + noise(0.02))
        for arm in ARMS for s in SEEDS for e in range(1, 11)
    ]  # fmt: skip
    log.write("arm,seed,epoch,split,bleu,reward", rows)
    bleu, points, speed = log.judge(
        claim("final", "bleu, better: higher", "at_least: 1", "absolute")
        + claim("final", "bleu, better: higher", "at_least: 1", "points", name="points")
        + claim("time_to_target", "reward, better: higher", "at_least: 1")
    )
    assert bleu.verdict == "supported"
    assert bleu.estimate == pytest.approx(1.5, abs=0.2)
    assert points.verdict == "not testable"
    assert re.search(
        r"points are hundredths of a fraction, and values reach 3\d\.\d+; set unit: absolute", points.detail
    )
    target = log.findings.target
    assert target is not None
    assert -10 + 0.3 < target.value < -7  # beyond the first value, before the best
    assert speed.verdict != "not testable"


def test_a_run_that_reaches_everything_sooner_and_stops_is_used(log: Log, noise) -> None:
    rows = [
        (arm, seed, epoch, "dev", round(0.5 + (0.04 if arm == "old" else 0.07) * epoch + noise(0.01), 5))
        for arm in ARMS
        for seed in SEEDS
        for epoch in range(1, 11 if arm == "old" else 6 + seed % 3)
    ]
    log.write("arm,seed,epoch,split,accuracy", rows)
    speed, best = log.judge(
        claim("time_to_target", "accuracy", "at_least: 20") + claim("best", "accuracy", "at_least: 5", "points"),
        target="dev_accuracy=0.75",
    )
    assert len(log.findings.sweep.left_out) == 0
    assert speed.verdict == "supported"
    assert speed.low < 75 < speed.high  # 6.3 epochs against 3.6
    assert best.low < 100 * 0.03 * 6 < best.high  # over the six epochs that both have: 0.92 against 0.74
    assert "two runs are compared on the span that they share" in " ".join(log.findings.sweep.notes)


def test_an_evaluation_before_the_end_of_the_last_epoch(log: Log, noise) -> None:
    rows = [
        (arm, s, e if e < 5 else 4.99, "dev", 0.3 + 0.08 * e + 0.02 * (arm == "new") + noise(0.01))
        for arm in ARMS for s in SEEDS for e in range(1, 6)
    ]  # fmt: skip
    log.write("arm,seed,epoch,split,f1_weighted", rows)
    (final,) = log.judge(claim("final", "f1_weighted", "at_least: 1", "points"))
    assert final.n_pairs == 8
    assert final.estimate == pytest.approx(2, abs=0.8)


def test_curves_on_different_evaluations(log: Log, noise) -> None:
    """Both arms follow one line."""
    grids = {"old": range(1, 11), "new": (1, 2.5, 4, 5.5, 7, 8.5, 10)}
    rows = [(arm, seed, x, "dev", 0.5 + 0.04 * x + noise(0.005)) for arm in ARMS for seed in SEEDS for x in grids[arm]]
    log.write("arm,seed,epoch,split,accuracy", rows)
    area, spread = log.judge(
        claim("area", "accuracy", "within: 1", "points") + claim("spread", "accuracy", "at_least: 10")
    )
    assert (area.n_pairs, area.verdict) == (8, "supported")
    assert spread.verdict == "not testable"  # changes over one epoch and over three are not compared
    assert log.page.sections  # figures of curves on different grids


def test_folds_are_averaged_by_epoch(log: Log) -> None:
    """The value is the same in every fold and arm; one fold lacks its first evaluation in one arm."""
    rows = [
        (arm, seed, fold, epoch, "dev", round(0.1 * epoch, 5))
        for arm in ARMS for seed in SEEDS for fold in (1, 2) for epoch in range(1, 6)
        if not (arm == "new" and fold == 2 and epoch == 1)
    ]  # fmt: skip
    log.write("arm,seed,data.fold,epoch,split,accuracy", rows)
    (area, best) = log.judge(
        claim("area", "accuracy", "within: 1", "points") + claim("best", "accuracy", "within: 1", "points")
    )
    assert (area.estimate, area.verdict) == (pytest.approx(0, abs=1e-9), "supported")
    assert (best.estimate, best.verdict) == (0, "supported")


def test_independent_runs_are_compared_when_it_is_declared(log: Log, noise) -> None:
    rows = [
        (arm, 1000 * (arm == "new") + seed, epoch, "dev", 0.3 + 0.05 * epoch + 0.03 * (arm == "new") + noise(0.01))
        for arm, n in (("old", 20), ("new", 12)) for seed in range(n) for epoch in range(1, 11)
    ]  # fmt: skip
    log.write("arm,seed,epoch,split,accuracy", rows)
    claims = claim("best", "accuracy", "at_least: 1", "points") + claim("time_to_target", "accuracy", "at_least: 1")
    paired, _ = log.judge(claims)
    assert (paired.verdict, paired.n_pairs) == ("not testable", 0)
    assert "No seeds are shared" in " ".join(log.findings.sweep.notes)
    best, speed = log.judge(claims, design="unpaired")
    assert best.runs == (12, 20)
    assert best.verdict == "supported"
    assert best.low < 3 < best.high
    assert best.better is not None
    assert best.better.estimate > 0.9
    assert math.isfinite(best.minimum_detectable)
    assert speed.low < 7 < speed.high  # 9.2 epochs against 8.6
    assert [row[2] for row in log.page.sections[0].tables[0].rows] == ["20", "12"]
    assert log.findings.verdict_table[["n_runs", "n_baseline_runs"]].iloc[0].tolist() == [12, 20]


def test_over_half_of_the_runs_never_reach_the_target(log: Log, noise) -> None:
    rows = []
    for arm, hits, tau in (("old", 9, 4.0), ("new", 23, 2.5)):
        for seed in range(25):
            top = 0.30 if seed < hits else 0.26
            rows += [
                (arm, seed, e, "dev", round(top * (1 - math.exp(-e / tau)) + noise(0.001), 5)) for e in range(1, 31)
            ]
    log.write("arm,seed,epoch,split,score", rows)
    (speed,) = log.judge(claim("time_to_target", "score, better: higher", "at_least: 10"), target="dev_score=0.28")
    assert speed.verdict == "supported"
    assert speed.n_pairs == 23  # in two pairs neither run reaches it
    assert "bounded on one side only" in speed.note


@pytest.fixture
def three_tasks(log: Log, noise) -> Log:
    rows = [
        (task, arm, s, e, "dev", scale * (1 - math.exp(-e / 3)) * (1.1 if arm == "new" else 1) + noise(0.01 * scale))
        for task, scale in (("cheetah", 900.0), ("hopper", 250.0), ("reacher", 40.0))
        for arm in ARMS for s in range(6) for e in range(1, 11)
    ]  # fmt: skip
    log.write("task,arm,seed,epoch,split,reward", rows)
    return log


def test_tasks_are_never_arms(three_tasks: Log) -> None:
    verdicts = three_tasks.judge(claim("final", "reward, better: higher", "between: [5, 15]"))
    assert [arm.name for arm in three_tasks.findings.sweep.arms] == ["old", "new"]
    assert [v.task for v in verdicts] == ["cheetah", "hopper", "reacher", ALL_TASKS]
    for verdict in verdicts:
        assert verdict.verdict == "supported"
        assert verdict.low < 10 < verdict.high
    every = verdicts[-1]
    assert every.n_pairs == 18
    assert every.high - every.low < min(v.high - v.low for v in verdicts[:-1])
    assert [m.name.split(" of ")[0] for m in every.secondary] == ["mean", "interquartile mean"]
    assert [m.estimate for m in every.secondary] == pytest.approx([10, 10], abs=1)
    titles = [section.title for section in three_tasks.page.sections]
    assert {"Learning curves: cheetah", "Learning curves: reacher", "Profiles"} <= set(titles)
    names = [plot.name for section in three_tasks.page.sections for plot in section.plots]
    assert len(names) == len(set(names))
    assert set(three_tasks.findings.tables["pairs"]["task"]) == {"cheetah", "hopper", "reacher"}


def test_tasks_of_independent_runs(three_tasks: Log) -> None:
    verdicts = three_tasks.judge(claim("final", "reward, better: higher", "between: [5, 15]"), design="unpaired")
    assert [v.verdict for v in verdicts] == ["supported"] * 4
    assert verdicts[-1].runs == (18, 18)
    assert verdicts[-1].low < 10 < verdicts[-1].high


def test_a_task_without_a_verdict(log: Log, noise) -> None:
    rows = [
        (task, arm, seed, epoch, "dev", 0.1 * epoch + noise(0.01))
        for task, n in (("a", 6), ("b", 4)) for arm in ARMS for seed in range(n) for epoch in range(1, 6)
    ]  # fmt: skip
    log.write("task,arm,seed,epoch,split,accuracy", rows)
    a, b, every = log.judge(claim("final", "accuracy", "within: 5", "points"))
    assert a.verdict == "supported"
    assert b.detail == "4 pairs, at least 6 are needed"
    assert every.detail == "not testable on b; see the verdict on each task"


def test_any_arm_against_any_other(log: Log, noise) -> None:
    rows = [
        (arm, seed, epoch, "dev", 0.1 * epoch + 0.02 * number + noise(0.002))
        for number, arm in enumerate(("one", "two", "three"))
        for seed in SEEDS
        for epoch in range(1, 6)
    ]
    log.write("arm,seed,epoch,split,accuracy", rows)
    claims = claim("final", "accuracy", "at_least: 1", "points")
    (verdict,) = log.judge(claims, baseline=None, compare=("three", "two"))
    assert (verdict.arm, verdict.baseline) == ("three", "two")
    assert verdict.estimate == pytest.approx(2, abs=0.3)
    assert set(log.findings.sweep.left_out["reason"]) == {"its arm is not part of --compare"}
    (same,) = log.judge(claims, baseline=None, compare=("arm=three", "arm=two"))
    assert same.estimate == verdict.estimate
    with pytest.raises(InputError, match=r"--compare: expected one of one, three, two, got 'tow'; did you mean two\?"):
        log.judge(claims, baseline=None, compare=("three", "tow"))


def test_a_diverged_run_has_no_final_value(log: Log, noise) -> None:
    rows = [
        (arm, seed, epoch, "dev", "nan" if (arm, seed) == ("new", 0) and epoch > 3 else 1 / epoch + noise(0.001))
        for arm in ARMS for seed in SEEDS for epoch in range(1, 6)
    ]  # fmt: skip
    log.write("arm,seed,epoch,split,nll", rows)
    final, best = log.judge(
        claim("final", "nll", "within: 5", direction="decrease")
        + claim("best", "nll", "within: 5", direction="decrease")
    )
    assert final.n_pairs == 7
    assert "1 of 8 pairs are left out because one of their runs has no finite value" in final.note
    assert best.n_pairs == 8  # the best value came before


OTHER = pytest.mark.soak("takes 5 s; another column")


@pytest.mark.parametrize("x", ["step", *(pytest.param(x, marks=OTHER) for x in ("seconds", "tokens"))])
def test_the_x_axis_is_a_choice(log: Log, noise, x: str) -> None:
    """The new arm needs half as many epochs, and twice as many steps, seconds and tokens in each."""
    rows = []
    for arm, tau, cost in (("old", 4.0, 10), ("new", 2.0, 20)):
        for seed in SEEDS:
            for e in range(1, 41):
                value = round(0.7 * (1 - math.exp(-e / 2 / tau)) + noise(0.001), 5)
                rows.append((arm, seed, e * cost, e / 2, "dev", value, e * cost / 100, e * cost * 50))
    log.write("arm,seed,step,epoch,split,f1_weighted,seconds,tokens", rows)
    speed = claim("time_to_target", "f1_weighted", "at_least: 10")
    (by_epoch,) = log.judge(speed)
    assert by_epoch.low < 100 < by_epoch.high
    assert by_epoch.verdict == "supported"
    (other,) = log.judge(speed, x=x)
    assert other.low < 1 < other.high or other.low <= 0 <= other.high  # as many of them
    assert other.verdict == "contradicted"
    assert (log.findings.sweep.x, log.findings.sweep.unit) == (x, {"step": "steps"}.get(x, x))
    assert f" {log.findings.sweep.unit} each" in remarks(log.page)


def test_logs_without_epochs_use_steps(log: Log) -> None:
    rows = [(arm, s, 100 * k, "dev", 0.1 * k + (s % 3) / 100) for arm in ARMS for s in SEEDS for k in range(1, 6)]
    log.write("arm,seed,step,split,accuracy", rows)
    (verdict,) = log.judge(claim("time_to_target", "accuracy", "at_least: 50"))
    assert log.findings.sweep.x == "step"
    assert verdict.verdict == "contradicted"
    with pytest.raises(InputError, match=r"--x epoch: run .* has no value of epoch; set --x step"):
        log.judge(claim("final", "accuracy", "within: 5", "points"), x="epoch")
    with pytest.raises(InputError, match=r"--x tokens: run .* has no value of tokens; set --x epoch or --x step"):
        log.judge(claim("final", "accuracy", "within: 5", "points"), x="tokens")


def test_what_is_taken_for_granted_is_said(log: Log) -> None:
    rows = [(arm, s, e, "dev", 0.1 * e) for arm in ARMS for s in SEEDS for e in range(1, 6)]
    log.write("arm,seed,epoch,split,accuracy", rows)
    log.judge(claim("final", "accuracy", "within: 5", "points"))
    assert "Runs with the same seed are taken as pairs: set --design unpaired" in remarks(log.page)


def test_the_effect_at_other_targets(log: Log, noise) -> None:
    rows = [
        (arm, s, e / 4, "dev", round(0.6 * (1 - math.exp(-e / 4 / tau)) + noise(0.001), 5))
        for arm, tau in (("old", 3.0), ("new", 2.0)) for s in SEEDS for e in range(1, 61)
    ]  # fmt: skip
    log.write("arm,seed,epoch,split,f1_weighted", rows)
    (verdict,) = log.judge(claim("time_to_target", "f1_weighted", "at_least: 10"))
    ladder = log.findings.tables["ladder"]
    assert ladder["share"].tolist() == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98]
    assert ((ladder["low"] < 50) & (ladder["high"] > 50)).all()
    at_default = ladder[ladder["share"] == 0.95].iloc[0]
    assert at_default[["estimate", "low", "high"]].tolist() == [verdict.estimate, verdict.low, verdict.high]
    assert any(table.name == "table-ladder" for section in log.page.sections for table in section.folded)


def test_the_mean_of_any_metric_and_arm(log: Log) -> None:
    rows = [(arm, s, e, "dev", e + s + 10 * (arm == "new")) for arm in ARMS for s in SEEDS for e in range(1, 4)]
    log.write("arm,seed,epoch,split,bleu", rows)
    log.judge(claim("final", "bleu, better: higher", "at_least: 1", "absolute"))
    means = log.findings.tables["means"].set_index("arm")
    assert means["mean"].to_dict() == {"old": 6.5, "new": 16.5}
    assert (means["high"] - means["low"]).to_numpy() == pytest.approx(
        2 * 2.365 * np.std(range(8), ddof=1) / 8**0.5, rel=1e-3
    )
    profile = log.findings.tables["profiles"]
    old = profile[profile["arm"] == "old"]
    assert pd.Series(old["share"].to_numpy(), index=old["threshold"]).iloc[[0, -1]].tolist() == [
        pytest.approx(7 / 8),
        0,
    ]
