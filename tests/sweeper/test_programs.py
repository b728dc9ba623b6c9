"""Sweeps of other programs than the trainer: how the program runs, and how its trials end."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from joyful.analysis.report import main as report
from joyful.results import read_run
from tests.support import small_program, sweeps

X = "x=interval(0,1)"
TWO = "hydra.sweeper.trials=['x=0.1','x=0.2']"


def states(folder):
    return sweeps.states(folder / "multirun/main")


def reason(folder, number=0):
    return sweeps.study(folder / "multirun/main").trials[number].user_attrs["reason"]


def test_a_search_minimizes_and_the_same_command_adds_nothing(tmp_path, fork_server):
    small_program.write(tmp_path)
    done = small_program.run(tmp_path, X, "hydra.sweeper.n_trials=4", server=fork_server)
    assert done.returncode == 0, done.stderr
    study = sweeps.study(tmp_path / "multirun/main")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert study.direction.name == "MINIMIZE"
    for trial in study.trials:
        assert trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2 + 0.25)
        assert list(trial.intermediate_values) == [0, 1, 2, 3]
        assert trial.user_attrs["folder"] == str(tmp_path / "multirun/main" / str(trial.number))
    again = small_program.run(tmp_path, X, "hydra.sweeper.n_trials=4", server=fork_server)
    assert "all 4 trials are finished; nothing to do" in again.stdout
    best = yaml.safe_load((tmp_path / "multirun/main/experiment/best.yaml").read_text())
    assert best["x"] == study.best_params["x"]
    assert (
        f"run the best settings: python {tmp_path}/main.py --config-dir multirun/main +experiment=best" in done.stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["loky", pytest.param("multiprocessing", marks=pytest.mark.soak("the other backend"))]
)
@pytest.mark.soak("takes 6 s; test_live.py has two workers of joblib")
def test_joblib_workers(tmp_path, fork_server, backend):
    small_program.write(tmp_path)
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.backend={backend}"]
    done = small_program.run(tmp_path, X, "hydra.sweeper.n_trials=4", *launcher, server=fork_server)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert states(tmp_path) == dict.fromkeys(range(4), "COMPLETE")


def test_another_search_in_the_folder_is_refused(tmp_path, fork_server):
    small_program.write(tmp_path)
    assert small_program.run(tmp_path, X, "hydra.sweeper.n_trials=1", server=fork_server).returncode == 0
    other = small_program.run(tmp_path, "x=interval(0,2)", server=fork_server)
    assert other.returncode == 2
    assert "attributes.high: 1.0 -> 2.0" in other.stderr
    assert "hydra.sweep.dir=FOLDER" in other.stderr
    more = ("hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=wide")
    named = small_program.run(tmp_path, "x=interval(0,2)", *more, server=fork_server)
    assert named.returncode == 0, named.stderr
    assert sweeps.states(tmp_path / "multirun/wide") == {0: "COMPLETE"}


def test_the_job_is_that_of_the_basic_launcher(tmp_path, fork_server):
    """Working folder, environment, HydraConfig, job log, overrides and callbacks of every trial."""
    before = """
        import json
        import logging

        from hydra.core.hydra_config import HydraConfig
        from hydra.experimental.callback import Callback

        class Notes(Callback):
            def on_job_end(self, config, job_return, **_):
                Path(config.hydra.runtime.output_dir, "notes.txt").write_text(str(job_return.status))
    """
    body = """\
    logging.getLogger(__name__).info("the value is %s", cfg.x)
    seen = {
        "cwd": os.getcwd(), "X": os.environ["X"], "number": HydraConfig.get().job.num,
        "folder": str(trial.folder), "trial": trial.number, "resumed": trial.resumed, "argv": sys.argv[1],
    }
    (trial.folder / "seen.json").write_text(json.dumps(seen))
    return cfg.x
"""
    small_program.write(tmp_path, body, before=before)
    overrides = [
        TWO, "+hydra.job.env_set.X=${x}", "hydra.job.chdir=true", "hydra.sweep.subdir=trial_${hydra:job.num}/${x}",
        "+hydra.callbacks.notes._target_=__main__.Notes",
    ]  # fmt: skip
    done = small_program.run(tmp_path, *overrides, server=fork_server)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == {0: "COMPLETE", 1: "COMPLETE"}
    for number, x in enumerate(("0.1", "0.2")):
        folder = tmp_path / "multirun/main" / f"trial_{number}" / x
        assert json.loads((folder / "seen.json").read_text()) == {
            "cwd": str(folder), "X": x, "number": number, "folder": str(folder), "trial": number, "resumed": False,
            "argv": "-m",
        }  # fmt: skip
        assert f"the value is {x}" in (folder / "main.log").read_text()
        assert (folder / "notes.txt").read_text() == "JobStatus.COMPLETED"
        assert yaml.safe_load((folder / ".hydra/overrides.yaml").read_text()) == [f"x={x}"]


def test_a_program_with_objects_that_cannot_be_pickled_and_a_decorated_function(tmp_path, fork_server):
    before = """
        import functools
        import threading
        from dataclasses import dataclass

        from omegaconf import OmegaConf

        LOCK = threading.Lock()
        OmegaConf.register_new_resolver("twice", lambda value: 2 * value)

        @dataclass
        class Point:
            x: float

        def checked(function):
            @functools.wraps(function)
            def wrapper(cfg):
                assert isinstance(Point(1.0), Point)
                return 10 + function(cfg)
            return wrapper
    """
    body = """\
    with LOCK:
        return cfg.double + Point(cfg.x).x
