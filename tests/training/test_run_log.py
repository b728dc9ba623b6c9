"""run.log: what a reader wants of a run a week later, where it is written, and what a terminal shows of it."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import joyful
from joyful.training import experiment
from joyful.training.run_log import run_log
from tests.support import sweeps
from tests.support.runs import TINY, tiny_request

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    "


@pytest.fixture
def handler(tmp_path):
    """A log file such as Hydra sets up in the folder of a run."""
    folder = tmp_path / "run/.resumed/today"
    folder.mkdir(parents=True)
    handler = logging.FileHandler(folder / "run.log")
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


@pytest.fixture
def train(tmp_path, fork_server):
    """Trains tiny runs in tmp_path with run.py."""

    def run(*overrides):
        return fork_server.run([str(sweeps.RUN), *TINY, *overrides], tmp_path, os.environ)

    return run


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_the_log_of_a_single_run(tmp_path, train):
    done = train("training.epochs=3", "training.evaluations_per_epoch=2", "hydra.run.dir=out put")
    assert done.returncode == 0, done.stderr
    lines = lines_of(tmp_path / "out put/run.log")
    assert all(re.match(STAMP, line) for line in lines)
    texts = [re.sub(STAMP, "", line) for line in lines]
    info = json.loads((tmp_path / "out put/run.json").read_text())
    assert texts[0].startswith(
        f"command: python {sweeps.RUN} 'data.synthetic.dialogues={{train: 7, dev: 3, test: 3}}' "
    )
    assert texts[0].endswith(" training.evaluations_per_epoch=2 'hydra.run.dir=out put'")
    assert texts[1].startswith(f"joyful {joyful.__version__}, commit {info['git']['commit'][:12]}")
    assert texts[2].startswith(f"data: synthetic, digest {info['data']['digest']}; train 7 dialogues, ")
    assert texts[3].startswith("device: cpu, 1 thread, host ")
    assert texts[4] == "seed 24, 3 epochs"
    for number, text in enumerate(texts[5:8], start=1):  # a line per epoch, not per evaluation
        epoch = rf"epoch {number}/3, dev F1 \d+\.\d % \(best \d+\.\d %\), NLL \d+\.\d+, loss \d+\.\d+, \d+:\d\d"
        assert re.fullmatch(epoch, text)
    best = f"{100 * info['objective']:.2f} %"
    assert re.fullmatch(
        rf"completed, best dev F1 {re.escape(best)} at epoch [\d.]+, test F1 there .* %, \d+:\d\d", texts[8]
    )
    assert len(texts) == 9
    assert done.stderr.splitlines() == texts  # a pipe shows the same lines
    assert "epoch 2/3" not in done.stdout


def test_a_run_too_short_for_its_moving_average_says_so(tmp_path, train):
    done = train("training.epochs=2", "training.moving_average=0.99", "hydra.run.dir=short")
    assert done.returncode == 0, done.stderr
    warning = "training.moving_average=0.99 averages about 100 steps, but the run has "
    assert warning in done.stderr
    assert any(warning in line and "WARNING" in line for line in lines_of(tmp_path / "short/run.log"))
    long_enough = train("training.epochs=2", "training.moving_average=0.2", "hydra.run.dir=long")
    assert "averages about" not in long_enough.stderr


def test_hydras_own_settings_of_the_log_hold(tmp_path, train):
    done = train("hydra/job_logging=disabled", "hydra.run.dir=none")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "none/run.log").exists()
    done = train("hydra.job_logging.formatters.simple.format='%(name)s: %(message)s'", "hydra.run.dir=other")
    assert "joyful.training.run_log: epoch 3/3" in done.stdout
    assert "joyful.training.run_log: epoch 3/3" in (tmp_path / "other/run.log").read_text()
    done = train("hydra.job_logging.root.level=WARNING", "hydra.run.dir=less")
    assert (done.returncode, done.stderr, (tmp_path / "less/run.log").read_text()) == (0, "", "")


def test_the_runs_of_a_multirun_have_their_own_logs(tmp_path, train):
    done = train("-m", "seed=3,4", "hydra.sweep.dir=many")
    assert done.returncode == 0, done.stderr
    for number, seed in enumerate((3, 4)):
        text = (tmp_path / f"many/{number}/run.log").read_text()
        assert f"seed={seed}\n" in text.split("overrides: ")[1]
        assert text.count("INFO    epoch ") == 3
        assert done.stderr.count(f"run {number}: epoch ") == 3


@pytest.mark.slow
def test_a_resumed_run_appends_to_its_log(tmp_path, monkeypatch, handler):
    folder = tmp_path / "run"
    original = experiment.Coach.train

    def train_two(self):
        for record in original(self):
            yield record
            if record.epoch == 2:
                raise experiment.Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.Coach, "train", train_two)
        with pytest.raises(experiment.Interrupted):
            experiment.train_run(tiny_request(folder, "training.epochs=4"))
    experiment.train_run(tiny_request(folder, "training.epochs=4", f"resume={folder}"))
    texts = lines_of(folder / "run.log")
    said = [re.sub(r" .*", "", text) for text in texts]
    begin = ["command:", "joyful", "data:", "device:", "seed"]
    assert said == [*begin, "epoch", "epoch", "interrupted", *begin, "resumed", "epoch", "epoch", "completed,"]
    assert "resumed after epoch 2 of 4" in texts
    assert next(text for text in texts if text.startswith("interrupted")).startswith(
        "interrupted (stopped by SIGTERM), best dev F1 "
    )
    assert lines_of(Path(handler.baseFilename)) == texts  # the folder of Hydra's job has it too


def test_a_failed_run_says_why(tmp_path, monkeypatch, handler):
    def fail(self):
        raise experiment.TrainingFailedError("the loss is not finite in epoch 1")
        yield

    monkeypatch.setattr(experiment.Coach, "train", fail)
    with pytest.raises(experiment.TrainingFailedError):
        experiment.train_run(tiny_request(tmp_path / "run"))
    assert lines_of(tmp_path / "run/run.log")[-1] == "failed (the loss is not finite in epoch 1), 0:00"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), True), (Terminal(), False)])
def test_a_terminal_shows_only_warnings(tmp_path, stream, shown):
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with run_log(tmp_path):
            logging.getLogger("joyful.training.run_log").info("epoch 1/3")
            logging.getLogger("joyful.training.run_log").warning("careful")
            logging.getLogger("another.library").info("hello")
        logging.getLogger("joyful.training.run_log").info("after")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert stream.getvalue() == ("epoch 1/3\n" if shown else "") + "careful\nhello\nafter\n"
    assert handler.filters == []


@pytest.mark.slow
def test_the_log_and_the_terminal_change_no_result(tmp_path, train):
    train("hydra.run.dir=with")
    train("hydra/job_logging=disabled", "hydra.run.dir=without")
    with_log, without = ((tmp_path / name / "history.parquet").read_bytes() for name in ("with", "without"))
    assert with_log == without


@pytest.mark.slow
def test_ctrl_c_prints_the_folder_and_the_command_that_resumes_the_run(tmp_path):
    command = [sys.executable, str(sweeps.RUN), *TINY, "training.epochs=5000", "hydra.run.dir=my run"]
    child = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=sweeps.enable_ctrl_c, start_new_session=True,
    )  # fmt: skip
    try:
        sweeps.wait_until(lambda: any(tmp_path.glob("my run/checkpoint/last.json")) or child.poll() is not None)
        child.send_signal(2)
        _, error = child.communicate(timeout=60)
    finally:
        sweeps.kill_group(child)
    assert child.returncode == 130
    assert error.splitlines()[-2:] == [
        "joyful: folder: my run",
        f"joyful: to go on: python {sweeps.RUN} 'resume=my run'",
    ]
