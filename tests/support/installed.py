"""Virtual environments that share the libraries installed here by links, so nothing is downloaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))

#: What a wheel is built from.
SOURCES = ("analysis", "conf", "joyful", "sweeps", "pyproject.toml", "README.md", "LICENSE")


def call(*command: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command without this checkout on its path."""
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=surroundings(), capture_output=True, text=True, timeout=timeout
    )


def surroundings() -> dict[str, str]:
    """Return the environment variables without this checkout on the path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build_wheel(source: Path) -> Path:
    """Build the wheel of this checkout from a copy in the empty folder `source`, and return its file."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    done = call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source,
        cwd=source,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = (source / "dist").glob("*.whl")
    return file


def environment(folder: Path, wheel: Path | None, without: Collection[str] = ()) -> Path:
    """Make a virtual environment with links to the libraries installed here, and return its Python.

    Args:
        folder: An empty folder.
        wheel: The wheel to install. If None, the environment has no joyful.
        without: Beginnings of the names of packages that it does not have.
    """
    venv.create(folder, with_pip=False)
    libraries = folder / "libraries"
    libraries.mkdir()
    pattern = re.compile(rf"({'|'.join(['joyful', '__editable__', '_?distutils', *without])})", re.IGNORECASE)
    for path in SITE.iterdir():
        if not pattern.match(path.name) and path.suffix != ".pth":
            (libraries / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    Path(site, "libraries.pth").write_text(f"{libraries}\n")
    if wheel:
        done = call(
            sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder
        )
        assert done.returncode == 0, done.stderr
    return python
