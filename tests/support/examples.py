"""Running the programs in examples/ as a user does: a copy of the folder, and commands in it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from joyful.sweeper.registry import Lease
from tests.support import fork_server, launchers, sweeps

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: Overrides of a sweep by two workers, and of one that trains every trial to the end.
TWO_WORKERS, TO_THE_END = "hydra/launcher=joblib", "hydra/sweeper/pruner=none"


def copy(name: str, place: Path) -> Path:
    """Copy an example below `place`, and return the folder of the copy."""
    return Path(shutil.copytree(EXAMPLES / name, place / name))


def messages_of_the_chat() -> list[str]:
    """Return the texts of the messages in examples/chat."""
    program = runpy.run_path(str(EXAMPLES / "chat/convert.py"))
    with (EXAMPLES / "chat/export.txt").open(encoding="utf-8") as stream:
        return [text for _, _, text in program["messages"](stream)]


def edit(folder: Path, old: str, new: str, file: str = "main.py") -> None:
    """Replace a text in a file of an example."""
    text = (folder / file).read_text()
    assert old in text, f"{file} does not contain {old!r}"
    (folder / file).write_text(text.replace(old, new))


def sweep_command(*overrides: str) -> list[str]:
    """Return the command of a sweep of an example, which writes to multirun/main."""
    return [sys.executable, "main.py", "-m", "hydra/sweeper=optuna_pruned", *overrides]


def trials(*listed: str) -> str:
    """Return the override that sets a list of trials."""
    return f"hydra.sweeper.trials=[{','.join(map(repr, listed))}]"


def run(folder: Path, *command: str, expected: int = 0) -> str:
    """Run a command in the folder of an example, check its exit code, and return its output."""
    if command[0] == sys.executable:
        done = fork_server.shared().run(command[1:], folder, os.environ, 300)
    else:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expected, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def joyful(folder: Path, *arguments: str) -> str:
    """Run the command joyful in the folder of an example, and return its output."""
    return run(folder, sys.executable, "-m", "joyful.cli", *arguments)


def status(folder: Path) -> dict[str, Any]:
    """Return the state of the sweep of an example."""
    return dict(json.loads(joyful(folder, "sweep", "status", "multirun/main", "--json")))


def wait_for_end(driver: subprocess.Popen[str], folder: Path, expected: int = 0) -> None:
    """Wait for the end of a sweep that `sweeps.start` has started, and check its exit code."""
    code = driver.wait(300)
    assert code == expected, f"exit code {code}\n{(folder / 'sweep.log').read_text()[-3000:]}"


def kill_a_worker(folder: Path, steps: int) -> int:
    """Kill the worker of a trial after `steps` steps, wait for the end of its program, and return the trial's number."""
    sweep = folder / "multirun/main"
    held: list[Lease] = []

    def is_held() -> bool:
        lease = launchers.held_lease(sweep, steps)
        held.extend([lease] if lease is not None else [])
        return bool(held)

    sweeps.wait_until(is_held, 120)
    (lease,) = held
    worker = next(member for member in sweeps.workers(sweep) if member.id == lease.owner)
    programs = [psutil.Process(pid) for pid in sweeps.trainers(worker)]
    psutil.Process(worker.identity.pid).kill()
    sweeps.wait_until(lambda: launchers.have_ended(programs))
    return lease.number


def without(package: str, folder: Path) -> str:
    """Return PYTHONPATH with a package that cannot be imported."""
    folder.mkdir()
    message = f"No module named {package!r}"
    (folder / f"{package}.py").write_text(f"raise ModuleNotFoundError({message!r}, name={package!r})\n")
    return os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])


def during(driver: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait for a condition that must come true while a sweep runs."""
    sweeps.wait_until(lambda: driver.poll() is not None or condition(), 120)
    assert driver.poll() is None, "the sweep has ended before"
