"""The claim protocol in every order of its statements, within bounds. See tests/exhaustive and docs/RELIABILITY.md."""

import time

import pytest

from joyful.sweeper import claiming, worker
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.promotion import Policy
from joyful.sweeper.registry import Registry
from tests.exhaustive.actors import modelled
from tests.exhaustive.concurrent import Schedule
from tests.exhaustive.mutations import MUTATIONS, UnguardedClaim
from tests.exhaustive.search import Search
from tests.exhaustive.world import World
from tests.support import postgresql

#: Workers, trials, faults of a schedule and whether the processes share a machine. Together they take half a minute.
BOUNDED = [(1, 1, 2, False), (2, 1, 1, False), (2, 2, 0, False)]

#: Random schedules on PostgreSQL in `make test`.
QUICK = 20

#: Larger bounds, likewise.
FULL = [
    (2, 1, 1, True), (2, 2, 1, False), (2, 2, 1, True), (2, 3, 0, False), (2, 3, 1, False), (3, 2, 0, False), (3, 2, 0, True),
    (2, 1, 2, False), (2, 2, 2, False), (3, 1, 1, True), (3, 1, 1, False),
]  # fmt: skip


def search(capsys, *bounds, **options):
    outcome = Search(World(*bounds, **options)).run()
    with capsys.disabled():
        workers, trials, faults, same_machine = bounds
        where = "one machine" if same_machine else "several machines"
        print(f"\n{workers} workers, {trials} trials, {faults} faults, {where}: {outcome}")
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("bounds", BOUNDED, ids=str)
def test_the_invariants_hold_in_every_order_of_statements(capsys, bounds):
    outcome = search(capsys, *bounds)
    assert outcome.problem is None, str(outcome)
    assert outcome.complete


@pytest.mark.soak("takes 24 minutes and 2 GB; the test above has smaller bounds")
@pytest.mark.parametrize("bounds", FULL, ids=str)
def test_the_invariants_hold_in_larger_bounds(capsys, bounds):
    outcome = search(capsys, *bounds)
    assert outcome.problem is None, str(outcome)


#: Trials of two steps are paused after the first one. About half of them are promoted.
PAUSING = {"steps": 2, "policy": Policy(first_rung=1, reduction_factor=2, maximize=True, last_step=2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        (1, 2, 1, False),
        *(
            pytest.param(bounds, marks=pytest.mark.soak("takes up to 4 minutes; the first has one worker"))
            for bounds in ((2, 2, 0, False), (2, 2, 1, False))
        ),
    ],
    ids=str,
)
def test_paused_trials_are_promoted_or_ended(capsys, bounds):
    outcome = search(capsys, *bounds, **PAUSING)
    assert outcome.problem is None, str(outcome)


@pytest.mark.soak("takes minutes; the bounded test has one command")
@pytest.mark.parametrize("bounds", [(1, 1, 2, False), (1, 1, 2, True), (2, 1, 1, False)], ids=str)
def test_a_new_command_goes_on_after_the_driver_has_crashed(capsys, bounds):
    outcome = search(capsys, *bounds, commands=2)
    assert outcome.problem is None, str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_registry_is_found(capsys, mutation):
    outcome = Search(World(2, 1, 1, registry=mutation)).run()
    with capsys.disabled():
        print(f"\n{mutation.__name__}: {outcome}")
    assert outcome.problem is not None
    assert outcome.schedule


@pytest.mark.slow
def test_an_owner_that_joins_after_the_members_were_read_has_not_left(monkeypatch):
    """The lease of a candidate is read after the members. Here its owner counts as one that has left."""

    def candidates(self, free, unfinished, held, members):
        leases = self._registry.leases_of(free)
        return [claiming._candidate(number, unfinished[number], leases.get(number), members) for number in free]

    monkeypatch.setattr(claiming.Claiming, "_candidates", candidates)
    outcome = Search(World(2, 1, 0)).run()
    assert "although it was never frozen: two processes hold the trial" in str(outcome.problem), str(outcome)


@pytest.mark.slow
def test_a_worker_goes_on_if_another_one_has_finished_its_trial(monkeypatch):
    """It was frozen between the check of its lease and its write. Without the handler it ended with an error."""
    monkeypatch.setattr(worker, "UpdateFinishedTrialError", worker.LeaseLostError)
    outcome = Search(World(2, 1, 1)).run()
    assert "UpdateFinishedTrialError" in str(outcome.problem), str(outcome)
    assert any("silent for too long: p" in line for line in outcome.schedule)


@pytest.fixture(scope="module")
def database():
    """Optuna's storage and the engine of the sweeper's tables on PostgreSQL."""
    if postgresql.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'joyful-sweeps[sweep]'")
    server = postgresql.Server(postgresql.programs())
    try:
        url = storage_url(server.url, None)
        storage, engine = open_storage(url), open_engine(url)
        Registry(engine, 1)
        yield storage, engine
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [QUICK, pytest.param(2000, marks=pytest.mark.soak("takes 7 minutes; the same with fewer schedules"))]
)
def test_random_schedules_of_concurrent_transactions_on_postgresql(capsys, database, number):
    started, statements, faults = time.monotonic(), 0, 0
    with modelled():
        for seed in range(number, 2 * number):  # other studies than with another number
            schedule = Schedule(*database, seed)
            assert schedule.run() is None, f"schedule {seed}"
            statements, faults = statements + schedule.statements, faults + schedule.faults
    with capsys.disabled():
        seconds = time.monotonic() - started
        print(f"\nPostgreSQL: {number} schedules, {statements} statements, {faults} faults, {seconds:.0f} s")
    assert faults > number / 10


@pytest.mark.slow
def test_random_schedules_on_postgresql_find_a_broken_registry(database):
    with modelled():
        problems = (Schedule(*database, -seed, registry=UnguardedClaim).run() for seed in range(1, 60))
        assert "although it was never frozen" in next(filter(None, problems))