"""
    path = small_program.write(tmp_path, body, small_program.CONFIG + "double: ${twice:${x}}\n", before)
    path.write_text(path.read_text().replace("def main(cfg)", "@checked\ndef main(cfg)"))
    done = small_program.run(tmp_path, TWO, server=fork_server)
    assert done.returncode == 0, done.stderr
    values = [trial.value for trial in sweeps.study(tmp_path / "multirun/main").trials]
    assert values == pytest.approx([10.3, 10.6])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["module", pytest.param("no file", marks=pytest.mark.soak("rare"))])
def test_programs_that_are_not_a_script(tmp_path, how):
    small_program.write(tmp_path / "package", config=small_program.CONFIG)
    (tmp_path / "package/__init__.py").touch()
    start = ["-m", "package.main"]
    if how == "no file":
        start = ["-c", (tmp_path / "package/main.py").read_text().replace('"conf"', f'"{tmp_path}/package/conf"')]
    command = [sys.executable, *start, "-m", "hydra/sweeper=optuna_pruned", TWO, "hydra.sweeper.study_name=main"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == {0: "COMPLETE", 1: "COMPLETE"}


def test_a_program_that_starts_when_it_is_imported_is_refused(tmp_path, fork_server):
    small_program.write(tmp_path, after="main()\n")
    done = small_program.run(tmp_path, TWO, server=fork_server)
    assert done.returncode == 1
    assert (
        "main.py: it starts when it is imported; put the call of its main function under if __name__ ==" in done.stderr
    )
    assert set(states(tmp_path).values()) <= {"RUNNING", "WAITING"}  # nothing is lost


#: Last lines of the program -> beginning of the reason for which its trial fails.
FAILURES = {
    "raise ValueError('no\\nsuch value')": "ValueError: no such value",
    "sys.exit(3)": r"the program called sys.exit(3)",
    "return None": "the program returned None; expected a number, the objective",
    "return float('nan')": "the program returned nan; expected a number, the objective",
    "return 'fine'": "the program returned 'fine'; expected a number, the objective",
    "trial.report('high', 1)": "TypeError: trial.report: value: expected a number, got 'high'",
    "trial.report(1.0, -1)": "ValueError: trial.report: step: expected an integer >= 0, got -1",
    "trial.report(1.0, 1, metrics={'1': 1})": "trial.report: metrics: expected names that start with a letter",
}


def test_a_trial_that_fails_names_the_reason_and_the_others_go_on(tmp_path, fork_server):
    """Each trial ends with another line, and the last one completes."""
    body = "".join(f"    if cfg.x == {number}:\n        {line}\n" for number, line in enumerate(FAILURES))
    small_program.write(tmp_path, f"{body}    if cfg.x == {len(FAILURES)}:\n        return cfg.x\n")
    trials = ",".join(f"'x={number}'" for number in range(len(FAILURES) + 1))
    done = small_program.run(tmp_path, f"hydra.sweeper.trials=[{trials}]", server=fork_server)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == {**dict.fromkeys(range(len(FAILURES)), "FAIL"), len(FAILURES): "COMPLETE"}
    for number, message in enumerate(FAILURES.values()):
        assert reason(tmp_path, number).startswith(message)
        assert f"trial {number} failed: {reason(tmp_path, number)}" in done.stdout


def test_a_full_disk_is_not_the_fault_of_a_trial(tmp_path, fork_server):
    body = """\
    import errno
    if not Path("room").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return cfg.x
"""
    small_program.write(tmp_path, body)
    done = small_program.run(tmp_path, TWO, server=fork_server)
    assert done.returncode == 1
    assert "the sweep cannot continue: [Errno 28] No space left on device" in done.stderr
    assert "FAIL" not in states(tmp_path).values()
    (tmp_path / "room").touch()
    assert small_program.run(tmp_path, TWO, server=fork_server).returncode == 0
    assert states(tmp_path) == {0: "COMPLETE", 1: "COMPLETE"}


def test_several_objectives_are_not_pruned(tmp_path, fork_server):
    body = """\
    trial.report(1.0, 1)
    return cfg.x, 1 - cfg.x
