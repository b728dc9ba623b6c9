"""Sweeps that buy pairs until their claims are decided (hydra.sweeper.pairs=auto), and the design that sweeps register."""

import json
import os
import signal

import pytest

from joyful.analysis.report import build
from joyful.results.design import DESIGN, read_decisions, read_designs
from joyful.sweeper.__main__ import main as sweep_command
from joyful.sweeper.evidence import NOT_NEEDED
from tests.support import small_program, sweeps
from tests.support.analysis import remarks

SPEED = """\
  - claim: speed
    at_least: 10
    unit: percent
    direction: increase
    metrics: [{measure: time_to_target, split: dev, of: accuracy}]
"""
QUALITY = """\
  - claim: quality
    no_worse_than: 2
    unit: points
    metrics: [{measure: best, split: dev, of: accuracy}]
"""
ARMS = "hydra.sweeper.arms=['lr=0.3','lr=0.6']"

#: Two arms without a visible difference, and a claim that a few pairs cannot decide.
ALIKE = "hydra.sweeper.arms=['lr=0.6','lr=0.61']"
TIGHT = QUALITY.replace("no_worse_than: 2", "no_worse_than: 0.01")
AUTO = [ARMS, "hydra.sweeper.pairs=auto", "hydra.sweeper.max_pairs=12", "hydra.sweeper.claims=claims.yaml"]
SETTINGS = ["hydra.sweeper.direction=maximize"]


@pytest.fixture
def program(tmp_path):
    small_program.write_paired(tmp_path)
    write_claims(tmp_path, QUALITY)
    return tmp_path


def write_claims(folder, *claims):
    (folder / "claims.yaml").write_text(f"claims:\n{''.join(claims)}")


def run(folder, fork_server, *overrides, name="main"):
    return small_program.run(folder, *SETTINGS, *overrides, f"hydra.sweep.dir=multirun/{name}", server=fork_server)


def lines(folder, name="main"):
    return read_decisions(folder / "multirun" / name).lines


def trials(folder, name="main"):
    return sweeps.study(folder / "multirun" / name).trials


def trained(folder, name="main"):
    """The seeds that each arm was trained on, without those of the calibration."""
    found = {}
    for trial in trials(folder, name)[3:]:
        if trial.user_attrs.get("reason") != NOT_NEEDED:
            found.setdefault(trial.user_attrs["arm"], []).append(trial.user_attrs["seed"])
    return found


