"""Sweeps that pause and promote trials: real programs, kills, several workers, and joyful's own trainer."""

import math
import os
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import optuna
import pytest

from joyful.records import InputError
from joyful.results import write_json
from joyful.sweeper import TrialPaused
from joyful.sweeper.current_trial import trial
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.live import LiveReader
from joyful.sweeper.pausing import NOT_PROMOTED, Pausing, PromotionPruner, Trials, policy_of
from joyful.sweeper.promotion import Action, Policy
from joyful.sweeper.registry import Registry
from joyful.sweeper.samplers import build_pruner
from joyful.sweeper.status import take_snapshot
from joyful.sweeper.study import StudyAccess, TrialAccess
from joyful.sweeper.trial_table import states
from tests.support import small_program, sweeps

OWN = "hydra/sweeper=optuna_pruned"
PRUNER = (
    "hydra/sweeper/pruner=asha_promotion",
    "hydra.sweeper.pruner.min_resource=3",
    "hydra.sweeper.pruner.reduction_factor=3",
    "hydra.sweeper.pruner.fewest_trials=1",
)
CONFIG = "x: 0.5\nseed: 1\nsteps: 10\nwait: 0.0\nnan: false\nfail: false\n"

#: A program that continues from its checkpoint, and writes down each step that it trains. Its value depends on all steps
#: before, so a lost or repeated step would change it.
BODY = """\
    path = trial.folder / "state.json"
    state = json.loads(path.read_text()) if path.exists() else {"step": 0, "value": 1.0}
    while state["step"] < cfg.steps:
        time.sleep(cfg.wait)
        state["step"] += 1
        state["value"] = 0.7 * state["value"] + 0.1 * (cfg.x - 0.3) ** 2 + 0.01 * math.sin(state["step"])
        with open(trial.folder / "trained.txt", "a") as file:
            file.write(f"{state['step']} ")
        (trial.folder / "new").write_text(json.dumps(state))
        os.replace(trial.folder / "new", path)
        if cfg.fail and state["step"] > 3:
            raise ValueError("no luck")
        trial.report(math.nan if cfg.nan and cfg.x > 0.5 else state["value"], state["step"])
    return state["value"]
"""
#: The same without a checkpoint.
NO_CHECKPOINT = BODY.replace("if path.exists()", "if False")


def expected(x: float, steps: int = 10) -> dict[int, float]:
    values, value = {}, 1.0
    for step in range(1, steps + 1):
        value = 0.7 * value + 0.1 * (x - 0.3) ** 2 + 0.01 * math.sin(step)
        values[step] = value
    return values


def write(folder: Path, body: str = BODY) -> None:
    small_program.write(folder, body, CONFIG, "import json\nimport math\nimport time\n")


def trained(folder: Path, number: int) -> list[int]:
    return [int(step) for step in (folder / f"multirun/main/{number}/trained.txt").read_text().split()]


