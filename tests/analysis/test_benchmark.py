"""The benchmark of reading a sweep, run on a small sweep."""

import json
from pathlib import Path

import pytest

from benchmarks import analysis as benchmark
from joyful.analysis.sweep import read_sweep


def test_the_benchmark_reports_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(
        ["--runs", "16", "--epochs", "3", "--folder", str(tmp_path / "runs"), "--json", str(tmp_path / "f.json")]
    )
    report = json.loads((tmp_path / "f.json").read_text())
    assert report["runs"] == 16
    by_name = {figure["name"]: figure for figure in report["figures"]}
    assert by_name["rows"]["value"] == 16 * 3 * 3
    assert by_name["open"]["ratio"] == pytest.approx(by_name["open"]["value"] / 15, abs=0.001)
    assert 0.05 < by_name["open, peak memory"]["value"] < 2
    assert all(figure["to"] and figure["unit"] for figure in report["figures"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(report["figures"])
    sweep = read_sweep(tmp_path / "runs")
    assert len(sweep.arms) == 8
    assert sweep.pairs(sweep.others[0]) == [0, 1]
    assert (
        len(json.loads((tmp_path / "runs" / "0" / "run.json").read_text())["config"]["model"])
        > benchmark.FURTHER_SETTINGS
    )


def test_the_exit_code_is_1_if_reading_is_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MAXIMUM_SECONDS", 1e-6)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--runs", "2", "--epochs", "1", "--folder", str(tmp_path / "runs")])
    assert stop.value.code == 1
