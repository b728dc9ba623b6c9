"""Kills, full disks, flipped bits and hostile files: a run is intact, or it is reported as damaged and left out."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from joyful.records import InputError
from joyful.results import (
    ResultsError,
    ResultsWarning,
    RunFolder,
    files,
    load,
    lock,
    parquet_pages,
    remove_leftovers,
    tables,
    write_bytes,
)

HEADER = {
    "objective_name": "dev f1_weighted", "seed": 1, "role": "comparison", "epochs": 3, "config_hash": "0123456789abcde",
    "git": {"commit": None, "dirty": None}, "device": "cpu", "threads": 1, "choices": {}, "config": {},
}  # fmt: skip


def rows(evaluations: int) -> list[dict]:
    return [
        {"step": step, "epoch": float(step), "split": split, "nll": 1 / step, "own": step / 7}
        for step in range(1, evaluations + 1)
        for split in ("train", "dev", "test")
    ]


def make_run(path: Path, evaluations: int = 4) -> RunFolder:
    run = RunFolder.create(path, HEADER)
    run.write_history(rows(evaluations))
    run.set_status("completed")
    return run


def assert_intact(path: Path) -> int:
    """Check that the run reads without a warning, so its digest matches, and return its number of evaluations."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultsWarning)
        frame = load(path)
    assert len(frame) % 3 == 0
    return len(frame) // 3


def assert_damaged(path: Path, reason: str) -> None:
    """Check that `path` has the runs "good" and "bad", and that "bad" is left out with this reason."""
    with pytest.warns(ResultsWarning, match=f"run 'bad' is damaged and left out: .*{reason}") as caught:
        frame = load(path)
    assert set(frame["run"]) <= {"good"}
    assert list(frame.attrs["damaged"]) == ["bad"]
    assert len(caught) == 1


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad")
    return tmp_path


# Kills

