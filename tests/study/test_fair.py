"""The second plan: its table of verdicts, and its sweeps."""

from pathlib import Path

import pytest
import yaml

from joyful.analysis.claims_file import BASIC_OPTIMIZATION, read_claims
from joyful.results.design import Design, record_design
from study.report import FAIR_CLAIMS, with_fixed_pairs
from study.tables import FAIR_CLAIMS as NAMES
from study.tables import FAIR_NOTE, PARTS, Part, fair_parts_table, fair_verdict_table, works
from tests.support.analysis import Truth, simulate_sweep
from tests.support.findings import findings_of

SWEEPS = Path(__file__).resolve().parents[2] / "study/sweeps/fair"


@pytest.mark.slow
def test_settings_work_if_they_are_faster_and_steadier_at_no_loss_of_f1(tmp_path):
    arms = (
        Truth({"optimizer.learning_rate": 0.001}, tau=5.0, jitter=0.01),
        Truth({"optimizer.learning_rate": 0.002}, tau=3.0, jitter=0.003),
        Truth({"optimizer.learning_rate": 0.003}, tau=5.0, jitter=0.003),
    )
    simulate_sweep(tmp_path / "sweep", arms, range(1, 13), epochs=20)
    findings = findings_of(tmp_path / "sweep", FAIR_CLAIMS)
    names = [arm.name for arm in findings.sweep.arms]
    lines = fair_verdict_table({Part("fair_confirm_meld", "MELD", note=False, fair=True): findings}).splitlines()
    better, same = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert better[:4] == ["MELD", names[1], names[0], "12"]
    assert better[4].startswith("**supported**")
    assert (better[-1], same[-1]) == ("**yes**", "no")
    assert same[4].startswith("**contradicted**")
    assert same[5].startswith("**supported**")
    known = {v.claim.name: v for v in findings.verdicts if v.arm == names[1]}
    assert works(known)
    for name in (NAMES[0], NAMES[1], NAMES[3]):
        assert not works({key: verdict for key, verdict in known.items() if key != name})


@pytest.mark.slow
def test_the_parts_of_a_candidate_have_the_t_interval_of_all_pairs(tmp_path):
    arms = (Truth({"training.moving_average": 0.9}), Truth({"training.moving_average": 0.0}, jitter=0.02))
    simulate_sweep(tmp_path, arms, range(1, 13), epochs=20)
    fixed = findings_of(tmp_path, FAIR_CLAIMS)
    names = tuple(arm.name for arm in fixed.sweep.arms)
    content = yaml.safe_load(BASIC_OPTIMIZATION.read_text())  # what a sweep registers by default
    record_design(tmp_path, Design(12, None, 1, names, (9000, 9001, 9002), content, "95 %", "dev_f1", {}))
    part, registered = Part("fair_parts_meld", "MELD", note=False, fair=True), findings_of(tmp_path, FAIR_CLAIMS)
    lines = {
        name: fair_parts_table({part: findings}).splitlines()[2]
        for name, findings in (("t", fixed), ("sequence", registered), ("parts", with_fixed_pairs(registered)))
    }
    assert lines["parts"] == lines["t"] != lines["sequence"]
    assert lines["parts"].startswith(f"| MELD | {names[1]} | 12 | ")


def test_the_claims_and_arms_are_those_of_the_sweeps():
    assert tuple(claim.name for claim in read_claims(FAIR_CLAIMS)) == NAMES
    found = {path.stem: yaml.safe_load(path.read_text())["hydra"]["sweeper"] for path in SWEEPS.glob("*.yaml")}
    assert len(found["note"]["arms"]) == len(FAIR_NOTE)
    for part in PARTS:
        kind, _, name = part.name.removeprefix("fair_").partition("_")
        if kind in ("confirm", "parts") and part.fair and f"{kind}_{name}" in found:
            assert len(set(part.arms)) == len(found[f"{kind}_{name}"]["arms"]), part.name
    searches = found["search_baseline"], found["search_candidate"]
    assert searches[0]["n_trials"] == searches[1]["n_trials"]
    assert searches[0]["params"].items() <= searches[1]["params"].items()  # the candidate may use everything
