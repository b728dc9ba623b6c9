"""The Optuna study: creation, checks, asking, telling, duplicates and retries."""

import threading

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner, NopPruner
from optuna.trial import TrialState

from joyful.records import InputError
from joyful.sweeper import creation, database
from joyful.sweeper.creation import KnownRun, enqueue
from joyful.sweeper.database import open_engine, open_storage, storage_url, with_retries
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import Registry
from joyful.sweeper.study import (
    REASON,
    SamplerFactory,
    StudyAccess,
    TrialAccess,
    open_or_create,
)
from joyful.sweeper.trial_table import requeue_failed, states, waiting_duplicates
from tests.support.manual_clock import ManualClock

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(("a", "b"))}
SAMPLERS = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=1),
}


@pytest.fixture
def backend(tmp_path):
    return open_storage(storage_url(None, tmp_path))


def begin(backend, n_trials=4, space=SPACE, pruner=None, sampler=optuna.samplers.RandomSampler, grid=None):
    plan = Plan(n_trials, (), space, grid=grid)
    study_id = open_or_create(backend, "s", ["maximize"], plan.describe())
    registry = Registry(open_engine(backend.engine.url), study_id)
    enqueue(backend, registry, plan, {})
    sampler_for = SamplerFactory(sampler, 7, reseed=sampler is not optuna.samplers.QMCSampler)
    return StudyAccess(backend, registry, "s", sampler_for, pruner or NopPruner())


def finish(access, number, value):
    trial = TrialAccess(access, number)
    params = trial.ask(SPACE)
    trial.tell(TrialState.COMPLETE, [value])
    return params


def test_all_trials_exist_from_the_start_and_a_second_call_adds_none(backend):
    begin(backend)
    access = begin(backend)
    begin(backend, n_trials=6)
    begin(backend, n_trials=2)
    assert states(access.registry) == dict.fromkeys(range(6), TrialState.WAITING)


def test_many_trials_are_created_in_batches_as_optuna_creates_them(backend, monkeypatch):
    monkeypatch.setattr(creation, "BATCH", 4)
    grid = [{"x": number / 8, "y": "a"} for number in range(9)]
    known = {4: KnownRun({"x": 0.5, "y": "a"}), 6: KnownRun({"x": 0.1, "y": "b"}, seed=7)}
    access = begin(backend, n_trials=9)
    assert states(access.registry) == dict.fromkeys(range(9), TrialState.WAITING)
    study_id = open_or_create(backend, "other", ["maximize"], {})
    registry = Registry(access.registry.engine, study_id)
    enqueue(backend, registry, Plan(9, (), SPACE, grid=grid), known)
    trials = backend.get_all_trials(study_id)
    assert [trial.number for trial in trials] == list(range(10))
    fixed = [trial.system_attrs.get("fixed_params") for trial in trials]
    assert fixed == [*grid[:6], None, *grid[6:]]  # trial 6 trains a finalist again
    optuna.load_study(study_name="other", storage=backend).enqueue_trial({"x": 0.5})
    assert backend.get_all_trials(study_id)[-1].number == 10


def test_two_processes_that_create_trials_create_each_once(backend, monkeypatch):
    access = begin(backend, n_trials=1)
    monkeypatch.setattr(creation, "BATCH", 20)
    plan, threads = Plan(200, (), SPACE), []
    for _ in range(2):
        registry = Registry(open_engine(backend.engine.url), access.registry.study_id)
        threads.append(threading.Thread(target=enqueue, args=(backend, registry, plan, {})))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = backend.get_all_trials(access.registry.study_id)
    assert [trial.number for trial in trials] == list(range(200))
    assert all(trial.system_attrs == {"fixed_params": {}} for trial in trials)


