"""The claim protocol in every order of its statements, within bounds. See tests/exhaustive and docs/RELIABILITY.md."""

import pytest

from joyful.sweeper import worker
from joyful.sweeper.promotion import Policy
from tests.exhaustive.mutations import MUTATIONS
from tests.exhaustive.search import Search
from tests.exhaustive.world import World

#: Workers, trials, faults of a schedule and whether the processes share a machine. Together they take half a minute.
BOUNDED = [(1, 1, 2, False), (2, 1, 1, True), (2, 1, 1, False), (2, 2, 0, False)]

#: Larger bounds, likewise.
FULL = [(2, 2, 1, False), (2, 2, 1, True), (2, 3, 0, False), (3, 2, 0, False), (2, 1, 2, False)]


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


@pytest.mark.soak("takes 5 minutes; the test above has smaller bounds")
@pytest.mark.parametrize("bounds", FULL, ids=str)
def test_the_invariants_hold_in_larger_bounds(capsys, bounds):
    outcome = search(capsys, *bounds)
    assert outcome.problem is None, str(outcome)


#: Trials of two steps are paused after the first one. About half of them are promoted.
PAUSING = {"steps": 2, "policy": Policy(first_rung=1, reduction_factor=2, maximize=True, last_step=2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [(1, 2, 1, False), pytest.param((2, 2, 0, False), marks=pytest.mark.soak("takes 20 s; the other has one worker"))],
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
def test_a_worker_goes_on_if_another_one_has_finished_its_trial(monkeypatch):
    """It was frozen between the check of its lease and its write. Without the handler it ended with an error."""
    monkeypatch.setattr(worker, "UpdateFinishedTrialError", worker.LeaseLostError)
    outcome = Search(World(2, 1, 1)).run()
    assert "UpdateFinishedTrialError" in str(outcome.problem), str(outcome)
    assert any("silent for too long: p" in line for line in outcome.schedule)
