"""The results format: round trips, deterministic bytes, and the columns of a loaded frame."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful import results
from joyful.records import InputError
from joyful.results import RunFolder, arm_columns, load, tables

HEADER = {
    "objective_name": "dev f1_weighted", "seed": 1, "role": "comparison", "epochs": 3, "config_hash": "0123456789abcde",
    "device": "cpu", "threads": 1, "choices": {"loss": "mse"}, "config": {"loss": {"name": "mse"}},
}  # fmt: skip

# The columns as the design lists them, written out by hand.
DOCUMENTED = [
    "step", "epoch", "split", "accuracy", "f1_weighted", "f1_macro", "nll", "recon_mse", "recon_mae", "loss_total",
    "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg", "weight_classification",
    "weight_contrastive", "weight_encoder", "weight_gate_reg", "share_classification", "share_contrastive",
    "share_encoder", "share_gate_reg", "encoder_gradient_ratio", "encoder_gradient_cosine", "lr",
]  # fmt: skip


def evaluation(step: int, **train: float) -> list[dict]:
    return [
        {"step": step, "epoch": float(step), "split": split, "f1_weighted": step / 100 + place / 1000, "nll": 1 / step}
        | (train if split == "train" else {})
        for place, split in enumerate(("train", "dev", "test"))
    ]


def make_run(path: Path, seed: int = 1, choices: dict | None = None, config: dict | None = None, **header) -> RunFolder:
    run = RunFolder.create(path, HEADER | {"seed": seed, "choices": choices or {}, "config": config or {}} | header)
    run.write_history(evaluation(1) + evaluation(2))
    run.set_status("completed", objective=0.5)
    return run


# Writing and reading back


def test_round_trip(tmp_path: Path) -> None:
    rows = evaluation(1, grad_norm_fusion=0.5) + evaluation(2, grad_norm_fusion=0.25)
    run = RunFolder.create(tmp_path / "run", HEADER)
    run.write_history(rows)
    run.write_timing([{"epoch": 1, "phase": "train", "seconds": 2.5}])
    run.set_status("completed", reason="all epochs", objective=0.5)

    again = RunFolder.open(tmp_path / "run")
    assert again.history_rows() == [dict(sorted(row.items(), key=lambda item: _place(item[0]))) for row in rows]
    assert again.timing_rows() == [{"epoch": 1.0, "phase": "train", "seconds": 2.5}]
    assert (again.info["status"], again.info["reason"], again.info["objective"]) == ("completed", "all epochs", 0.5)
    assert sorted(os.listdir(tmp_path / "run")) == ["history.parquet", "run.json", "timing.parquet"]


def test_run_json_has_the_keys_of_the_design(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert " ".join(info) == (
        "schema status reason objective objective_name seed role epochs config_hash data git versions device threads "
        "started host choices config history_sha256"
    )
    assert info["schema"] == 1
    assert set(info["git"]) == {"commit", "dirty"}
    assert len(info["history_sha256"]) == 1


def test_a_new_run_has_a_history_without_rows(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", HEADER)
    assert run.info["status"] == "running"
    assert run.history_rows() == []
    frame = load(tmp_path)
    assert len(frame) == 0
    assert frame.attrs["empty"] == ["run"]
    assert frame.attrs["damaged"] == {}


def test_numbers_that_are_not_finite_become_null_in_json(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", HEADER | {"config": {"a": [math.inf, np.float32(0.5)], "b": np.int64(3)}})
    run.set_status("failed", reason="NaN", objective=math.nan)
    info = json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=pytest.fail)
    assert info["objective"] is None
    assert info["config"] == {"a": [None, 0.5], "b": 3}
    with pytest.raises(InputError, match=r"config\.a\[1\].*got object"):
        run.update({"config": {"a": [1, object()]}})


def test_create_refuses_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(InputError, match="already contains a run; resume it with resume="):
        RunFolder.create(tmp_path / "run", HEADER)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(InputError, match="already contains a run"):  # written by a program without run.json
        RunFolder.create(tmp_path / "run", HEADER)


def test_create_names_missing_and_unknown_keys(tmp_path: Path) -> None:
    header = {key: value for key, value in HEADER.items() if key != "epochs"} | {"epoch": 3}
    with pytest.raises(InputError, match="missing: epochs, unknown: epoch"):
        RunFolder.create(tmp_path / "run", header)


def test_open_and_load_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the folder of a run, but it has no run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(InputError, match="expected a folder of runs, found nothing there"):
        load(tmp_path / "none")
    assert len(load(tmp_path)) == 0


def test_update_and_status(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.update({"host": "other", "epochs": 5})
    run.set_status("running")
    info = results.read_run(tmp_path / "run")
    assert (info["host"], info["epochs"], info["status"], info["objective"]) == ("other", 5, "running", None)
    with pytest.raises(InputError, match="expected one of running, completed, pruned, failed, interrupted, got 'done'"):
        run.set_status("done")
    with pytest.raises(InputError, match="got status"):
        run.update({"status": "failed"})


# The bytes of a history


def test_columns_have_the_order_of_the_design() -> None:
    rows = evaluation(1, zeta=1.0, grad_norm_z=1.0, grad_norm_a=1.0, alpha=1.0)
    schema = pq.read_schema(_file(tables.history_bytes(rows)))
    before, after = DOCUMENTED[:22], DOCUMENTED[22:]
    assert schema.names == [*before, "grad_norm_a", "grad_norm_z", *after, "alpha", "zeta"]
    assert list(results.HISTORY_COLUMNS) == DOCUMENTED
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds.pop("step") == "int64"
    assert kinds.pop("split") == "string"
    assert set(kinds.values()) == {"double"}
    assert schema.metadata is None


DIGEST = """
import hashlib, sys
from joyful.results import tables
nan = float("nan")
rows = [
    {"nll": 0.1, "b": 2.0, "split": split, "grad_norm_y": 1.0, "a": 1.5, "grad_norm_x": nan, "step": i, "epoch": i / 4}
    for i in range(9) for split in ("train", "dev")
]
for row in rows[::3]:
    del row["a"]
