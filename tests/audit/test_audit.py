"""Audits of small sweeps of the trainer: drawn runs are trained again and compared."""

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from joyful import cli
from joyful.analysis.report import main as report
from joyful.audit import comparison, confidence, retraining
from joyful.audit.command import main as audit
from joyful.results import RUN, RunFolder, read_run
from joyful.results.design import Design, record_design
from joyful.training import experiment
from study.archive import pack, unpack
from tests.support.forging import change_history, change_json
from tests.support.runs import tiny_request

CLAIMS = """\
claims:
  - {claim: f1, metrics: [{measure: best, split: dev, of: f1_weighted}],
     between: [1, 2], unit: points, direction: increase}
"""

ARMS = (("loss=mse", "weights=baseline"), ("loss=smoothl1", "weights=basic"))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A sweep of two pairs, with its report."""
    folder = tmp_path_factory.mktemp("audit")
    for number in range(4):
        overrides = (*ARMS[number % 2], f"seed={number // 2}", "training.epochs=2")
        experiment.train_run(tiny_request(folder / "sweep" / str(number), *overrides))
    (folder / "claims.yaml").write_text(CLAIMS)
    write_report(folder / "sweep")
    return folder / "sweep"


def write_report(sweep: Path) -> None:
    (sweep.parent / "claims.yaml").write_text(CLAIMS)
    assert report([str(sweep), "--claims", str(sweep.parent / "claims.yaml")]) == 0


@pytest.fixture
def sweep(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "sweep", ignore=shutil.ignore_patterns("checkpoint"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_an_audit_that_passes(original, capsys):
    before = content_of(original)
    assert cli.main(["audit", str(original), "--runs", "3", "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "manifest: 4 runs, 1 claim, 1 verdict and every number of the report: unchanged"
    assert lines[1] == "seed 7: 3 of 4 completed runs are drawn and trained again"
    assert [re.sub(r"\d", "N", line) for line in lines[2:5]] == ["run N: equal"] * 3
    assert lines[5:] == ["3 of 3 equal: under 50 % of the 4 runs are false, at 95 % confidence"]
    assert content_of(original) == before


@pytest.mark.slow
def test_a_forged_run_is_named_although_the_report_was_made_from_it(sweep, capsys):
    change_history(
        sweep / "2", "f1_weighted", "dev", 0.001
    )  # within the tolerance, which does not count on one machine
    write_report(sweep)
    assert audit([str(sweep), "--runs", "4"]) == 3
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0].startswith("manifest: 4 runs")
    assert [line for line in lines if line.endswith(": equal")] == ["run 0: equal", "run 1: equal", "run 3: equal"]
    assert re.search(
        r"run 2: different: best dev f1_weighted 0\.\d{4} recorded, best dev f1_weighted 0\.\d{4} trained again; "
        r"largest difference 0\.001 in dev f1_weighted at step 8\n",
        "\n".join(lines),
    )
    assert lines[-1] == "1 of 4 differ: run 2"


@pytest.mark.slow
def test_predictions_that_the_run_trained_again_does_not_make_are_named(sweep, capsys):
    table = pq.read_table(sweep / "2/predictions.parquet")
    pq.write_table(table.slice(1), sweep / "2/predictions.parquet")
    shutil.rmtree(sweep / "report")
    assert audit([str(sweep), "--runs", "4"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "run 2: the history is equal, and predictions.parquet is different" in lines
    assert lines[-1] == "1 of 4 differ: run 2"


@pytest.mark.slow
@pytest.mark.soak("takes 12 s; the other tests compare whole runs and archives")
def test_a_run_that_a_sweep_ended_at_the_target_is_compared_up_to_there(sweep, capsys):
    run = RunFolder.open(sweep / "3")
    run.write_history([row for row in run.history_rows() if row["epoch"] <= 1])
    run.set_status("pruned", "reached the target")
    auto = Design(None, 9, 0, (), (), None, "", "", {})
    assert audit([str(sweep), "--runs", "0", "--report", str(sweep / "report")]) == 3
    assert "run 3: history.parquet was changed" in capsys.readouterr().out
    shutil.rmtree(sweep / "report")
    assert audit([str(sweep), "--runs", "9", "--seed", "1"]) == 0
    assert "3 of 3 completed runs are drawn" in capsys.readouterr().out
    record_design(sweep, auto)
    assert audit([str(sweep), "--runs", "9", "--seed", "1"]) == 0
    assert "run 3: equal up to step 4, at which the sweep ended it" in capsys.readouterr().out
    change_history(sweep / "3", "nll", "dev", 0.001)
    assert audit([str(sweep), "--runs", "9", "--seed", "1"]) == 3
    assert "run 3: different" in capsys.readouterr().out


@pytest.mark.slow
def test_an_archive_is_compared_as_it_keeps_the_runs(original, tmp_path, capsys):
    pack(original, tmp_path / "archive.parquet")
    unpack(tmp_path / "archive.parquet", tmp_path / "sweep")
    assert audit([str(tmp_path / "sweep"), "--runs", "2", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pattern = r"run \d: equal in all \d+ values that were kept, to the seven digits of an archive"
    assert all(re.fullmatch(pattern, line) for line in lines[2:4])
    assert lines[-1] == "2 of 2 equal: under 75 % of the 4 runs are false, at 95 % confidence"
    change_history(tmp_path / "sweep/1", "nll", "dev", 0.5)
    assert audit([str(tmp_path / "sweep"), "--runs", "4"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("manifest.json, so the report is not checked")
    assert (
        "largest difference 0.5 in dev nll at step 8; beyond the tolerance 0.03 (its machine is not recorded)"
        in lines[3]
    )
    assert lines[-1] == "1 of 4 differ: run 1"


@pytest.mark.slow
def test_on_another_machine_curves_are_compared_and_the_check_is_called_weaker(sweep, capsys):
    for number in range(4):
        change_history(sweep / str(number), "f1_weighted", "dev", 0.001)  # as if bits differed
    change_json(sweep / "0" / RUN, lambda info: info.update(host="elsewhere"))
    change_json(sweep / "1" / RUN, lambda info: info["versions"].update(torch="1.0"))
    shutil.rmtree(sweep / "2")
    shutil.rmtree(sweep / "3")
    shutil.rmtree(sweep / "report")
    assert audit([str(sweep), "--runs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    by = "curves within 0.03 (largest difference 0.001 in dev f1_weighted at step 8): a weaker check"
    assert lines[2] == f"run 0: not equal to the bit (another machine), {by}"
    here = read_run(sweep / "0")["versions"]["torch"]
    assert lines[3] == f"run 1: not equal to the bit (recorded with torch 1.0, here {here}), {by}"
    assert lines[4] == (
        "0 of 2 equal, 2 within the tolerance 0.03: none of the 2 runs is false, if a run is false only where a curve is off "
        "by more than the tolerance; this is weaker than equal bits"
    )
    assert audit([str(sweep), "--runs", "2", "--tolerance", "0.0001"]) == 3
    assert "; beyond the tolerance 0.0001 (another machine)" in capsys.readouterr().out


def rows(**columns: float) -> dict:
    return {(4, "dev"): {"step": 4, "split": "dev", **columns}, (8, "dev"): {"step": 8, "split": "dev", **columns}}


def largest(old: dict, new: dict) -> comparison._Largest:
    return comparison._largest_difference(old, new)


def test_differences_are_relative_to_the_size_of_the_curve_except_for_scores():
    assert largest(rows(nll=2.0, f1_weighted=0.5), rows(nll=2.1, f1_weighted=0.51)).relative == pytest.approx(0.05)
    found = largest(rows(f1_weighted=0.5), rows(f1_weighted=0.56))
    assert (found.relative, found.place) == (pytest.approx(0.06), "dev f1_weighted at step 4")
    assert largest(rows(grad_norm_total=1.0), rows(grad_norm_total=9.0)).relative == 0
    assert largest(rows(nll=float("nan")), rows(nll=float("nan"))).relative == 0
    for broken in (rows(), rows(nll=float("inf")), {(4, "dev"): rows(nll=1.0)[4, "dev"]}):
        assert largest(rows(nll=1.0), broken).relative == float("inf")


def test_values_are_equal_as_float32_only_where_the_recorded_ones_are_float32():
    assert comparison._equal_as_float32(rows(nll=0.10000000149011612), rows(nll=0.1, f1_weighted=0.5))
    assert not comparison._equal_as_float32(rows(nll=0.1 + 1e-12), rows(nll=0.1))
    assert not comparison._equal_as_float32(rows(nll=0.1, f1_weighted=0.5), rows(nll=0.1))
    assert not comparison._equal_as_float32(rows(nll=0.5), {(4, "dev"): rows(nll=0.5)[4, "dev"]})


def test_29_equal_of_29_leave_under_10_per_cent_of_false_runs():
    for runs in (30, 100, 1000, 10**6):
        assert confidence.most_false(29, runs) / runs < 0.1
    assert confidence.most_false(28, 10**6) / 10**6 > 0.1
    assert confidence.statement(29, 10**6).startswith("under 9.9 % of the 1000000 runs are false, at 95 % conf")


@pytest.mark.parametrize("runs", [1, 2, 7, 30])
def test_the_bound_is_the_largest_number_of_false_runs_that_a_draw_may_miss(runs):
    from math import comb

    for drawn in range(1, runs + 1):
        missed = [comb(runs - false, drawn) / comb(runs, drawn) for false in range(runs + 1)]
        assert confidence.most_false(drawn, runs) == max(m for m, p in enumerate(missed) if p > 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda info: info["data"].update(digest="0" * 16),
            "run 0: expected the data with the digest 0000000000000000, got",
        ),
        (lambda info: info["config"].update(seed=5), "run 0: its config_hash is not that of its configuration"),
        (lambda info: info["config"]["model"].update(dropout=3), "run 0: model.dropout"),
    ],
)
def test_a_run_that_cannot_be_trained_again_is_refused_with_the_reason(sweep, capsys, change, message):
    shutil.rmtree(sweep / "report")
    for number in (1, 2, 3):
        shutil.rmtree(sweep / str(number))
    change_json(sweep / "0" / RUN, change)
    assert audit([str(sweep), "--runs", "1"]) == 2
    assert message in capsys.readouterr().err


def test_without_torch_the_manifest_is_checked_and_runs_say_what_to_install(sweep, monkeypatch, capsys):
    shutil.rmtree(sweep / "report")
    monkeypatch.setattr(retraining, "PACKAGES", ("torch_of_no_package", "safetensors"))
    assert audit([str(sweep), "--runs", "1"]) == 2
    expected = "--runs 1 needs torch_of_no_package; run pip install 'joyful-sweeps[train]', or check the report alone with --runs 0"
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_that_fails_gives_code_1(sweep, monkeypatch, capsys):
    shutil.rmtree(sweep / "report")

    def fail(*_):
        raise experiment.TrainingFailedError("the loss is not finite")

    monkeypatch.setattr(experiment, "train_run", fail)
    assert audit([str(sweep), "--runs", "1", "--seed", "1"]) == 1
    assert re.search(r"run \d failed when trained again: the loss is not finite", capsys.readouterr().err)


def test_only_completed_runs_are_drawn_and_the_seed_decides_which(sweep, monkeypatch, capsys):
    shutil.rmtree(sweep / "report")
    change_json(sweep / "1" / RUN, lambda info: info.update(status="failed"))
    (sweep / "2" / RUN).write_text("{")
    drawn = []
    monkeypatch.setattr("joyful.audit.command._trained", lambda parsed, infos, scratch: drawn.append(list(infos)) or ())
    for seed in ("3", "3", "4", "5", "6"):
        audit([str(sweep), "--runs", "1", "--seed", seed])
    assert drawn[0] == drawn[1]
    assert {name for names in drawn for name in names} == {"0", "3"}
    out = capsys.readouterr().out
    assert "run 2: left out, because it cannot be read: " in out
    assert "seed 3: 1 of 2 completed runs are drawn" in out
    audit([str(sweep), "--runs", "9"])
    assert "2 of 2 completed runs are drawn" in capsys.readouterr().out
    for number in (0, 3):
        change_json(sweep / str(number) / RUN, lambda info: info.update(status="failed"))
    assert audit([str(sweep)]) == 2
    assert "expected completed runs, found none" in capsys.readouterr().err


def test_recorded_devices_and_threads_are_kept(sweep):
    info = json.loads((sweep / "0" / RUN).read_text())
    config = retraining._config(info | {"threads": 3, "device": "cpu"}, Path("/data"))
    assert (config["training"]["threads"], config["device"], config["data"]["root"]) == (3, "cpu", "/data")
    assert retraining.is_own(info)
    assert not retraining.is_own(info | {"threads": None})
