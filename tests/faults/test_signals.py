"""SIGTERM and Ctrl-C end a run or a sweep at once with one line, and the same command resumes it to the same bytes."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest

from joyful import results
from tests.support import launchers, sweeps
from tests.support.faults import count, seed
from tests.support.runs import TINY

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
LONG = ("training.epochs=20",)

#: Launchers of Hydra's own multiruns.
JOBLIB = pytest.mark.soak("takes 11 s; test_multirun_failures.py ends processes of joblib by a signal")
LAUNCHERS = ["basic", pytest.param("joblib", marks=JOBLIB)]


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.timeout(1200)
def test_a_signalled_run_is_interrupted_and_resumes(tmp_path, trainers, tally, number):
    chance, wrong, lost = random.Random(seed() + number), [], []
    whole, folder, times = tmp_path / "whole", tmp_path / "run", 0
    trainers.run(whole, *LONG)
    expected = (whole / "history.parquet").read_bytes()
    wanted = count(quick=1, full=40)
    while times < wanted:
        trainer = trainers.start(folder, *LONG, through_main=True)
        trainer.wait_for_epoch(1)
        complete = 0.0
        time.sleep(chance.uniform(0.0, 0.4))
        if trainer.running:
            os.kill(trainer.pid, number)
        code = trainer.wait()
        if code == 0:  # it ended before the signal
            folder.rename(tmp_path / f"done-{times}-{time.monotonic_ns()}")
            continue
        times += 1
        complete = trainer.epochs[-1] - 1
        info = results.read_run(folder)
        if (code, info["status"]) != (CODES[number], "interrupted") or "resume=" not in info["reason"]:
            wrong.append(f"code {code}, status {info['status']}: {info['reason']}")
        if trainer.stderr.count("\n") != 1 or not trainer.stderr.startswith("joyful: interrupted by"):
            wrong.append(trainer.stderr)
        frame = results.load(folder)
        if frame.attrs["damaged"] or (complete and frame["epoch"].max() < complete):
            lost.append(f"epochs up to {complete:g} were complete: {frame.attrs}")
    trainers.run(folder, *LONG)
    wrong += [] if (folder / "history.parquet").read_bytes() == expected else ["another history"]
    tally(f"{'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'} to a run", times, len(lost), len(wrong))
    assert (lost, wrong) == ([], [])


def interruptible(folder, program, *arguments):
    """Start a program as in a terminal, with the default reaction to Ctrl-C and its own process group."""
    command = [sys.executable, str(sweeps.RUN.with_name(program)), *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=-1, stderr=-1, text=True, start_new_session=True, preexec_fn=sweeps.enable_ctrl_c
    )


def cpu_seconds(process):
    """Return the CPU seconds of a process, which measure its progress independently of the load of the machine."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def test_ctrl_c_at_any_moment_of_the_command_is_one_line(tmp_path, tally):
    """Including the time when it imports its modules."""
    chance, wrong = random.Random(seed()), []
    moments = [1.0, *(chance.uniform(0.5, 5.0) for _ in range(count(quick=0, full=20)))]
    programs = [("run.py",), ("train.py", "--dataset=synthetic")]
    for i, moment in enumerate(moments):
        child = interruptible(tmp_path, *programs[i % 2], *TINY, "training.epochs=500", f"hydra.run.dir=run-{i}")
        sweeps.wait_until(lambda: cpu_seconds(child) >= moment or child.poll() is not None, 120)  # noqa: B023
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=120)
        if child.returncode != 130 or "Traceback" in error or "joyful: interrupted by Ctrl-C" not in error:
            wrong.append((moment, child.returncode, error))
    tally("Ctrl-C while the program starts", len(moments), 0, len(wrong))
    assert wrong == []


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c_ends_a_multirun_of_hydras_own(tmp_path, launcher, tally):
    """The driver may not train itself. Its processes end with it, and its runs can be resumed."""
    jobs = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    many = (f"hydra/launcher={launcher}", *jobs, *TINY, "training.epochs=2000", "seed=1,2,3", "hydra.sweep.dir=many")
    child = interruptible(tmp_path, "run.py", "-m", *many)
    try:
        sweeps.wait_until(lambda: any(tmp_path.glob("many/*/history.parquet")) or child.poll() is not None, 120)
        os.killpg(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=120)
    finally:
        sweeps.kill_group(child)
    lines = {line for line in error.strip().splitlines() if not line.startswith("run ")}
    command = shlex.join([str(sweeps.RUN), "-m", *many])
    wrong = (child.returncode, lines) != (
        130,
        {
            "joyful: interrupted by Ctrl-C; nothing that was completed is lost",
            "joyful: folder: many",
            f"joyful: to go on: python {command}",
        },
    )
    statuses = {results.read_run(path.parent)["status"] for path in tmp_path.glob("many/*/run.json")}
    tally("Ctrl-C to a multirun of Hydra's own", 1, 0, int(wrong))
    assert not wrong, error
    assert statuses <= {"running", "interrupted"}  # joblib kills processes that do not end at once


