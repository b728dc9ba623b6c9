"""Trackers that fail, that are not installed, and the state that a resumed run goes on from."""

import json
import os

import pytest

from joyful.analysis.report import main as report
from joyful.config import check
from joyful.records import InputError
from joyful.results import HISTORY, read_run
from joyful.trackers import STATE, TRACKERS, TrackedRun, Tracking, attach_report, require
from joyful.trackers.tracker import environment
from joyful.training.experiment import train_run
from tests.support.runs import CONF, compose_plain, tiny_request
from tests.support.trackers import read_tensorboard


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_has_its_choice_and_its_extra(name):
    assert check(compose_plain([f"track={name}"])[0]).trackers == (name,)
    extras = (CONF.parent / "pyproject.toml").read_text()
    assert f"\n{name} = [\n" in extras
    assert f"pip install 'joyful-sweeps[{name}]'" in (CONF / f"track/{name}.yaml").read_text()


def test_several_trackers_and_none():
    assert check(compose_plain()[0]).trackers == ()
    assert check(compose_plain(["track=[]"])[0]).trackers == ()
    both = check(compose_plain(["track=[tensorboard,mlflow]"])[0])
    assert both.trackers == ("tensorboard", "mlflow")


def test_every_file_of_the_group_is_a_tracker():
    assert {path.stem for path in (CONF / "track").glob("*.yaml")} == set(TRACKERS)


def test_an_unknown_tracker_is_refused():
    with pytest.raises(InputError, match=r"track: expected one of mlflow, .*did you mean wandb"):
        require(["wanbd"])


def test_a_tracker_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(TRACKERS["mlflow"], "package", "no_such_package")
    with pytest.raises(InputError, match=r"track=mlflow: .*no_such_package.*pip install 'joyful-sweeps\[mlflow\]'"):
        require(["tensorboard", "mlflow"])


