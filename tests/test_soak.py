"""`make soak` runs tests that exist, and all that it has more of than `make test`."""

import re
from pathlib import Path

from tests.support.soak import PLACES

ROOT = Path(__file__).resolve().parents[1]

#: What a file imports whose tests are longer in a soak.
LONGER = re.compile(
    r"^from tests\.support\.(faults import .*\b(count|soaking)\b|launchers import .*\bLauncherSuite\b)", re.M
)


def test_the_tests_of_a_soak_exist():
    assert [place for place in PLACES if not (ROOT / place).exists()] == []


def test_every_test_that_is_longer_in_a_soak_is_in_it():
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if LONGER.search(path.read_text())]
    assert len(files) > 10
    places = [ROOT / place for place in PLACES]
    assert [path for path in files if not any(path.is_relative_to(place) for place in places)] == []
