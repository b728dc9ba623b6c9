"""Import of CSV tables: the run folders hold the values of the table, and a bad table gives a one-line error."""

from __future__ import annotations

import filecmp
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joyful.analysis.importers.__main__ import main
from joyful.results import arm_columns, load, read_run
from joyful.results.csv_text import MAXIMUM_RECORD

HEADER = "arm,seed,step,epoch,split,f1_weighted,nll\n"
ROW = "baseline,1,50,1,dev,0.412,1.61\n"


def table(tmp_path: Path, content: str | bytes, name: str = "curves.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def run(source: Path, out: Path, *options: str) -> int:
    return main(["csv", str(source), "--out", str(out), *options])


def imported(tmp_path: Path, content: str | bytes, *options: str) -> pd.DataFrame:
    assert run(table(tmp_path, content), tmp_path / "runs", *options) == 0
    return load(tmp_path / "runs")


def test_values_arms_and_seeds_are_those_of_the_table(tmp_path):
    frame = imported(
        tmp_path,
        HEADER
        + "baseline,1,50,1,train,0.455,1.48\n"
        + ROW
        + "smoothl1,1,50,1,dev,0.437,\n"
        + "smoothl1,1,100,2,dev,nan,1.5e0\n",
    )
    assert arm_columns(frame) == ["arm"]
    rows = frame[["arm", "seed", "role", "status", "step", "epoch", "split", "f1_weighted", "nll"]]
    # By hand, from the table above. Within a step, load returns train before dev.
    assert rows[["arm", "seed", "role", "status", "step", "epoch", "split"]].astype(str).to_numpy().tolist() == [
        ["baseline", "1", "comparison", "completed", "50", "1.0", "train"],
        ["baseline", "1", "comparison", "completed", "50", "1.0", "dev"],
        ["smoothl1", "1", "comparison", "completed", "50", "1.0", "dev"],
        ["smoothl1", "1", "comparison", "completed", "100", "2.0", "dev"],
    ]
    assert rows.f1_weighted.tolist()[:3] == [0.455, 0.412, 0.437]
    assert math.isnan(rows.f1_weighted[3])
    assert math.isnan(rows.nll[2])
    assert rows.nll.tolist()[3] == 1.5


def test_content_of_run_json(tmp_path):
    imported(tmp_path, HEADER + ROW + "baseline,2,50,1,dev,0.5,1\nbaseline,2,100,2,dev,0.4,1\n")
    first, second = (read_run(tmp_path / "runs" / f"baseline-seed-{seed}") for seed in (1, 2))
    assert (first["epochs"], second["epochs"]) == (1, 2)  # each run has its own last epoch
    assert (first["objective"], second["objective"]) == (0.412, 0.5)
    assert first["config"] == {"arm": "baseline"}
    assert first["host"] is None
    assert first["versions"] == {}


def test_renamed_columns_per_cent_other_split_names_and_a_setting_grid(tmp_path):
    frame = imported(
        tmp_path,
        "lr_id;Seed;epoch;split;val/f1;weights.encoder_loss_weight;note\n"
        "x;3;0;val;41.2;0.05;hello\n"
        "x;3;1;Validation;50;0.05;\n"
        "x;3;0;train;60;0.1;\n",
        "--delimiter", ";", "--rename", "val/f1=f1_weighted", "--rename", "Seed=seed", "--rename", "lr_id=arm",
        "--percent", "f1_weighted", "--metrics", "f1_weighted", "--epochs-from", "0",
    )  # fmt: skip
    assert arm_columns(frame) == ["weights.encoder_loss_weight"]
    values = frame[["weights.encoder_loss_weight", "epoch", "step", "f1_weighted"]].sort_values(
        ["weights.encoder_loss_weight", "epoch"]
    )
    # Without a column step, evaluations are numbered
    expected = [[0.05, 1, 1, 0.412], [0.05, 2, 2, 0.5], [0.1, 1, 1, 0.6]]
    assert values.to_numpy().tolist() == [pytest.approx(row, abs=1e-15) for row in expected]


def test_roles_and_seconds(tmp_path):
    frame = imported(
        tmp_path,
        "arm,seed,step,epoch,split,nll,role,seconds,tokens\na,1,1,1,dev,1,comparison,2.5,100\n"
        "a,1,2,2,dev,1,comparison,6,200\na,9000,1,1,dev,1,calibration,,\n",
    )
    assert frame[["seed", "role", "seconds", "tokens"]].astype(object).to_numpy().tolist() == [
        [1, "comparison", 2.5, 100], [1, "comparison", 6, 200], [9000, "calibration", pytest.approx(math.nan, nan_ok=True),
        pytest.approx(math.nan, nan_ok=True)],
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "runs/a-seed-1").iterdir()) == ["history.parquet", "run.json"]