def test_a_changed_space_objective_or_base_is_refused_with_the_difference(backend):
    description = {"space": {"x": 1}, "trials": None, "base": {"training": {"epochs": 5}}}
    open_or_create(backend, "s", ["maximize"], description)
    with pytest.raises(InputError, match=r"base.training.epochs: 5 -> 6.*choose another folder"):
        open_or_create(backend, "s", ["maximize"], description | {"base": {"training": {"epochs": 6}}})
    with pytest.raises(InputError, match=r"space.y: None -> 2"):
        open_or_create(backend, "s", ["maximize"], description | {"space": {"x": 1, "y": 2}})
    with pytest.raises(InputError, match=r"expected the directions minimize, got a study with maximize;"):
        open_or_create(backend, "s", ["minimize"], description)
    with pytest.raises(InputError, match=r"expected the directions maximize, minimize, got a study with maximize;"):
        open_or_create(backend, "s", ["maximize", "minimize"], description)
    assert open_or_create(backend, "s", ["maximize"], description) == 1


def test_a_longer_list_extends_the_study_and_any_other_list_is_refused(backend):
    def listed(*trials):
        return open_or_create(backend, "s", ["maximize"], {"space": {}, "trials": list(trials)})

    listed("a", "b")
    listed("a", "b", "c")
    with pytest.raises(InputError, match=r"trials.2: 'c' -> None"):
        listed("a", "b")
    with pytest.raises(InputError, match=r"trials.1: 'b' -> 'x'"):
        listed("a", "x", "c")


def test_a_study_of_another_program_is_refused(backend):
    optuna.create_study(study_name="s", storage=backend, direction="maximize").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    with pytest.raises(InputError, match="its 1 trials were not created by this sweeper"):
        open_or_create(backend, "s", ["maximize"], {})


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_asking_again_gives_the_same_parameters_and_completes_missing_ones(backend, name):
    access = begin(backend, sampler=SAMPLERS[name])
    for number in range(3):
        params = finish(access, number, value=number)
        assert set(params) == set(SPACE)
    trial = TrialAccess(access, 3)
    assert trial.ask({"x": SPACE["x"]}).keys() == {"x"}
    again = TrialAccess(access, 3).ask(SPACE)  # as another worker does after the first one failed
    assert again.keys() == {"x", "y"}
    assert TrialAccess(access, 3).ask(SPACE) == again


def test_a_sampler_without_history_gives_the_same_trials_in_any_order(tmp_path):
    params = []
    for name, order in (("one", (0, 1, 2, 3)), ("two", (3, 1, 0, 2))):
        (tmp_path / name).mkdir()
        access = begin(open_storage(storage_url(None, tmp_path / name)))
        asked = {number: TrialAccess(access, number).ask(SPACE) for number in order}
        params.append([asked[number] for number in range(4)])
    assert params[0] == params[1]
    assert len({tuple(values.values()) for values in params[0]}) == 4


def test_a_grid_is_asked_point_by_point(backend):
    grid = ({"x": 0.25, "y": "a"}, {"x": 0.5, "y": "b"})
    access = begin(backend, n_trials=2, grid=grid)
    assert [TrialAccess(access, number).ask(SPACE) for number in (1, 0)] == [grid[1], grid[0]]