@pytest.mark.slow
def test_the_sweep_ends_when_its_claim_is_decided(program, fork_server, capsys):
    done = run(program, fork_server, *AUTO)
    assert done.returncode == 0, done.stderr
    (line,) = lines(program)
    assert (line.state, line.verdict, line.overrides) == ("decided", "supported", "lr=0.6")
    pairs = len(line.seeds)
    assert 6 <= pairs < 12
    assert trained(program) == {"lr=0.3": list(range(1, pairs + 1)), "lr=0.6": list(range(1, pairs + 1))}
    states = [trial.state.name for trial in trials(program)]
    assert states == ["COMPLETE"] * (3 + 2 * pairs) + ["PRUNED"] * (2 * (12 - pairs))
    assert f"supported: quality (best dev accuracy), {pairs} pairs" in done.stdout
    assert not (program / "multirun/main" / str(3 + 2 * pairs)).exists()
    capsys.readouterr()
    assert sweep_command(["status", str(program / "multirun/main"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["n_trials"], status["complete"], status["pruned"]) == (3 + 2 * pairs, 3 + 2 * pairs, 0)
    assert (status["pairs"], status["max_pairs"]) == (pairs, 12)
    assert [claim["verdict"] for claim in status["claims"]] == ["supported"]
    again = run(program, fork_server, *AUTO)
    assert "nothing to do" in again.stdout
    findings, page = build(program / "multirun/main")
    (verdict,) = findings.verdicts
    assert (verdict.verdict, list(verdict.differences.index)) == ("supported", list(line.seeds))
    assert "registered pairs until its claims are decided (at most 12) and 1 claim" in remarks(page)


@pytest.mark.soak("takes 30 s; one command buys the pairs in the other tests")
def test_workers_and_kills_do_not_change_the_verdicts(program, fork_server):
    write_claims(program, QUALITY, SPEED)
    assert run(program, fork_server, *AUTO, name="one").returncode == 0
    three = ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=3", "hydra.launcher.n_jobs=3", "pause=0.02"]
    process = sweeps.start(
        small_program.command(program, *SETTINGS, *AUTO, *three, "hydra.sweep.dir=multirun/killed"), program
    )
    try:
        sweeps.wait_until(lambda: read_decisions(program / "multirun/killed").pairs >= 3)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run(program, fork_server, *AUTO, *three, name="killed").returncode == 0
    assert lines(program, "killed") == lines(program, "one")


@pytest.mark.soak("takes 15 s; tests/analysis/test_sequential.py decides the claims of several arms")
def test_an_arm_whose_claims_are_decided_gets_no_more_pairs(program, fork_server):
    write_claims(program, QUALITY.replace("no_worse_than: 2", "at_least: 4\n    direction: increase"))
    arms = "hydra.sweeper.arms=['lr=0.3','lr=0.31 bonus=0.2','lr=0.32 bonus=0.045']"
    assert run(program, fork_server, *AUTO, arms).returncode == 0
    fast, slow = lines(program)
    assert (fast.verdict, fast.state) == ("supported", "decided")
    seeds = trained(program)
    assert seeds["lr=0.31 bonus=0.2"] == list(fast.seeds)
    assert len(seeds["lr=0.32 bonus=0.045"]) > len(fast.seeds)
    assert seeds["lr=0.3"] == seeds["lr=0.32 bonus=0.045"]
    assert len(slow.seeds) == len(seeds["lr=0.32 bonus=0.045"])


@pytest.mark.slow
@pytest.mark.soak("takes 8 s; tests/training/test_sweep_client.py ends runs at the target")
def test_runs_end_at_the_target_if_only_the_time_to_it_is_open(program, fork_server):
    write_claims(program, SPEED)
    assert run(program, fork_server, *AUTO).returncode == 0
    (line,) = lines(program)
    assert (line.state, line.verdict) == ("decided", "supported")
    cut = [trial for trial in trials(program) if "reached the target" in trial.user_attrs.get("reason", "")]
    assert cut
    assert all(trial.state.name == "PRUNED" and trial.number >= 3 for trial in cut)
    last = [max(trial.intermediate_values) for trial in cut]
    assert max(last) < 10
    assert all(trial.intermediate_values[step] >= line.stop["value"] for trial, step in zip(cut, last, strict=True))
    assert all(trial.intermediate_values[step - 1] < line.stop["value"] for trial, step in zip(cut, last, strict=True))
    findings, _ = build(program / "multirun/main")
    assert findings.verdicts[0].verdict == "supported"
    assert tuple(findings.verdicts[0].differences.index) == line.seeds


@pytest.mark.soak("takes 10 s")
def test_failed_pairs_are_skipped_and_a_bad_arm_is_given_up(program, fork_server):
    done = run(program, fork_server, *AUTO, 'fail=["2 0.6"]')
    assert done.returncode == 0
    (line,) = lines(program)
    assert line.state == "decided"
    assert line.seeds[:3] == (1, 3, 4)
    bad = json.dumps([f"{seed} 0.6" for seed in range(1, 13)])
    assert run(program, fork_server, *AUTO, f"fail={bad}", name="bad").returncode == 0
    (line,) = lines(program, "bad")
    assert (line.state, len(trained(program, "bad")["lr=0.6"])) == ("not testable", 6)


@pytest.mark.slow
@pytest.mark.soak("takes 13 s; tests/analysis/test_sequential.py leaves claims open")
def test_the_largest_number_of_pairs_leaves_claims_open(program, fork_server):
    write_claims(program, TIGHT)
    done = run(program, fork_server, *AUTO, ALIKE, "hydra.sweeper.max_pairs=7", "hydra.sweeper.first_seed=0")
    assert done.returncode == 0
    (line,) = lines(program)
    assert (line.state, line.verdict, len(line.seeds)) == ("open", "inconclusive", 7)
    assert "open: quality (best dev accuracy):" in done.stdout
    more = run(program, fork_server, *AUTO, ALIKE, "hydra.sweeper.max_pairs=8", "hydra.sweeper.first_seed=0")
    assert more.returncode == 0
    assert len(lines(program)[0].seeds) == 8


@pytest.mark.soak("takes 10 s; tests/analysis judges changed designs")
def test_other_claims_later_are_judged_again_and_the_report_says_so(program, fork_server):
    write_claims(program, QUALITY.replace("no_worse_than: 2", "no_worse_than: 9"))
    assert run(program, fork_server, *AUTO, ALIKE, "hydra.sweeper.max_pairs=8").returncode == 0
    pairs = len(lines(program)[0].seeds)
    assert pairs == 6
    write_claims(program, TIGHT)
    assert run(program, fork_server, *AUTO, ALIKE, "hydra.sweeper.max_pairs=8").returncode == 0
    (line,) = lines(program)
    assert (line.state, line.seeds) == ("open", tuple(range(1, 9)))
    first, second = read_designs(program / "multirun/main")
    assert (first.runs_before, second.runs_before) == (0, 3 + 2 * pairs)
    findings, page = build(program / "multirun/main")
    assert "with other claims after" in remarks(page)
    assert "not registered before the first run" in findings.verdicts[0].note


@pytest.mark.slow
@pytest.mark.soak("takes 12 s; tests/results/test_design.py and tests/analysis have both rules")
def test_a_fixed_number_of_pairs_is_registered_and_an_exceeded_one_is_judged_by_the_sequence(program, fork_server):
    fixed = [ARMS, "hydra.sweeper.claims=claims.yaml", "steps=3"]
    assert run(program, fork_server, *fixed, "hydra.sweeper.pairs=6").returncode == 0
    (design,) = read_designs(program / "multirun/main")
    assert (design.pairs, design.runs_before, design.arms) == (6, 0, ("lr=0.3", "lr=0.6"))
    findings, _ = build(program / "multirun/main")
    assert "rule" not in findings.verdict_table
    assert run(program, fork_server, *fixed, "hydra.sweeper.pairs=7").returncode == 0
    assert [entry.pairs for entry in read_designs(program / "multirun/main")] == [6, 7]
    findings, page = build(program / "multirun/main")
    assert set(findings.verdict_table["rule"]) == {"confidence sequence"}
    assert "1 pair was added to the 6 that were planned" in findings.verdicts[0].note
    assert "It was changed to 7 pairs after 15 runs" in remarks(page)


@pytest.mark.parametrize(
    ("overrides", "claims", "expected"),
    [
        (["hydra.sweeper.arms=null", "x=choice(1,2)"], QUALITY, "pairs=auto: expected hydra.sweeper.arms, got none"),
        (["hydra.sweeper.claims=null"], QUALITY, "pairs=auto: expected claims to decide, got none"),
        (["hydra.sweeper.claims=absent.yaml"], QUALITY, "absent.yaml: the claims file cannot be read"),
        ([], QUALITY.replace("points", "pints"), "claims.yaml, line 4: claims[0].unit"),
        (["hydra.sweeper.calibration=false"], SPEED, "calibration: expected true with pairs=auto"),
        (["hydra.sweeper.max_pairs=5"], QUALITY, "max_pairs"),
        (["hydra.sweeper.pairs=often"], QUALITY, "pairs"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(program, fork_server, overrides, claims, expected):
    write_claims(program, claims)
    done = run(program, fork_server, *AUTO, *overrides)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (program / "multirun/main" / DESIGN).exists()
    assert not (program / "multirun/main/study.db").exists()


@pytest.mark.slow
def test_a_program_without_metrics_is_named_after_the_first_pair(program, fork_server):
    small_program.write(program, "    return 1.0\n", small_program.PAIRED_CONFIG)
    done = run(program, fork_server, *AUTO)
    assert done.returncode == 1
    assert "its claims cannot be judged" in done.stderr
    assert "give metrics to trial.report" in done.stderr
    assert len([trial for trial in trials(program) if trial.state.is_finished()]) <= 6
