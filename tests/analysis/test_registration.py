"""Which rule decides a claim, by what the sweep registered before its first run."""

import math
from dataclasses import replace

import pytest
import yaml

from joyful.analysis.claims import judge_line, read_claims
from joyful.analysis.claims_file import BASIC_OPTIMIZATION
from joyful.analysis.registration import registered_claims, rule_of, sentence
from joyful.analysis.report import build
from joyful.analysis.rules import ANY_SIZE, FIXED
from joyful.analysis.sweep import read_sweep
from joyful.results.design import Design, record_design
from tests.support.analysis import Truth, remarks, simulate_sweep

F1 = read_claims()[-1]
SPEED = read_claims()[0]
CONTENT = yaml.safe_load(BASIC_OPTIMIZATION.read_text())
ARMS = (Truth({"loss": "mse", "weights": "baseline"}), Truth({"loss": "smoothl1", "weights": "basic"}))
DESIGN = Design(
    8, None, 1, ("loss=mse weights=baseline", "loss=smoothl1 weights=basic"), (9000, 9001, 9002), CONTENT,
    "95 % of the way", "dev_f1", {"commit": "0123456789abcdef", "dirty": False},
)  # fmt: skip


def write(folder, design=DESIGN, seeds=range(1, 9), later=(), **options):
    simulate_sweep(folder, ARMS, seeds, epochs=4, **options)
    for entry in (design, *later) if design is not None else ():
        record_design(folder, entry)
    return read_sweep(folder)


def rule(sweep, claim=F1, target_given=False):
    return rule_of(sweep, sweep.others[0], claim, claim.metrics[0], target_given)


def test_registered_pairs_and_claims_are_decided_by_the_t_interval(tmp_path):
    sweep = write(tmp_path)
    assert rule(sweep) == (FIXED, "")
    assert rule(sweep, SPEED) == (FIXED, "")
    assert "registered 8 pairs and 5 claims" in sentence(sweep)
    assert "before its first run at commit 0123456789" in sentence(sweep)


def test_a_sweep_without_a_design_says_what_it_assumes(tmp_path):
    sweep = write(tmp_path, None)
    assert rule(sweep) == (FIXED, "")
    assert "recorded no design" in sentence(sweep)
    assert "assume that the number of pairs and the claims were fixed" in sentence(sweep)


def test_pairs_until_decided_are_judged_by_the_sequence(tmp_path):
    sweep = write(tmp_path, replace(DESIGN, pairs=None, max_pairs=60))
    assert rule(sweep) == (ANY_SIZE, "")
    assert "The confidence sequence decides" in sentence(sweep)
    assert "at most 60" in sentence(sweep)


def test_added_pairs_are_judged_by_the_sequence(tmp_path):
    later = replace(DESIGN, pairs=10, runs_before=19)
    sweep = write(tmp_path, seeds=range(1, 11), later=[later])
    assert rule(sweep)[0] == ANY_SIZE
    assert "2 pairs were added to the 8 that were planned" in rule(sweep)[1]
    assert "It was changed to 10 pairs after 19 runs" in sentence(sweep)


def test_an_unfinished_sweep_is_judged_by_the_sequence(tmp_path):
    sweep = write(tmp_path, seeds=range(1, 8))
    assert rule(sweep)[0] == ANY_SIZE
    assert "7 of 8 planned pairs have finished" in rule(sweep)[1]


def test_a_failed_run_does_not_make_a_sweep_unfinished(tmp_path):
    write(tmp_path)
    path = tmp_path / "10/run.json"
    path.write_text(path.read_text().replace('"status": "completed"', '"status": "failed"'))
    sweep = read_sweep(tmp_path)
    assert len(sweep.pairs(sweep.others[0])) == 7
    assert rule(sweep) == (FIXED, "")


def test_claims_that_changed_are_judged_by_the_sequence_and_others_are_not(tmp_path):
    sweep = write(tmp_path)
    changed = replace(F1, lower=0.5)
    assert rule(sweep, changed)[0] == ANY_SIZE
    assert "This claim was not registered before the first run" in rule(sweep, changed)[1]
    assert rule(sweep, replace(F1, says="Other words.")) == (FIXED, "")
    verdict = judge_line(sweep, sweep.others[0], changed, changed.metrics[0], None, None)[0][0]
    assert verdict.rule == ANY_SIZE
    assert "not registered" in verdict.note


@pytest.mark.parametrize(
    ("options", "why"),
    [({"design": "unpaired"}, "without pairs"), ({"compare": ("loss=mse", "loss=smoothl1")}, "baseline")],
)
def test_another_comparison_is_judged_by_the_sequence(tmp_path, options, why):
    write(tmp_path)
    chosen, text = rule(read_sweep(tmp_path, **options))
    assert chosen == ANY_SIZE
    assert why in text


def test_another_target_is_judged_by_the_sequence_for_times_only(tmp_path):
    sweep = write(tmp_path)
    assert rule(sweep, SPEED, target_given=True)[0] == ANY_SIZE
    assert rule(sweep, F1, target_given=True)[0] == FIXED


def test_a_design_after_the_first_run_registers_nothing(tmp_path):
    sweep = write(tmp_path, replace(DESIGN, runs_before=4))
    assert rule(sweep)[0] == ANY_SIZE
    assert "after 4 runs had started" in sentence(sweep)


def test_a_design_without_claims_fixes_the_number_of_pairs_only(tmp_path):
    sweep = write(tmp_path, replace(DESIGN, claims=None))
    assert registered_claims(sweep) is None
    assert rule(sweep) == (FIXED, "")
    assert "no claims" in sentence(sweep)
    assert "assume that the claims were fixed" in sentence(sweep)


def test_the_baseline_of_a_design_without_calibration_is_its_first_arm(tmp_path):
    arms = tuple(reversed(DESIGN.arms))
    simulate_sweep(tmp_path, ARMS[::-1], range(1, 9), calibration=(), epochs=4)
    record_design(tmp_path, replace(DESIGN, arms=arms, calibration=()))
    sweep = read_sweep(tmp_path)
    assert sweep.arms[0].name == "smoothl1 0.03"
    assert rule(sweep) == (FIXED, "")


def test_a_claim_without_an_upper_limit_is_registered(tmp_path):
    content = {"claims": [next(c for c in CONTENT["claims"] if c["claim"] == "f1") | {"between": [1, math.inf]}]}
    design = replace(DESIGN, claims=content)
    sweep = write(tmp_path, design)
    assert record_design(tmp_path, design) == sweep.designs
    assert sweep.designs[0].claims_digest == design.claims_digest
    findings, _ = build(tmp_path)
    assert math.isinf(findings.verdicts[0].claim.upper)
    assert rule(sweep, findings.verdicts[0].claim) == (FIXED, "")


def test_a_report_judges_the_registered_claims(tmp_path):
    content = {"factors": CONTENT["factors"], "claims": [c for c in CONTENT["claims"] if c["claim"] == "f1"]}
    write(tmp_path, replace(DESIGN, claims=content, pairs=None, max_pairs=30))
    findings, page = build(tmp_path)
    assert [verdict.claim.name for verdict in findings.verdicts] == ["f1"]
    assert set(findings.verdict_table["rule"]) == {"confidence sequence"}
    assert "registered pairs until its claims are decided" in remarks(page)
    family = findings.verdicts[0].family_effect
    assert (family.low, family.high) == pytest.approx((findings.verdicts[0].low, findings.verdicts[0].high))
