"""Imported runs are written whole or not at all: many runs, signals, kills, and a terminal."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from joyful.analysis.importers.__main__ import main
from joyful.results import load
from tests.support.sweeps import enable_ctrl_c

ROOT = Path(__file__).resolve().parents[3]
HEADER = "arm,seed,step,epoch,split,accuracy,nll\n"

#: Signals. `make test` sends one.
NUMBERS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak("the other signal"))]


def rows_of_run(run, rows):
    return "".join(f"arm{run % 4},{run // 4},{50 * i},{i},dev,{i / 100},{run + i}\n" for i in range(1, rows + 1))


def write_table(path, runs, rows):
    path.write_text(HEADER + "".join(rows_of_run(run, rows) for run in range(runs)))


def started(*words, **options):
    command = [sys.executable, "-m", "joyful.analysis.importers", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
        preexec_fn=enable_ctrl_c, **options,
    )  # fmt: skip


def wait_until_writing(process, folder):
    """Wait until the process has written some runs, and return its temporary folder."""
    while process.poll() is None:
        for temporary in folder.glob(".runs.*.tmp"):
            if len(list(temporary.iterdir())) > 5:
                return temporary
        time.sleep(0.001)
    raise AssertionError(f"the import ended with code {process.returncode}: {process.stderr.read()}")


@pytest.mark.slow
def test_two_hundred_runs_of_a_hundred_rows_are_imported_whole(tmp_path, capsys):
    write_table(tmp_path / "curves.csv", 200, 100)
    assert main(["csv", str(tmp_path / "curves.csv"), "--out", str(tmp_path / "runs")]) == 0
    assert "200 runs of 4 arms in" in capsys.readouterr().out
    frame = load(tmp_path / "runs")
    assert len(frame) == 200 * 100
    assert (frame.groupby(["arm", "seed"], observed=True).size() == 100).all()
    assert frame.step.tolist() == [50 * i for i in range(1, 101)] * 200
    run = frame[(frame.arm == "arm3") & (frame.seed == 7)]
    assert run.nll.tolist() == [31 + i for i in range(1, 101)]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_while_the_source_is_read_leaves_nothing(tmp_path, number):
    os.mkfifo(tmp_path / "curves.csv")
    process = started("csv", tmp_path / "curves.csv", "--out", tmp_path / "runs")
    with (tmp_path / "curves.csv").open("w") as pipe:  # opened when the process reads it
        pipe.write(HEADER + rows_of_run(0, 5))
        pipe.flush()
        time.sleep(0.2)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error == f"joyful import: stopped by {number.name}; no partial import is left in {tmp_path / 'runs'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_while_runs_are_written_leaves_nothing(tmp_path, number):
    write_table(tmp_path / "curves.csv", 2000, 3)
    process = started("csv", tmp_path / "curves.csv", "--out", tmp_path / "runs")
    wait_until_writing(process, tmp_path)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error.count("\n") == 1
    assert f"stopped by {number.name}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.slow
def test_the_next_import_removes_what_a_killed_one_left(tmp_path):
    write_table(tmp_path / "curves.csv", 2000, 3)
    process = started("csv", tmp_path / "curves.csv", "--out", tmp_path / "runs")
    temporary = wait_until_writing(process, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert temporary.is_dir()
    assert not (tmp_path / "runs").exists()
    alive = temporary.with_name(temporary.name.replace(f"-{process.pid}-", f"-{os.getpid()}-"))
    alive.mkdir()  # that of a process that still runs
    write_table(tmp_path / "curves.csv", 2, 3)
    assert main(["csv", str(tmp_path / "curves.csv"), "--out", str(tmp_path / "runs")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"curves.csv", "runs", alive.name}
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.slow
def test_a_terminal_shows_the_progress(tmp_path):
    write_table(tmp_path / "curves.csv", 50, 3)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "joyful.analysis.importers", "csv", "curves.csv", "--out", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run(
        command, stderr=theirs, stdout=subprocess.PIPE, env=environment, cwd=tmp_path, check=True, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "reading curves.csv" in shown
    assert "writing runs" in shown
    assert "100%" in shown