def check_finished(folder: Path, n_trials: int) -> None:
    """Check that each trial is complete or pruned at a rung, and that its values are those of an uninterrupted run."""
    trials = sweeps.study(folder / "multirun/main").trials
    assert len(trials) == n_trials
    assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}
    for t in trials:
        steps = max(t.intermediate_values)
        assert t.intermediate_values == {s: v for s, v in expected(t.params["x"]).items() if s <= steps}
        if t.state.name == "PRUNED":
            assert t.user_attrs["reason"] == NOT_PROMOTED
            assert steps in (3, 9)
        else:
            assert steps == 10
    best = sorted(t.intermediate_values[3] for t in trials)[: n_trials // 3]
    further = [t.intermediate_values[3] for t in trials if max(t.intermediate_values) > 3]
    assert set(best) <= set(further), "one of the best third at step 3 was not promoted"


@pytest.mark.slow
def test_the_best_third_is_promoted_and_continues_where_it_was(tmp_path, fork_server):
    write(tmp_path)
    done = small_program.run(tmp_path, "x=interval(0,1)", "hydra.sweeper.n_trials=9", *PRUNER, server=fork_server)
    assert done.returncode == 0, done.stderr
    check_finished(tmp_path, 9)
    for t in sweeps.study(tmp_path / "multirun/main").trials:
        assert trained(tmp_path, t.number) == list(range(1, max(t.intermediate_values) + 1))
    assert re.search(r"9 of 9 trials done \(\d complete, \d pruned, 0 failed\)", done.stdout)
    again = small_program.run(tmp_path, "x=interval(0,1)", "hydra.sweeper.n_trials=9", *PRUNER, server=fork_server)
    assert "nothing to do" in again.stdout


@pytest.mark.slow
def test_a_program_without_checkpoint_starts_its_trial_again(tmp_path, fork_server):
    write(tmp_path, NO_CHECKPOINT)
    done = small_program.run(
        tmp_path, "hydra.sweeper.trials=['x=0.9','x=0.3','x=0.6','x=0.8']", *PRUNER, server=fork_server
    )
    assert done.returncode == 0, done.stderr
    assert sweeps.states(tmp_path / "multirun/main") == {0: "PRUNED", 1: "COMPLETE", 2: "PRUNED", 3: "PRUNED"}
    assert trained(tmp_path, 1) == [1, 2, 3, *range(1, 10), *range(1, 11)]
    assert trained(tmp_path, 0) == [1, 2, 3]


@pytest.mark.slow
def test_nan_failures_and_duplicates(tmp_path, fork_server):
    write(tmp_path)
    trials = "hydra.sweeper.trials=['x=0.9 nan=true','x=0.3 fail=true','x=0.4','x=0.4','x=0.5']"
    done = small_program.run(tmp_path, trials, *PRUNER, server=fork_server)
    assert done.returncode == 0, done.stderr
    states = sweeps.states(tmp_path / "multirun/main")
    assert states == {0: "PRUNED", 1: "FAIL", 2: "COMPLETE", 3: "COMPLETE", 4: "PRUNED"}
    assert trained(tmp_path, 0) == [1, 2, 3]
    assert not (tmp_path / "multirun/main/3/trained.txt").exists()


@pytest.mark.slow
def test_several_objectives_pause_none(tmp_path, fork_server):
    write(tmp_path, BODY.replace("return state", "return 1.0, state"))
    two = ["hydra.sweeper.direction=[minimize,minimize]", "hydra.sweeper.n_trials=2", "x=interval(0,1)"]
    done = small_program.run(tmp_path, *two, *PRUNER, server=fork_server)
    assert done.returncode == 0, done.stderr
    assert sweeps.states(tmp_path / "multirun/main") == {0: "COMPLETE", 1: "COMPLETE"}


def test_a_wrong_setting_is_refused_before_anything_starts(tmp_path, fork_server):
    write(tmp_path)
    done = small_program.run(
        tmp_path, "x=interval(0,1)", *PRUNER, "hydra.sweeper.pruner.min_resource=0", server=fork_server
    )
    assert done.returncode == 2
    assert "min_resource: expected an integer >= 1, got 0" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "multirun/main/study.db").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"reduction_factor": 1}, "reduction_factor: expected an integer >= 2, got 1"),
        ({"max_resource": 2.5}, "max_resource: expected an integer >= 1, got 2.5"),
        ({"breadth_first": "yes"}, "breadth_first: expected true or false, got 'yes'"),
    ],
)
def test_settings_are_validated(setting, message):
    config = {"_target_": "joyful.sweeper.pausing.PromotionPruner", **setting}
    with pytest.raises(InputError, match=message):
        build_pruner(config, ["joyful.sweeper.pausing.PromotionPruner"])


def test_the_policy_of_a_sweep():
    pruner = PromotionPruner(2, 4, 64, breadth_first=True)
    assert asdict(policy_of(pruner, ["maximize"])) == asdict(Policy(2, 4, True, True, 64))
    assert policy_of(pruner, ["maximize", "minimize"]) is None


@pytest.mark.parametrize(("steps", "rungs"), [(20, [5, 10]), (10, [3, 6]), (4, [1, 2]), (1, [])])
def test_the_rungs_are_a_quarter_and_a_half_of_the_steps(steps, rungs):
    policy = policy_of(PromotionPruner().for_sweep(27, steps), ["maximize"])
    assert policy.rungs(100) == rungs
    assert policy_of(PromotionPruner(max_resource=8).for_sweep(27, steps), ["maximize"]).rungs(100) == [2, 4]
    assert isinstance(PromotionPruner().for_sweep(7, steps), optuna.pruners.NopPruner)  # too few to choose from
    assert policy_of(PromotionPruner(fewest_trials=7).for_sweep(7, steps), ["maximize"]) is not None
    assert policy_of(PromotionPruner().for_sweep(27, None), ["maximize"]).rungs(12) == [3, 6, 12]


def test_paused_is_pruned_for_programs_that_know_only_optuna():
    assert issubclass(TrialPaused, optuna.TrialPruned)
    assert TrialPaused.__name__ == "TrialPaused"
    assert trial.number is None


@pytest.fixture
def access(tmp_path):
    """A study of 5 trials in a database: three at step 3, of which one is held, one interrupted, and one waiting."""
    url = storage_url(None, tmp_path)
    backend = open_storage(url)
    policy = Policy(3, 3, maximize=True)
    study = optuna.create_study(study_name="s", storage=backend, direction="maximize")
    registry = Registry(open_engine(url), study._study_id)
    found = StudyAccess(backend, registry, "s", lambda number: optuna.samplers.RandomSampler(), PromotionPruner())
    for values in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.5], [0.1, 0.2, 0.4], [0.1, 0.2], None):
        if values is None:
            study.enqueue_trial({})
            continue
        running = study.ask()
        for step, value in enumerate(values, 1):
            running.report(value, step)
    write_json(tmp_path / "sweep.json", {"study_name": "s", "storage": None, "promotion": asdict(policy)})
    with found:
        yield found


