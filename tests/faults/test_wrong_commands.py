"""Commands that Hydra cannot compose give one line and exit code 2 before anything is written, also in multiruns.

So do working folders whose name Hydra cannot use. A refused command leaves the files of a finished run as they were.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from joyful.runtime import run_guard
from joyful.runtime.config_errors import config_error_message
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY

ROOT = Path(__file__).resolve().parents[2]

#: Files of an overlay: name in experiment/ -> content.
OVERLAY = {
    "tag": b'weights: !!python/object/apply:os.system ["id"]\n',
    "target": b"# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n",
    "nowhere": b"# @package _global_\nhydra: {sweeper: {_target_: nowhere.Nothing}}\n",
    "broken": b"weights: [\n",
    "bytes": b"weights: \x80\n",
    "defaults": b"defaults: 3\n",
    "list": b"- 1\n",
}

MISTAKES = [
    (("loss=nothing",), "loss: expected one of mse, smoothl1, weighted_mse, got 'nothing'"),
    (("hydra/launcher=nothing",), "hydra/launcher: expected one of basic, "),
    (("los=mse",), "los: there is no such setting; did you mean loss?"),
    (("~los",), "los: there is no such setting; did you mean loss?"),
    (("weights.cl_loss_weight=[",), "weights.cl_loss_weight=["),
    (("seed",), "expected NAME=VALUE without spaces around =, got 'seed'"),
    (("seed=???",), "Missing mandatory value: seed"),
    (("seed=${nowhere.x}",), "Interpolation key 'nowhere.x' not found (seed)"),
    (("hydra.run.dir=${nowhere}", "hydra.sweep.dir=${nowhere}"), "Interpolation key 'nowhere' not found (hydra."),
    (("hydra.run.dir=???", "hydra.sweep.dir=???"), ".dir: expected a folder, got none"),
    (("--config-name=nothing",), "--config-name: expected the name of a configuration, got 'nothing'"),
    (("--config-dir=nothing",), "--config-dir: expected a folder, found none at "),
    (("experiment=tag",), "could not determine a constructor for the tag"),
    (("experiment=target",), "hydra.callbacks.x._target_: expected a class that this program allows, got os.system"),
    (("experiment=broken",), "broken.yaml"),
    (("experiment=bytes",), "'utf-8' codec can't decode byte 0x80"),
    (("experiment=defaults",), "'experiment/defaults'"),
    (("experiment=list",), "experiment"),
]


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    (tmp_path / "overlay/experiment").mkdir(parents=True)
    for name, data in OVERLAY.items():
        (tmp_path / "overlay/experiment" / f"{name}.yaml").write_bytes(data)
    return f"--config-dir={tmp_path / 'overlay'}"


@pytest.mark.parametrize("mode", [(), ("-m",)], ids=["run", "multirun"])
def test_composition_errors_are_one_line(
    mode: tuple[str, ...], overlay: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    wrong, mistakes = [], [*MISTAKES, (("experiment=nowhere",), "got 'nowhere.Nothing'")] if mode else MISTAKES
    for number, (arguments, words) in enumerate(mistakes):
        folder = tmp_path / str(number)
        folder.mkdir()
        overlays = () if "--config-dir" in arguments[0] else (overlay,)
        done = fork_server.run([str(ROOT / "run.py"), *mode, *overlays, *arguments], folder, os.environ)
        written = [path.name for path in folder.iterdir()]
        line = done.stderr.count("joyful: ") == done.stderr.count("\n") == 1
        if done.returncode != 2 or not line or words not in done.stderr or written:
            wrong.append(f"{arguments}: code {done.returncode}, written {written}: {done.stderr[-2000:]}")
    tally("a command that cannot be composed", len(mistakes), 0, len(wrong))
    assert wrong == []


@pytest.mark.parametrize("mode", [(), ("-m",)], ids=["run", "multirun"])
def test_a_working_folder_that_hydra_cannot_use_is_refused(
    mode: tuple[str, ...], fork_server: ForkServer, tmp_path: Path
) -> None:
    folder = tmp_path / "${x}"
    folder.mkdir()
    done = fork_server.run([str(ROOT / "run.py"), *mode, "seed=1,2" if mode else "seed=1"], folder, os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"expected paths without ${{, which Hydra reads as a reference, got {folder}" in done.stderr
    assert list(folder.iterdir()) == []


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_command_leaves_a_finished_run_as_it_was(fork_server: ForkServer, tmp_path: Path) -> None:
    """In a single run, in a multirun, and with the same settings, which are not refused."""
    program, place = [str(ROOT / "run.py"), *TINY], "hydra.run.dir=many/0"
    first = fork_server.run([*program, "seed=1", place], tmp_path, os.environ)
    assert first.returncode == 0, first.stderr
    expected = contents(tmp_path / "many/0")
    assert {path.parent.name for path in expected} == {"0", ".hydra", "checkpoint"}
    codes = []
    for command in (["seed=2", place], ["-m", "seed=2", "hydra.sweep.dir=many"], ["seed=1", place]):
        codes.append(fork_server.run([*program, *command], tmp_path, os.environ).returncode)
        assert contents(tmp_path / "many/0") == expected, command
    assert codes == [2, 1, 0]
    new = fork_server.run([*program, "seed=1", "hydra.run.dir=new"], tmp_path, os.environ)
    assert new.returncode == 0, new.stderr
    assert "seed: 1" in (tmp_path / "new/.hydra/config.yaml").read_text()


def test_hydra_full_error_shows_the_traceback(tmp_path: Path) -> None:
    command, environment = (
        [sys.executable, str(ROOT / "run.py"), "loss=nothing"],
        {**os.environ, "HYDRA_FULL_ERROR": "1"},
    )
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "MissingConfigException" in done.stderr


@pytest.mark.parametrize("full", [None, "1"])
def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch, full: str | None) -> None:
    """Python then prints the traceback and exits with code 1."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if full:
        monkeypatch.setenv("HYDRA_FULL_ERROR", full)

    def fails() -> None:
        run_guard.RunGuard.composed = True
        raise ZeroDivisionError("in the training")

    with pytest.raises(ZeroDivisionError, match="in the training"):
        run_guard.report_config_errors(fails)()
    assert os.environ.get("HYDRA_FULL_ERROR") == full


def test_messages_omit_internals_of_the_program() -> None:
    text = "Could not find 'a/b'\n\nAvailable options in 'a':\n\t_own\n\tc\n\td\nConfig search path:\n\tprovider=x, path=y\n"
    assert (
        config_error_message(HydraException(text))
        == "configuration: Could not find 'a/b' Available options in 'a': c, d"
    )
    with pytest.raises(Exception, match="nowhere") as caught:
        _ = OmegaConf.create({"a": {"b": "${nowhere}"}}).a.b
    assert config_error_message(caught.value) == "configuration: Interpolation key 'nowhere' not found (a.b)"
    assert config_error_message(ValueError("\x1b[2Jx\ny")) == "configuration: ValueError: \\x1b[2Jx y"
