"""Finalists of a search, which are trained on further seeds (hydra.sweeper.seeds)."""

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from joyful.analysis.report import build
from joyful.results.finalists import REPEAT_OF, Finalist, best_finalist, finalists_of
from joyful.sweeper import finalists
from joyful.sweeper.__main__ import main as sweep_command
from joyful.sweeper.creation import enqueue
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.live import LiveReader
from joyful.sweeper.metric import format_value
from joyful.sweeper.plan import Plan
from joyful.sweeper.registry import LeaseLostError, Registry
from joyful.sweeper.settings import Finals
from joyful.sweeper.status import take_snapshot
from joyful.sweeper.study import SamplerFactory, StudyAccess, TrialAccess, open_or_create
from joyful.sweeper.view_text import format_line
from tests.support import small_program, sweeps

CONFIG = "x: 1\nseed: 1\nsteps: 3\npause: 0.0\nfail: []\n"

#: With seed 1, x=4 is the best and x=3 is the second. On other seeds they lose 3 and 0.3.
BODY = """\
    time.sleep(cfg.pause)
    if f"{cfg.seed} {cfg.x}" in cfg.fail:
        raise ValueError("diverged")
    loss = {4: 3.0, 3: 0.3}.get(cfg.x, 0.0) + 0.1 * (cfg.seed - 1)
    value = cfg.x - (loss if cfg.seed > 1 else 0.0)
    for step in range(cfg.steps):
        trial.report(value, step)
        time.sleep(cfg.pause)
    return value
"""
SEARCH = [
    "x=choice(0,1,2,3,4)",
    "hydra/sweeper/sampler=grid",
    "hydra.sweeper.direction=maximize",
    "hydra.sweeper.n_trials=5",
]
WORKERS = ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "hydra.launcher.n_jobs=2"]
SEEDS = ["hydra.sweeper.seeds=3", "hydra.sweeper.finalists=2"]


@pytest.fixture
def program(tmp_path):
    small_program.write(tmp_path, BODY, CONFIG, "import time\n")
    return tmp_path


def run(folder, fork_server, *overrides):
    """Run the search with one worker in the process of the driver, which takes half of the time of two of their own."""
    return small_program.run(folder, *SEARCH, *overrides, server=fork_server)


def trials(folder):
    return sweeps.study(folder / "multirun/main").trials


def repeats(folder):
    """The value of each x and seed of the trials of finalists."""
    found = [trial for trial in trials(folder) if REPEAT_OF in trial.user_attrs]
    runs = {(trial.params["x"], trial.user_attrs["seed"]): trial.value for trial in found}
    assert len(runs) == len(found)  # none was created twice
    return runs


def overlay(folder):
    text = (folder / "multirun/main/experiment/best.yaml").read_text()
    return text.splitlines()[1], yaml.safe_load(text)