def trials_of(access, detector):
    leases, members = access.registry.leases_and_members()
    detector.observe(members)
    return Trials(
        states(access.registry), leases, members, {n for n, lease in leases.items() if lease.owner}, frozenset()
    )


def test_samplers_see_paused_trials_as_pruned_and_the_database_keeps_them_running(access):
    found = TrialAccess(access, 4, paused=frozenset({0, 1, 4})).study
    assert [t.state.name for t in found.get_trials()] == ["PRUNED", "PRUNED", "RUNNING", "RUNNING", "WAITING"]
    assert [t.number for t in found.get_trials(states=(optuna.trial.TrialState.PRUNED,))] == [0, 1]
    assert {state.name for number, state in states(access.registry).items() if number < 4} == {"RUNNING"}


def test_what_a_worker_reads_of_paused_trials(access, tmp_path):
    detector, registry = FailureDetector(30), access.registry
    pausing = Pausing(registry, Policy(3, 3, maximize=True))
    me = registry.join("worker", "driver")
    assert registry.claim(2, me.id, None)
    snapshot = take_snapshot(access, detector, tmp_path)
    assert (snapshot.paused, snapshot.running, snapshot.waiting, snapshot.n_trials) == ({3: 2}, 1, 2, 5)
    assert LiveReader(access, detector, tmp_path).read().snapshot.paused == {3: 2}
    assert pausing.next_action(trials_of(access, detector)) == Action("resume", (3,))
    assert pausing.paused() == {0, 1}
    assert pausing.pauses(2, trials_of(access, detector))
    assert list(pausing.order(trials_of(access, detector))) == [3, 1, 4]
    assert registry.claim(3, me.id, None)
    assert pausing.next_action(trials_of(access, detector)) == Action("promote", (1,))
    lease = registry.claim(1, me.id, None)
    access.open()._storage.set_trial_intermediate_value(2, 4, 0.6)
    registry.renew(lease, 4)
    registry.release(1, me.id)
    assert pausing.next_action(trials_of(access, detector)) == Action("resume", (1,)), "an old value was kept"


def has_workers(driver: subprocess.Popen[str], folder: Path) -> bool:
    return driver.poll() is not None or (folder.exists() and bool(sweeps.workers(folder)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.soak("takes 26 s; tests/sweeper/test_exhaustive.py stops workers at every statement")
def test_kills_of_workers_and_drivers_lose_and_repeat_nothing(tmp_path):
    write(tmp_path)
    folder = tmp_path / "multirun/main"
    command = small_program.command(
        tmp_path, "x=interval(0,1)", "hydra.sweeper.n_trials=12", "wait=0.1", *PRUNER, "hydra/launcher=joblib",
        "hydra.sweeper.lease_seconds=5", "hydra.sweeper.sampler.seed=1",
    )  # fmt: skip
    kills, driver = 0, sweeps.start(command, tmp_path)
    try:
        while kills < 4:
            sweeps.wait_until(partial(has_workers, driver, folder), 120)
            time.sleep(2.0 + kills)
            if driver.poll() is not None:
                break
            workers = sweeps.workers(folder)
            victim = driver.pid if kills % 2 or not workers else workers[0].identity.pid
            os.kill(victim, signal.SIGKILL)
            kills += 1
            if victim == driver.pid:
                driver.wait()
                driver = sweeps.start(command, tmp_path)
        if driver.poll() is None:
            assert driver.wait(240) == 0, (tmp_path / "sweep.log").read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
    assert kills >= 2
    check_finished(tmp_path, 12)
    for number in range(12):
        steps = trained(tmp_path, number)
        assert len(steps) - len(set(steps)) <= kills, f"trial {number} has trained {steps}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_promoted_run_of_the_trainer_equals_a_run_alone(tmp_path, fork_server):
    trials = [f"seed={seed}" for seed in (1, 2, 3)]
    command = sweeps.command(
        "paused", OWN, f"hydra.sweeper.trials={trials}", *PRUNER, "hydra.sweeper.pruner.min_resource=1",
        "hydra.sweeper.pruner.reduction_factor=2", epochs=4,
    )  # fmt: skip
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "multirun/paused"
    states, histories = sweeps.states(folder), sweeps.histories(folder)
    assert Counter(states.values()) == {"COMPLETE": 1, "PRUNED": 2}, states
    promoted = next(number for number, state in states.items() if state == "COMPLETE")
    assert sweeps.leases(folder)[promoted].term > 1, "the trial was never paused"
    alone = [
        *sweeps.command("alone", OWN, epochs=4),
        f"hydra.sweeper.trials=['{trials[promoted]}']",
        "hydra/sweeper/pruner=none",
    ]
    assert sweeps.run(alone, tmp_path, fork_server).returncode == 0
    assert histories[promoted] == sweeps.histories(tmp_path / "multirun/alone")[0]
