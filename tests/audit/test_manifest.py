"""The manifest of a report, and the changes that its check names. The runs are simulated."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from joyful.analysis import manifest
from joyful.analysis.report import main as report
from joyful.analysis.report_check import check_claims, check_report
from joyful.audit.command import main as audit
from joyful.results import RUN, InputError
from joyful.results.design import Design, record_design
from tests.support.analysis import simulate_sweep
from tests.support.forging import change_history, change_json, replace_once

CLAIMS = """\
claims:
  - {claim: loss, metrics: [{measure: final, split: train, of: nll}],
     between: [10, 20], unit: percent, direction: decrease}
  - {claim: f1, metrics: [{measure: best, split: dev, of: f1_weighted}],
     between: [1, 2], unit: points, direction: increase}
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    simulate_sweep(folder / "sweep", seeds=range(1, 8), epochs=6)
    (folder / "claims.yaml").write_text(CLAIMS)
    assert report([str(folder / "sweep"), "--claims", str(folder / "claims.yaml")]) == 0
    return folder / "sweep"


@pytest.fixture
def sweep(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "sweep")


def differences(sweep: Path, claims: Path | None = None) -> list[str]:
    return check_report(sweep, sweep / "report", claims).differences


def changed_runs(sweep: Path) -> list[str]:
    return manifest.changed_runs(manifest.read_manifest(sweep / "report/manifest.json"), manifest.describe(sweep))


def verdicts(sweep: Path) -> pd.DataFrame:
    return pd.read_csv(sweep / "report/verdicts.csv")


@pytest.mark.slow
def test_an_unchanged_report_passes_also_in_a_renamed_folder(original, tmp_path, capsys):
    assert audit([str(original), "--runs", "0"]) == 0
    assert (
        capsys.readouterr().out == "manifest: 17 runs, 2 claims, 2 verdicts and every number of the report: unchanged\n"
    )
    assert differences(shutil.copytree(original, tmp_path / "renamed")) == []


@pytest.mark.slow
def test_the_manifest_is_reproducible_and_has_no_place_or_host(original, sweep):
    first = (original / "report/manifest.json").read_bytes()
    assert report([str(sweep), "--claims", str(original.parent / "claims.yaml")]) == 0
    assert (sweep / "report/manifest.json").read_bytes() == first
    for text in (str(original), "simulated-host", "2026-01-31"):
        assert text.encode() not in first
    content = json.loads(first)
    assert list(content["runs"]) == [str(number) for number in range(17)]
    assert content["runs"]["3"] | {"history": "", "timing": "", "config": "", "rest": ""} == {
        "history": "", "timing": "", "config": "", "rest": "", "config_hash": "0" * 16, "seed": 1, "role": "comparison",
        "status": "completed", "arm": "mse 0.05", "predictions": None,
    }  # fmt: skip
    assert content["data"] == [{"name": "simulated", "digest": "d" * 16}]
    assert [row["claim"] for row in content["verdicts"]] == ["loss", "f1"]


@pytest.mark.slow
def test_a_changed_number_of_a_history_is_named_although_its_run_is_intact(sweep):
    change_history(sweep / "4", "f1_weighted", "dev", 0.05)
    lines = differences(sweep)
    assert lines[0] == "run 4: history.parquet was changed"
    (estimate,) = [line for line in lines if line.startswith("f1, best dev f1_weighted, ") and "estimate is" in line]
    assert estimate.endswith(" recomputed")


def test_a_history_without_a_new_digest_is_named_too(sweep):
    path = sweep / "4/history.parquet"
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    assert changed_runs(sweep) == ["run 4: history.parquet was changed"]


def test_changed_predictions_are_named(sweep):
    (sweep / "4/predictions.parquet").write_bytes(b"not those of the run")
    assert changed_runs(sweep) == ["run 4: predictions.parquet was changed"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda info: info.update(seed=8), "run 4: seed is 1 in the report and 8 now"),
        (lambda info: info.update(status="failed"), "run 4: status is completed in the report and failed now"),
        (lambda info: info.update(role="search"), "run 4: role is comparison in the report and search now"),
        (lambda info: info["config"]["model"].update(dropout=0.4), "run 4: its configuration was changed"),
        (lambda info: info.update(config_hash="1" * 16), f"run 4: config_hash is {'0' * 16} in the report and {'1' * 16} now"),
        (lambda info: info.update(objective=0.9), "run 4: a value of run.json was changed that is not the configuration"),
        (lambda info: info["data"].update(digest="e" * 16), "run 4: a value of run.json was changed"),
    ],
)  # fmt: skip
def test_a_changed_value_of_a_run_is_named(sweep, change, line):
    change_json(sweep / "4" / RUN, change)
    (found,) = changed_runs(sweep)
    assert found.startswith(line)


