"""`make soak` runs tests that exist."""

from pathlib import Path

from tests.support.soak import PLACES

ROOT = Path(__file__).resolve().parents[1]


def test_the_tests_of_a_soak_exist():
    assert [place for place in PLACES if not (ROOT / place).exists()] == []