def status(folder, capsys):
    capsys.readouterr()
    assert sweep_command(["status", str(folder / "multirun/main"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_best_is_the_best_mean_over_the_seeds_of_the_finalists(program, fork_server, capsys):
    done = run(program, fork_server, *WORKERS, *SEEDS)
    assert done.returncode == 0, done.stderr
    assert repeats(program) == pytest.approx({(4, 2): 0.9, (4, 3): 0.8, (3, 2): 2.6, (3, 3): 2.5})
    assert {trial.state.name for trial in trials(program)} == {"COMPLETE"}
    best, single = (next(t.number for t in trials(program)[:5] if t.params["x"] == x) for x in (3, 4))
    assert sweeps.study(program / "multirun/main").best_trial.number == single  # the best single seed is another trial
    assert overlay(program) == (
        f"# Best of the sweep: trial {best}, 2.7 (mean of 3 seeds, standard error 0.152753) (x)",
        {"x": 3},
    )
    line = f"finalist {best}: 2.7000 (mean of 3 seeds, standard error 0.1528): x=3"
    assert f"{line}\nfinalist {single}: 1.9000 (mean of 3 seeds, standard error 1.0504): x=4" in done.stdout
    assert "9 of 9 trials done (9 complete, 0 pruned, 0 failed), 0 running; best 2.7000 (mean of 3 seeds" in done.stdout
    shown = status(program, capsys)
    assert (shown["n_trials"], shown["more_trials"], shown["best_trial"], shown["best_seeds"]) == (9, 0, best, 3)
    assert (shown["best_value"], shown["best_standard_error"]) == pytest.approx((2.7, 0.152753), abs=1e-6)
    assert [one["trial"] for one in shown["finalists"]] == [best, single]
    again = run(program, fork_server, *SEEDS)
    assert "all 9 trials are finished; nothing to do" in again.stdout
    findings, page = build(program / "multirun/main")
    assert page.headline == "Best of 5 trials: objective 2.7 (mean of 3 seeds, standard error 0.153) with x 3"
    assert findings.study.best == best


@pytest.mark.slow
def test_more_trials_and_seeds_reuse_the_runs_that_exist(program, fork_server, capsys):
    few = [*SEEDS, "hydra.sweeper.n_trials=2"]
    assert run(program, fork_server, *few).returncode == 0
    first = repeats(program)
    assert {x for x, _ in first} == {0, 4}  # a grid starts with its ends
    assert run(program, fork_server, *SEEDS, "hydra.sweeper.n_trials=5").returncode == 0
    assert sorted(trial.params["x"] for trial in trials(program) if REPEAT_OF not in trial.user_attrs) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert repeats(program) == first | {(3, 2): pytest.approx(2.6), (3, 3): pytest.approx(2.5)}
    assert overlay(program)[1] == {"x": 3}
    assert run(program, fork_server, "hydra.sweeper.seeds=4", "hydra.sweeper.finalists=1").returncode == 0
    assert len(repeats(program)) == 7
    assert status(program, capsys)["best_seeds"] == 4  # x=4 has runs on the most seeds
    one = run(program, fork_server)
    assert "nothing to do" in one.stdout
    assert len(trials(program)) == 12


@pytest.mark.slow
@pytest.mark.soak("takes 10 s; tests/sweeper/test_kills.py kills a sweep")
def test_a_killed_sweep_creates_no_trial_twice(program, fork_server):
    slow = ["pause=0.03", *SEEDS]
    expected = {(4, 2): 0.9, (4, 3): 0.8, (3, 2): 2.6, (3, 3): 2.5}
    for number in (5, 7):  # trials that have been started before the kill: those of the search, and two of finalists
        process = sweeps.start(small_program.command(program, *SEARCH, *slow), program)
        try:
            sweeps.wait_until(partial(has_started, process, program, number))
        finally:
            sweeps.kill_group(process)
    assert run(program, fork_server, *slow).returncode == 0
    assert repeats(program) == pytest.approx(expected)
    assert {trial.state.name for trial in trials(program)} == {"COMPLETE"}
    assert overlay(program)[1]["x"] == 3


def has_started(process, folder, number):
    states = sweeps.states(folder / "multirun/main")
    return process.poll() is not None or sum(state != "WAITING" for state in states.values()) >= number


@pytest.mark.slow
@pytest.mark.soak("takes 3 s; the ranking is tested below")
def test_a_finalist_that_fails_on_a_seed_is_not_the_best(program, fork_server):
    done = run(program, fork_server, *SEEDS, 'fail=["2 3"]')
    assert done.returncode == 0
    assert overlay(program)[1]["x"] == 4
    assert "(mean of 2 seeds, standard error 0.2500): x=3" in done.stdout


@pytest.mark.slow
def test_finalists_are_not_pruned(program, fork_server):
    pruner = [f"hydra.sweeper.pruner.{name}" for name in ("percentile=10", "n_startup_trials=1", "n_warmup_steps=0")]
    assert run(program, fork_server, *SEEDS, "pause=0.05", *pruner).returncode == 0
    assert {(4, 2), (4, 3)} <= set(repeats(program))  # these are worse than the trial of x=4 at each step
    found = [(REPEAT_OF in trial.user_attrs, trial.state.name) for trial in trials(program)]
    assert (False, "PRUNED") in found
    assert (True, "PRUNED") not in found


@pytest.mark.slow
@pytest.mark.soak("takes 8 s; tests/faults/test_damage.py rebuilds a study")
def test_a_study_that_is_rebuilt_keeps_the_runs_of_finalists(program, fork_server):
    assert run(program, fork_server, *SEEDS, "hydra.sweeper.n_trials=2").returncode == 0
    assert run(program, fork_server, *SEEDS).returncode == 0
    before = [(t.params, t.user_attrs["seed"], t.user_attrs.get(REPEAT_OF), t.value) for t in trials(program)]
    (program / "multirun/main/study.db").write_bytes(b"damaged" * 1000)
    assert run(program, fork_server, *SEEDS).returncode == 0
    assert [(t.params, t.user_attrs["seed"], t.user_attrs.get(REPEAT_OF), t.value) for t in trials(program)] == before


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["hydra.sweeper.seeds=0"], "hydra.sweeper.seeds: expected >= 1"),
        (["hydra.sweeper.seeds=3", "hydra.sweeper.finalists=0"], "hydra.sweeper.finalists: expected >= 1"),
        ([*SEEDS, "hydra.sweeper.seed_key=sede"], "expected an integer in the program's setting sede, got none"),
        ([*SEEDS, "seed=null"], "expected an integer in the program's setting seed, got none"),
        ([*SEEDS, "seed=range(1,3)"], "expected one seed for all trials of the search, got seed in the search space"),
        (
            [*SEEDS, "hydra.sweeper.direction=[maximize,minimize]"],
            "expected one objective, got the directions maximize",
        ),
        ([*SEEDS, "x=1", "hydra.sweeper.trials=['x=1','x=2']"], "expected a search space, got hydra.sweeper.trials"),
        ([*SEEDS, "x=1", "hydra.sweeper.arms=['x=1','x=2']"], "expected a search space, got hydra.sweeper.arms"),
        ([*SEEDS, "hydra.sweep.subdir=x${x}"], "expected a folder for each seed of a finalist, got x0 for two"),
    ],
)
def test_bad_input_is_refused_before_any_trial(program, fork_server, overrides, expected):
    done = run(program, fork_server, *overrides)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (program / "multirun/main/study.db").exists()


