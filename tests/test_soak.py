"""`make test` and `make soak` together run all tests, and a soak all that it has more of than `make test`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import soak
from tests.support.soak import PLACES

ROOT = Path(__file__).resolve().parents[1]

#: What a file imports whose tests are longer in a soak.
GROWING = re.compile(
    r"^from tests\.support\.(faults import .*\b(count|soaking)\b|launchers import .*\bLauncherSuite\b)", re.M
)


def test_a_soak_runs_the_marked_tests_of_all_folders_and_then_those_that_are_longer(monkeypatch):
    selections = []
    monkeypatch.setattr(soak, "_run", lambda seed, minutes, arguments: (selections.append(arguments), (0, {}))[1])
    monkeypatch.setattr(sys, "argv", ["soak", "--minutes", "0", "--processes", "1"])
    assert soak.main() == 0
    assert selections == [["-m", "soak", "-n", "1"], [*PLACES, "-m", "not soak", "-n", "1"]]


def test_the_tests_of_a_soak_exist():
    assert [place for place in PLACES if not (ROOT / place).exists()] == []


def test_every_test_that_is_longer_in_a_soak_is_in_it():
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if GROWING.search(path.read_text())]
    assert len(files) > 10
    places = [ROOT / place for place in (*PLACES, "tests/test_soak.py")]
    assert [path for path in files if not any(path.is_relative_to(place) for place in places)] == []


@pytest.mark.soak("shows that a soak runs it")
def test_a_marked_test():
    """It passes in a soak and with -m soak."""


@pytest.mark.parametrize(
    ("arguments", "minutes", "outcome"),
    [([], "", "1 skipped"), (["-m", "soak"], "", "1 passed"), ([], "1", "1 passed")],
)
def test_a_marked_test_is_skipped_by_make_test_and_run_by_a_soak(arguments, minutes, outcome):
    test = f"{Path(__file__).relative_to(ROOT)}::{test_a_marked_test.__name__}"
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", test, *arguments]
    environment = {**os.environ, "JOYFUL_SOAK": minutes, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert outcome in done.stdout, done.stdout + done.stderr
    assert ("runs in make soak: shows that a soak runs it" in done.stdout) == ("skipped" in outcome)


def test_every_mark_gives_a_reason():
    """A reason says what it costs, and what still covers it in `make test`."""
    marks = re.compile(r"\bmark\.soak\b(?!\(\s*\"\w)")
    without = [
        path for path in (ROOT / "tests").rglob("*.py") if marks.search(path.read_text()) and path != Path(__file__)
    ]
    assert without == []
