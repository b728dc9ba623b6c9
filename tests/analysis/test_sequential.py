"""Judging a sweep while it runs: the deciding pairs, what stays decided, and what is left out."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from joyful.analysis.claims_file import BASIC_OPTIMIZATION, read_claims
from joyful.analysis.designs import compare
from joyful.analysis.lines import ClaimLine
from joyful.analysis.measures import target_of
from joyful.analysis.rules import ANY_SIZE, AnySize
from joyful.analysis.sequential import GIVEN_UP_AFTER, decide_claims
from joyful.analysis.statistics import paired_t
from joyful.analysis.sweep import of_seeds, read_sweep
from joyful.analysis.verdict import decide
from joyful.results import InputError, RunFolder
from joyful.results.design import DECIDED, NOT_TESTABLE, OPEN, Design, read_decisions, record_design, write_decisions
from tests.support.analysis import NOTE_ARMS, history, simulate_sweep, write_run
from tests.support.findings import findings_of

CONTENT = yaml.safe_load(BASIC_OPTIMIZATION.read_text())
CLAIMS = {claim.name: claim for claim in read_claims()}
OVERRIDES = ("loss=mse weights=baseline", "loss=smoothl1 weights=basic")
AUTO = Design(None, 30, 1, OVERRIDES, (9000, 9001, 9002), CONTENT, "95 %", "dev_f1", {})
PAIRS = 20


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    simulate_sweep(folder, seeds=range(1, PAIRS + 1), epochs=12)
    record_design(folder, AUTO)
    return folder


@pytest.fixture
def folder(simulated, tmp_path):
    shutil.copytree(simulated, tmp_path / "auto")
    return tmp_path / "auto"


def arm_of_run(arms=2):
    """Names of the runs of `simulate_sweep`: three calibration runs, then the arms of each seed."""
    numbers = range(3, 3 + arms * PAIRS)
    return {str(i): OVERRIDES[0] for i in range(3)} | {str(i): OVERRIDES[(i - 3) % arms] for i in numbers}


def run_of(seed, arm, arms=2):
    return str(3 + arms * (seed - 1) + arm)


def judge(folder, through):
    decisions = decide_claims(folder, through, arm_of_run())
    write_decisions(folder, decisions)
    return decisions


def by_label(decisions):
    return {(line.claim, line.metric): line for line in decisions.lines}


def set_status(folder, run, status):
    path = folder / run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))


def plain_twin(folder, claim, metric, last):
    """The first deciding prefix, from the differences of all pairs: (verdict, number of pairs), or the verdict on all."""
    sweep = read_sweep(folder)
    scale, direction = metric.scale(claim.unit, claim.direction_of(metric)), claim.direction_of(metric)
    word = "not testable"
    for n in range(6, last + 1):
        part = of_seeds(sweep, tuple(range(1, n + 1)))
        found = compare(part, sweep.others[0], metric, claim.unit, direction, target_of(sweep, metric), None)
        interval = found.interval(ANY_SIZE) if metric.to_target else paired_t(found.differences["low"], ANY_SIZE)
        word, _ = decide(scale.effect(interval.low), scale.effect(interval.high), claim.lower, claim.upper, claim.kind)
        if word in ("supported", "contradicted"):
            return word, n
    return word, last


@pytest.mark.slow
def test_each_claim_is_decided_at_its_first_deciding_pair(folder):
    decided = by_label(judge(folder, PAIRS))
    for claim in CLAIMS.values():
        for metric in claim.metrics:
            line = decided[claim.name, metric.label]
            if metric.of == "loss_total":  # units differ
                assert (line.state, line.verdict) == (NOT_TESTABLE, "not testable")
                continue
            word, pairs = plain_twin(folder, claim, metric, PAIRS)
            assert (line.verdict, line.seeds) == (word, tuple(range(1, pairs + 1)))
            assert line.state == (DECIDED if word in ("supported", "contradicted") else OPEN)


@pytest.mark.slow
def test_judging_after_each_pair_gives_the_same_as_judging_once(folder, simulated, tmp_path):
    at_once = decide_claims(folder, PAIRS, arm_of_run())
    for through in range(1, PAIRS + 1):
        decisions = judge(folder, through)
        assert decisions.pairs == through
        assert all(max(line.seeds, default=0) <= through for line in decisions.lines)
    assert [line for line in decisions.lines if line.state == DECIDED] == [
        line for line in at_once.lines if line.state == DECIDED
    ]
    assert decisions == at_once


def test_fewer_than_six_pairs_decide_nothing(folder):
    lines = judge(folder, 5).lines
    assert {line.state for line in lines if "loss_total" not in line.metric} == {OPEN}
    assert len(lines) == 8


def test_a_decided_claim_keeps_its_verdict_and_its_pairs(folder):
    decisions = judge(folder, PAIRS)
    line = next(line for line in decisions.lines if line.state == DECIDED)
    kept = replace(line, seeds=(1, 2, 3, 5, 6, 7, 8), verdict="supported", estimate=1.25)
    write_decisions(folder, replace(decisions, through=8, lines=(kept,)))
    after = {other.key: other for other in decide_claims(folder, PAIRS, arm_of_run()).lines}
    assert after[kept.key] == kept
    findings = findings_of(folder)
    (verdict,) = [v for v in findings.verdicts if (v.claim.name, v.metric.label) == (kept.claim, kept.metric)]
    assert list(verdict.differences.index) == list(kept.seeds)


def test_the_report_gives_the_recorded_verdicts(folder):
    decisions = judge(folder, 14)
    findings = findings_of(folder)
    for verdict, line in zip(findings.verdicts, decisions.lines, strict=True):
        assert (verdict.claim.name, verdict.metric.label, verdict.arm) == (line.claim, line.metric, line.arm)
        assert verdict.verdict == line.verdict
        if line.state != NOT_TESTABLE:
            assert tuple(verdict.differences.index) == line.seeds
        if line.low is not None:
            assert (verdict.low, verdict.high) == pytest.approx((line.low, line.high))
    assert max(max(line.seeds, default=0) for line in decisions.lines) <= 14


def test_failed_pairs_are_skipped(folder):
    set_status(folder, run_of(3, 1), "failed")
    lines = by_label(judge(folder, 9))
    for (claim, metric), line in lines.items():
        if "loss_total" not in metric:
            assert 3 not in line.seeds, claim
            assert line.seeds[:4] == (1, 2, 4, 5)


def cut(folder, run, target):
    """Make a run one that the sweep ended at the end of the epoch in which it reached a target."""
    opened = RunFolder.open(folder / run)
    rows = opened.history_rows()
    reached = min(row["epoch"] for row in rows if row["split"] == "dev" and row["f1_weighted"] >= target)
    opened.write_history([row for row in rows if row["epoch"] <= math.ceil(reached)])
    opened.set_status("pruned", "reached the target")


def test_runs_cut_at_the_target_count_for_times_only(folder):
    sweep, metric = read_sweep(folder), CLAIMS["convergence_speed"].metrics[0]
    speed = CLAIMS["convergence_speed"]
    target = target_of(sweep, metric)
    whole = compare(sweep, sweep.others[0], metric, speed.unit, speed.direction, target, None)
    for seed in range(15, PAIRS + 1):
        for arm in (0, 1):
            cut(folder, run_of(seed, arm), target.value)
    lines = by_label(decide_claims(folder, PAIRS, arm_of_run()))
    open_ones = {key: line for key, line in lines.items() if line.state == OPEN}
    assert (
        max(max(line.seeds) for (claim, _), line in lines.items() if claim != "convergence_speed" and line.seeds) <= 14
    )
    cut_sweep = read_sweep(folder)
    assert cut_sweep.runs["cut"].sum() == 12
    assert cut_sweep.pairs(cut_sweep.others[0]) == list(range(1, 15))
    timed = lines["convergence_speed", metric.label]
    if timed in open_ones.values():
        assert max(timed.seeds) == PAIRS
    line = ClaimLine(cut_sweep, cut_sweep.others[0], speed, metric, None, AnySize(0.999999), PAIRS)
    found = line.compare(cut_sweep, None)
    assert found.differences.equals(whole.differences)


def test_what_a_run_needs_for_an_open_claim(folder):
    lines = by_label(judge(folder, 5))
    timed = lines["convergence_speed", "epochs to the target of dev f1_weighted"]
    sweep = read_sweep(folder)
    target = target_of(sweep, CLAIMS["convergence_speed"].metrics[0])
    assert timed.stop == {"metric": "f1_weighted", "value": pytest.approx(target.value), "higher_is_better": True}
    assert lines["f1", "best dev f1_weighted"].stop is None
    assert timed.overrides == OVERRIDES[1]
    assert timed.claimed == "15 to 25 % increase"


def test_a_claim_that_no_pair_makes_testable_is_given_up(folder):
    claim = {"claim": "wer", "at_least": 1, "unit": "percent", "direction": "decrease"}
    claim["metrics"] = [{"measure": "best", "split": "dev", "of": "wer", "better": "lower"}]
    record_design(folder, replace(AUTO, claims={"claims": [claim]}))
    (line,) = decide_claims(folder, 1, arm_of_run()).lines
    assert (line.state, line.detail) == (NOT_TESTABLE, "no run has a dev value of wer")
    fast = replace(AUTO, claims={"claims": [c for c in CONTENT["claims"] if c["claim"] == "convergence_speed"]})
    record_design(folder, fast)
    for seed in range(1, PAIRS + 1):  # at the first evaluation all runs are beyond the target
        for arm in (0, 1):
            lift(folder, run_of(seed, arm))
    assert [line.state for line in decide_claims(folder, GIVEN_UP_AFTER - 1, arm_of_run()).lines] == [OPEN]
    (line,) = decide_claims(folder, GIVEN_UP_AFTER, arm_of_run()).lines
    assert line.state == NOT_TESTABLE
    assert "first evaluation" in line.detail


def lift(folder, run):
    opened = RunFolder.open(folder / run)
    rows = opened.history_rows()
    opened.write_history([row | {"f1_weighted": row["f1_weighted"] / 4 + 0.75} for row in rows])
    opened.set_status("completed")


def test_an_arm_whose_runs_all_fail_is_given_up_after_six_pairs(folder):
    for seed in range(1, PAIRS + 1):
        set_status(folder, run_of(seed, 1), "failed")
    testable = [line for line in decide_claims(folder, 5, arm_of_run()).lines if "loss_total" not in line.metric]
    assert {line.state for line in testable} == {OPEN}
    lines = decide_claims(folder, 6, arm_of_run()).lines
    assert {(line.state, line.overrides) for line in lines} == {(NOT_TESTABLE, OVERRIDES[1])}


def test_several_tasks_are_decided_each_and_together(tmp_path):

    number, runs = 0, {}
    for seed in range(1, 13):
        for task in ("a", "b"):
            for arm, truth in enumerate(NOTE_ARMS):
                shared, own = (np.random.default_rng([seed, task == "b", k]) for k in (9, arm))
                overrides = {**truth.overrides, "task": task, "training.epochs": 6, "role": "comparison"}
                write_run(tmp_path / str(number), history(truth, 6, 2, shared, own), overrides, seed=seed)
                runs[str(number)] = OVERRIDES[arm]
                number += 1
    content = {"claims": [c for c in CONTENT["claims"] if c["claim"] == "training_stability" or c["claim"] == "f1"]}
    record_design(tmp_path, replace(AUTO, calibration=(), claims=content))
    lines = decide_claims(tmp_path, 12, runs).lines
    assert [(line.claim, line.task) for line in lines] == [
        (claim, task) for claim in ("training_stability", "f1") for task in ("a", "b", "all tasks")
    ]
    together = [line for line in lines if line.task == "all tasks"]
    assert all(line.low is None or math.isfinite(line.low) for line in together)
    assert all(len(line.seeds) >= 6 for line in together)
    write_decisions(tmp_path, decide_claims(tmp_path, 12, runs))
    findings = findings_of(tmp_path)
    assert [verdict.verdict for verdict in findings.verdicts] == [
        line.verdict for line in read_decisions(tmp_path).lines
    ]


def test_a_baseline_that_the_runs_do_not_tell_is_named(tmp_path):
    simulate_sweep(tmp_path, calibration=(), seeds=range(1, 3), epochs=4)
    runs = {str(i): OVERRIDES[1 - i % 2] for i in range(4)}  # the second arm of the folder is the first of the design
    record_design(tmp_path, replace(AUTO, arms=("~x", OVERRIDES[1]), calibration=()))
    named = {run: arm if arm == OVERRIDES[1] else "~x" for run, arm in runs.items()}
    with pytest.raises(InputError, match=r"expected the baseline '~x', the first arm, got .*calibration=true"):
        decide_claims(tmp_path, 1, named)
