"""The registered speeds of the study beside the corrected ones."""

import math

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.claims import read_claims
from joyful.analysis.convergence import Target
from joyful.analysis.findings import compute_findings
from joyful.analysis.statistics import Estimate, power_of_paired_t
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError
from study import reanalysis, report
from study.tables import PARTS
from tests.support.analysis import NOTE_ARMS, simulate_sweep

CLAIMS = read_claims(report.CLAIMS)
SPEED = reanalysis.speed_claim(CLAIMS)
PART = PARTS[0]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Findings of a simulated sweep of the note's arms, in place of the study's first archive."""
    folder = tmp_path_factory.mktemp("study") / "sweep"
    simulate_sweep(folder, NOTE_ARMS, range(1, 9), epochs=12)
    findings = compute_findings(read_sweep(folder), [SPEED], rng=np.random.default_rng(0))
    return {PART: report.rename_arms(findings, PART)}


@pytest.fixture
def sweep(studies):
    return studies[PART].sweep


def registered(sweep, effect=Estimate(1.0, -1.0, 3.0), target=None):  # noqa: B008
    value = 100 * reanalysis.registered_target(sweep).value if target is None else target
    return [reanalysis.Registered(PART.name, "SmoothL1 0.03", "MSE 0.05", effect, value, 1.3)]


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_registered_target_is_a_share_of_the_last_value(sweep):
    runs = pd.concat(
        pd.read_parquet(path).query("split == 'dev'").assign(run=path.parent.name)
        for path in sweep.path.glob("*/history.parquet")
    )
    calibration = [str(number) for number in range(3)]  # simulate_sweep writes them first
    last = [runs[runs["run"] == run].sort_values("step")["f1_weighted"].iloc[-1] for run in calibration]
    assert reanalysis.registered_target(sweep).value == pytest.approx(0.95 * sorted(last)[1])


def test_a_conclusion_that_changes_is_named_with_the_correction_that_changes_it(studies, sweep):
    [same] = cells(reanalysis.reanalysis_table(studies, CLAIMS, registered(sweep, Estimate(20.0, 16.0, 24.0))))
    now = reanalysis.speeds(sweep, SPEED, [studies[PART].target])[0]["SmoothL1 0.03"]
    assert same[3] == "+20.0 (16.0 to 24.0 %)"
    assert same[5].startswith(f"{now.estimate:+.1f}")
    assert same[6] == reanalysis.conclusion(now, SPEED) == "supported, faster"
    [changed] = cells(reanalysis.reanalysis_table(studies, CLAIMS, registered(sweep)))
    assert changed[6] == "contradicted, no difference established → **supported, faster**, because of the times"


def test_a_change_by_the_target_alone_is_told_from_one_by_the_times():
    found = [Estimate(8.0, 1.0, 14.0), Estimate(9.0, 1.0, 14.5), Estimate(2.0, -6.0, 10.0)]
    assert reanalysis._change(found, SPEED).endswith(
        "**contradicted, no difference established**, because of the target"
    )


def test_an_archive_with_another_registered_target_is_refused(studies, sweep):
    with pytest.raises(InputError, match=r"expected the registered target 50 %, got \d\d\.\d\d %"):
        reanalysis.reanalysis_table(studies, CLAIMS, registered(sweep, target=50))


def test_the_worst_case_is_the_interval_of_the_times_that_favour_the_arm_most(sweep, monkeypatch):
    names = [arm.name for arm in sweep.arms]
    index = pd.MultiIndex.from_product([names, [1, 2, 3]], names=["arm", "seed"])
    times = pd.DataFrame({"low": [4.0, 5.0, 6.0, 2.0, 3.0, 4.0], "high": [5.0, 6.0, 7.0, 3.0, 4.0, 5.0]}, index)
    monkeypatch.setattr(reanalysis.measures, "bounds", lambda *_: times)
    d = np.log([5 / 2, 6 / 3, 7 / 4])
    high = d.mean() + 4.302653 * d.std(ddof=1) / math.sqrt(3)
    target = Target("f1_weighted", 0.5, "")
    assert reanalysis.worst_case(sweep, names[1], SPEED, target) == pytest.approx(100 * math.expm1(high), rel=1e-6)
    times.loc[(names[1], 2), "low"] = 0.0  # reached at the first evaluation
    assert reanalysis.worst_case(sweep, names[1], SPEED, target) == math.inf
    assert "no limit at worst" in reanalysis._at_worst(math.inf)


def test_other_targets_have_a_cell_each(studies, sweep):
    [line] = cells(reanalysis.targets_table(studies, CLAIMS))
    assert line[0] == PART.title
    assert len(line) == 1 + len(reanalysis.SHARES)
    best = reanalysis.share_of_best(sweep, 0.95)
    effect = reanalysis.speeds(sweep, SPEED, [best])[0]["SmoothL1 0.03"]
    assert f"{effect.estimate:+.1f} ({effect.low:.1f} to {effect.high:.1f} %)" in line[3]


def test_the_power_of_the_paired_t_test_agrees_with_simulation():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.6, 1.0, (40_000, 12))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / math.sqrt(12))
    assert power_of_paired_t(12, 0.6) == pytest.approx((abs(t) > 2.200985).mean(), abs=0.01)


def test_the_registered_power_is_that_of_the_corrected_interval(studies, sweep):
    [line] = cells(reanalysis.power_table(studies, CLAIMS, registered(sweep)))
    detectable = float(line[4].removesuffix(" %"))
    assert line[:3] == [PART.title, "8", "1.3 %"]
    at_80 = [reanalysis.Registered(PART.name, "SmoothL1 0.03", "MSE 0.05", Estimate(1, 0, 2), 0.0, detectable)]
    [line] = cells(reanalysis.power_table(studies, CLAIMS, at_80))
    assert 78 <= float(line[3].removesuffix(" %")) <= 82


def test_every_speed_on_the_page_of_results_is_registered():
    lines = reanalysis.read_registered()
    assert len(lines) == 52
    assert {line.part for line in lines} <= {part.name for part in PARTS}
    assert sum(line.detectable is not None for line in lines) == 7