"""
    small_program.write(tmp_path, body)
    overrides = [X, "hydra.sweeper.n_trials=3", "hydra.sweeper.direction=[minimize,maximize]"]
    done = small_program.run(tmp_path, *overrides, "hydra.sweeper.metric_names=[size,quality]", server=fork_server)
    assert done.returncode == 0, done.stderr
    study = sweeps.study(tmp_path / "multirun/main")
    assert study.metric_names == ["size", "quality"]
    assert all(trial.values == [trial.params["x"], 1 - trial.params["x"]] for trial in study.trials)


def test_pruning_ends_trials_early(tmp_path, fork_server):
    body = """\
    for step in range(1, 6):
        trial.report(cfg.x, step)
    (trial.folder / "end").touch()
    return cfg.x
"""
    small_program.write(tmp_path, body)
    listed = ",".join(f"'x={x}'" for x in (0.1, 0.2, 0.9, 0.8))
    overrides = [
        f"hydra.sweeper.trials=[{listed}]", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2",
        "hydra.sweeper.pruner.n_warmup_steps=2",
    ]  # fmt: skip
    done = small_program.run(tmp_path, *overrides, server=fork_server)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == {0: "COMPLETE", 1: "COMPLETE", 2: "PRUNED", 3: "PRUNED"}
    assert reason(tmp_path, 2) == "pruned at step 2"
    assert "Job failed" not in (tmp_path / "multirun/main/2/main.log").read_text()
    ends = [(tmp_path / "multirun/main" / str(number) / "end").exists() for number in range(4)]
    assert ends == [True, True, False, False]


@pytest.mark.slow
def test_a_killed_sweep_resumes_in_the_same_folder_with_its_history(tmp_path, fork_server):
    """The program keeps a checkpoint. Its process group is killed in the middle of a trial."""
    body = """\
    import time
    place = trial.folder / "step"
    first = int(place.read_text()) if trial.resumed and place.exists() else 0
    for step in range(first, 6):
        with open("steps.log", "a") as log:
            log.write(f"{trial.number} {step}\\n")
        time.sleep(0.2)
        trial.report(1 / (step + 1), step, metrics={"loss": 1 / (step + 1), "train_loss": step})
        place.write_text(str(step + 1))
    return 1 / (step + 1)
"""
    small_program.write(tmp_path, body)
    command, log = small_program.command(tmp_path, TWO), tmp_path / "steps.log"
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.wait_until(lambda: log.exists() and "1 2" in log.read_text(), 60)
    finally:
        sweeps.kill_group(driver)
    assert states(tmp_path) == {0: "COMPLETE", 1: "RUNNING"}
    done = small_program.run(tmp_path, TWO, server=fork_server)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == {0: "COMPLETE", 1: "COMPLETE"}
    steps = [line for line in log.read_text().split("\n") if line.startswith("1 ")]
    assert steps[-1] == "1 5"
    assert len(steps) <= 7  # at most one step twice
    folder = tmp_path / "multirun/main"
    histories = sweeps.histories(folder)
    assert histories[0] == histories[1]
    assert read_run(folder / "1")["status"] == "completed"
    assert not (folder / "1/history.jsonl").exists()


INTERRUPTED = pytest.param(
    "0.2", "interrupted", marks=pytest.mark.soak("takes 5 s; the sweep in a dated folder is interrupted")
)


@pytest.mark.slow
@pytest.mark.parametrize(("x", "left"), [("0.1", "saved"), INTERRUPTED])
def test_sigterm_asks_the_program_to_stop_and_then_interrupts_it(tmp_path, x, left):
    body = """\
    import time
    trial.report(1.0, 1)
    (trial.folder / "reported").touch()
    try:
        for _ in range(600):
            time.sleep(0.05)
            if trial.should_stop and cfg.x < 0.15:
                (trial.folder / "saved").touch()
                return 1.0
        return 1.0
    except KeyboardInterrupt:
        (trial.folder / "interrupted").touch()
        raise
