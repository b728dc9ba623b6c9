"""design.json and decisions.json: what a sweep registers before its first run, and what was decided."""

from dataclasses import replace

import pytest

from joyful.results import InputError
from joyful.results.design import (
    DECIDED,
    DECISIONS,
    DESIGN,
    OPEN,
    Decisions,
    Design,
    Line,
    digest,
    read_decisions,
    read_designs,
    record_design,
    write_decisions,
)

CLAIMS = {"claims": [{"claim": "f1", "at_least": 1}], "factors": ["loss"]}
TWELVE = Design(12, None, 1, ("a=1", "a=2"), (9000, 9001), CLAIMS, "95 %", "dev_f1", {"commit": "abc", "dirty": False})
AUTO = replace(TWELVE, pairs=None, max_pairs=60)


def test_the_first_design_is_kept_and_later_ones_are_appended(tmp_path):
    assert read_designs(tmp_path) == ()
    assert record_design(tmp_path, TWELVE) == (TWELVE,)
    later = replace(TWELVE, pairs=20, runs_before=27, git={"commit": "def", "dirty": True})
    assert record_design(tmp_path, later) == (TWELVE, later)
    assert read_designs(tmp_path) == (TWELVE, later)


def test_a_design_without_runs_is_replaced(tmp_path):
    record_design(tmp_path, TWELVE)
    assert record_design(tmp_path, AUTO) == (AUTO,)
    assert read_designs(tmp_path) == (AUTO,)


def test_the_same_plan_is_not_recorded_again(tmp_path):
    record_design(tmp_path, TWELVE)
    before = (tmp_path / DESIGN).read_bytes()
    assert record_design(tmp_path, replace(TWELVE, runs_before=5, git={"commit": "other"})) == (TWELVE,)
    assert (tmp_path / DESIGN).read_bytes() == before


def test_seeds_and_digests():
    assert list(TWELVE.seeds) == list(range(1, 13))
    assert list(AUTO.seeds) == list(range(1, 61))
    assert TWELVE.claims_digest == digest({"factors": ["loss"], "claims": [{"at_least": 1, "claim": "f1"}]})
    assert TWELVE.claims_digest != replace(TWELVE, claims={"claims": []}).claims_digest
    assert replace(TWELVE, claims=None).claims_digest is None


def test_decisions_are_read_as_they_were_written(tmp_path):
    assert read_decisions(tmp_path) == Decisions()
    stop = {"metric": "f1_weighted", "value": 0.6, "higher_is_better": True}
    open_line = Line(
        "speed", "epochs", "b", OPEN, "inconclusive", "", 3.0, None, 9.0, (1, 2), overrides="a=2", stop=stop
    )
    decided = Line("f1", "best", "b", DECIDED, "supported", "", 2.0, 1.0, 3.0, (1, 2, 4), "meld", "a=2", "7")
    written = Decisions(4, 4, (open_line, decided))
    write_decisions(tmp_path, written)
    assert read_decisions(tmp_path) == written
    assert written.open == (open_line,)
    assert written.by_key["f1", "best", "a=2", "meld"] is decided


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2, "designs": [], "lines": []}'])
def test_damaged_files_are_refused(tmp_path, text):
    for name, read in ((DESIGN, read_designs), (DECISIONS, read_decisions)):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name}: damaged"):
            read(tmp_path)