#: A sitecustomize module that sends Ctrl-C to the process group while the file PRESS_IN composes its first trial.
#: PRESS_AT is the number of the Python call at which it does so, or "making": the place where OmegaConf turns
#: KeyboardInterrupt into an AttributeError, and Hydra turns that into a configuration error.
PRESS = """
import os, signal, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl

compose, at, file = ConfigLoaderImpl.load_sweep_config, os.environ["PRESS_AT"], os.environ["PRESS_IN"]

def press(self, *arguments, **settings):
    if not sys._getframe(1).f_code.co_filename.endswith(file):
        return compose(self, *arguments, **settings)
    calls, making = 0, False

    def profile(frame, event, called):
        nonlocal calls, making
        calls += 1
        if frame.f_code.co_name == "__setattr__" and frame.f_locals.get("key") == "config_sources":
            making = True
        node = frame.f_code.co_qualname == "ValueNode.__init__"
        if (making and node) if at == "making" else calls > int(at):
            sys.setprofile(None)
            open("pressed", "a").write(".")
            os.killpg(0, signal.SIGINT)
            for _ in range(1000): pass

    sys.setprofile(profile)
    try:
        return compose(self, *arguments, **settings)
    finally:
        sys.setprofile(None)

ConfigLoaderImpl.load_sweep_config = press
"""


def press(folder, environment, file, moment):
    """Make programs that are started with this environment send Ctrl-C while they compose a configuration."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(PRESS)
    path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
    for name, value in {"PYTHONPATH": path, "PRESS_IN": file, "PRESS_AT": moment}.items():
        environment.setenv(name, value)


def test_ctrl_c_while_hydras_own_launcher_composes_is_one_line(tmp_path, monkeypatch):
    press(tmp_path, monkeypatch, "basic_launcher.py", "making")
    child = interruptible(tmp_path, "run.py", "-m", *TINY, "seed=1,2", "hydra.sweep.dir=many")
    _, error = child.communicate(timeout=120)
    assert (tmp_path / "pressed").exists()
    assert child.returncode == 130
    assert error.startswith("joyful: interrupted by Ctrl-C; nothing that was completed is lost\njoyful: folder: many\n")
    assert error.count("\n") == 3


@pytest.mark.timeout(3600)
@pytest.mark.soak("takes 14 s; Ctrl-C comes while Hydra composes above, and to a sweep below")
@pytest.mark.parametrize("launcher", ["basic", "joblib"][: count(quick=1, full=2)])
def test_ctrl_c_while_a_trial_is_composed_fails_no_trial(tmp_path, launcher, tally, monkeypatch, fork_server):
    """An error that the signal causes in the composition does not fail the trial."""
    chance, wrong = random.Random(seed()), []
    command, folder = [*launchers.sweep_command(3), f"hydra/launcher={launcher}"], tmp_path / "multirun/launched"
    moments = ["making", *(str(chance.randrange(800_000)) for _ in range(count(quick=0, full=20)))]
    for i, moment in enumerate(moments):
        log = tmp_path / f"sweep-{i}.log"
        with monkeypatch.context() as environment:
            press(tmp_path, environment, "sweeper/worker.py", moment)
            driver = sweeps.start(command, tmp_path, log)
        try:
            code = driver.wait(240)
        finally:
            sweeps.kill_group(driver)
        states = sweeps.states(folder)
        if code != CODES[signal.SIGINT] or "FAIL" in states.values() or "Traceback" in log.read_text():
            wrong.append(f"at {moment}: code {code}, {states}: {log.read_text()[-2000:]}")
        if len((tmp_path / "pressed").read_text()) <= i:
            wrong.append(f"at {moment}: no signal was sent")
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    wrong += sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(3))
    tally("Ctrl-C while a trial is composed", len(moments), 0, len(wrong))
    assert wrong == []


@pytest.mark.timeout(3600)
@pytest.mark.soak("takes 25 s; tests/sweeper/test_programs.py signals a sweep")
def test_a_signalled_sweep_releases_its_trials_and_resumes(tmp_path, tally, fork_server):
    """Ctrl-C is sent to the process group, as by a terminal, and SIGTERM only to the driver."""
    # the quick form leaves SIGTERM to tests/sweeper/test_programs.py
    numbers = ([signal.SIGINT, signal.SIGTERM] * 5)[: count(quick=1, full=10)]
    length = count(quick=15, full=launchers.EPOCHS)
    command, folder = [*launchers.sweep_command(length), "hydra/launcher=joblib"], tmp_path / "multirun/launched"
    wrong, lost, epochs = [], [], 0
    for i, number in enumerate(numbers):
        log = tmp_path / f"sweep-{i}.log"
        driver = sweeps.start(command, tmp_path, log)
        try:
            sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=1) or driver.poll() is not None, 120)  # noqa: B023
            if number == signal.SIGINT:
                os.killpg(driver.pid, number)
            else:
                driver.send_signal(number)
            code = driver.wait(launchers.STOP_SECONDS + 5)
        finally:
            sweeps.kill_group(driver)
        owners = {lease.owner for lease in sweeps.leases(folder).values()}
        if code == 0:
            folder.rename(folder.with_name(f"done-{i}"))
            continue
        name = number.name
        if code != CODES[number] or owners != {""} or sweeps.workers(folder):
            wrong.append(f"{name}: code {code}, owners {owners}: {log.read_text()[-2000:]}")
        if (
            "Traceback" in log.read_text()
            or f"joyful: interrupted by {name}; run the same command again to resume" not in log.read_text()
        ):
            wrong.append(log.read_text()[-2000:])
        statuses = {results.read_run(path.parent)["status"] for path in folder.glob("[0-9]*/run.json")}
        if not statuses <= {"interrupted", "completed"}:
            wrong.append(f"{name}: {statuses}")
        trained = sum(lease.epochs for lease in sweeps.leases(folder).values())
        lost += [] if trained >= epochs else [f"{epochs} epochs, then {trained}"]
        epochs = trained
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    wrong += sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(length))
    tally("Ctrl-C or SIGTERM to a sweep", len(numbers), len(lost), len(wrong))
    assert (lost, wrong) == ([], [])
    assert sweeps.states(folder) == launchers.COMPLETE
