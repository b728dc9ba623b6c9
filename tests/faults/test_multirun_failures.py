"""A run that is refused or interrupted in a multirun of Hydra's own ends neither the launcher nor the sweeper."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import optuna
import psutil
import pytest

from joyful import results
from joyful.training.coach import TrainingFailedError
from joyful.training.experiment import train_run
from tests.support import sweeps
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import tiny_request

LAUNCHERS = {"basic": ("hydra/launcher=basic",)}
SLOW_LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "multiprocessing": ("hydra/launcher=joblib", "hydra.launcher.backend=multiprocessing", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local",),
    "ray": ("hydra/launcher=ray",),
}
MORE = pytest.mark.soak("another launcher")
#: The heads fit the context only if they divide its width, which depends on the data. So only the run itself finds it.
HEADS = ("model.context=transformer", "model.context_heads=2,997,1")
REFUSED = "model.context_heads: expected a divisor of the context's width "


def failed_run(folder: Path) -> None:
    """Write the run of an earlier command, which failed."""
    diverges = ("optimizer=sgd", "optimizer.learning_rate=10", "training.max_grad_norm=0")
    with pytest.raises(TrainingFailedError):
        train_run(tiny_request(folder, *diverges, "weights.encoder_loss_weight=1000000", "training.epochs=30"))


def statuses(folder: Path) -> dict[str, str]:
    return {path.parent.name: results.read_run(path.parent)["status"] for path in folder.glob("*/run.json")}


@pytest.mark.parametrize("launcher", ["basic", *(pytest.param(name, marks=MORE) for name in SLOW_LAUNCHERS)])
def test_one_run_is_refused_and_the_others_are_trained(
    launcher: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    folder = tmp_path / "multirun/grid"
    failed_run(folder / "earlier")
    command = sweeps.command("grid", *(LAUNCHERS | SLOW_LAUNCHERS)[launcher], *HEADS)
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert statuses(folder) == {"0": "completed", "2": "completed", "earlier": "failed"}
    named = [line for line in done.stderr.splitlines() if line.startswith("joyful: run ")]
    assert len(named) == 1
    assert named[0].startswith(f"joyful: run 1 failed: {REFUSED}")
    assert "joyful: 1 run failed in multirun/grid; " in done.stderr
    assert list(folder.glob(".failed*")) == []
    tally("refused run of a multirun", 1)


@pytest.mark.soak("another sweeper")
def test_stock_optuna_goes_on_after_a_refused_trial(fork_server: ForkServer, tmp_path: Path, tally: Tally) -> None:
    storage = f"sqlite:///{tmp_path / 'stock.db'}"
    chosen = (
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1",
    )
    study = ("hydra.sweeper.max_failure_rate=1.0", f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=stock")
    command = sweeps.command("stock", *chosen, *study, HEADS[0], "model.context_heads=choice(2,997,1)")
    command.remove("model.context_heads=2")  # stock Optuna would keep this value
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    trials = optuna.load_study(study_name="stock", storage=storage).trials
    states = {trial.params["model.context_heads"]: trial.state.name for trial in trials}
    assert states == {2: "COMPLETE", 997: "FAIL", 1: "COMPLETE"}
    bad = next(trial.number for trial in trials if trial.state.name == "FAIL")
    assert f"joyful: run {bad} failed: {REFUSED}" in done.stderr
    tally("refused run of a multirun", 1)


@pytest.mark.soak("takes 6 s, and is rare")
def test_a_failure_that_cannot_be_recorded_ends_the_command_with_code_1(
    fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    """The disk is full for the record, but not for the second run."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import pathlib\nmake = pathlib.Path.mkdir\n"
        "def mkdir(self, *a, **k):\n"
        "    if self.name.startswith('.failed'): raise OSError(28, 'No space left on device')\n"
        "    return make(self, *a, **k)\n"
        "pathlib.Path.mkdir = mkdir\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}"}
    command = sweeps.command("grid", HEADS[0], "model.context_heads=997,2")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert f"multirun/grid/0: {REFUSED}" in done.stderr
    assert statuses(tmp_path / "multirun/grid") == {"1": "completed"}
    tally("refused run of a multirun", 1)


@pytest.mark.soak("takes 8 s for each; tests/sweeper/test_worker_failures.py kills processes of our own launcher")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_a_process_of_joblib_ends_the_command(number: int, tmp_path: Path, tally: Tally) -> None:
    """It used to wait for ever for the result of the process."""
    long = ("training.epochs=2000", "seed=1,2", "hydra.sweep.dir=many")
    driver = sweeps.start(sweeps.command("many", *SLOW_LAUNCHERS["joblib"], *long), tmp_path)
    try:
        sweeps.wait_until(lambda: any(tmp_path.glob("many/*/history.parquet")) or driver.poll() is not None, 120)
        for process in psutil.Process(driver.pid).children():
            if "LokyProcess-1" in process.cmdline():
                process.send_signal(number)
        assert driver.wait(60) != 0
    finally:
        sweeps.kill_group(driver)
    tally("signal to a process of joblib", 1)
