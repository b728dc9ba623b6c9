"""A disk that fills up while a run or a sweep writes, and a disk that is too small from the start."""

import random
import re
import shutil
import time

import pytest

from joyful import results
from joyful.data.loading import load
from joyful.records import InputError
from joyful.runtime import disk
from joyful.training.checkpoints import read
from joyful.training.disk_need import DataSizes
from joyful.training.experiment import run_need
from tests.support import launchers, sweeps
from tests.support.faults import count, seed, soaking
from tests.support.runs import tiny_request, tiny_settings

LONGER = pytest.mark.soak("takes 9 s; the other runs are shorter")
LONG = ("training.epochs=12", "optimizer.learning_rate=0.01")

#: A model whose checkpoints are most of its run.
WIDE = ("training.epochs=1", "model.fusion_hidden_size=1500")

#: Free bytes that suffice for different numbers of further files.
FREE_BYTES = (0, 4096, 12288, 40960, 90112, 150_000)


def unfinished_files(folder):
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name]


@pytest.mark.timeout(1200)
def test_a_run_on_a_full_disk_resumes_when_there_is_space(tmp_path, trainers, small_disk, tally):
    place, chance = small_disk(4 * 2**20), random.Random(seed())
    trainers.run(tmp_path / "whole", *LONG)
    wrong, lost, refused, attempts, wanted = [], [], [], 0, count(quick=6, full=60)
    folder = place.path / "run"
    while len(refused) < wanted and attempts < 3 * wanted:
        attempts += 1
        trainer = trainers.start(folder, *LONG, through_main=True)
        trainer.wait_for_epoch(1)
        time.sleep(chance.uniform(0, 0.2))
        complete = (trainer.epochs or [1])[-1] - 1
        place.fill(FREE_BYTES[attempts % len(FREE_BYTES)])
        code, stderr = trainer.wait(), trainer.stderr
        place.free()
        if code == 0:  # the space was sufficient, or nothing was left to write
            shutil.rmtree(folder)  # the disk is too small for many runs
            continue
        name = re.match(
            r"joyful: (\S+) \(\d+ bytes\) cannot be written in .*No space left on device.*free some space", stderr
        )
        refused.append(re.sub(r"\d+", "N", name[1]) if name else "")
        if stderr.count("\n") != 1 or not name:
            wrong.append(f"code {code}: {stderr}")
        if unfinished_files(folder):
            wrong.append(f"left {unfinished_files(folder)}")
        saved = read(folder / "checkpoint", "last") or read(folder / "checkpoint", "previous")
        if results.load(folder).attrs["damaged"] or (saved.state["epoch"] if saved else 0) < complete:
            lost.append(f"{complete} epochs were complete: {results.load(folder).attrs['damaged']}")
    trainers.run(folder, *LONG)
    if (folder / "history.parquet").read_bytes() != (tmp_path / "whole/history.parquet").read_bytes():
        wrong.append("another history")
    tally("disk full in a run", len(refused), len(lost), len(wrong))
    assert (lost, wrong) == ([], [])
    assert len(refused) == wanted
    assert set(refused) & {"run.json", "history.parquet"}
    assert any(name.endswith(".safetensors") for name in refused)


@pytest.mark.timeout(3600)
@pytest.mark.soak("takes 20 s; tests/sweeper/test_programs.py fills the disk under a sweep")
def test_a_sweep_on_a_full_disk_resumes_when_there_is_space(tmp_path, small_disk, tally, fork_server):
    """If a history, a checkpoint or the study cannot be written, the sweep ends with one line and no failed trial."""
    place, wrong = small_disk(16 * 2**20), []
    folder = place.path / "multirun/launched"
    epochs, wanted = count(quick=20, full=40), count(quick=1, full=6)
    command = [*launchers.sweep_command(epochs), *(["hydra/launcher=joblib"] if soaking() else [])]
    for i in range(wanted):
        driver = sweeps.start(command, place.path, tmp_path / f"{i}.log")
        try:
            sweeps.wait_until(lambda: launchers.held_lease(folder, epochs=1) or driver.poll() is not None, 120)  # noqa: B023
            place.fill(FREE_BYTES[i % len(FREE_BYTES)])
            code = driver.wait(120)
        finally:
            sweeps.kill_group(driver)
        log = (tmp_path / f"{i}.log").read_text()
        messages = [line for line in log.splitlines() if line.startswith("joyful: ")]
        if (
            code != 1
            or len(messages) != 1
            or "Traceback" in log
            or not re.search("cannot continue.*free some space", log)
        ):
            wrong.append(f"code {code}: {log[-2000:]}")
        place.free()
        if not {"RUNNING", "WAITING", "COMPLETE"} >= set(sweeps.states(folder).values()) or unfinished_files(folder):
            wrong.append(f"{sweeps.states(folder)}, left {unfinished_files(folder)}")
        if set(sweeps.states(folder).values()) == {"COMPLETE"}:
            break
    done = sweeps.run(command, place.path, fork_server)
    lost = [n for n, state in sweeps.states(folder).items() if state != "COMPLETE"]
    wrong += sweeps.differing_histories(sweeps.histories(folder), launchers.train_alone(epochs))
    tally("disk full in a sweep", i + 1, len(lost), len(wrong))
    assert (lost, wrong) == ([], [])
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_too_small_is_refused_before_training(tmp_path, small_disk, fork_server, tally):
    place = small_disk(2**18)
    folder = place.path / "run"
    with pytest.raises(
        InputError, match=r"the run needs about \d+ kB of disk in .*run, 262 kB are free; free some space"
    ):
        launchers.train_run(tiny_request(folder, "training.epochs=60"))
    assert not folder.exists()
    command = sweeps.command(
        "small", "hydra/sweeper=optuna_pruned", "hydra.sweeper.trials=['seed=1','seed=2']", epochs=1
    )
    done = sweeps.run(command, place.path, fork_server)
    assert done.returncode == 2
    assert re.fullmatch(
        r"joyful: the sweep \(2 trials to train\) needs about \d MB of disk in \S+, \d+ kB are free; free some space, or "
        r"choose another folder with hydra\.sweep\.dir=FOLDER\n", done.stderr,
    )  # fmt: skip
    assert not list(place.path.rglob("study.db"))
    tally("a disk that is too small", 2)
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"the sweep \(2 trials to train\) needs about \d MB of disk in multirun/small, \d+ .B are free", done.stdout
    )


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (("training.epochs=2",), 2.0),
        pytest.param(("training.epochs=60", "training.evaluations_per_epoch=2"), 2.0, marks=LONGER),
        (("training.epochs=1", "model.fusion_hidden_size=1500", "model.hidden_size=150"), 1.5),
        ((*WIDE, "optimizer=sgd", "training.moving_average=0.9", "fusion=auto"), 1.5),
        ((*WIDE, "optimizer=rmsprop", "optimizer.momentum=0.5", "fusion.use_ulgm=true"), 1.5),
    ],
)
def test_the_estimate_is_not_below_what_a_run_leaves(tmp_path, trainers, overrides, most):
    trainers.run(tmp_path / "run", *overrides)
    settings = tiny_settings(*overrides)
    data = load(settings.data, settings.modality_names)
    need = run_need(settings, DataSizes.of(data))
    assert disk.folder_size(tmp_path / "run") <= need.permanent <= most * disk.folder_size(tmp_path / "run")