"""
    small_program.write(tmp_path, body)
    folder = tmp_path / f"multirun/{left}"
    command = small_program.command(tmp_path, f"hydra.sweeper.trials=['x={x}']", f"hydra.sweeper.study_name={left}")
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.wait_until((folder / "0/reported").exists, 60)
        driver.terminate()
        assert driver.wait(10) == 143
    finally:
        sweeps.kill_group(driver)
    assert (folder / "0" / left).exists()
    assert sweeps.states(folder) == {0: "RUNNING"}  # it can be resumed


@pytest.mark.slow
def test_a_sweep_in_a_dated_folder_names_the_folder_to_resume(tmp_path):
    small_program.write(tmp_path, "    import time\n    (trial.folder / 'begun').touch()\n    time.sleep(60)\n")
    dated = "multirun/2026-01-31/12-00-00"
    command = small_program.command(tmp_path, "hydra.sweeper.trials=['x=0.1']", f"hydra.sweep.dir={dated}")
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.wait_until((tmp_path / dated / "0/begun").exists, 60)
        driver.terminate()
        assert driver.wait(10) == 143
    finally:
        sweeps.kill_group(driver)
    output = (tmp_path / "sweep.log").read_text()
    assert f"interrupted by SIGTERM; run the same command with hydra.sweep.dir={dated} to resume" in output


def test_processes_that_the_program_starts_have_no_trial(tmp_path, fork_server):
    body = """\
    child = os.fork()
    if child == 0:
        trial.report(100.0, 1)
        os._exit(0 if trial.number is None and str(trial.folder).endswith("main/0") else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    small_program.write(tmp_path, body)
    assert small_program.run(tmp_path, "hydra.sweeper.trials=['x=1']", server=fork_server).returncode == 0
    trial = sweeps.study(tmp_path / "multirun/main").trials[0]
    assert (trial.value, trial.intermediate_values) == (0.0, {})


def test_values_of_the_job_neither_fail_nor_make_trials_differ(tmp_path, fork_server):
    config = small_program.CONFIG + "place: ${hydra:runtime.output_dir}\nday: ${now:%H-%M-%S-%f}\nsame: ${x}\n"
    small_program.write(tmp_path, "    return 1.0 if cfg.place == str(trial.folder) else 2.0", config)
    trials = "hydra.sweeper.trials=['x=0.1','x=0.1']"
    for _ in range(2):
        done = small_program.run(tmp_path, trials, server=fork_server)
        assert done.returncode == 0, done.stderr
    trials = sweeps.study(tmp_path / "multirun/main").trials
    assert [trial.value for trial in trials] == [1.0, 1.0]
    assert trials[1].user_attrs["same_as"] == 0
    missing = small_program.run(
        tmp_path, "x=???", "seed=interval(0.0,1.0)", "hydra.sweeper.study_name=b", server=fork_server
    )
    assert missing.returncode == 2
    assert "x: expected a value, got none (???); set x=VALUE" in missing.stderr


def test_arms_and_pairs_by_another_key_are_not_pruned_and_can_be_judged(tmp_path, fork_server, capsys):
    config = "x: 0.5\ntrain: {seed: 1}\n"
    body = """\
    for step in range(1, 4):
        value = cfg.x + cfg.train.seed / 1000 + 1 / step
        trial.report(value, step, metrics={"loss": value})
    return value
"""
    small_program.write(tmp_path, body, config)
    overrides = [
        "hydra.sweeper.arms=['x=0.1','x=0.9']", "hydra.sweeper.pairs=6", "hydra.sweeper.seed_key=train.seed",
        "hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=0",
    ]  # fmt: skip
    done = small_program.run(tmp_path, *overrides, server=fork_server)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun/main"
    assert set(sweeps.states(folder).values()) == {"COMPLETE"}
    runs = [read_run(folder / str(number)) for number in range(7)]
    assert [(run["role"], run["seed"]) for run in runs] == [
        ("calibration", 9000), ("calibration", 9001), ("calibration", 9002),
        ("comparison", 1), ("comparison", 1), ("comparison", 2), ("comparison", 2),
    ]  # fmt: skip
    assert [run["config"] for run in runs[3:5]] == [{"x": 0.1, "train": {}}, {"x": 0.9, "train": {}}]
    trials = sweeps.study(folder).trials
    assert [trial.user_attrs["arm"] for trial in trials[3:5]] == ["x=0.1", "x=0.9"]
    assert [trial.user_attrs["seed"] for trial in trials[3:5]] == [1, 1]
    assert "report: joyful report multirun/main" in done.stdout
    assert report([str(folder)]) == 0
    assert "no run has a column of these claims (f1_weighted, " in capsys.readouterr().out
    claim = {"claim": "loss", "says": "lower", "metrics": [{"measure": "best", "split": "dev", "of": "loss"}]}
    claim |= {"between": [50, 70], "unit": "percent", "direction": "decrease"}
    (tmp_path / "claims.yaml").write_text(json.dumps({"claims": [claim]}))
    assert report([str(folder), "--claims", str(tmp_path / "claims.yaml"), "--baseline", "x=0.9"]) == 0
    assert "x 0.1 against x 0.9: 1 supported\n" in capsys.readouterr().out


def test_outside_a_sweep_the_trial_does_nothing(tmp_path, fork_server):
    small_program.write(tmp_path, "    trial.report(cfg.x, 1)\n    print(trial.number, trial.folder)\n")
    arguments = [str(tmp_path / "main.py"), "hydra.run.dir=out"]
    done = fork_server.run(arguments, tmp_path, os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"None {tmp_path / 'out'}\n"