def test_runs_that_were_removed_or_added_are_named(sweep):
    shutil.move(sweep / "5", sweep / "99")
    assert changed_runs(sweep) == [
        "run 5: it is in the report and no longer in the folder",
        "run 99: it is not in the report, which was written before it",
    ]


@pytest.mark.slow
def test_a_changed_number_of_the_table_is_named(sweep, capsys):
    low = verdicts(sweep)["low"][1]
    replace_once(sweep / "report/verdicts.csv", str(low), "0.75")
    (arm,) = {row["arm"] for row in json.loads((sweep / "report/manifest.json").read_text())["verdicts"]}
    assert differences(sweep) == [
        "verdicts.csv: it was changed after the report was written",
        f"f1, best dev f1_weighted, {arm}: low is 0.75 in verdicts.csv and {low:.10g} in the manifest",
    ]
    assert audit([str(sweep), "--runs", "2"]) == 3
    assert capsys.readouterr().out.endswith("the report is not that of these files; no run was trained again\n")


@pytest.mark.soak("takes 4 s; the next test changes a page together with the manifest")
@pytest.mark.slow
def test_a_table_that_was_changed_together_with_the_manifest_is_named(sweep):
    low = verdicts(sweep)["low"][1]
    replace_once(sweep / "report/verdicts.csv", str(low), "0.75")
    digest = manifest.sha256((sweep / "report/verdicts.csv").read_bytes())
    change_json(sweep / "report/manifest.json", lambda content: content["files"].update({"verdicts.csv": digest}))
    (line,) = differences(sweep)
    assert line.endswith(f": low is 0.75 in verdicts.csv and {low:.10g} in the manifest")

    def forge(content):
        content["files"]["verdicts.csv"] = digest
        content["verdicts"][1]["low"] = 0.75

    change_json(sweep / "report/manifest.json", forge)
    (line,) = differences(sweep)
    assert line.startswith("f1, best dev f1_weighted, ")
    assert line.endswith(f": low is 0.75 in the report and {low:.10g} recomputed")


@pytest.mark.slow
def test_a_page_that_was_changed_together_with_the_manifest_is_named(sweep):
    for name, old in (("index.html", "<title>"), ("report.md", "folder **")):
        replace_once(sweep / "report" / name, old, old + "Better ")
        digest = manifest.sha256((sweep / "report" / name).read_bytes())
        change_json(sweep / "report/manifest.json", lambda content, n=name, d=digest: content["files"].update({n: d}))
    lines = differences(sweep)
    assert [line.split(":")[0] for line in lines] == ["report.md", "index.html"]
    assert all("Better" in line.split(" in the report")[0] for line in lines)


@pytest.mark.slow
def test_with_other_versions_the_pages_are_not_compared_and_the_numbers_are(sweep):
    def other(content):
        content["computed_with"]["scipy"] = "1.0"
        content["verdicts"][0]["high"] *= 1 + 1e-10

    change_json(sweep / "report/manifest.json", other)
    check = check_report(sweep, sweep / "report")
    assert check.differences == []
    assert "the pages were not compared" in check.notes[0]
    assert "scipy 1.0" in check.notes[0]


@pytest.mark.slow
def test_a_missing_or_changed_file_of_the_report_is_named(sweep):
    (sweep / "report/pairs.parquet").unlink()
    (sweep / "report/means.parquet").write_bytes(b"")
    assert differences(sweep) == [
        "pairs.parquet: it is missing in the report",
        "means.parquet: it was changed after the report was written",
    ]


@pytest.mark.slow
def test_a_changed_claim_is_named(sweep, tmp_path, capsys):
    other = tmp_path / "claims.yaml"

    def changed(text: str = "") -> list[str]:
        if text:
            other.write_text(text)
        return check_claims(manifest.read_manifest(sweep / "report/manifest.json"), sweep, other if text else None)

    assert changed("# a comment\n" + CLAIMS) == []
    assert changed(CLAIMS.replace("[1, 2]", "[0.5, 2]")) == [
        f"claim f1: it is another one in the report than in {other}"
    ]
    assert changed("factors: [loss]\n" + CLAIMS) == [
        f"claim {name}: it is another one in the report than in {other}" for name in ("loss", "f1")
    ]
    assert changed(CLAIMS.replace("claim: f1", "claim: best")) == [
        f"claim f1: it is in the report and not in {other}", f"claim best: it is in {other} and not in the report",
    ]  # fmt: skip
    assert audit([str(sweep), "--runs", "0", "--claims", str(other)]) == 3
    assert "claim f1: it is in the report" in capsys.readouterr().out

    def forge(content):
        content["arguments"]["claims"] = content["arguments"]["claims"].replace("[1, 2]", "[0.5, 2]")

    change_json(sweep / "report/manifest.json", forge)
    assert changed() == ["claim f1: it is another one in the report than in the text of the manifest"]


