"""The gate of scripts: requirements in the short form, the exit codes and lines of --require, and --json."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from joyful.analysis import gate
from joyful.analysis.claims import Verdict, judge
from joyful.analysis.claims_file import BASIC_OPTIMIZATION, parse_claims, read_claims
from joyful.analysis.findings import Findings
from joyful.analysis.measures import Metric
from joyful.analysis.provenance import provenance
from joyful.analysis.report import main
from joyful.analysis.sweep import REPORT_COLUMNS, read_sweep
from joyful.results import InputError
from joyful.results.design import Design, digest, record_design
from tests.support.analysis import Truth, simulate_sweep

BASE = Truth({"optimizer.learning_rate": 0.001}, luck=0.02)
F1, SPEED = "f1=no_worse_than:1", "speed=no_worse_than:10%"


def variant(rate: float = 0.002, **changes: float) -> Truth:
    return replace(BASE, overrides={"optimizer.learning_rate": rate}, **changes)


@pytest.fixture(scope="module")
def same(tmp_path_factory) -> Path:
    """Two arms without a true difference, in ten pairs."""
    folder = tmp_path_factory.mktemp("gate") / "same"
    simulate_sweep(folder, (BASE, variant()), range(1, 11), epochs=8)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Two arms against a baseline: one as good, and one that is 4 points worse in F1."""
    folder = tmp_path_factory.mktemp("gate") / "mixed"
    simulate_sweep(folder, (BASE, variant(0.002), variant(0.003, ceiling=0.58)), range(1, 9), epochs=8)
    return folder


def verdicts(
    folder: Path, *texts: str, better: dict[str, str] | None = None, compare: tuple[str, str] | None = None
) -> list[Verdict]:
    """Return the verdicts on requirements, without those of the report."""
    claims = gate.requirements(texts, better or {})
    sweep = read_sweep(
        folder, [*REPORT_COLUMNS, *(metric.of for claim in claims for metric in claim.metrics)], compare=compare
    )
    return judge(sweep, claims, rng=np.random.default_rng(0))


def gated(folder: Path, *texts: str, **options: Any) -> tuple[int, list[str]]:
    return gate.outcome(verdicts(folder, *texts, **options), read_sweep(folder, []))


def printed(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict, str, str]:
    code = main([str(folder), "--json", *options])
    shown, errors = capsys.readouterr()
    return code, json.loads(shown, parse_constant=pytest.fail), shown, errors


# The short form


