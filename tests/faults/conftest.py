"""Fixtures of the fault tests. Numbers of faults, seed and table are in tests/support/faults.py."""

import subprocess
from pathlib import Path

import pytest

from tests.support.trainers import TrainerServer


@pytest.fixture(scope="session")
def trainers(tmp_path_factory):
    """A server that starts tiny runs in separate processes."""
    with TrainerServer(tmp_path_factory.mktemp("logs")) as server:
        yield server


class SmallDisk:
    """A small file system in memory, mounted at `path`."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        try:
            done = subprocess.run(options, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("the program mount is not available")
        if done.returncode:
            pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
        self.path, self._filler = path, path / "filler"

    def fill(self, left: int) -> None:
        """Fill the disk up to about `left` free bytes, even if other processes write to it."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(max(0, file.tell() - left))

    def free(self) -> None:
        """Free the space again."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path):
    """Create small disks of a size in bytes, which are unmounted at the end of the test."""
    disks = []

    def make(size: int) -> SmallDisk:
        disks.append(SmallDisk(tmp_path / f"disk-{len(disks)}", size))
        return disks[-1]

    yield make
    for disk in disks:
        subprocess.run(["umount", "-l", str(disk.path)], check=True)
