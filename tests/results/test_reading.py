"""Many runs as one frame: damaged runs, runs without rows, and histories with different columns."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from joyful.records import InputError
from joyful.results import RunFolder, read_runs, read_timing, tables

HEADER = {
    "objective_name": "dev f1_weighted", "role": "comparison", "epochs": 2, "config_hash": "0123456789abcdef",
    "git": {"commit": None, "dirty": None}, "device": "cpu", "threads": 1, "choices": {"loss": "mse"},
}  # fmt: skip


def make_run(path: Path, seed: int, **extra: float) -> None:
    config = {
        "seed": seed,
        "loss": {"name": "mse"},
        "x": {"infinite": float("inf") if seed == 2 else None, "l": [seed]},
    }
    run = RunFolder.create(path, HEADER | {"seed": seed, "config": config})
    rows = [
        {"step": step, "epoch": step / 2, "split": split, "nll": seed + step / 7} | extra
        for step in (1, 2)
        for split in ("dev", "test", "train")[: 2 + step % 2]
    ]
    run.write_history(rows)
    run.write_timing([{"epoch": 0.5, "phase": "train", "seconds": 1.5}])
    run.set_status("completed", reason="déjà vu" if seed == 3 else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in range(12):
        make_run(root / f"run_{seed}", seed, **({"own": 1.0} if seed == 5 else {}))
    (root / "run_4" / "history.parquet").write_bytes(b"damaged")
    RunFolder.create(root / "run_empty", HEADER | {"seed": 99, "config": {}})
    return root


def test_damaged_and_empty_runs(folder: Path) -> None:
    runs = read_runs(folder)
    assert [header.name for header in runs.damaged] == ["run_4"]
    assert [header.name for header in runs.headers] == [*(f"run_{i}" for i in range(12) if i != 4), "run_empty"]
    assert runs.headers[3].reason == "déjà vu"
    assert runs.headers[-1].rows == 0
    assert len(runs.frame) == 11 * 5


def test_a_column_of_some_runs_is_nan_in_the_others(folder: Path) -> None:
    frame = read_runs(folder, ["nll", "own"]).frame
    assert list(frame.columns[-2:]) == ["nll", "own"]
    own = frame.groupby("run", observed=True)["own"].sum(min_count=1)
    assert own.dropna().to_dict() == {"run_5": 5.0}
    # by hand: the rows of `make_run`, in the order of the file
    seven = frame[frame["run"] == "run_7"]
    assert list(seven["split"]) == ["dev", "test", "train", "dev", "test"]
    assert seven["nll"].tolist() == [7 + 1 / 7] * 3 + [7 + 2 / 7] * 2
    assert list(frame["split"].cat.categories) == ["train", "dev", "test"]


def test_a_column_that_no_run_has(folder: Path) -> None:
    with pytest.raises(InputError, match="no run has a column absent"):
        read_runs(folder, ["absent"])
    frame = read_runs(folder, ["absent", "nll"], absent_as_nan=True).frame
    assert frame["absent"].isna().all()
    assert frame["absent"].dtype == np.float64
    assert frame["nll"].notna().all()


def test_category_codes_of_runs_index_the_headers(folder: Path) -> None:
    runs = read_runs(folder, ["nll"])
    for code, header in enumerate(runs.headers):
        assert (runs.frame["run"].cat.codes == code).sum() == header.rows
    assert list(runs.frame["run"].cat.categories) == [header.name for header in runs.headers]


def test_schemas_of_one_process_do_not_mix(tmp_path: Path) -> None:
    """Every schema is checked, whichever was read before."""
    good = tables.history_bytes([{"step": 1, "epoch": 1.0, "split": "dev", "nll": 0.5}])
    assert tables.decode(good).num_rows == 1
    frame = pd.DataFrame({"step": [1], "epoch": [1.0], "split": ["dev"], "nll": ["text"]})
    frame.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="column nll: expected numbers"):
        tables.decode((tmp_path / "bad.parquet").read_bytes())
    frame.assign(nll=np.float32(0.5)).to_parquet(tmp_path / "other.parquet")
    table = tables.decode((tmp_path / "other.parquet").read_bytes())
    assert str(table.schema.field("nll").type) == "double"
    assert tables.decode(good).schema.names[:3] == ["step", "epoch", "split"]


@pytest.mark.parametrize(
    "split",
    [
        pa.array(["dev", "train"], pa.large_string()),
        pa.array(["dev", "train"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), ["train", "dev", "other"], ordered=True),
    ],
)
def test_text_of_every_kind_is_a_split(folder: Path, tmp_path: Path, split: pa.Array) -> None:
    """Runs of other writers and ours make one frame."""
    shutil.copytree(folder / "run_1", tmp_path / "ours")
    (tmp_path / "theirs" / ".hydra").mkdir(parents=True)
    table = pa.table({"step": pa.array([1, 2], pa.uint8()), "epoch": [1, 2], "split": split, "nll": [None, True]})
    pq.write_table(table, tmp_path / "theirs" / "history.parquet")
    runs = read_runs(tmp_path)
    assert not runs.damaged
    theirs = runs.frame[runs.frame["run"] == "theirs"]
    assert list(theirs["split"]) == ["dev", "train"]
    assert list(theirs["step"]) == [1, 2]
    assert theirs["nll"].isna().tolist() == [True, False]
    assert len(runs.frame) == 7


def test_read_timing(folder: Path, tmp_path: Path) -> None:
    assert read_timing(folder / "run_1") == [{"epoch": 0.5, "phase": "train", "seconds": 1.5}]
    assert read_timing(tmp_path) == []
    (tmp_path / "timing.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"timing\.parquet: .*; delete it to continue without timings"):
        read_timing(tmp_path)