def test_reports_reach_the_pruner_and_a_repeated_one_changes_nothing(backend):
    access = begin(backend, n_trials=3, pruner=MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    good = TrialAccess(access, 0)
    good.ask(SPACE)
    assert good.report(1, 0.1)
    assert good.report(1, 0.5)  # a trial that starts again reports its steps again
    assert good.report(2, 0.6)
    good.tell(TrialState.COMPLETE, [0.6])
    bad = TrialAccess(access, 1)
    bad.ask(SPACE)
    assert not bad.report(1, 0.4)
    bad.tell(TrialState.PRUNED)
    trials = access.open().get_trials()
    assert trials[0].intermediate_values == {1: 0.5, 2: 0.6}
    assert (trials[1].state, trials[1].value) == (TrialState.PRUNED, 0.4)
    nan = TrialAccess(access, 2)
    nan.ask(SPACE)
    assert nan.report(1, float("nan"))  # it is not stored, and does not prune
    assert nan.frozen().intermediate_values == {}


def test_a_trial_at_the_last_step_of_the_longest_complete_trial_is_not_pruned(backend):
    access = begin(backend, n_trials=3, pruner=MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    for number, steps in ((0, 3), (1, 2)):
        trial = TrialAccess(access, number)
        trial.ask(SPACE)
        for step in range(1, steps + 1):
            trial.report(step, 0.5)
        trial.tell(TrialState.COMPLETE, [0.5])
    bad = TrialAccess(access, 2)
    bad.ask(SPACE)
    assert not bad.report(2, 0.1)
    assert bad.report(3, 0.1)  # it has trained to its end


def test_telling_twice_keeps_the_first_result_and_a_waiting_trial_can_be_told(backend):
    access = begin(backend)
    trial = TrialAccess(access, 0)
    trial.tell(TrialState.FAIL)
    TrialAccess(access, 0).tell(TrialState.COMPLETE, [1.0])
    assert trial.frozen().state == TrialState.FAIL


def test_a_duplicate_copies_the_result(backend):
    access = begin(backend)
    first = TrialAccess(access, 0)
    first.ask(SPACE)
    first.report(1, 0.3)
    first.tell(TrialState.PRUNED)
    finish(access, 1, 0.9)
    for number, other in ((2, 0), (3, 1)):
        trial = TrialAccess(access, number)
        trial.ask(SPACE)
        trial.copy_result(TrialAccess(access, other).frozen())
    trials = access.open().get_trials()
    assert [t.state.name for t in trials] == ["PRUNED", "COMPLETE", "PRUNED", "COMPLETE"]
    assert (trials[2].value, trials[3].value) == (0.3, 0.9)
    assert trials[2].intermediate_values == {1: 0.3}


def test_failed_trials_are_queued_again_with_their_numbers_and_parameters(backend):
    access = begin(backend)
    params = finish(access, 0, 0.5)
    trial = TrialAccess(access, 1)
    asked = trial.ask(SPACE)
    trial.report(1, 0.2)
    trial.set_user_attrs(**{REASON: "an error", "own": "x"})
    trial.tell(TrialState.FAIL)
    lease = access.registry.claim(1, "a", None)
    access.registry.count_failure(lease)
    assert requeue_failed(access.registry) == [1]
    assert requeue_failed(access.registry) == []
    assert (access.registry.leases()[1].owner, access.registry.leases()[1].worker_failures) == ("", 0)
    again = TrialAccess(access, 1)
    assert again.frozen().state == TrialState.WAITING
    assert again.frozen().user_attrs == {"own": "x"}
    assert again.frozen().intermediate_values == {}
    assert again.ask(SPACE) == asked
    again.tell(TrialState.COMPLETE, [0.7])
    assert [t.state.name for t in access.open().get_trials()] == ["COMPLETE", "COMPLETE", "WAITING", "WAITING"]
    assert access.open().get_trials()[0].params == params


def test_duplicates_that_wait_for_another_trial(backend):
    access = begin(backend)
    trial = TrialAccess(access, 2)
    trial.ask(SPACE)
    trial.set_user_attrs(same_as=0)
    assert waiting_duplicates(access.registry) == {2: 0}


def test_a_busy_database_is_retried_and_an_error_in_the_statement_is_not(tmp_path):
    from sqlalchemy.exc import IntegrityError, OperationalError

    tries = []

    def busy():
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("", {}, Exception("database is locked"))
        return "answer"

    assert with_retries(busy) == "answer"
    assert len(tries) == 3

    def wrong():
        tries.append(1)
        raise IntegrityError("", {}, Exception("duplicate"))

    with pytest.raises(IntegrityError):
        with_retries(wrong)
    assert len(tries) == 4


def test_calls_share_the_time_limit_of_an_outage(monkeypatch):
    from sqlalchemy.exc import OperationalError

    clock = ManualClock()
    monkeypatch.setattr(database, "time", clock)

    def unavailable():
        raise OperationalError("", {}, Exception("connection refused"))

    def waited():
        clock.slept.clear()
        with pytest.raises(OperationalError):
            with_retries(unavailable, seconds=1.0)
        return sum(clock.slept)

    assert with_retries(lambda: "answer") == "answer"
    assert 0.4 < waited() <= 1.0
    assert waited() < 0.3
    assert with_retries(lambda: "answer") == "answer"
    assert 0.4 < waited() <= 1.0  # the database has answered in the meantime, so this is a new outage
    with_retries(lambda: "answer")