if sys.argv[1] == "backwards":
    rows = [dict(reversed(row.items())) for row in rows]
print(hashlib.sha256(tables.history_bytes(rows)).hexdigest())
"""


def test_same_rows_are_the_same_bytes_in_another_process() -> None:
    digests = set()
    for hash_seed, order in (("1", "forwards"), ("2", "backwards")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", DIGEST, order]
        digests.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1


VALUES = st.none() | st.floats() | st.integers(-(2**53), 2**53)
NAMES = st.sampled_from(["nll", "lr", "grad_norm_a", "grad_norm_b", "share_encoder", "own", "z9"])


@pytest.mark.slow
@given(st.lists(st.dictionaries(NAMES, VALUES), max_size=6), st.randoms())
def test_rows_read_back_give_the_same_bytes(measured: list[dict], random) -> None:
    rows = [{"step": i, "epoch": i / 4, "split": "dev"} | row for i, row in enumerate(measured)]
    data = tables.history_bytes(rows)
    back = tables.history_rows(data)
    assert tables.history_bytes(back) == data
    for row, again in zip(rows, back, strict=True):
        expected = {name: value for name, value in row.items() if value is not None}
        assert again.keys() == expected.keys()
        assert all(again[name] == value or math.isnan(value) for name, value in expected.items() if name != "split")
    shuffled = [dict(random.sample(list(row.items()), len(row))) for row in rows]
    assert tables.history_bytes(shuffled) == data


def test_every_nan_is_one_nan() -> None:
    negative = -np.float64("nan")
    assert math.copysign(1, negative) != math.copysign(1, math.nan)
    rows = [{"step": 1, "epoch": 1, "split": "dev", "nll": value} for value in (negative, math.nan)]
    assert tables.history_bytes(rows[:1]) == tables.history_bytes(rows[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "a row has no step"),
        ({"step": 1.5}, "step: expected an integer from 0 on, got 1.5"),
        ({"step": -1}, "step: expected an integer from 0 on, got -1"),
        ({"step": True}, "step: expected an integer"),
        ({"epoch": math.nan}, "epoch: expected a number from 0 on, got nan"),
        ({"split": "val"}, "split: expected train, dev, test, got 'val'"),
        ({"nll": "0.5"}, "nll at 1, dev: expected a number, got '0.5'"),
        ({"nll": 1j}, "nll at 1, dev: expected a number"),
        ({"run": 1.0}, "column 'run': expected a name of lower-case letters"),
        ({"Loss!": 1.0}, "column 'Loss!': expected a name of lower-case letters"),
    ],
)
def test_rows_that_are_not_a_history_are_refused(change: dict, message: str) -> None:
    row = {"step": 1, "epoch": 1.0, "split": "dev"}
    with pytest.raises(InputError, match=message):
        tables.history_bytes([row | change])


def test_two_rows_of_one_evaluation_and_split_are_refused() -> None:
    with pytest.raises(InputError, match="2 rows of step 1, split train"):
        tables.history_bytes(evaluation(1) + evaluation(1))


# Imports, Git and versions


def test_importing_is_light() -> None:
    code = (
        "import sys, joyful.results; "
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'pandas', 'pyarrow', 'numpy', 'yaml') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results.git_state(tmp_path) == {"commit": None, "dirty": None}
    assert results.git_state(tmp_path / "none") == {"commit": None, "dirty": None}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    git("init")
    assert results.git_state(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    commit = git("rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as a hook of another repository sets it
    assert results.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert results.git_state(tmp_path) == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert results.git_state(tmp_path) == {"commit": None, "dirty": None}


def test_versions() -> None:
    assert set(results.versions()) == {"python", "torch", "hydra-core", "numpy", "joyful"}
    assert results.versions()["numpy"] == np.__version__


# Loading


def test_load_gives_a_row_per_run_evaluation_and_split(tmp_path: Path) -> None:
    for seed in (2, 10, 1):
        make_run(tmp_path / "sub" / f"trial_{seed}", seed=seed)
    frame = load(tmp_path)
    assert list(frame["run"].unique()) == ["sub/trial_1", "sub/trial_2", "sub/trial_10"]
    assert list(frame.columns) == ["run", "status", "seed", "role", *DOCUMENTED]
    assert len(frame) == 3 * 2 * 3
    first = frame[frame["run"] == "sub/trial_2"]
    assert list(first["split"]) == ["train", "dev", "test"] * 2
    assert list(first["step"]) == [1, 1, 1, 2, 2, 2]
    assert first["f1_weighted"].tolist() == [row["f1_weighted"] for row in evaluation(1) + evaluation(2)]
    assert set(first["seed"]) == {2}
    assert set(first["status"]) == {"completed"}
    assert first["lr"].isna().all()
    assert {str(frame[name].dtype) for name in DOCUMENTED} == {"int64", "float64", "category"}
    assert arm_columns(frame) == []


def test_load_reads_only_the_requested_columns(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", HEADER)
    run.write_history(evaluation(1, own=7.0))
    make_run(tmp_path / "b")
    frame = load(tmp_path, columns=["own", "nll", "lr", "seed"])
    assert " ".join(frame.columns) == "run status seed role loss step epoch split nll lr own"
    assert frame["own"].dropna().tolist() == [7.0]
    with pytest.raises(InputError, match="no run has a column f1 in its history; the documented columns are step"):
        load(tmp_path, columns=["f1"])


def test_a_run_can_be_loaded_by_its_own_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert list(load(tmp_path / "run")["run"].unique()) == ["."]


def test_names_of_runs_are_kept_as_text(tmp_path: Path) -> None:
    names = ["a,b=1", "ä ö", "new\nline", "'quote\""]
    for name in names:
        make_run(tmp_path / name)
    odd = os.fsdecode(b"bytes\xff")
    make_run(tmp_path / odd)
    assert set(load(tmp_path)["run"]) == {*names, r"bytes\udcff"}


def test_arm_columns_needs_a_loaded_frame(tmp_path: Path) -> None:
    import pandas as pd

    with pytest.raises(InputError, match="does not record which columns define arms"):
        arm_columns(pd.DataFrame())
    make_run(tmp_path / "a", choices={"loss": "mse"})
    make_run(tmp_path / "b", choices={"loss": "smoothl1"})
    frame = load(tmp_path)
    assert arm_columns(frame[frame["split"] == "dev"]) == ["loss"]


def test_columns_with_equal_names_are_both_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = RunFolder.create(tmp_path / name, HEADER | {"choices": {"loss": name}, "config": {"epoch": name}})
        run.write_history(evaluation(1, loss=7.0))
    frame = load(tmp_path)
    assert list(frame["loss"].unique()) == ["a", "b"]
    assert frame["history.loss"].dropna().tolist() == [7.0, 7.0]
    assert arm_columns(frame) == ["config.epoch", "loss"]


def test_settings_in_a_frame_have_their_types(tmp_path: Path) -> None:
    values = [("a", 1, 0.5, True, "x", [1]), ("b", 2, None, False, None, [2])]
    for name, count, number, flag, text, several in values:
        config = {
            "count": count,
            "number": number,
            "flag": flag,
            "text": text,
            "several": several,
            "mixed": text or 1,
        }
        make_run(tmp_path / name, config=config)
    frame = load(tmp_path, columns=["nll"])
    kinds = {name: str(frame[name].dtype) for name in ("count", "number", "flag", "text", "several", "mixed")}
    assert kinds == {"count": "int64", "number": "float64", "flag": "bool", "text": "category", "several": "category",
                     "mixed": "category"}  # fmt: skip
    assert frame["several"].iloc[0] == "[1]"
    assert frame["number"].isna().sum() == frame["text"].isna().sum() == 6


def _file(data: bytes):
    import pyarrow as pa

    return pa.BufferReader(data)


def _place(name: str) -> tuple[int, str]:
    order = [*DOCUMENTED[:22], "grad_norm_fusion", *DOCUMENTED[22:]]
    return (order.index(name), name)


def test_an_epoch_that_was_not_logged_is_null_and_changes_no_other_history():
    rows = [{"step": step, "epoch": step / 4, "split": "dev", "nll": 0.5} for step in (1, 2)]
    complete = tables.history_bytes(rows)
    assert not pq.read_schema(pa.BufferReader(complete)).field("epoch").nullable
    rows[0] |= {"epoch": None}
    data = tables.history_bytes(rows)
    assert tables.history_rows(data) == [{"step": 1, "split": "dev", "nll": 0.5}, rows[1]]
    assert tables.decode(data).column("epoch").to_pylist() == [None, 0.5]
    del rows[0]["epoch"]
    assert tables.history_bytes(rows) == data


def test_histories_with_and_without_epochs_are_loaded_together(tmp_path):
    for number, epoch in enumerate((1.0, None)):
        run = RunFolder.create(tmp_path / str(number), HEADER | {"seed": number})
        run.write_history([{"step": 5, "epoch": epoch, "split": "dev", "nll": 0.5}])
    frame = load(tmp_path)
    assert frame.step.tolist() == [5, 5]
    assert frame.epoch.isna().tolist() == [False, True]