WRITER = """
import os, sys
import pyarrow.parquet  # imported once for all writers
from joyful.results import RunFolder

def write():
    run = RunFolder.open(sys.argv[1])
    written = run.history_rows()
    print(os.getpid(), flush=True)
    while True:
        step = len(written) // 3 + 1
        written += [{"step": step, "epoch": float(step), "split": s, "nll": 1 / step} for s in ("train", "dev", "test")]
        run.write_history(written)
        run.write_timing([{"epoch": step, "phase": "train", "seconds": 1.0}])
        run.set_status("running")

for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        write()
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_a_kill_at_any_moment_leaves_an_intact_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", HEADER)
    moments, evaluations = random.Random(0), 0
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "run"], stdin=-1, stdout=-1, text=True) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        for _ in range(12):
            print("start", file=starter.stdin, flush=True)
            writer = int(starter.stdout.readline())
            end = time.monotonic() + moments.uniform(0, 0.2)
            while time.monotonic() < end:
                assert_intact(tmp_path / "run")  # a concurrent reader sees an intact run too
            os.kill(writer, signal.SIGKILL)
            assert starter.stdout.readline() == "dead\n"
            now = assert_intact(tmp_path / "run")
            assert now >= evaluations
            evaluations = now
        starter.stdin.close()
    assert evaluations > 0
    RunFolder.open(tmp_path / "run").set_status("completed")
    names = [name for name in os.listdir(tmp_path / "run") if name != "timing.parquet"]
    assert sorted(names) == ["history.parquet", "run.json"]  # the leftovers of dead writers are removed


class Stop(BaseException):
    """Simulates the end of the process between two system calls."""


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(8))
def test_every_step_of_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool, number: int
) -> None:
    make_run(tmp_path / "run", evaluations=1)
    run = RunFolder.open(tmp_path / "run")
    counter = iter(range(1000))
    real: Callable = getattr(os, call)

    def stopped(*arguments: object) -> None:
        if next(counter) != number:
            return real(*arguments)
        if after:
            real(*arguments)
        raise Stop

    monkeypatch.setattr(files.os, call, stopped)
    try:
        run.write_history(rows(2))
        run.write_history(rows(3))
        run.set_status("completed")
    except Stop:
        pass
    monkeypatch.undo()
    evaluations = assert_intact(tmp_path / "run")
    assert evaluations in (1, 2, 3)
    assert len(RunFolder.open(tmp_path / "run").history_rows()) == 3 * evaluations
    run.set_status("failed")  # after a failed write, the writer continues from the files that exist
    assert assert_intact(tmp_path / "run") == evaluations
    RunFolder.open(tmp_path / "run").write_history(rows(4))
    assert assert_intact(tmp_path / "run") == 4


def test_a_kill_while_a_run_is_created_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyful.results.run_folder.write_json", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        RunFolder.create(tmp_path / "run", HEADER)
    monkeypatch.undo()
    assert load(tmp_path).attrs == {"arms": [], "empty": [], "damaged": {}}
    RunFolder.create(tmp_path / "run", HEADER)
    assert assert_intact(tmp_path / "run") == 0


def test_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    """The age of a file does not matter: after a clock jump, the file of a live writer looks a year old or new."""
    make_run(tmp_path / "run")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    here, year = files._machine(), 365 * 86400
    names = {
        f".run.json.{here}-{process.pid}-01234567.tmp": False,  # dead
        f".run.json.{here}-{os.getpid()}-01234567.tmp": True,  # alive
        f".run.json.{here}0-{process.pid}-01234567.tmp": True,  # unknown: another container, or before a restart
        ".run.json.elsewhere-1-01234567.tmp": True,  # unknown
        ".other.tmp": True,  # not a temporary file of this package
    }
    for name in names:
        (tmp_path / "run" / name).write_bytes(b"{")
    for age in (year, -year):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.utime(tmp_path / "run" / name, (time.time() - age, time.time() - age))
        RunFolder.open(tmp_path / "run")
        assert {name: (tmp_path / "run" / name).exists() for name in names} == names
    with lock(tmp_path / "run"):  # other writers have ended, or lost the lock
        RunFolder.open(tmp_path / "run")
    left = [name for name in names if (tmp_path / "run" / name).exists()]
    assert left == [f".run.json.{here}-{os.getpid()}-01234567.tmp", ".other.tmp"]


def test_the_lock_of_a_run_is_that_of_its_checkpoints_and_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    leftover = ".last.json.elsewhere-1-01234567.tmp"
    for place in ("run/checkpoint", "other"):
        (tmp_path / place / leftover).touch()
    with lock(tmp_path / "run"):
        assert remove_leftovers(tmp_path / "run/checkpoint") == [leftover]
        assert remove_leftovers(tmp_path / "other") == []
    assert remove_leftovers(tmp_path / "other") == []


def test_a_new_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "cache/encoder"
    with pytest.raises(IsADirectoryError), files.new_folder(folder) as temporary:
        temporary.write_bytes(b"not a folder")
    assert list(folder.parent.iterdir()) == []
    killed = "import sys; from pathlib import Path; from joyful.results import files\n"
    killed += "with files.new_folder(Path(sys.argv[1])) as f: (f / 'weights').touch(); print(flush=True); input()"
    writer = subprocess.Popen(
        [sys.executable, "-c", killed, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.kill()
    writer.communicate()
    assert len(list(folder.parent.iterdir())) == 1  # hidden
    with files.new_folder(folder) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep/weights").write_bytes(b"first")
        (temporary / "deep/weights").chmod(0o600)
    assert list(folder.parent.iterdir()) == [folder]
    assert (folder / "deep/weights").stat().st_mode & 0o777 == 0o644
    with pytest.raises(FileExistsError), files.new_folder(folder) as temporary:
        (temporary / "weights").write_bytes(b"second")
    assert [path.read_bytes() for path in folder.rglob("weights")] == [b"first"]
    assert list(folder.parent.iterdir()) == [folder]


# Failing writes

LIMITED = """
import resource, sys
from joyful.results import RunFolder, ResultsError
run = RunFolder.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
rows = [{"step": i, "epoch": float(i), "split": "dev", "nll": i / 7} for i in range(5000)]
try:
    run.write_history(rows)
except ResultsError as error:
    print(error)
    run.set_status("failed", reason=str(error))