def test_rows_in_any_order_and_a_spreadsheets_file(tmp_path):
    content = "\ufeff" + HEADER.replace("\n", "\r\n") + "b,1,100,2,dev,0.5,1\r\n\r\nb,1,50,1,dev,0.4,1\r\n"
    assert imported(tmp_path, content).step.tolist() == [50, 100]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    source = table(tmp_path, HEADER + ROW + ROW.replace("baseline", "other"))
    assert run(source, tmp_path / "a") == run(source, tmp_path / "b") == 0
    names = [str(path.relative_to(tmp_path / "a")) for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()]
    assert len(names) == 4
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False) == (names, [], [])


@pytest.mark.parametrize("arm", ["../../escape", "/etc/passwd", "CON", ". .", "ä ö" * 100, "<b>&amp;</b>", "$x_1$"])
def test_an_arm_may_have_any_name(tmp_path, arm):
    frame = imported(tmp_path, HEADER + ROW + ROW.replace("baseline", f'"{arm}"'))
    assert set(frame.arm) == {"baseline", arm.strip()}
    assert {path.name for path in tmp_path.iterdir()} == {"curves.csv", "runs"}
    assert all(len(path.name) < 100 and path.parent == tmp_path / "runs" for path in (tmp_path / "runs").iterdir())