def test_a_run_without_the_package_is_refused_before_it_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(TRACKERS["tensorboard"], "package", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'joyful-sweeps\[tensorboard\]'"):
        train_run(tiny_request(tmp_path / "run", "track=tensorboard"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_tracker_that_cannot_write_is_reported_once_and_the_run_goes_on(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").write_text("in the way")
    train_run(tiny_request(tmp_path / "run", "track=tensorboard"))
    train_run(tiny_request(tmp_path / "plain"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "track" in line]
    assert len(lines) == 1
    assert lines[0].startswith("joyful: track=tensorboard: [Errno 17] File exists: ")
    assert lines[0].endswith("; run goes on without this tracker")
    assert read_run(tmp_path / "run")["status"] == "completed"
    assert (tmp_path / "run" / HISTORY).read_bytes() == (tmp_path / "plain" / HISTORY).read_bytes()


def test_a_tracker_that_fails_later_leaves_the_others(tmp_path, capsys, monkeypatch):
    class Failing(TRACKERS["tensorboard"]):
        def log(self, values, step):
            raise ConnectionError("the server\ndoes not answer")

    monkeypatch.setitem(TRACKERS._members, "mlflow", Failing)
    tracking = Tracking(["mlflow", "tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
    for step in range(3):
        tracking.log({"dev/f1": step / 10}, step)
    tracking.finish("completed", {"best": 0.2})
    assert (
        capsys.readouterr().err == f"joyful: track=mlflow: the server; {tmp_path.name} goes on without this tracker\n"
    )
    stored = read_tensorboard(tmp_path / "tensorboard")
    assert stored.curves["dev/f1"] == {0: 0.0, 1: pytest.approx(0.1), 2: pytest.approx(0.2)}
    state = json.loads((tmp_path / STATE).read_text())["trackers"]
    assert (state["mlflow"]["step"], state["mlflow"]["finished"]) == (-1, False)
    assert (state["tensorboard"]["step"], state["tensorboard"]["finished"]) == (2, True)


def test_a_state_that_cannot_be_written_is_reported_once(tmp_path, capsys):
    (tmp_path / STATE).mkdir()
    tracking = Tracking(["tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
    for step in range(3):
        tracking.log({"dev/f1": 0.5}, step)
    tracking.finish("completed")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("joyful: track: ")
    assert set(read_tensorboard(tmp_path / "tensorboard").curves["dev/f1"]) == {0, 1, 2}


def test_steps_that_are_there_and_values_that_are_not_finite_are_left_out(tmp_path):
    for first in (0, 1):  # the second process repeats steps 1 and 2
        tracking = Tracking(["tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
        for step in range(first, first + 3):
            tracking.log({"loss": float(first), "nan": float("nan"), "inf": float("inf")}, step)
        tracking.finish("interrupted" if first == 0 else "completed")
    stored = read_tensorboard(tmp_path / "tensorboard")
    assert stored.curves == {"loss": {0: 0.0, 1: 0.0, 2: 0.0, 3: 1.0}}
    assert stored.repeated == []


def test_a_step_that_a_killed_process_logged_but_did_not_note_is_shown_once(tmp_path):
    tracking = Tracking(["tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
    for step in range(3):
        tracking.log({"loss": 0.5}, step)
        if step == 1:
            state = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(state)
    again = Tracking(["tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
    for step in range(4):
        again.log({"loss": 0.5}, step)
    again.finish("completed")
    stored = read_tensorboard(tmp_path / "tensorboard")
    assert stored.curves["loss"] == dict.fromkeys(range(4), 0.5)
    assert stored.repeated == []


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", '{"levels": 0, "trackers": {"wandb": {"id": "../../x"}}}', '{"levels": -1, "trackers": {}}',
        '{"levels": 99, "trackers": {"tensorboard": {"id": "tensorboard", "step": 9}}}',
        '{"levels": 0, "trackers": {"tensorboard": {"id": "tensorboard", "step": "9"}}}',
        '{"levels": 0, "trackers": {"tensorboard": {"id": "tensorboard", "more": 9}}}',
        '{"levels": 0, "trackers": {"other": {"id": "x"}}}',
    ],
)  # fmt: skip
def test_a_damaged_state_counts_as_none(tmp_path, content):
    (tmp_path / STATE).write_text(content)
    tracking = Tracking(["tensorboard"], TrackedRun(tmp_path, {"lr": 0.1}))
    tracking.log({"loss": 0.5}, 0)
    tracking.finish("completed")
    assert read_tensorboard(tmp_path / "tensorboard").curves == {"loss": {0: 0.5}}
    assert json.loads((tmp_path / STATE).read_text())["trackers"].keys() == {"tensorboard"}


def test_a_run_of_a_sweep_that_is_resumed_alone_keeps_its_place(tmp_path):
    folder = tmp_path / "sweep/deep/3"
    folder.mkdir(parents=True)
    Tracking(["tensorboard"], TrackedRun(folder, {}, tmp_path / "sweep")).finish("interrupted")
    again = Tracking([], TrackedRun(folder))
    assert again._run.sweep == tmp_path / "sweep"
    assert (again._run.name, again._run.group) == ("deep/3", "sweep")


@pytest.mark.slow
def test_a_report_of_runs_without_trackers_is_not_attached(tmp_path):
    train_run(tiny_request(tmp_path / "sweep/0"))
    attach_report(tmp_path / "sweep", {}, {})
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"0"}


@pytest.mark.slow
def test_a_report_that_cannot_be_attached_is_written_all_the_same(tmp_path, capsys):
    sweep = tmp_path / "sweep"
    train_run(tiny_request(sweep / "0", "track=tensorboard"))
    (sweep / "tensorboard").write_text("in the way")
    capsys.readouterr()
    assert report([str(sweep)]) == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "track=tensorboard: [Errno 17]" in printed.err
    assert (sweep / "report/index.html").is_file()


def test_variables_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("JOYFUL_A", "user")
    with environment(JOYFUL_A="default", JOYFUL_B="default"):
        assert (os.environ["JOYFUL_A"], os.environ["JOYFUL_B"]) == ("user", "default")
    assert "JOYFUL_B" not in os.environ
