"""Claims: their order, what they lose to other workers, and that their cost does not grow with the number of trials."""

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sqlalchemy import event, inspect, text

from benchmarks.claimed_study import NAME, STEPS, fill, value_of
from joyful.sweeper import trial_table
from joyful.sweeper.claiming import CANDIDATES, Claiming, Found
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.live import LiveReader
from joyful.sweeper.registry import Registry
from joyful.sweeper.status import take_snapshot
from joyful.sweeper.study import SAME_AS, StudyAccess, TrialAccess
from tests.support.statements import counted


@pytest.fixture
def build(tmp_path):
    """Return a function that creates a study with trials, the first of which are complete."""
    opened = []

    def build(n_trials, n_finished=0):
        folder = tmp_path / f"{n_trials}"
        folder.mkdir()
        url = storage_url(None, folder)
        registry = Registry(open_engine(url), fill(url, n_trials, n_finished, folder))
        access = StudyAccess(open_storage(url), registry, NAME, lambda number: RandomSampler(seed=number), NopPruner())
        opened.append(access)
        return access, folder

    yield build
    for access in opened:
        access.__exit__()


def worker_of(access, lease_seconds=60.0):
    """Return the claim loop of a new worker. It counts as running, because this process does."""
    member = access.registry.join("worker", "driver")
    return Claiming(access.registry, member.id, FailureDetector(lease_seconds), None), member.id


def finish(access, number):
    trial = TrialAccess(access, number)
    trial.ask({})
    trial.tell(TrialState.COMPLETE, [1.0])


def test_a_worker_claims_in_order_and_ends_when_all_trials_are_finished(build):
    access, _ = build(CANDIDATES + 4, 1)
    claiming, me = worker_of(access)
    claimed = []
    while (found := claiming.next()).lease is not None:
        claimed.append(found.lease.number)
        finish(access, found.lease.number)
        access.registry.release(found.lease.number, me)
    assert claimed == list(range(1, CANDIDATES + 4))
    assert found == Found(None, unfinished=False, lost=False)


def test_held_trials_are_skipped_however_many_there_are(build):
    access, _ = build(2 * CANDIDATES)
    held = [worker_of(access)[0].next().lease.number for _ in range(2 * CANDIDATES - 1)]
    assert held == list(range(2 * CANDIDATES - 1))
    claiming, _ = worker_of(access)
    assert claiming.next().lease.number == 2 * CANDIDATES - 1
    assert claiming.next() == Found(None, unfinished=True, lost=False)


def test_a_started_or_released_trial_is_resumed_before_later_ones(build):
    access, _ = build(4)
    first, gone = worker_of(access)
    leases = [first.next().lease for _ in range(3)]
    TrialAccess(access, 1).ask({})  # trial 1 is running, the others wait with a lease
    access.registry.leave(gone)
    second, _ = worker_of(access)
    found = [second.next().lease for _ in range(4)]
    assert [lease.number for lease in found] == [0, 1, 2, 3]
    assert [lease.term for lease in found] == [2, 2, 2, 1]
    assert all(not access.registry.is_held(lease) for lease in leases)


def test_a_trial_that_another_worker_claims_meanwhile_is_lost_and_the_next_one_is_claimed(build, monkeypatch):
    access, _ = build(3)
    claiming, _ = worker_of(access)
    registry, leases_of, members = access.registry, access.registry.leases_of, access.registry.members

    def after(read, number):
        """Let a new worker claim a trial after a read."""

        def reading(*arguments, **options):
            answer = read(*arguments, **options)
            registry.claim(number, registry.join("worker", "driver").id, None)
            return answer

        return reading

    monkeypatch.setattr(registry, "members", after(members, 0))  # it joins after the members were read
    monkeypatch.setattr(registry, "leases_of", after(leases_of, 1))
    assert claiming.next().lease.number == 2
    monkeypatch.undo()
    assert len({lease.owner for lease in registry.held_leases().values()}) == 3


def test_workers_that_look_at_the_same_time_try_different_trials(build):
    access, _ = build(30)
    workers = sorted((worker_of(access) for _ in range(20)), key=lambda worker: worker[1])
    last = workers[-1][0]
    assert last.next().lease.number == 19
    assert [worker.next().lease.number for worker, _ in workers[:3]] == [0, 1, 2]
    for _, name in workers[3:]:
        access.registry.leave(name)
    alone, _ = worker_of(access)
    assert alone.next().lease.number == 3


def test_few_trials_are_claimed_by_many_workers(build):
    access, _ = build(3)
    workers = [worker_of(access)[0] for _ in range(9)]
    found = [worker.next().lease for worker in workers]
    assert sorted(lease.number for lease in found if lease is not None) == [0, 1, 2]


def test_a_worker_looks_again_at_once_if_others_claimed_all_it_found(build, monkeypatch):
    access, _ = build(1)
    claiming, _ = worker_of(access)
    monkeypatch.setattr(access.registry, "claim", lambda *arguments, **options: None)
    assert claiming.next() == Found(None, unfinished=True, lost=True)