def of_search(number, value, state=TrialState.COMPLETE, **attributes):
    trial = create_trial(
        state=state, value=value if state == TrialState.COMPLETE else None, user_attrs=attributes, params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
    )  # fmt: skip
    trial.number = number
    return trial


def test_finalists_with_the_most_seeds_come_first():
    found = [
        of_search(0, 1.0), of_search(1, 5.0), of_search(2, 4.0),
        of_search(3, 2.0, repeat_of=0, seed=2), of_search(4, 3.0, repeat_of=1, seed=2),
        of_search(5, 9.0, TrialState.FAIL, repeat_of=2, seed=2),
    ]  # fmt: skip
    assert finalists_of(found, maximise=True) == [Finalist(1, (5.0, 3.0)), Finalist(0, (1.0, 2.0)), Finalist(2, (4.0,))]
    assert finalists_of(found, maximise=False)[0] == Finalist(0, (1.0, 2.0))
    assert best_finalist([*found, of_search(6, None, TrialState.WAITING, repeat_of=2, seed=3)], maximise=True) is None
    assert Finalist(0, (1.0, float("inf"))).standard_error is None


@pytest.mark.slow
def test_finalists_are_neither_paused_nor_compared_with_the_search_at_rungs(program, fork_server):
    """Their values are worse than those of the search, which its rule would end at the first rung."""
    pruner = [
        "hydra/sweeper/pruner=asha_promotion",
        *(f"hydra.sweeper.pruner.{x}=1" for x in ("min_resource", "fewest_trials")),
    ]
    done = run(program, fork_server, *SEEDS[:1], "hydra.sweeper.finalists=1", *pruner)
    assert done.returncode == 0, done.stderr
    found = trials(program)
    states = {trial.params["x"]: trial.state.name for trial in found if REPEAT_OF not in trial.user_attrs}
    assert states[4] == "COMPLETE"  # the best at the rung is always promoted
    assert "PRUNED" in states.values()
    assert repeats(program) == {(4, 2): pytest.approx(0.9), (4, 3): pytest.approx(0.8)}
    assert [sorted(trial.intermediate_values) for trial in found[5:]] == [[0, 1, 2]] * 2