"""


def test_a_failed_write_keeps_the_old_history(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    old = (tmp_path / "run" / "history.parquet").read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "run"], capture_output=True, text=True, check=True
    )
    assert "history.parquet (" in result.stdout
    assert "cannot be written in" in result.stdout
    assert "The previous file is intact; raise the limit on file sizes" in result.stdout
    assert (tmp_path / "run" / "history.parquet").read_bytes() == old
    assert sorted(os.listdir(tmp_path / "run")) == ["history.parquet", "run.json"]
    assert assert_intact(tmp_path / "run") == 4
    assert set(load(tmp_path / "run")["status"]) == {"failed"}


@pytest.mark.parametrize("number", range(4))
def test_an_error_of_any_fsync_leaves_an_intact_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = make_run(tmp_path / "run", evaluations=1)
    counter, real = iter(range(1000)), os.fsync

    def fsync(descriptor: int) -> None:
        if next(counter) == number:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(ResultsError, match=r"No space left on device.*free some space"):
        run.write_history(rows(2))
    assert assert_intact(tmp_path / "run") in (1, 2)
    run.set_status("failed")
    assert assert_intact(tmp_path / "run") in (1, 2)
    run.write_history(rows(3))
    assert assert_intact(tmp_path / "run") == 3


def test_writing_into_a_folder_that_is_gone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(ResultsError, match="restore the folder"):
        run.set_status("failed")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be created"):
        RunFolder.create(tmp_path / "file", HEADER)


def test_write_bytes_replaces_and_does_not_follow(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "target").read_bytes() == b"target"


# Changed bytes


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_the_history_is_named(pair: Path) -> None:
    path = pair / "bad" / "history.parquet"
    original = path.read_bytes()
    places = random.Random(0)
    for _ in range(300):
        damaged = bytearray(original)
        damaged[places.randrange(len(original))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        assert_damaged(pair, r"history\.parquet: its SHA-256 is not in run\.json")
    with pytest.raises(InputError, match="its SHA-256 is not in"):
        RunFolder.open(pair / "bad")
    path.write_bytes(original)
    assert assert_intact(pair / "bad") == 4


@pytest.mark.slow
def test_a_flipped_bit_without_a_digest_is_mostly_found() -> None:
    """Without run.json, page checksums and structure detect damage: no crash, and hardly ever a changed value."""
    original = tables.history_bytes(rows(4))
    expected = tables.decode(original)
    places, named, other = random.Random(0), 0, 0
    for _ in range(2000):
        damaged = bytearray(original)
        damaged[places.randrange(len(original))] ^= 1 << places.randrange(8)
        try:
            table = tables.decode(bytes(damaged))
        except InputError:
            named += 1
        else:
            other += table.column_names == expected.column_names and not table.equals(expected)
    assert named > 1000
    assert other <= 2  # 8 of all 26,440 single flips of this file change a value undetected (pyarrow 26)


@pytest.mark.parametrize("length", [0, 1, 4, 100, -100, -4, -1])
def test_a_truncated_history_is_named(pair: Path, length: int) -> None:
    path = pair / "bad" / "history.parquet"
    path.write_bytes(path.read_bytes()[:length])
    assert_damaged(pair, "its SHA-256 is not in")
    info = json.loads((pair / "bad" / "run.json").read_text()) | {"history_sha256": None}
    (pair / "bad" / "run.json").write_text(json.dumps(info))
    assert_damaged(pair, "it cannot be read as a Parquet file of this format")


@pytest.mark.parametrize("make", [lambda path: path.unlink(), lambda path: (path.unlink(), path.mkdir())])
def test_a_missing_history_is_named(pair: Path, make: Callable) -> None:
    make(pair / "bad" / "history.parquet")
    assert_damaged(pair, r"history\.parquet: it is (missing|not a plain file)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[]", "expected an object with names and values, got list"),
        ("[" * 100_000, "it is not JSON"),
        ('{"schema": 1, "status": "completed", "seed": ' + "9" * 5000 + "}", "it is not JSON"),
        ("{}", "expected schema 1, got None"),
        ('{"schema": 2, "status": "completed"}', "expected schema 1, got 2; read it with the version of joyful that wrote it"),
        ('{"schema": 1, "status": "done"}', "status: expected one of running"),
        ('{"schema": 1, "status": "completed", "seed": "a"}', "seed: expected an integer, got 'a'"),
        ('{"schema": 1, "status": "completed", "role": 1}', "role: expected text"),
        ('{"schema": 1, "status": "completed", "choices": []}', "choices: expected a mapping, got list"),
        ('{"schema": 1, "status": "completed", "history_sha256": "a"}', "history_sha256: expected a list"),
        ('{"schema": 1, "status": "completed", "config": {"a": ' + '{"b": ' * 200 + "1" + "}" * 202, "nested deeper"),
        ('{"schema": 1, "status": "completed", "config": ' + json.dumps(dict.fromkeys(map(str, range(10_001)))) + "}",
         "more than 10000 settings"),
        (" " * (5 * 2**20), r"run\.json: it has 5242880 bytes; at most 4194304 are read"),
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_named(pair: Path, text: str, reason: str) -> None:
    (pair / "bad" / "run.json").write_text(text)
    assert_damaged(pair, reason)


def test_text_that_utf8_cannot_encode_is_escaped(pair: Path) -> None:
    info = json.loads((pair / "bad" / "run.json").read_text())
    info |= {"choices": {"loss\ud800": "a\ud800", "x": ["b"]}, "config": {"k\ud800": "v\ud800"}, "seed": 10**30}
    (pair / "bad" / "run.json").write_text(json.dumps(info))
    frame = load(pair)
    assert r"loss\ud800" in frame.columns
    assert r"a\ud800" in set(frame[r"loss\ud800"])
    assert r"v\ud800" in set(frame[r"k\ud800"])


# Foreign and hostile files without a digest


@pytest.fixture
def foreign(pair: Path) -> Callable[[pa.Table | bytes, str], None]:
    (pair / "bad" / "run.json").unlink()
    (pair / "bad" / ".hydra").mkdir()

    def check(history: pa.Table | bytes, reason: str) -> None:
        path = pair / "bad" / "history.parquet"
        if isinstance(history, bytes):
            path.write_bytes(history)
        else:
            pq.write_table(history, path)
        assert_damaged(pair, reason)

    return check


GOOD: dict = {"step": [1], "epoch": [1.0], "split": ["dev"], "nll": [0.5]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": None}, "it has no column split"),
        ({"step": [1.5]}, "column step: expected integers, got double"),
        ({"step": pa.array([2**64 - 1], pa.uint64())}, "cannot be read"),
        ({"step": [-1]}, "column step: expected finite numbers from 0 on"),
        ({"epoch": [float("nan")]}, "column epoch: expected finite numbers"),
        ({"epoch": ["1"]}, "column epoch: expected numbers, got string"),
        ({"split": [1]}, "column split: expected text, got int64"),
        ({"split": ["validation"]}, "column split: expected train, dev, test, got 'validation'"),
        ({"split": pa.array([None], pa.string())}, "column split: 1 rows have no value"),
        ({"nll": [[0.5]]}, "column nll: expected numbers, got list"),
        ({"nll": [{"a": 1}]}, "column nll: expected numbers, got struct"),
        ({"nll": ["0.5"]}, "column nll: expected numbers, got string"),
        ({"nll": [b"0.5"]}, "column nll: expected numbers, got binary"),
        ({"nll": [pd.Timestamp(0)]}, "column nll: expected numbers, got timestamp"),
    ],
)
def test_columns_of_other_types_are_named(foreign: Callable, change: dict, reason: str) -> None:
    foreign(pa.table({name: values for name, values in (GOOD | change).items() if values is not None}), reason)


def test_files_of_other_kinds_are_named(foreign: Callable) -> None:
    for data in (b"PAR1", b"PAR1PAR1", b"PK\x03\x04" * 100, b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1"):
        foreign(data, "it cannot be read as a Parquet file of this format")
    one = pa.array([1])
    foreign(
        pa.Table.from_arrays([one, one, one, one], names=["step", "epoch", "split", "step"]),
        "two columns with the same name",
    )


def test_damaged_timing_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "run" / "timing.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"timing\.parquet: .*delete it to continue without timings"):
        run.timing_rows()
    assert assert_intact(tmp_path / "run") == 4


def test_damaged_hydra_files_are_named(pair: Path, foreign: Callable) -> None:
    (pair / "bad" / ".hydra" / "config.yaml").write_text("a: &x [1]\nb: [*x, *x]")
    foreign(tables.history_bytes(rows(1)), r"\.hydra/config\.yaml: .*alias")


# Links, pipes and hidden folders


def test_links_are_not_followed(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    make_run(outside / "run")
    (pair / "linked").symlink_to(outside / "run")
    (pair / "loop").symlink_to(pair)
    assert set(load(pair)["run"]) == {"good", "bad"}
    for name in ("history.parquet", "run.json"):
        (pair / "bad" / name).unlink()
        (pair / "bad" / name).symlink_to(outside / "run" / name)
        assert_damaged(pair, f"{name}: it is a symbolic link")


def test_a_pipe_does_not_block_the_reader(pair: Path) -> None:
    (pair / "bad" / "run.json").unlink()
    os.mkfifo(pair / "bad" / "run.json")
    assert_damaged(pair, r"run\.json: it is not a plain file")


def test_hidden_folders_and_checkpoints_hold_no_runs(pair: Path) -> None:
    make_run(pair / ".workers" / "0")
    make_run(pair / "good" / "checkpoint")
    make_run(pair / "good" / "nested")
    assert set(load(pair)["run"]) == {"bad", "good", "good/nested"}


def test_a_field_that_is_twice_in_a_struct_is_refused() -> None:
    """Parsers differ in which of the two they take, so the sizes of one say nothing about the other."""
    once = bytes([0x56, 2, 0])  # field 5, an integer: 1
    assert parquet_pages._struct(once, 0, {}, 0) == ({5: 1}, 3)
    with pytest.raises(ValueError, match="it contains a field twice"):
        parquet_pages._struct(bytes([0x56, 2, 0x05, 10, 0, 0]), 0, {}, 0)
