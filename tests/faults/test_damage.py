"""Truncated, bit-flipped, empty and foreign files of a run or a sweep are reported and set aside, and it continues."""

import itertools
import json
import random
import shutil
import sqlite3
import subprocess
import sys

import optuna
import pytest
from sqlalchemy.engine import URL

from joyful import results
from joyful.results.machine import machine
from joyful.sweeper import recovery
from joyful.sweeper.database import open_storage
from tests.support import sweeps
from tests.support.faults import count, seed

SETTINGS = ("training.epochs=6", "optimizer.learning_rate=0.01")


def truncated(data, foreign, chance):
    return data[: chance.randrange(1, len(data) - 1)]  # without the last newline, a JSON file would be intact


def flipped(data, foreign, chance):
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def empty(data, foreign, chance):
    return b""


def of_another(data, foreign, chance):
    return foreign


KINDS = (truncated, flipped, empty, of_another)

FILES = (
    "run.json", "history.parquet", "timing.parquet",
    "checkpoint/last.json", "checkpoint/last-*.safetensors", "checkpoint/best.json", "checkpoint/best-*.safetensors",
)  # fmt: skip


def find(folder, pattern):
    """Return the file that matches the pattern. Of several tensor files it is that of the checkpoint, not one that a killed
    writer left."""
    found = list(folder.glob(pattern))
    if len(found) > 1:
        checkpoint = json.loads((folder / f"{pattern.partition('-')[0]}.json").read_bytes())
        found = [path for path in found if path.name == checkpoint["tensors"]]
    (path,) = found
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trainers):
    """A complete run, the same run killed in its fifth epoch, and a killed run with another seed."""
    place = tmp_path_factory.mktemp("runs")
    trainers.run(place / "whole", *SETTINGS)
    for name, more in (("killed", ()), ("foreign", ("seed=7",))):
        trainer = trainers.start(place / name, *SETTINGS, *more)
        trainer.wait_for_epoch(5)
        trainer.kill()
    return place


@pytest.mark.timeout(3600)
def test_a_run_resumes_with_damaged_files(tmp_path, runs, trainers, tally):
    chance, wrong, lost, unnoticed = random.Random(seed()), [], [], 0
    cases = [case for case in itertools.product(FILES, KINDS) if case != ("timing.parquet", of_another)]  # valid times
    cases *= count(quick=1, full=6)
    chance.shuffle(cases)
    cases = sorted(cases[: count(quick=5, full=162)], key=lambda case: case[0])
    whole = (runs / "whole/history.parquet").read_bytes()
    for i, (pattern, damage) in enumerate(cases):
        folder = tmp_path / str(i)
        shutil.copytree(runs / "killed", folder)
        path = find(folder, pattern)
        bad = damage(path.read_bytes(), find(runs / "foreign", pattern).read_bytes(), chance)
        path.write_bytes(bad)
        case = f"{pattern} {damage.__name__}"
        trainer = trainers.start(folder, *SETTINGS, through_main=True)
        code, stderr = trainer.wait(), trainer.stderr
        aside = [p.read_bytes() for p in path.parent.glob(f"{path.name}.damaged*")]
        if pattern == "run.json" and code == 2 and "a different configuration" in stderr:
            continue  # the run.json of another run, or one with a changed hash, is refused with the difference
        if code != 0 or (folder / "history.parquet").read_bytes() != whole:
            wrong.append(f"{case}: code {code}: {stderr}")
        elif (folder / "predictions.parquet").read_bytes() != (runs / "whole/predictions.parquet").read_bytes():
            wrong.append(f"{case}: other predictions")
        elif aside != [bad] or path.name not in stderr or "set aside" not in stderr:
            # The changed bit may have no effect, for example in a time or a space.
            unnoticed += 1
            if damage is not flipped or pattern not in ("run.json", "timing.parquet", "checkpoint/best.json"):
                wrong.append(f"{case}: not reported: {stderr}")
        if "last" in pattern and trainer.epochs[0] != 4:
            lost.append(f"{case}: resumed with epoch {trainer.epochs[0]}, expected 4, after the previous checkpoint")
        shutil.rmtree(folder)
    tally("a damaged file of a run", len(cases), len(lost), len(wrong))
    print(f"{unnoticed} flipped bits without effect")
    assert wrong == []
    assert lost == []


def test_a_run_without_intact_checkpoint_starts_again_and_nothing_is_deleted(tmp_path, runs, trainers, tally):
    folder = tmp_path / "run"
    shutil.copytree(runs / "killed", folder)
    files = [
        path for path in (folder / "checkpoint").iterdir() if not path.name.startswith(".")
    ]  # without temporary ones
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] if path.suffix == ".safetensors" else b"{")
    before = len(files)
    trainer = trainers.run(folder, *SETTINGS)
    assert trainer.epochs[0] == 1
    assert trainer.stderr.count("set aside") == before == len(list((folder / "checkpoint").glob("*.damaged")))
    assert (folder / "history.parquet").read_bytes() == (runs / "whole/history.parquet").read_bytes()
    tally("every checkpoint of a run damaged", 1)


