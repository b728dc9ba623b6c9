"""The gate of a CI job and the loop over settings, as a user runs them: examples/gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import examples

pytestmark = pytest.mark.slow

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.invalid", "-c", "commit.gpgsign=false")


@pytest.fixture
def folder(tmp_path):
    """The example as a repository with a release, and small comparisons."""
    folder = examples.copy("gate", tmp_path)
    for name in ("change", "rate"):
        examples.edit(folder, "pairs: 12", "pairs: 6", file=f"conf/sweep/{name}.yaml")
    examples.edit(folder, "steps: 30", "steps: 15", file="conf/config.yaml")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "release"), ("tag", "v1.0")):
        examples.run(folder, *GIT, *command)
    return folder


def shell(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as in a shell in which the environment of this Python is active."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def ci(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the commands of the CI job, but not pip, until one fails."""
    (job,) = yaml.safe_load((folder / "ci.yaml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if not step.get("run", "pip").startswith("pip")]
    assert len(commands) == 3
    for command in commands[:-1]:
        done = shell(folder, "bash", "-e", "-c", command)
        assert done.returncode == 0, done.stderr
    return shell(folder, "bash", "-e", "-c", commands[-1])


def answers(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line[:13].strip() for line in done.stdout.splitlines()[1:-1]]


@pytest.mark.soak("takes 20 s; tests/analysis/test_gate.py has all answers")
def test_a_change_that_is_no_worse_is_let_in(folder):
    examples.edit(folder, "weights -= rate", "weights -= 1.1 * rate", file="trainer.py")
    done = ci(folder)
    assert (done.returncode, answers(done)) == (0, ["holds", "holds"]), done.stdout + done.stderr
    assert (folder / "multirun/change/report/index.html").exists()
    done = shell(folder, "joyful", "report", "multirun/change", "--json", "--require", "f1=no_worse_than:0.5")
    document = json.loads(done.stdout)
    assert document["code"] == done.returncode == 0
    assert document["provenance"]["runs"] == {"used": 15, "left_out": 0, "cut": 0}


@pytest.mark.soak("takes 15 s; tests/analysis/test_gate.py has all answers")
def test_a_worse_change_is_not_let_in(folder):
    examples.edit(folder, "weights -= rate", "weights -= 0.3 * rate", file="trainer.py")
    done = ci(folder)
    assert (done.returncode, answers(done)) == (3, ["does not hold", "does not hold"]), done.stdout + done.stderr


@pytest.mark.soak("takes 12 s; tests/analysis/test_gate.py has the answer")
def test_too_few_pairs_decide_nothing(folder):
    examples.edit(folder, "pairs: 6", "pairs: 3", file="conf/sweep/change.yaml")
    done = ci(folder)
    assert (done.returncode, answers(done)) == (4, ["undecided", "undecided"]), done.stdout + done.stderr
    assert "3 pairs, at least 6 are needed" in done.stdout


@pytest.mark.soak("takes 45 s; the gate of a CI job runs above")
def test_a_loop_tries_settings_until_one_is_supported(folder):
    examples.edit(folder, "0.06 0.08 0.1 0.12", "0.06 0.2", file="try_rates.sh")
    done = shell(folder, "sh", "try_rates.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "rate=0.2 is supported twice"
    tried = sorted(path.name for path in (folder / "multirun").iterdir())
    assert tried == ["rate_0.06", "rate_0.2", "rate_0.2_again"]

    examples.edit(folder, "0.06 0.2", "0.06", file="try_rates.sh")  # its comparison is complete
    done = shell(folder, "sh", "try_rates.sh")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "no rate is supported")

    examples.edit(folder, "f1=at_least:2", "f1=atleast:2", file="try_rates.sh")
    done = shell(folder, "sh", "try_rates.sh")
    assert done.returncode == 2
    assert "did you mean at_least?" in done.stderr
