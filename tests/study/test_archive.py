"""Packing and unpacking a sweep: the report stays the same, and the archive holds nothing about the machine."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from joyful.results import InputError, RunFolder
from joyful.results.design import Design, read_designs, record_design
from joyful.results.parquet_pages import decoded_bytes
from study.archive import main, pack, unpack
from tests.support.analysis import simulate_sweep, write_run
from tests.support.findings import findings_of


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive") / "sweep"
    simulate_sweep(folder, seeds=range(1, 8), epochs=8, folds=(0, 1))
    return folder


@pytest.fixture(scope="module")
def unpacked(sweep):
    file, folder = sweep.parent / "sweep.parquet", sweep.parent / "again"
    assert main(["pack", str(sweep), str(file)]) == 0
    assert main(["unpack", str(file), str(folder)]) == 0
    return file, folder


@pytest.fixture(scope="module")
def restored(unpacked):
    return findings_of(unpacked[1])


@pytest.mark.soak("takes 8 s; the other tests compare the restored rows")
@pytest.mark.slow
def test_the_report_of_the_restored_runs_is_the_same(sweep, restored):
    before, after = findings_of(sweep), restored
    pd.testing.assert_frame_equal(before.verdict_table, after.verdict_table, rtol=1e-4)
    assert (before.verdict_table["n_pairs"] == 7).any()
    for name in ("scores", "curves", "gradient_ratio"):
        pd.testing.assert_frame_equal(before.tables[name], after.tables[name], rtol=1e-4, atol=1e-6)
    assert before.tables["scores"]["seconds"].notna().all()


def test_the_design_and_runs_that_ended_at_the_target_are_kept(tmp_path):
    sweep, again = tmp_path / "sweep", tmp_path / "again"
    simulate_sweep(sweep, seeds=range(1, 8), epochs=8)
    arms, claims = ("loss=mse weights=baseline", "loss=smoothl1 weights=basic"), {"claims": []}
    design = Design(None, 30, 1, arms, (9000,), claims, "95 %", "dev_f1", {"commit": None, "dirty": False})
    record_design(sweep, design)
    names = {path.parent.name for path in sweep.glob("*/run.json")}
    for name in ("5", "6"):
        RunFolder.open(sweep / name).set_status("pruned", "ended at the target")
    RunFolder.open(sweep / "7").set_status("failed", "no luck")
    pack(sweep, tmp_path / "file.parquet")
    unpack(tmp_path / "file.parquet", again)
    assert read_designs(again) == (design,)
    assert {path.parent.name for path in again.glob("*/run.json")} == names - {"7"}
    assert RunFolder.open(again / "5").info["status"] == "pruned"


def test_settings_and_curves_are_kept_and_paths_are_not(sweep, unpacked):
    for name in ("0", "17"):
        before, after = (RunFolder.open(folder / name) for folder in (sweep, unpacked[1]))
        assert before.info["host"] == "simulated"
        assert (after.info["host"], after.info["started"]) == (None, None)
        for key in ("config", "choices", "seed", "role", "status", "epochs"):
            assert after.info[key] == before.info[key]
        old, new = (pd.DataFrame(run.history_rows()) for run in (before, after))
        assert len(old) == len(new)
        train = old["split"] == "train"
        assert list(old.columns) == list(new.columns)
        np.testing.assert_array_equal(old["step"], new["step"])
        for column in old.columns.drop(["step", "epoch", "split"]):
            np.testing.assert_allclose(new.loc[train, column], old.loc[train, column].astype(float), rtol=2e-7)


def test_an_archive_holds_no_machine_and_no_folder(sweep, tmp_path):
    info = RunFolder.open(sweep / "0").info
    rows = RunFolder.open(sweep / "0").history_rows()
    kept = {key: info[key] for key in info if key not in ("schema", "status", "reason", "objective", "history_sha256")}
    config = info["config"] | {"data": {**info["config"]["data"], "root": "/home/ada/meld", "cache": "/home/ada/c"}}
    run = RunFolder.create(tmp_path / "runs/0", kept | {"config": config | {"fork": "/home/ada/old"}, "host": "ada-pc"})
    run.write_history(rows)
    run.set_status("completed", "in /home/ada", 0.5)
    pack(tmp_path / "runs", tmp_path / "kept.parquet")
    unpack(tmp_path / "kept.parquet", tmp_path / "again")
    written = b"".join(path.read_bytes() for path in (tmp_path / "again/0").iterdir())
    table = str(pq.read_table(tmp_path / "kept.parquet").to_pylist())
    for secret in ("ada-pc", "/home/ada", str(tmp_path), "2026-01-31"):
        assert secret not in table
        assert secret.encode() not in written


def test_the_same_sweep_gives_the_same_bytes_and_few_of_them(sweep, unpacked, tmp_path):
    pack(unpacked[1], tmp_path / "twice.parquet")
    pack(sweep, tmp_path / "once.parquet")
    assert (tmp_path / "once.parquet").read_bytes() == unpacked[0].read_bytes()
    size = sum(path.stat().st_size for path in sweep.rglob("*.*"))
    assert unpacked[0].stat().st_size < size / 4


def test_each_header_is_written_once(tmp_path):
    """Above 1 MiB of different headers, Parquet would write one per row, which unpack refuses for a large sweep."""
    size = 400_000
    steps = range(1, 1000)
    columns = {"step": steps, "epoch": [float(n) for n in steps], "split": ["dev"] * 999, "nll": [1.0] * 999}
    for run in range(4):
        write_run(tmp_path / "sweep" / str(run), columns, {"sweep_name": str(run) * size}, seed=run)
    pack(tmp_path / "sweep", tmp_path / "file.parquet")
    assert decoded_bytes((tmp_path / "file.parquet").read_bytes()) < 5 * size


@pytest.mark.slow
@pytest.mark.soak("takes 5 s; the other tests pack all columns")
def test_a_smaller_file_holds_the_columns_that_were_asked_for(sweep, unpacked, restored, tmp_path, capsys):
    file, folder = tmp_path / "few.parquet", tmp_path / "few"
    assert main(["pack", str(sweep), str(file), "--columns", "f1_weighted, nll"]) == 0
    assert main(["unpack", str(file), str(folder)]) == 0
    assert file.stat().st_size < unpacked[0].stat().st_size / 2
    few, all_ = (pd.DataFrame(RunFolder.open(path / "17").history_rows()) for path in (folder, unpacked[1]))
    assert list(few.columns) == ["step", "epoch", "split", "f1_weighted", "nll"]
    pd.testing.assert_frame_equal(few, all_[few.columns])
    before, after = restored.verdict_table, findings_of(folder).verdict_table
    shown = ["claim", "metric", "verdict", "estimate"]
    kept = before[before["metric"].str.contains("f1_weighted|nll")]
    pd.testing.assert_frame_equal(
        kept[shown].reset_index(drop=True), after[after["metric"].isin(kept["metric"])][shown].reset_index(drop=True)
    )
    assert len(kept) >= 4

    capsys.readouterr()
    assert main(["pack", str(sweep), str(tmp_path / "none.parquet"), "--columns", "f1_weighted,f2"]) == 2
    assert "columns: expected some of accuracy, " in (error := capsys.readouterr().err)
    assert error.rstrip().endswith("; got f2")
    assert not (tmp_path / "none.parquet").exists()


def test_a_folder_without_complete_runs_is_refused(sweep, tmp_path, capsys):
    assert main(["pack", str(tmp_path), str(tmp_path / "x.parquet")]) == 2
    assert "expected a folder with complete runs, found none" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()


def changed(file, **columns):
    table = pq.read_table(file)
    for name, value in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array([value] * table.num_rows))
    return table


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b""), "expected an archive"),
        (lambda file: file.write_bytes(file.read_bytes()[:-500]), "expected an archive"),
        (lambda file: pq.write_table(pa.table({"run": ["0"]}), file), "expected joyful_archive=1 in the metadata"),
        (
            lambda file: pq.write_table(changed(file, run="../0"), file),
            r"run names that are folder names, got '\.\./0'",
        ),
        (lambda file: pq.write_table(changed(file, run=".."), file), "expected run names"),
        (lambda file: pq.write_table(changed(file, header="{}"), file), "expected headers with the keys status, "),
        (lambda file: pq.write_table(changed(file, header="["), file), "expected an archive"),
    ],
)
def test_another_file_is_refused_in_one_line_and_nothing_is_written(damage, message, unpacked, tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(unpacked[0].read_bytes())
    damage(file)
    with pytest.raises(InputError, match=message):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_refused(unpacked, sweep, tmp_path, capsys):
    assert main(["unpack", str(unpacked[0]), str(sweep)]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err
    assert main(["unpack", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