def test_a_fork_uses_the_previous_checkpoint_and_leaves_the_source_alone(tmp_path, runs, trainers):
    source = tmp_path / "source"
    shutil.copytree(runs / "killed", source)
    find(source, "checkpoint/last-*.safetensors").write_bytes(b"")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (source / f".run.json.{machine()}-{dead.pid}-01234567.tmp").touch()  # left by a killed writer
    names = sorted(path.name for path in source.rglob("*"))
    trainer = trainers.run(tmp_path / "fork", f"fork={source}", *SETTINGS)
    assert trainer.epochs[0] == 4
    assert sorted(path.name for path in source.rglob("*")) == names


@pytest.fixture(scope="module")
def swept(tmp_path_factory, fork_server):
    """A completed sweep with two workers and a sampler that learns, and its command."""
    place = tmp_path_factory.mktemp("swept")
    search = (
        "weights.encoder_loss_weight=interval(0.01,0.1)",
        "loss=choice(mse,smoothl1)",
        f"hydra.sweeper.n_trials={count(quick=3, full=5)}",
    )
    command = sweeps.command("found", "hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", *search, epochs=2)
    done = sweeps.run(command, place, fork_server)
    assert done.returncode == 0, done.stderr
    return place, command


@pytest.mark.timeout(3600)
def test_a_damaged_study_is_rebuilt_from_the_runs_without_training(swept, tmp_path, fork_server, tally):
    place, command = swept
    folder, chance = place / "multirun/found", random.Random(seed())
    study = sweeps.study(folder)
    expected = [(t.params, t.values, t.intermediate_values, t.state) for t in study.trials]
    connection = sqlite3.connect(folder / "study.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # study.db then holds all that was written
    connection.close()
    data, histories = (folder / "study.db").read_bytes(), sweeps.histories(folder)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.commit()
    connection.close()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/history.parquet")}
    wrong, lost = [], []
    damages = {
        "foreign": other.read_bytes(),
        "truncated": data[: len(data) // 2 + 100],
        "empty": b"",
        "no database": b"\0" + data[1:],
        "overwritten": data[:8192] + chance.randbytes(20_000) + data[28192:],
    }
    for name in list(damages)[: count(quick=1, full=5)]:
        for path in folder.glob("study.db-*"):
            path.unlink()
        (folder / "study.db").write_bytes(damages[name])
        again = sweeps.run(command, place, fork_server)
        if again.returncode != 0 or (
            name != "empty" and "study.db is set aside as study.db.damaged" not in again.stderr
        ):
            wrong.append(f"{name}: code {again.returncode}: {again.stderr[-1500:]}")
            continue
        trials = [(t.params, t.values, t.intermediate_values, t.state) for t in sweeps.study(folder).trials]
        lost += [
            f"{name}: trial {i}: {actual}, expected {trial}"
            for i, (actual, trial) in enumerate(zip(trials, expected, strict=True))
            if actual != trial
        ]
        if sweeps.histories(folder) != histories or {p: p.stat().st_mtime_ns for p in times} != times:
            wrong.append(f"{name}: something was trained again")
    aside = {path.read_bytes() for path in folder.glob("study.db.damaged*")}
    assert damages["foreign"] in aside
    tally("a damaged study", count(quick=1, full=5), len(lost), len(wrong))
    assert (lost, wrong) == ([], [])


def test_a_damaged_study_that_another_process_has_open_is_left_alone(tmp_path):
    study, url = tmp_path / "study.db", URL.create("sqlite", database=str(tmp_path / "study.db"))
    storage = open_storage(url)
    optuna.create_study(storage=storage)
    storage.engine.dispose()
    code = (
        "import sqlite3, sys; open_one = sqlite3.connect(sys.argv[1]);"
        " open_one.execute('PRAGMA wal_checkpoint(TRUNCATE)'); print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(study)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    study.write_bytes(b"no database" * 1000)
    with pytest.raises(results.InputError, match=r"study\.db is damaged .* another process has it open; end the other"):
        recovery.set_damaged_aside(url)
    holder.communicate("\n")
    recovery.set_damaged_aside(url)
    assert not study.exists()
    assert (tmp_path / "study.db.damaged").read_bytes() == b"no database" * 1000


def test_opening_a_damaged_study_says_what_to_do(swept, tmp_path):
    folder = tmp_path / "found"
    shutil.copytree(swept[0] / "multirun/found", folder)
    for path in folder.glob("study.db-*"):
        path.unlink()
    (folder / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(results.InputError, match=r"study\.db.*damaged.*sweep's command again"):
        sweeps.open_sweep(folder)