@pytest.fixture
def searched(tmp_path):
    """The study of a search of three trials, which are complete, and the leases of its trials."""
    backend = open_storage(storage_url(None, tmp_path))
    plan = Plan(3, (), {"x": FloatDistribution(0, 1)})
    study_id = open_or_create(backend, "s", ["minimize"], plan.describe())
    registry = Registry(open_engine(backend.engine.url), study_id)
    enqueue(backend, registry, plan, {})
    with StudyAccess(backend, registry, "s", SamplerFactory(TPESampler, 7, reseed=True), MedianPruner(0, 0)) as access:
        for number, value in enumerate((0.3, 0.1, 0.2)):
            trial = TrialAccess(access, number)
            trial.ask(plan.space)
            trial.report(1, value)
            trial.tell(TrialState.COMPLETE, [value])
        yield access


def test_samplers_and_pruners_do_not_see_the_runs_of_finalists(searched):
    finals = Finals(2, (2, 3), "seed")
    lease = searched.registry.claim(-1, "driver", None)
    first = finalists.repeat_of(1, searched.open().trials[1], 2)
    searched.backend.create_new_trial(
        searched.registry.study_id, first
    )  # a process was killed after it had created one
    finalists.add(searched, finals, lease)
    finalists.add(searched, finals, lease)
    found = [(t.user_attrs[REPEAT_OF], t.user_attrs["seed"]) for t in searched.open().trials[3:]]
    assert found == [(1, 2), (2, 2), (1, 3), (2, 3)]
    trial = TrialAccess(searched, 3)
    assert trial.ask({"x": FloatDistribution(0, 1)}) == searched.open().trials[1].params
    assert [other.number for other in trial.study.get_trials()] == [0, 1, 2]
    assert trial.report(1, 99.0)  # worse than the median, and not pruned
    assert not finalists.read_missing(searched, finals)
    state = LiveReader(searched, FailureDetector(30.0), Path("absent")).read()
    assert (state.snapshot.best_trial, state.snapshot.best_value) == (1, 0.1)
    trial.tell(TrialState.COMPLETE, [0.0])
    assert LiveReader(searched, FailureDetector(30.0), Path("absent")).read().snapshot.best_value == 0.1


def test_a_process_that_has_lost_the_lease_creates_no_trial(searched):
    lease = searched.registry.claim(-1, "driver", None)
    searched.registry.claim(-1, "other", lease)
    with pytest.raises(LeaseLostError):
        finalists.add(searched, Finals(2, (2, 3), "seed"), lease)
    assert len(searched.open().trials) == 3


def test_a_running_search_shows_up_to_how_many_trials_there_may_be(searched, tmp_path):
    (tmp_path / "sweep.json").write_text('{"finalists": {"count": 2, "seeds": [2, 3], "seed_key": "seed"}}')
    searched.backend.create_new_trial(searched.registry.study_id)
    state = LiveReader(searched, FailureDetector(30.0), tmp_path).read()
    assert (state.snapshot.more_trials, state.snapshot.is_finished) == (4, False)
    assert format_line(state.snapshot).startswith("sweep s: 3 of up to 8 trials done")
    assert take_snapshot(searched, FailureDetector(30.0), tmp_path).more_trials == 4
    TrialAccess(searched, 3).tell(TrialState.FAIL)
    lease = searched.registry.claim(-1, "driver", None)
    finalists.add(searched, Finals(2, (2, 3), "seed"), lease)
    assert LiveReader(searched, FailureDetector(30.0), tmp_path).read().snapshot.more_trials == 0
    for number in range(4, 8):
        TrialAccess(searched, number).tell(TrialState.COMPLETE, [0.4 + number])
    live = LiveReader(searched, FailureDetector(30.0), tmp_path).read().snapshot
    assert (live.best_trial, live.best_seeds, live.is_finished) == (1, 3, True)
    assert live.best_value == pytest.approx((0.1 + 4.4 + 6.4) / 3)
    assert "best " + format_value(live.best_value) + " (mean of 3 seeds, standard error" in format_line(live)