def test_an_infinite_limit_is_the_same_in_a_file_and_in_a_design():
    claims = [{"claims": [{"claim": "f1", "range": [1, limit]}]} for limit in (float("inf"), None, 2)]
    digests = [manifest.claim_digests(content)["digest"] for content in claims]
    assert digests[0] == digests[1] != digests[2]


def test_claims_that_differ_from_the_registered_ones_are_named(sweep):
    registered = {"claims": [{"claim": "f1", "metrics": [{"measure": "best", "split": "dev", "of": "f1_weighted"}]}]}
    registered["claims"][0] |= {"between": [1, 2], "unit": "points", "direction": "increase"}
    record_design(sweep, Design(7, None, 1, ("loss=mse", "loss=smoothl1"), (9000,), registered, "95 %", "f1", {}, 0))
    assert changed_runs(sweep) == ["design.json: was added after the report was written"]
    found = check_claims(manifest.read_manifest(sweep / "report/manifest.json"), sweep)
    assert found == ["claim loss: it is in the report and not in the design of the sweep"]
    change_json(sweep / "report/manifest.json", lambda content: content.update(manifest.describe(sweep)))
    assert changed_runs(sweep) == []
    change_json(sweep / "design.json", lambda content: content["designs"][0].update(pairs=8))
    assert changed_runs(sweep) == ["design.json: was changed after the report was written"]


@pytest.mark.soak("takes 5 s; the other tests use the default arguments")
@pytest.mark.slow
def test_the_arguments_of_the_report_are_used_again(sweep, original, tmp_path):
    arguments = ["--claims", str(original.parent / "claims.yaml"), "--baseline", "loss=smoothl1 weights=basic"]
    arguments += ["--x", "step", "--design", "unpaired", "--compare", "mse 0.05", "smoothl1 0.03"]
    required = tmp_path / "required.yaml"
    required.write_text(CLAIMS.replace("[10, 20]", "[5, .inf]"))
    arguments += ["--require", str(required), "--require", "f1=no_worse_than:50"]
    assert report([str(sweep), *arguments, "--out", str(tmp_path / "out")]) in (0, 3, 4)
    required.unlink()
    assert check_report(sweep, tmp_path / "out").differences == []
    change_json(tmp_path / "out/manifest.json", lambda content: content["arguments"].update(baseline="loss=none"))
    lines = check_report(sweep, tmp_path / "out").differences
    assert lines[-1].startswith("the report cannot be computed again: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; write the report again"),
        ("{", "damaged"),
        ("[]", "expected a manifest with schema 1"),
        ('{"schema": 2}', "expected a manifest with schema 1"),
        ('{"schema": 1, "sweep": 3}', r"damaged \(sweep is not a str\)"),
    ],
)
def test_a_missing_or_damaged_manifest_is_refused(sweep, content, message):
    path = sweep / "report/manifest.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        check_report(sweep, sweep / "report")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["claims"].update(digest="0", each=["f1"]),
        lambda content: content.update(arguments={"better": 3, "claims": CLAIMS}),
        lambda content: content["arguments"].update(unknown=1),
        lambda content: content.update(verdicts=[3]),
    ],
)
def test_entries_of_another_type_are_refused(sweep, change):
    change_json(sweep / "report/manifest.json", change)
    shutil.rmtree(sweep / "0")
    with pytest.raises(InputError, match="damaged"):
        check_report(sweep, sweep / "report")


@pytest.mark.slow
def test_hostile_names_are_escaped(sweep, capsys):
    shutil.move(sweep / "4", sweep / "\x1b[31m4")
    assert audit([str(sweep), "--runs", "0"]) == 3
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "run \\x1b[31m4: it is not in the report" in out


def test_bad_arguments_are_refused(sweep, tmp_path, capsys):
    assert audit([str(tmp_path / "none")]) == 2
    assert "expected the folder of a sweep" in capsys.readouterr().err
    (sweep / "report/manifest.json").unlink()
    assert audit([str(sweep), "--runs", "0"]) == 2
    assert audit([str(sweep), "--report", str(sweep / "report")]) == 2
    for arguments in (["--runs", "-1"], ["--tolerance", "2"]):
        with pytest.raises(SystemExit):
            audit([str(sweep), *arguments])
