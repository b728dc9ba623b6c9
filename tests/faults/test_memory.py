"""Out of memory by a limit of the address space, by the kernel in a cgroup, and by an exception of CUDA.

The run fails with a reason that says what to lower, and the sweep continues.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from joyful import results
from joyful.training.coach import Coach, TrainingFailedError
from joyful.training.experiment import train_run
from tests.support import sweeps
from tests.support.faults import Tally
from tests.support.runs import tiny_request

#: KiB of address space: enough for the program, but not for the contrastive loss of 40,000 utterances (6.4 GB for a matrix).
LIMIT, TOO_LARGE, SMALL = 5_000_000, "training.batch_size=400", "training.batch_size=40"

#: Many utterances with few features, for which a training step is too large. A large model would need disk space.
MANY = ("data.synthetic.dialogues={train: 400, dev: 3, test: 3}", "data.synthetic.utterances=100", "training.epochs=1")

#: A layer so wide that its activations are too large, in the first second of the step. Without it, the contrastive loss is.
WIDE = "model.fusion_hidden_size=10000"

ADVICE = ("training.batch_size", "model=small", "training.precision=bf16", "hydra.sweeper.n_jobs")


def limited(command: list[str]) -> list[str]:
    """Return the command in a shell that limits the address space of its processes to LIMIT."""
    return ["bash", "-c", f"ulimit -v {LIMIT}; exec {shlex.join(command)}"]


def assert_says_what_to_lower(reason: str) -> None:
    assert reason.startswith("out of memory; lower "), reason
    assert [name for name in ADVICE if name not in reason] == []


def single(*overrides: str) -> list[str]:
    return [item for item in sweeps.command("x", *overrides, "hydra.run.dir=run") if item not in ("-m", "sweep_name=x")]


def test_a_run_fails_with_what_to_lower(tmp_path: Path, tally: Tally) -> None:
    """torch raises RuntimeError (DefaultCPUAllocator: can't allocate memory)."""
    done = sweeps.run(limited(single(*MANY, TOO_LARGE, WIDE)), tmp_path)
    *log, error = done.stderr.splitlines()
    assert (done.returncode, [line for line in log if line.startswith("joyful: ")]) == (1, []), done.stderr
    assert_says_what_to_lower(error.removeprefix("joyful: "))
    info = results.read_run(tmp_path / "run")
    assert info["status"] == "failed"
    assert_says_what_to_lower(info["reason"])
    tally("out of memory by a limit", 1)


def test_data_that_do_not_fit_are_one_line(tmp_path: Path, tally: Tally) -> None:
    """NumPy raises MemoryError before the run exists."""
    sizes = "data.synthetic.dimensions={audio: 5, text: 1000000, visual: 7}"
    done = sweeps.run(limited(single(sizes, "data.synthetic.dialogues={train: 900, dev: 3, test: 3}")), tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert_says_what_to_lower(done.stderr.removeprefix("joyful: "))
    tally("out of memory by a limit", 1)


@pytest.mark.soak("takes 15 s; see also tests/faults/test_nan.py")
def test_a_stock_multirun_continues(tmp_path: Path, tally: Tally) -> None:
    done = sweeps.run(limited(sweeps.command("grid", *MANY, "training.batch_size=400,40")), tmp_path)
    folder = tmp_path / "multirun/grid"
    assert done.returncode == 1, done.stderr
    assert [results.read_run(folder / str(n))["status"] for n in range(2)] == ["failed", "completed"]
    assert_says_what_to_lower(results.read_run(folder / "0")["reason"])
    assert "joyful: 1 run failed in multirun/grid" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    tally("out of memory by a limit", 1)


@pytest.mark.soak("takes 20 s; a run fails in the tests above, test_nan.py fails a trial")
def test_our_sweep_continues(tmp_path: Path, tally: Tally) -> None:
    trials = f"hydra.sweeper.trials=['{TOO_LARGE}','{SMALL}']"
    chosen = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", trials)
    done = sweeps.run(limited(sweeps.command("ours", *MANY, *chosen)), tmp_path)
    folder = tmp_path / "multirun/ours"
    assert done.returncode == 0, done.stderr
    assert sweeps.states(folder) == {0: "FAIL", 1: "COMPLETE"}
    reason = sweeps.study(folder).trials[0].user_attrs["reason"]
    assert_says_what_to_lower(reason)
    assert results.read_run(folder / "0")["reason"] == reason
    assert "Traceback" not in done.stderr + done.stdout
    tally("out of memory by a limit", 1)


def test_cuda_by_its_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """The exception is raised in a training step of the second epoch. The results of the first epoch are kept."""
    step = Coach._train_step

    def out_of_memory(self: Coach, *arguments: object) -> None:
        if self.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Coach, "_train_step", out_of_memory)
    with pytest.raises(TrainingFailedError) as caught:
        train_run(tiny_request(tmp_path / "run"))
    assert_says_what_to_lower(str(caught.value))
    info = results.read_run(tmp_path / "run")
    assert (info["status"], info["reason"]) == ("failed", str(caught.value))
    assert results.RunFolder.open(tmp_path / "run").history_rows()[-1]["epoch"] == 1.0
    monkeypatch.undo()
    train_run(tiny_request(tmp_path / "run"))  # the same command with enough memory resumes the run
    assert results.read_run(tmp_path / "run")["status"] == "completed"
    tally("out of memory by CUDA's exception", 1)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of 1 GiB. Skips the test if none can be created."""
    for root, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        folder = root / f"joyful-{os.getpid()}"
        if not (root / "cgroup.procs").exists():
            continue
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                (folder / limit).write_text(str(2**30))
                yield folder
                return
        finally:
            folder.rmdir()
    pytest.skip("needs root and a cgroup with a memory controller, but /sys/fs/cgroup is not writable")


@pytest.mark.soak("takes 17 s; see also tests/sweeper/test_worker_failures.py")
def test_a_trial_that_the_kernel_kills_fails_and_the_next_is_trained(
    cgroup: Path, tmp_path: Path, tally: Tally
) -> None:
    trials = f"hydra.sweeper.trials=['{TOO_LARGE}','{SMALL}']"
    command = sweeps.command("killed", *MANY, "hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", trials)
    inside = ["bash", "-c", f"echo $$ > {cgroup}/cgroup.procs; exec {shlex.join(command)}"]
    done = subprocess.run(inside, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    folder = tmp_path / "multirun/killed"
    assert done.returncode == 0, done.stderr
    assert sweeps.states(folder) == {0: "FAIL", 1: "COMPLETE"}
    reason = sweeps.study(folder).trials[0].user_attrs["reason"]
    assert re.search("killed .by the kernel when memory ran out.* 3 times in a row without completing a step", reason)
    assert "hydra.sweeper.n_jobs" in reason
    tally("out of memory by a cgroup", 3)