def test_arms_with_the_same_folder_name_get_different_folders(tmp_path):
    frame = imported(tmp_path, HEADER + "a b,1,50,1,dev,0.4,1\na/b,1,50,1,dev,0.5,1\nA_B,1,50,1,dev,0.6,1\n")
    assert frame.groupby("arm", observed=True).f1_weighted.first().to_dict() == {"a b": 0.4, "a/b": 0.5, "A_B": 0.6}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "curves.csv: expected a header such as arm,seed,step"),
        (HEADER, "expected at least one run, got none"),
        ("arm,seed,split,nll\n", "line 1: the header lacks step or epoch"),
        ("seed,step,epoch,split,nll\n", "line 1: the header lacks arm"),
        ("arm,seed,epoch,split,nll,nll\n", "line 1: the header has 'nll' more than once"),
        ("arm,seed,epoch,split\n", "line 1: expected a column with a metric"),
        ("arm,seed,epoch,split,%\n", "line 1: metric '%': expected a name that starts with a letter"),
        ("arm,seed,epoch,nll\n", "line 1: metric 'nll': the split is not known; set --split-prefix 'nll=dev'"),
        ("arm,seed,epoch,split,F1,f1\na,1,1,dev,1,1\n", "metrics 'F1' and 'f1' both become f1 (train); set --rename 'f1=NAME'"),
        ("arm,seed,epoch,split,status\n", "metric 'status'"),
        (HEADER + ROW + "b,1,50,1,dev,0.4\n", "line 3: expected 7 columns as in the header, got 6"),
        (HEADER + ROW + "b,x,50,1,dev,0.4,1\n", "line 3: seed: expected a number"),
        (HEADER + "b,1.5,50,1,dev,0.4,1\n", "line 2: seed: expected an integer, got '1.5'"),
        (HEADER + "b,1,-1,1,dev,0.4,1\n", "line 2: step: expected an integer >= 0, got -1"),
        (HEADER + "b,1,1e400,1,dev,0.4,1\n", "line 2: step: expected an integer"),
        (HEADER + "b,1,50,inf,dev,0.4,1\n", "line 2: epoch: expected a number >= 0, got 'inf'"),
        (HEADER + "b,1,50,0,dev,0.4,1\n", "line 2: epoch 0 is ambiguous; set --epochs-from 0"),
        (HEADER + "b,1,50,1,holdout,0.4,1\n", "line 2: split: expected train, dev"),
        (HEADER + "b,1,50,1,dev,41.2,1\n", "line 2: f1_weighted: expected a fraction from 0 to 1, got '41.2'; for per"),
        (HEADER + 'b,1,50,1,dev,"0,4",1\n', "line 2: f1_weighted: expected a number (empty where not measured), got '0,4'; use a"),
        (HEADER + "b,1,50,1,dev,1_0,1\n", "line 2: f1_weighted: expected a number"),
        (HEADER + ",1,50,1,dev,0.4,1\n", "line 2: arm: expected a value"),
        (HEADER + ROW + "\n" + ROW, "line 4: step 50, dev of this run is already in line 2"),
        (HEADER + ROW + "baseline,1,60,0.5,dev,0.4,1\n", "line 3: epoch 0.5 at step 60, but line 2 has epoch 1"),
        (HEADER + 'b,1,50,1,dev,"0.4,1\n', "line 2: not a CSV record (unexpected end of data)"),
        (HEADER + "b,1,50,1,dev,0.4,1\0\n", "line 2: not UTF-8 text"),
        (HEADER.encode() + b"\xff,1,50,1,dev,0.4,1\n", "line 2: not UTF-8 text; save the file"),
        ((HEADER + ROW).encode("utf-16"), "line 1: not UTF-8 text"),
        (HEADER + "b" * (MAXIMUM_RECORD + 1), f"line 2: the record has more than {MAXIMUM_RECORD} characters"),
        ("arm,seed,epoch,split," + ",".join(f"m{i}" for i in range(10_000)), "expected at most 1000 columns, got 10004"),
        ("arm,seed,epoch,split," + ",".join(f"m{i}" for i in range(1_000_000)), f"more than {MAXIMUM_RECORD} characters"),
        ("seed,epoch,split,nll,a.b,a.b.c\n1,1,dev,1,2,3\n", "line 2: setting a.b.c: b is already a setting"),
    ],
)  # fmt: skip
def test_a_bad_table_gives_an_error_with_its_line_and_writes_nothing(tmp_path, capsys, content, message):
    assert run(table(tmp_path, content), tmp_path / "runs") == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert len(error) < 1000
    assert str(tmp_path / "curves.csv") in error
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rename", "x=arm"), "--rename: expected metrics of the source ('f1_weighted', 'nll'), got 'x'"),
        (("--rename", "x"), "--rename 'x': expected FROM=TO"),
        (("--metrics", "f1"), "--metrics: expected columns of the table ('f1_weighted', 'nll'), got 'f1'"),
        (("--percent", "f1"), "--percent: expected metrics of the source ('f1_weighted', 'nll'), got 'f1'"),
        (("--delimiter", ""), "--delimiter: expected one character"),
        (("--delimiter", ";"), "the header lacks"),
    ],
)
def test_bad_options_give_an_error(tmp_path, capsys, options, message):
    assert run(table(tmp_path, HEADER + ROW), tmp_path / "runs", *options) == 2
    assert message in capsys.readouterr().err


def test_bad_role_and_decreasing_seconds(tmp_path, capsys):
    assert run(table(tmp_path, "arm,seed,epoch,split,nll,role\na,1,1,dev,1,pilot\n"), tmp_path / "runs") == 2
    assert "line 2: role: expected comparison, calibration, search, got 'pilot'" in capsys.readouterr().err
    text = "arm,seed,epoch,split,nll,seconds\na,1,1,dev,1,9\na,1,2,dev,1,8\n"
    assert run(table(tmp_path, text), tmp_path / "runs") == 2
    assert "the seconds of this run decrease at step 2" in capsys.readouterr().err


def test_a_missing_file_a_folder_and_a_folder_that_is_not_empty(tmp_path, capsys):
    assert run(tmp_path / "none.csv", tmp_path / "runs") == 2
    assert run(tmp_path, tmp_path / "runs") == 2
    source = table(tmp_path, HEADER + ROW)
    assert run(source, tmp_path) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(source, tmp_path / "empty") == 0


def test_a_failed_write_leaves_nothing_and_gives_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(table(tmp_path, HEADER + ROW), tmp_path / "file" / "runs") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"curves.csv", "file"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=300), st.text('a1,."\n-e\0é', max_size=120).map(lambda t: (HEADER + t).encode())
    )
)
def test_no_content_raises(tmp_path, capsys, content):
    number = len(list(tmp_path.iterdir()))
    assert run(table(tmp_path, content, f"{number}.csv"), tmp_path / f"out-{number}") in (0, 2)
