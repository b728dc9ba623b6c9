"""Reading many runs with helper processes gives the same frame as without, even if a helper fails."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.records import InputError
from joyful.results import RunFolder, batches, load, read_runs, read_timing, reading, tables

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


def with_helpers(monkeypatch: pytest.MonkeyPatch, helpers: int, batch: int = 2) -> None:
    monkeypatch.setattr(batches, "BATCH", batch)
    real = batches.read_batches
    monkeypatch.setattr(reading, "read_batches", lambda items, columns: real(items, columns, helpers))


@pytest.mark.parametrize("columns", [None, ["nll", "own"], ["lr"]])
def test_helpers_give_the_same_frame(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str] | None) -> None:
    with_helpers(monkeypatch, 0, 100)
    plain = read_runs(folder, columns)
    with_helpers(monkeypatch, 2)
    shared = read_runs(folder, columns)
    pd.testing.assert_frame_equal(plain.frame, shared.frame)
    assert plain.frame.attrs == shared.frame.attrs
    assert plain.headers == shared.headers
    assert plain.damaged == shared.damaged
    assert plain.differences == shared.differences
    assert [header.name for header in plain.damaged] == ["run_4"]
    assert plain.headers[3].reason == "déjà vu"
    assert plain.headers[-1].rows == 0


def test_helpers_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this process reads nothing, every batch comes from a helper."""
    monkeypatch.setattr(batches, "BATCH", 2)
    requests: list[int] = []
    real = batches._request
    monkeypatch.setattr(batches, "_request", lambda *arguments: requests.append(1) or real(*arguments))

    def never(items: object, columns: object, pool: object) -> batches.Batch:
        raise AssertionError("this process reads too")

    monkeypatch.setattr(batches, "read_batch", never)
    real_start = batches.threading.Thread.start

    def start_and_wait(thread: object) -> None:
        real_start(thread)  # type: ignore[arg-type]
        thread.join()  # type: ignore[attr-defined]

    monkeypatch.setattr(batches.threading.Thread, "start", start_and_wait)
    items, _ = reading._find(folder)
    read = batches.read_batches(items, ["nll"], helpers=1)
    assert [len(batch.headers) for batch in read] == [2] * 6 + [1]
    assert len(requests) == 7


HALF = '{"headers": [], "columns": [["nll", "<f8", 9]]}\n12'  # 3 bytes of the declared 72


@pytest.mark.parametrize(
    "child",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.stdin.readline(); sys.exit(3)",
        "import sys; sys.stdin.readline(); print('{}', flush=True)",
        "import sys; sys.stdin.readline(); print('{\"headers\": [], \"columns\": []}', flush=True)",
        f"import sys; sys.stdin.readline(); print({HALF!r}, flush=True)",
    ],
)  # fmt: skip
def test_the_batch_of_a_dead_helper_is_read_here(folder: Path, monkeypatch: pytest.MonkeyPatch, child: str) -> None:
    with_helpers(monkeypatch, 0, 100)
    plain = read_runs(folder)
    monkeypatch.setattr(batches, "_CHILD", child)
    with_helpers(monkeypatch, 2)
    pd.testing.assert_frame_equal(read_runs(folder).frame, plain.frame)


def test_without_an_interpreter_to_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with_helpers(monkeypatch, 2)
    assert len(read_runs(folder).headers) == 12


def test_an_error_in_this_process_stops_the_helpers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(items: object, columns: object, pool: object) -> batches.Batch:
        raise MemoryError

    monkeypatch.setattr(batches, "read_batch", broken)
    with_helpers(monkeypatch, 1, 1)
    before = {thread.name for thread in batches.threading.enumerate()}
    with pytest.raises(MemoryError):
        load(folder)
    for thread in batches.threading.enumerate():
        if thread.name not in before:
            thread.join(20)
            assert not thread.is_alive()


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
    """The last schema is cached; another schema, valid or not, is checked all the same."""
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


def test_read_timing(folder: Path, tmp_path: Path) -> None:
    assert read_timing(folder / "run_1") == [{"epoch": 0.5, "phase": "train", "seconds": 1.5}]
    assert read_timing(tmp_path) == []
    (tmp_path / "timing.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"timing\.parquet: .*; delete it to continue without timings"):
        read_timing(tmp_path)