def test_a_duplicate_waits_for_its_trial_and_blocks_no_other(build):
    access, _ = build(CANDIDATES + 3)
    first, me = worker_of(access)
    for number in range(CANDIDATES + 2):  # all but the first are equal to it
        lease = first.next().lease
        trial = TrialAccess(access, number)
        trial.ask({})
        if number:
            trial.set_user_attrs(**{SAME_AS: 0})
            access.registry.release(lease.number, me)
    second, _ = worker_of(access)
    assert second.next().lease.number == CANDIDATES + 2
    assert second.next() == Found(None, unfinished=True, lost=False)
    finish(access, 0)
    assert second.next().lease.number == 1


def test_the_statements_and_rows_of_a_claim_a_status_and_a_view_do_not_grow(build, monkeypatch):
    found = {}
    for n_trials in (120, 1200):
        with counted() as counts:
            access, folder = build(n_trials, n_trials // 2 + 20)
            claiming, me = worker_of(access)
            for _ in range(2):  # the first statements of a connection are Optuna's own
                counts.take()
                lease = claiming.next().lease
                claim = counts.take()
                trial = TrialAccess(access, lease.number)
                trial.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
                trial.report(1, 0.5)
                trial.tell(TrialState.COMPLETE, [0.5])
                access.registry.release(lease.number, me)
                whole = counts.take()
            reader = LiveReader(access, FailureDetector(60.0), folder, STEPS)
            reader.read()
            counts.take()
            reader.read()
            view = counts.take()
            state = take_snapshot(access, FailureDetector(60.0), folder)
            status = counts.take()
        assert (state.complete, state.waiting, state.workers) == (n_trials // 2 + 22, n_trials // 2 - 22, 1)
        assert state.best_value == max(value_of(number) for number in range(n_trials // 2 + 20))
        found[n_trials] = {"claim": claim, "trial": whole, "view": view, "status": status}
    assert found[120] == found[1200]
    assert all(statements > 0 for statements, _ in found[120].values())
    assert found[120]["claim"][1] <= CANDIDATES + 6


def plans_of(access, action):
    """Return how SQLite runs each statement of an action that reads."""
    seen = []

    def record(connection, cursor, statement, parameters, *_):
        if statement.lstrip().startswith("SELECT"):
            seen.append((statement, parameters))

    for engine in (access.registry.engine, access.backend.engine):
        event.listen(engine, "before_cursor_execute", record)
    action()
    for engine in (access.registry.engine, access.backend.engine):
        event.remove(engine, "before_cursor_execute", record)
    with access.registry.engine.connect() as connection:
        raw = connection.connection.cursor()
        return [
            (statement, row[3])
            for statement, parameters in seen
            for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        ]


def test_a_claim_scans_no_table_of_trials(build):
    access, _ = build(50, 20)
    claiming, _ = worker_of(access)
    indexes = inspect(access.registry.engine).get_indexes("trials")
    assert {"joyful_trials_state", "joyful_trials_number"} <= {index["name"] for index in indexes}

    def claim_and_finish():
        finish(access, claiming.next().lease.number)

    plans = plans_of(access, claim_and_finish)
    assert any("joyful_trials_state" in plan for _, plan in plans)
    slow = [(statement, plan) for statement, plan in plans if plan.startswith(("SCAN trials", "SCAN joyful_lease"))]
    slow += [(statement, plan) for statement, plan in plans if "ix_trials_study_id" in plan]
    assert not slow


def test_indexes_are_added_once(build):
    access, _ = build(5)
    with access.registry.engine.begin() as connection:
        connection.execute(text("DROP INDEX joyful_trials_state"))
    trial_table.add_indexes(access.registry)
    trial_table.add_indexes(access.registry)
    names = [index["name"] for index in inspect(access.registry.engine).get_indexes("trials")]
    assert names.count("joyful_trials_state") == 1


def test_a_database_that_refuses_indexes_stays_as_it_is(build, monkeypatch):
    access, _ = build(5)
    monkeypatch.setattr(trial_table, "INDEXES", {"joyful_refused": "no_such_table (number)"})
    trial_table.add_indexes(access.registry)
    assert worker_of(access)[0].next().lease.number == 0


@pytest.mark.parametrize(
    ("maximize", "values", "best"),
    [
        (True, [0.1, 0.3, 0.3], (1, 0.3)),
        (False, [0.2, 0.1, 0.1], (1, 0.1)),
        (True, [0.1, float("inf"), float("inf")], (1, float("inf"))),
        (True, [float("-inf"), 0.1, 0.0], (1, 0.1)),
        (False, [0.1, float("-inf"), 0.0], (1, float("-inf"))),
        (False, [float("inf"), float("inf"), float("inf")], (0, float("inf"))),
    ],
)
def test_the_best_trial_is_the_first_of_the_best_values(build, maximize, values, best):
    access, _ = build(4)
    assert trial_table.best_complete(access.registry, maximize) is None
    for number, value in enumerate(values):
        trial = TrialAccess(access, number)
        trial.ask({})
        trial.tell(TrialState.COMPLETE, [value])
    found = trial_table.best_complete(access.registry, maximize)
    assert found is not None
    assert found[1:] == best
