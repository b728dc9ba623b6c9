"""Completion in bash, called as the shell calls it: the words for a line, without a part of a file and without errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from joyful.cli import COMMANDS
from tests.support.fork_server import ForkServer

ROOT = Path(__file__).resolve().parents[1]

PROGRAMS = {"python run.py": [str(ROOT / "run.py")], "joyful train": ["-m", "joyful.cli"]}

LINES = {
    "loss=": "loss=mse loss=smoothl1 loss=weighted_mse",
    "loss=s": "loss=smoothl1",
    "loss=_": "",
    "fusion=": "fusion=auto fusion=hierarchical",
    "weighting=": "weighting=adaptive weighting=fixed weighting=gradient_balanced weighting=normalised",
    "seed=3 training.ep": "training.epochs=",
    "experiment=": "experiment=dialogues experiment=emorynlp experiment=full experiment=iemocap experiment=meld experiment=mosi",
    "-m +sweeps=": "+sweeps=ablation +sweeps=basic_optimization +sweeps=encoder_loss_weight +sweeps=first_look "
    "+sweeps=loss_type +sweeps=parts +sweeps=preset +sweeps=weights",
    "hydra/sweeper=": "hydra/sweeper=basic hydra/sweeper=optuna hydra/sweeper=optuna_pruned",
    "xyzzy=": "",
    "lr=3 modalities=": "modalities=a modalities=at modalities=atv modalities=av modalities=t modalities=tv modalities=v",
}


@pytest.mark.parametrize(
    "program", ["joyful train", pytest.param("python run.py", marks=pytest.mark.soak("the same in a checkout"))]
)
@pytest.mark.parametrize(("typed", "words"), LINES.items())
def test_words(program: str, typed: str, words: str, fork_server: ForkServer, tmp_path: Path) -> None:
    line = f"{program} {typed}"
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = fork_server.run([*PROGRAMS[program], "-sc", "query=bash"], tmp_path, environment)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, words, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_first_words_are_groups_and_settings(program: str, fork_server: ForkServer, tmp_path: Path) -> None:
    environment = {**os.environ, "COMP_LINE": f"{program} "}
    done = fork_server.run([*PROGRAMS[program], "-sc", "query=bash"], tmp_path, environment)
    assert {"loss=", "loss.", "data=", "seed=", "training.", "experiment="} <= set(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "words"), [("joyful ", " ".join(COMMANDS)), ("joyful tr", "train"), ("joyful report multi", "")]
)
def test_commands(line: str, words: str, fork_server: ForkServer, tmp_path: Path) -> None:
    done = fork_server.run(["-m", "joyful.cli", "-sc", "query=bash"], tmp_path, {**os.environ, "COMP_LINE": line})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, words, "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_bash(program: str, tmp_path: Path) -> None:
    """The script of -sc install=bash, its function, and the answer of the program."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    for name, module in (("python", ""), ("joyful", "-m joyful.cli ")):
        (tmp_path / name).write_text(f'#!{bash}\nexec "{sys.executable}" {module}"$@"\n')
        (tmp_path / name).chmod(0o755)
    install = f"{program if program.startswith('python') else 'joyful'} -sc install=bash"
    script = (
        f'eval "$({install})"\ncomplete -p {program.split()[0]}\n'
        f'COMP_LINE="{program} loss=" COMP_CWORD=2\nhydra_bash_completion\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "--norc", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    rule, *words = done.stdout.splitlines()
    assert rule.endswith(f"-F hydra_bash_completion {program.split()[0]}")
    assert (words, done.stderr) == (["loss=mse", "loss=smoothl1", "loss=weighted_mse"], "")
