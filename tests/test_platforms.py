"""The platforms: what is stated, what the workflow tests, and what happens on a system that is not supported."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from joyful import platforms
from joyful.cli import COMMANDS
from tests.support.runs import TINY

ROOT = Path(__file__).resolve().parents[1]

#: Makes this process look like one on Windows to joyful.
LIKE_WINDOWS = """
import os, sys
for name in ("register_at_fork", "fork", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "statvfs", "getuid"):
    delattr(os, name)
sys.modules["fcntl"] = None
"""

#: Functions of os that Linux has and macOS lacks.
NOT_ON_MACOS = (
    "sched_getaffinity", "sched_setaffinity", "memfd_create", "pidfd_open", "posix_fadvise", "posix_fallocate", "pipe2",
    "copy_file_range", "splice", "eventfd", "getrandom", "O_TMPFILE", "O_PATH", "O_DIRECT", "O_NOATIME",
)  # fmt: skip


def stated() -> dict[tuple[str, str], str]:
    """Return (system, Python) -> state of the table in docs/platforms.md."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d., ]*) ?\| ([^|]+) \|", (ROOT / "docs/platforms.md").read_text(), re.M)
    return {(system, version): state for system, versions, state in rows for version in versions.strip().split(", ")}


def workflow_matrix() -> set[tuple[str, str]]:
    """Return the systems and Python versions that the workflow tests."""
    names = {"ubuntu-latest": "Linux, x86-64", "ubuntu-24.04-arm": "Linux, aarch64"}
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    first = {(names[jobs["test"]["runs-on"]], version) for version in jobs["test"]["strategy"]["matrix"]["python"]}
    return first | {(names[x["system"]], x["python"]) for x in jobs["platforms"]["strategy"]["matrix"]["include"]}


def test_the_page_states_what_the_workflow_tests():
    tested = {place for place, state in stated().items() if place[1]}
    assert tested == workflow_matrix()
    assert {state for place, state in stated().items() if not place[1]} == {"not tested", "not supported"}


def test_the_classifiers_are_the_supported_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = sorted(re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"])))
    assert versions == sorted({version for (_, version), state in stated().items() if state == "supported"})
    assert project["requires-python"] == f">={versions[0]}"
    systems = re.findall(r"Operating System :: (.*?)(?: Programming|$)", " ".join(project["classifiers"]))
    assert systems == ["POSIX :: Linux"]


def test_these_tests_run_on_a_stated_platform():
    assert sys.platform == "linux"
    system = {"x86_64": "Linux, x86-64", "aarch64": "Linux, aarch64"}[os.uname().machine]
    assert (system, f"{sys.version_info.major}.{sys.version_info.minor}") in stated()
    assert platforms.reason_against() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_windows_ends_with_one_line(command):
    code = f"{LIKE_WINDOWS}\nfrom joyful.cli import main\nsys.platform = 'win32'\nsys.exit(main([{command!r}, 'x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "joyful: expected a POSIX system such as Linux, got win32, which lacks os.register_at_fork, os.O_NOFOLLOW, "
        "os.O_DIRECTORY, os.statvfs, fcntl; on Windows run joyful in WSL 2\n"
    )


def test_an_import_on_windows_says_the_same():
    code = f"{LIKE_WINDOWS}\nimport joyful.results"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: joyful: expected a POSIX system such as Linux, got ")


def test_a_single_missing_function_is_named(monkeypatch):
    monkeypatch.delattr(os, "statvfs")
    assert "which lacks os.statvfs; on Windows run joyful in WSL 2" in platforms.reason_against()


@pytest.mark.soak("takes 25 s and trains a sweep; macOS is stated as not tested")
def test_nothing_needs_a_function_that_macos_lacks(tmp_path):
    """All processes of a sweep and its report run without them. This is no test on macOS."""
    lines = [f"if hasattr(os, {name!r}): del os.{name}" for name in NOT_ON_MACOS]
    (tmp_path / "sitecustomize.py").write_text("\n".join(["import os", *lines]) + "\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*words):
        command = [sys.executable, "-m", "joyful.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    probe = subprocess.run(
        [sys.executable, "-c", "import os; os.sched_getaffinity"], env=environment, capture_output=True, text=True
    )
    assert "AttributeError" in probe.stderr
    run("train", "-m", "+sweeps=first_look", *TINY[:-1], "training.evaluations_per_epoch=1", "hydra.sweeper.pairs=1")
    assert "5/5 trials" in run("sweep", "status", "multirun/first_look")
    run("report", "multirun/first_look")
    assert (tmp_path / "multirun/first_look/report/index.html").is_file()
