"""The benchmark of claims at tiny size, and that it finds a trial that was lost or done twice."""

import json

import pytest

from benchmarks import claims
from benchmarks.claimed_study import check, fill, value_of
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.registry import Registry
from joyful.sweeper.study import StudyAccess
from tests.support import postgresql


@pytest.mark.slow
def test_every_trial_is_claimed_and_finished_once(tmp_path, capsys):
    file = tmp_path / "claims.json"
    claims.main(["--trials", "40", "400", "--claims", "10", "--json", str(file), "--created", "20"])
    document = json.loads(file.read_text())
    small, large = document["measurements"]
    for name in ("statements", "trial_statements"):
        assert small[name] == pytest.approx(large[name], abs=2)  # a heartbeat may fall into a trial
    for name in ("rows", "trial_rows"):
        assert small[name] == pytest.approx(large[name], abs=5)
    assert (small["claims"], small["lost"], small["server"]) == (10, 0, None)
    assert document["create_seconds"] > 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines()[:4]] == ["trials", "---", "40", "400"]


@pytest.mark.slow
@pytest.mark.skipif(postgresql.programs() is None, reason="PostgreSQL is not installed: apt-get install postgresql")
def test_workers_on_postgresql_share_the_trials(tmp_path):
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'joyful-sweeps[sweep]'")
    file = tmp_path / "claims.json"
    claims.main(["--trials", "30", "--workers", "3", "--claims", "0", "--database", "postgresql", "--json", str(file)])
    (one,) = json.loads(file.read_text())["measurements"]
    assert one["claims"] == 15
    assert one["transactions"] > 0


@pytest.mark.parametrize(
    ("numbers", "told", "message"),
    [
        ([4, 4], 2, r"got \[4\] more often"),
        ([4, 5], 1, "expected 2 results, got 1"),
        ([4], 1, "trial 4: expected"),
        ([], 0, None),
    ],
)
def test_a_lost_or_doubled_trial_is_found(tmp_path, numbers, told, message):
    url = storage_url(None, tmp_path)
    registry = Registry(open_engine(url), fill(url, 8, 4, tmp_path))
    found = [{"claims": [(number, 0.1) for number in numbers], "done": {"complete": told}}]
    with StudyAccess(open_storage(url), registry, "claims", None, None) as access:
        if message is None:
            check(access, 4, found)
        else:
            with pytest.raises(RuntimeError, match=message):
                check(access, 4, found)


def test_values_differ():
    assert len({value_of(number) for number in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--finished", "1"], "expected a share from 0 to less than 1, got 1.0"),
        (["--workers", "60"], "expected at most one worker for each waiting trial, got 60"),
    ],
)
def test_impossible_sizes_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        claims.main(arguments)
    assert message in capsys.readouterr().err
