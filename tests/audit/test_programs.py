"""Audits of sweeps of other programs, which are trained again with the overrides of their trials."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from joyful.audit import programs
from joyful.audit.command import main as audit
from joyful.results import RUN
from tests.support import small_program, sweeps
from tests.support.forging import change_history, change_json

CONFIG = "x: 0.5\ntrain: {seed: 1}\nname: a\nwobble: 0\nhydra: {sweeper: {params: {x: 'interval(0,1)'}}}\n"

BODY = """\
    import random
    random.seed(cfg.train.seed + (os.getpid() if cfg.wobble else 0))
    for step in range(1, 4):
        value = cfg.x + random.random() / step
        trial.report(value, step, metrics={"loss": value, "train_loss": value / 2})
    return value, -value
"""

#: Two objectives, a seed under another name, a folder per trial, and a value that needs quotes.
SWEEP = (
    "hydra.sweeper.n_trials=3", "hydra.sweeper.seed_key=train.seed", "hydra.sweeper.direction=[minimize,maximize]",
    "hydra.sweep.subdir=trial_${hydra:job.num}", "name='it is, a=b'",
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory, fork_server):
    folder = tmp_path_factory.mktemp("program")
    small_program.write(folder, BODY, CONFIG)
    done = small_program.run(folder, *SWEEP, server=fork_server)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def program(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)  # the study knows the folders of another place
    return tmp_path


@pytest.fixture
def in_forks(fork_server, monkeypatch):
    """Run the program in forks of a process that has imported the libraries, which saves seconds."""
    monkeypatch.setattr(
        programs.subprocess, "run", lambda words, **_: fork_server.run(words[1:], Path.cwd(), os.environ)
    )


def run_audit(folder, *arguments: str) -> int:
    return audit([str(folder / "multirun/main"), "--command", f"{sys.executable} {folder}/main.py", *arguments])


@pytest.mark.slow
def test_the_trials_of_a_search_are_trained_again(program, capsys):
    before = {path: path.read_bytes() for path in (program / "multirun").rglob("*") if path.is_file()}
    assert run_audit(program, "--runs", "2", "--seed", "1") == 0
    assert {path: path.read_bytes() for path in (program / "multirun").rglob("*") if path.is_file()} == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(": equal") for line in lines[2:4]] == [True, True]
    assert lines[4] == "2 of 2 equal: under 67 % of the 3 runs are false, at 95 % confidence"


@pytest.mark.slow
def test_a_forged_trial_is_named(program, in_forks, capsys):
    change_history(program / "multirun/main/trial_1", "loss", "dev", 0.25)
    assert run_audit(program, "--runs", "3") == 3
    lines = capsys.readouterr().out.splitlines()
    assert "run trial_1: different: " in lines[3]
    assert lines[3].endswith("largest difference 0.25 in dev loss at step 3")
    assert lines[-1] == "1 of 3 differ: run trial_1"


@pytest.mark.slow
def test_a_program_that_is_not_deterministic_is_named(program, in_forks, capsys):
    main = program / "main.py"
    main.write_text(main.read_text().replace("if cfg.wobble else 0", ""))
    assert run_audit(program, "--runs", "1", "--seed", "1") == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 of 1 differ: run trial_")


@pytest.mark.slow
def test_another_configuration_of_the_program_is_refused(program, in_forks, capsys):
    command = f"{sys.executable} {program}/main.py wobble=1"
    assert run_audit(program, "--runs", "1", "--command", command) == 2
    assert "expected the recorded configuration, got another one" in capsys.readouterr().err


@pytest.mark.slow
def test_a_program_that_fails_gives_code_1(program, in_forks, capsys):
    main = program / "main.py"
    main.write_text(main.read_text().replace("    import random", "    raise RuntimeError('no such file')"))
    assert run_audit(program, "--runs", "1") == 1
    assert "every trial failed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.soak("takes 6 s; rare")
def test_sigterm_ends_an_audit_and_removes_its_folder(program):
    main = program / "main.py"
    main.write_text(
        main.read_text().replace("    import random", "    import random, time; Path('begun').touch(); time.sleep(60)")
    )
    command = [sys.executable, "-m", "joyful.cli", "audit", "multirun/main", "--command", f"{sys.executable} main.py"]
    environment = os.environ | {"TMPDIR": str(program)}
    process = subprocess.Popen(command, cwd=program, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        sweeps.wait_until((program / "begun").exists)
        assert list(program.glob("joyful-audit-*"))
        process.terminate()
        assert process.wait(20) == 143
    finally:
        process.kill()
    assert process.stderr.read().endswith("joyful: audit: interrupted by SIGTERM\n")
    assert not list(program.glob("joyful-audit-*"))


def test_a_program_needs_its_command_and_its_study(program, capsys):
    sweep = program / "multirun/main"
    assert audit([str(sweep)]) == 2
    assert 'set --command to the command of its program, such as --command "python main.py"' in capsys.readouterr().err
    assert run_audit(program, "--command", "python 'x") == 2
    assert "close the quotes" in capsys.readouterr().err
    assert run_audit(program, "--command", "no_such_program") == 2
    assert "no_such_program cannot be started" in capsys.readouterr().err
    shutil.move(sweep / "trial_0", sweep / "other")
    for name in ("trial_1", "trial_2"):
        change_json(sweep / name / RUN, lambda info: info.update(status="failed"))
    assert run_audit(program) == 2
    assert "run other: expected one trial of the study with this folder, got 0" in capsys.readouterr().err
    (sweep / "sweep.json").unlink()
    assert run_audit(program) == 2
    assert "expected the folder of a sweep with sweep.json" in capsys.readouterr().err
