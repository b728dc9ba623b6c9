"""What several fault tests use. The counts, the seed and the table: tests/support/faults.py."""

import subprocess
from pathlib import Path

import pytest

from tests.support.trainers import Trainers


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """Starts tiny runs in processes of their own, quickly."""
    with Trainers(tmp_path_factory.mktemp("logs")) as server:
        yield server


class SmallDisk:
    """A file system of its own in memory. path: where it is mounted."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        try:
            done = subprocess.run(options, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        self.path, self._filler = path, path / "filler"

    def fill(self, left: int) -> None:
        """Take all of its room but so many bytes, whatever else is written meanwhile."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(max(0, file.tell() - left))

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(bytes): a full disk can be had on it. Unmounted at the end."""
    disks = []

    def make(size: int) -> SmallDisk:
        disks.append(SmallDisk(tmp_path / f"disk-{len(disks)}", size))
        return disks[-1]

    yield make
    for disk in disks:
        subprocess.run(["umount", "-l", str(disk.path)], check=True)
