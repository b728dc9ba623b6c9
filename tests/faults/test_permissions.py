"""Folders that cannot be written and files that cannot be read give one line and exit code 2 before training.

For root, the commands run without CAP_DAC_OVERRIDE, which would bypass permissions; setpriv removes it. One test uses a
read-only disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import small_files
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY
from tests.support.sweeps import RUN

Call = Callable[..., subprocess.CompletedProcess[str]]

SIZES = tuple(item for item in TINY if item.startswith(("model.", "training.")))


def without_privileges() -> list[str]:
    """Return the command that starts another without the capabilities of root to bypass permissions."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("the tests run as root, which bypasses permissions, and setpriv (util-linux) is not installed")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """call(*arguments, cwd=FOLDER) runs Python without these capabilities, in forks of one process."""
    with ForkServer(without_privileges()) as server:
        yield lambda *arguments, cwd: server.run(arguments, cwd, os.environ)


@pytest.fixture
def shut() -> Iterator[object]:
    """shut(path, mode) sets the mode of a path until the end of the test."""
    before: list[tuple[Path, int]] = []

    def change(path: Path, mode: int) -> Path:
        before.append((path, path.stat().st_mode))
        path.chmod(mode)
        return path

    yield change
    for path, mode in reversed(before):
        path.chmod(mode)


def assert_refused(done: subprocess.CompletedProcess[str], words: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-m", "seed=1,2", "sweep_name=a"),
        ("-m", "hydra/sweeper=optuna_pruned", "seed=range(1,9)", "sweep_name=a"),
        ("hydra.run.dir=deep/er",),
    ],
)
def test_a_folder_that_cannot_be_written(
    call: Call, arguments: tuple[str, ...], tmp_path: Path, shut, tally: Tally
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    shut(folder, 0o555)
    done = call(str(RUN), *TINY, *arguments, cwd=folder)
    assert_refused(done, f"cannot be written: {folder} is not writable; set hydra.")
    assert list(folder.iterdir()) == []
    tally("folder that cannot be written", 1)


def test_a_file_where_a_folder_should_be(call: Call, tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "outputs").write_text("x")
    assert_refused(call(str(RUN), *TINY, cwd=tmp_path), f"{tmp_path / 'outputs'} is not a folder")
    assert_refused(call(str(RUN), *TINY, "hydra.run.dir=outputs/x", cwd=tmp_path), "is not a folder")
    assert (tmp_path / "outputs").read_text() == "x"
    tally("folder that cannot be written", 2)


def test_a_read_only_disk(call: Call, small_disk, tmp_path: Path, tally: Tally) -> None:
    disk = small_disk(2**20).path
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = call(str(RUN), *TINY, f"hydra.run.dir={disk}/run", cwd=tmp_path)
    assert_refused(done, "is on a read-only disk; set hydra.run.dir=FOLDER to a writable folder")
    tally("folder that cannot be written", 1)


@pytest.mark.parametrize(
    ("data", "path", "write"),
    [
        ("meld", "train_sent_emo.csv", small_files.write_meld),
        ("meld", ".", small_files.write_meld),
        ("mosi", "audio_test.csv", small_files.write_mosi),
        ("iemocap", "iemocap/data_iemocap.pkl", None),
        ("iemocap", "iemocap", None),
        ("prepared", "features.safetensors", small_files.write_prepared),
        ("prepared", "meta.json", small_files.write_prepared),
    ],
)
def test_data_that_cannot_be_read(call: Call, data: str, path: str, write, tmp_path: Path, shut, tally: Tally) -> None:
    root = tmp_path / "data"
    if write is not None:
        write(root)
    else:
        (root / "iemocap").mkdir(parents=True)
        (root / "iemocap" / "data_iemocap.pkl").write_bytes(small_files.iemocap_pickle())
    shut(root / path, 0)
    done = call(str(RUN), *SIZES, f"data={data}", f"data.root={root}", "modalities=t", cwd=tmp_path)
    assert_refused(done, "cannot be read")
    assert not list(tmp_path.rglob("run.json"))
    tally("data that cannot be read", 1)


def test_a_cache_that_cannot_be_written(call: Call, tmp_path: Path, shut, tally: Tally) -> None:
    small_files.write_mosi(tmp_path / "data")
    (tmp_path / "cache").mkdir()
    shut(tmp_path / "cache", 0o555)
    arguments = ("data=mosi", f"data.root={tmp_path / 'data'}", "modalities=av", f"data.cache={tmp_path / 'cache'}")
    done = call(str(RUN), *SIZES, *arguments, cwd=tmp_path)
    assert_refused(done, "set data.cache=FOLDER to a writable folder")
    tally("folder that cannot be written", 1)


def test_a_run_that_cannot_be_read_or_resumed(call: Call, tmp_path: Path, shut, tally: Tally) -> None:
    assert call(str(RUN), *TINY, "training.epochs=1", "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    text = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(text.replace('"completed"', '"interrupted"'))
    for name, words in (
        ("run.json", "run.json cannot be read (Permission denied)"),
        ("history.parquet", "history.parquet cannot be used (Permission denied)"),
        ("checkpoint/last.json", "checkpoint"),
        (".lock", ".lock cannot be opened: Permission denied"),
    ):
        mode = (tmp_path / "run" / name).stat().st_mode
        shut(tmp_path / "run" / name, 0)
        done = call(str(RUN), "resume=run", cwd=tmp_path)
        assert_refused(done, words, 1 if name == ".lock" else 2)
        (tmp_path / "run" / name).chmod(mode)
    shut(tmp_path / "run", 0o555)
    assert_refused(call(str(RUN), "resume=run", cwd=tmp_path), "is not writable")
    tally("run that cannot be read", 5)


def test_reports_and_importers(call: Call, tmp_path: Path, shut, tally: Tally) -> None:
    (tmp_path / "curves.csv").write_bytes(small_files.curves_table())
    (tmp_path / "shut").mkdir()
    shut(tmp_path / "shut", 0o555)
    out = ("--out", str(tmp_path / "shut" / "runs"))
    done = call("-m", "joyful.analysis.importers", "csv", "curves.csv", *out, cwd=tmp_path)
    assert_refused(done, "cannot be written (Permission denied); choose another folder", 1)
    assert call("-m", "joyful.analysis.importers", "csv", "curves.csv", "--out", "runs", cwd=tmp_path).returncode == 0
    done = call("-m", "joyful.analysis.report", "runs", "--baseline", "arm=old", *out, cwd=tmp_path)
    assert_refused(done, "cannot be created: Permission denied; choose another folder with --out", 1)
    shut(tmp_path / "curves.csv", 0)
    done = call("-m", "joyful.analysis.importers", "csv", "curves.csv", "--out", "other", cwd=tmp_path)
    assert_refused(done, "curves.csv cannot be read (Permission denied)")
    tally("folder that cannot be written", 2)
    tally("data that cannot be read", 1)