@pytest.mark.parametrize(
    ("text", "metric", "lower", "upper", "unit", "direction"),
    [
        ("f1=no_worse_than:0.5", Metric("best", "dev", "f1_weighted"), -0.5, float("inf"), "points", "increase"),
        ("best.dev_f1_weighted = within : 2 points", Metric("best", "dev", "f1_weighted"), -2, 2, "points", "increase"),
        ("f1=at_least:1%", Metric("best", "dev", "f1_weighted"), 1, float("inf"), "percent", "increase"),
        ("accuracy=between:0.01,0.02absolute", Metric("best", "dev", "accuracy"), 0.01, 0.02, "absolute", "increase"),
        ("speed=no_worse_than:5%", Metric("time_to_target", "dev", "f1_weighted"), -5, float("inf"), "percent", "increase"),
        ("time_to_target.nll=at_least:10", Metric("time_to_target", "dev", "nll"), 10, float("inf"), "percent", "increase"),
        ("final.train_nll=at_least:0.02", Metric("final", "train", "nll"), 0.02, float("inf"), "absolute", "decrease"),
        ("final.train_nll=between:10,20%", Metric("final", "train", "nll"), 10, 20, "percent", "decrease"),
        ("spread.f1=at_least:0.1", Metric("spread", "dev", "f1_weighted"), 0.1, float("inf"), "points", "increase"),
        ("at_best_dev.test_f1=within:1", Metric("at_best_dev", "test", "f1_weighted"), -1, 1, "points", "increase"),
        ("wer=no_worse_than:0.3", Metric("best", "dev", "wer", "lower"), -0.3, float("inf"), "absolute", "decrease"),
        ("f1=between:1,inf", Metric("best", "dev", "f1_weighted"), 1, float("inf"), "points", "increase"),
    ],
)  # fmt: skip
def test_the_short_form(text, metric, lower, upper, unit, direction):
    claim = gate.parse_requirement(text, {"wer": "lower"})
    assert claim.metrics == (metric,)
    assert (claim.lower, claim.upper, claim.unit, claim.direction_of(metric)) == (lower, upper, unit, direction)
    again = gate.parse_requirement(gate.short_form(claim, metric), {"wer": "lower"})
    assert again.content == claim.content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1", "expected a claims file or NAME=KIND:VALUE such as f1=no_worse_than:0.5, got no such file"),
        ("f1=0.5", "expected a claims file or NAME=KIND:VALUE"),
        ("=within:1", "expected a claims file or NAME=KIND:VALUE"),
        ("f1=no_worse:0.5", "got 'no_worse'; did you mean no_worse_than?"),
        ("bset.f1=within:1", "measure: expected one of area, at_best_dev, best, "),
        ("f1=within:one", "expected a number, and a unit of %, points, absolute or none, after within, got 'one'"),
        ("f1=within:1,2", "expected a number"),
        ("f1=between:1", "expected two numbers L,U"),
        ("f1=between:1%,2points", "expected two numbers L,U"),
        ("f1=between:2,1", "expected [lower, upper] with a finite lower <= upper"),
        ("f1=within:0", "expected a margin, a finite number above 0, got 0.0"),
        ("f1=at_least:nan", "expected a finite number of 0 or more, got nan"),
        ("speed=within:5points", "time_to_target measures a speed: expected unit percent"),
        ("test_f1=within:1", "expected measure at_best_dev on the test split, got best"),
        ("wer=at_least:1", "or --better wer=lower (or higher)"),
        ("wer=within:1", "or --better wer=lower (or higher)"),
        ("a-b=within:1", "expected a name of the form [MEASURE.]COLUMN"),
    ],
)
def test_errors_name_the_option_and_the_text(text, message):
    with pytest.raises(InputError) as error:
        gate.requirements([text], {})
    assert str(error.value).startswith(f"--require {text!r}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_claims_of_a_file_and_its_errors(tmp_path):
    path = tmp_path / "a=b.yaml"
    text = "claims:\n  - {claim: one, metrics: [{measure: best, split: dev, of: f1_macro}], within: 1, unit: points}\n"
    path.write_text(text)
    claims = gate.requirements([str(path), F1], {})
    assert [claim.name for claim in claims] == ["one", "f1"]
    path.write_text(text.replace("within", "witin"))
    with pytest.raises(InputError, match=r"^--require .*a=b\.yaml, line 2: .*did you mean within\?"):
        gate.requirements([str(path)], {})
    with pytest.raises(InputError, match="got a folder"):
        gate.requirements([str(tmp_path)], {})


def test_a_claim_of_the_report_that_states_the_same_is_judged_once():
    claims = read_claims()
    same = parse_claims(
        {
            "claims": [
                {
                    "claim": "other",
                    "metrics": [{"measure": "best", "split": "dev", "of": "f1_weighted"}],
                    "no_worse_than": 1,
                    "unit": "points",
                    "direction": "increase",
                }
            ]
        }
    )
    judged, required = gate.joined([*claims, *same], gate.requirements([F1, F1], {}))
    assert judged == [*claims, *same]
    assert required == same


def test_a_requirement_with_the_name_of_another_claim_gets_a_number():
    claims = read_claims()
    texts = [F1, "f1=no_worse_than:2", SPEED]
    judged, required = gate.joined(claims, gate.requirements(texts, {}))
    assert [claim.name for claim in required] == ["f1_2", "f1_3", "speed"]
    assert judged == [*claims, *required]
    shown = [gate.short_form(claim, claim.metrics[0]) for claim in required]
    assert shown == texts


# The answers


@pytest.fixture
def reported(tmp_path, capsys):
    """Return a function that writes a report, and returns the exit code and the lines of the requirements."""

    def run(folder: Path, *texts: str) -> tuple[int, list[str]]:
        options = [word for text in texts for word in ("--require", text)]
        code = main([str(folder), "--out", str(tmp_path / "out"), *options])
        shown, errors = capsys.readouterr()
        assert errors == ""
        assert (tmp_path / "out/index.html").exists()
        return code, shown.splitlines()[1:-1]

    return run


@pytest.mark.slow
def test_exit_code_0_and_the_lines_of_what_holds(same, reported):
    code, lines = reported(same, F1, SPEED)
    assert code == 0
    assert lines[0].startswith("holds          f1=no_worse_than:1       learning_rate 0.002: ")
    assert re.search(r": [+-]\d\.\d\d points \(-?\d\.\d\d to \d\.\d\d\), 10 pairs$", lines[0]), lines[0]
    assert lines[1].startswith("holds          speed=no_worse_than:10%  learning_rate 0.002: ")


@pytest.mark.slow
@pytest.mark.soak("takes 8 s; tests/examples/test_gate.py has the code 3, test_the_document the code 4")
def test_the_other_exit_codes(same, mixed, reported):
    code, lines = reported(mixed, F1)
    assert code == 3
    assert [line[:13].strip() for line in lines] == ["holds", "does not hold"]
    assert lines[1].endswith("; worse by more than the margin")
    code, lines = reported(same, "f1=at_least:0")
    assert code == 4
    assert lines[0].startswith("undecided")
    assert "direction not established" in lines[0]


def test_what_does_not_hold_comes_before_what_is_undecided(mixed):
    code, lines = gated(mixed, F1, "final.nll=at_least:0")
    answers = [(line[:13].strip(), line.split()[-1]) for line in lines]
    assert code == 3
    assert {line[:13].strip() for line in lines} == {"holds", "does not hold", "undecided"}, answers


def test_one_of_several_arms_can_be_chosen(mixed):
    arms = ("optimizer.learning_rate=0.002", "optimizer.learning_rate=0.001")
    code, lines = gated(mixed, F1, compare=arms)
    assert code == 0
    assert len(lines) == 1


def test_too_few_pairs_and_a_single_arm_are_undecided(tmp_path):
    simulate_sweep(tmp_path / "few", (BASE, variant()), range(1, 5), epochs=4)
    code, lines = gated(tmp_path / "few", F1)
    assert code == 4
    assert lines[0].endswith("4 pairs; 4 pairs, at least 6 are needed")
    simulate_sweep(tmp_path / "one", (BASE,), range(1, 8), epochs=4)
    assert gated(tmp_path / "one", F1) == (4, ["undecided      there is no arm to compare with the baseline"])


def test_a_column_that_no_run_has_is_undecided(same):
    code, lines = gated(same, "wer=no_worse_than:1", better={"wer": "lower"})
    assert code == 4
    assert lines[0].endswith("no run has a dev value of wer")


def test_a_fall_is_named(same):
    _, (line,) = gated(same, "final.train_nll=no_worse_than:5%")
    assert "learning_rate 0.002: decrease " in line


def test_every_task_must_hold(tmp_path):
    for task, ceiling in (("a", 0.62), ("b", 0.58)):
        arms = [replace(arm, overrides={**arm.overrides, "task": task}) for arm in (BASE, variant(ceiling=ceiling))]
        simulate_sweep(tmp_path / task, arms, range(1, 8), epochs=6)
    code, lines = gated(tmp_path, F1)
    assert code == 3
    assert [line[:13].strip() for line in lines[:2]] == ["holds", "does not hold"]
    assert "learning_rate 0.002 on all tasks: " in lines[2]


@pytest.mark.slow
def test_a_bad_requirement_is_exit_code_two_and_writes_nothing(same, tmp_path, capsys):
    assert main([str(same), "--out", str(tmp_path / "out"), "--require", "f1=worse:1", "--json"]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert errors.startswith("joyful report: --require 'f1=worse:1': ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


# A recorded design


@pytest.mark.slow
def test_a_registered_requirement_is_decided_by_the_t_interval_under_any_name(same, tmp_path, capsys):
    entry = {"claim": "registered", "no_worse_than": 1, "unit": "points"}
    entry["metrics"] = [{"measure": "best", "split": "dev", "of": "f1_weighted"}]
    folder = tmp_path / "same"
    shutil.copytree(same, folder, ignore=shutil.ignore_patterns("report"))
    design = Design(
        10, None, 1, ("optimizer.learning_rate=0.001", "optimizer.learning_rate=0.002"), (9000, 9001, 9002),
        {"claims": [entry]}, "95 % of the way", "f1", {"commit": "c" * 40, "dirty": False},
    )  # fmt: skip
    record_design(folder, design)
    code, document, _, _ = printed(folder, capsys, "--require", F1, "--require", "f1=no_worse_than:0.6")
    assert code == document["code"]
    (recorded,) = document["design"]["recorded"]
    assert (recorded["pairs"], recorded["claims_digest"]) == (10, design.claims_digest)
    assert "registered 10 pairs and 1 claim" in document["design"]["sentence"]
    first, second = document["verdicts"][-2:]
    assert (first["rule"], first["note"], first["family_low"]) == ("t interval", "", None)
    assert second["rule"] == "confidence sequence"
    assert "This claim was not registered before the first run" in second["note"]


# JSON


@pytest.mark.slow
def test_the_document(same, capsys):
    code, document, shown, errors = printed(same, capsys, "--require", F1, "--require", "f1=at_least:0")
    assert code == document["code"] == 4
    assert set(document) == {"schema", "code", "requirements", "verdicts", "notes", "design", "provenance"}
    assert document["schema"] == 1
    assert [(entry["require"], entry["answer"]) for entry in document["requirements"]] == [
        (F1, "holds"),
        ("f1=at_least:0", "undecided"),
    ]
    assert len(document["verdicts"]) == 8 + 2  # the claims of the report, and the requirements
    (verdict,) = [entry for entry in document["verdicts"] if entry["claim"] == document["requirements"][0]["claim"]]
    assert set(verdict) == {
        "claim", "says", "metric", "kind", "lower", "upper", "unit", "direction", "arm", "baseline", "task", "pairs", "seeds",
        "runs", "estimate", "low", "high", "verdict", "detail", "rule", "p_zero", "p_lower_edge", "p_holm", "family_low",
        "family_high", "note",
    }  # fmt: skip
    assert verdict["upper"] is None  # infinite
    assert (verdict["lower"], verdict["unit"], verdict["kind"]) == (-1, "points", "no_worse_than")
    assert (verdict["pairs"], verdict["seeds"]) == (10, list(range(1, 11)))
    assert -1 < verdict["low"] < verdict["estimate"] < verdict["high"]
    assert document["design"]["recorded"] is None
    assert "recorded no design" in document["design"]["sentence"]
    known = document["provenance"]
    assert known["folder"] == "same"
    assert known["runs"] == {"used": 23, "left_out": 0, "cut": 0}
    assert known["seeds"] == {"comparison": list(range(1, 11)), "calibration": [9000, 9001, 9002]}
    assert known["data"] == [{"name": "simulated", "digest": "d" * 16}]
    assert (known["devices"], known["epochs"]) == (["cpu"], [8])
    assert known["claims_digest"] == digest(yaml.safe_load(BASIC_OPTIMIZATION.read_text()))
    assert errors.splitlines()[-1] == str(same / "report/index.html")
    assert "holds          f1=no_worse_than:1" in errors
    assert str(same.parent) not in shown


@pytest.mark.slow
@pytest.mark.soak(
    "takes 9 s; test_report.py writes a report again elsewhere, tests/audit/test_manifest.py its manifest"
)
def test_the_document_is_reproducible_elsewhere(same, tmp_path, capsys):
    _, _, first, _ = printed(same, capsys, "--require", F1)
    shutil.copytree(same, tmp_path / "same", ignore=shutil.ignore_patterns("report"))
    for path in (tmp_path / "same").glob("*/run.json"):
        text = (
            path.read_text().replace("2026-01-31T12", "2027-02-03T04").replace('"host": "simulated"', '"host": "other"')
        )
        path.write_text(text)
    code, document, second, _ = printed(tmp_path / "same", capsys, "--require", F1)
    assert second == first
    assert code == document["code"] == 0


def test_failed_runs_of_an_arm_are_noted(same, tmp_path):
    folder = tmp_path / "same"
    shutil.copytree(same, folder, ignore=shutil.ignore_patterns("report"))
    path = folder / "4" / "run.json"
    path.write_text(path.read_text().replace('"completed"', '"failed"'))
    sweep = read_sweep(folder)
    found = Findings(sweep, None, [], pd.DataFrame(), {})
    notes = json.loads(gate.as_json(found, 0))["notes"]
    assert any(note.startswith("1 of 10 runs of 'learning_rate 0.002' failed") for note in notes)
    code, (line,) = gated(folder, "f1=no_worse_than:5")
    assert code == 4
    assert line.startswith("undecided ")
    assert line.endswith("9 pairs; 1 of 10 runs of the arm failed")
    base = folder / "3" / "run.json"  # a failed run of the baseline is not the fault of the arm
    path.write_text(path.read_text().replace('"failed"', '"completed"'))
    base.write_text(base.read_text().replace('"completed"', '"failed"'))
    assert gated(folder, "f1=no_worse_than:5")[0] == 0


@pytest.mark.slow
def test_a_document_without_requirements_and_arms(tmp_path, capsys):
    simulate_sweep(tmp_path / "one", (BASE,), range(1, 3), epochs=4)
    code, document, _, _ = printed(tmp_path / "one", capsys)
    assert (code, document["requirements"], document["verdicts"]) == (0, [], [])


def test_the_versions_and_commits_of_all_runs_are_listed(same, tmp_path):
    folder = tmp_path / "same"
    shutil.copytree(same, folder, ignore=shutil.ignore_patterns("report"))
    for number, commit in ((3, "a" * 40), (4, "b" * 40)):
        path = folder / str(number) / "run.json"
        info = json.loads(path.read_text())
        info |= {"git": {"commit": commit, "dirty": False}, "versions": {"numpy": f"2.{number}", "torch": None}}
        path.write_text(json.dumps(info))
    known = provenance(read_sweep(folder, ["f1_weighted"]))
    assert [state["commit"] for state in known["git"]] == ["a" * 40, "b" * 40, None]
    assert known["versions"] == {"numpy": ["2.3", "2.4"], "torch": []}
