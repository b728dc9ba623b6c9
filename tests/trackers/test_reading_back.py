"""What TensorBoard, MLflow and Weights & Biases hold of a run, a sweep and a report, read with these libraries."""

import io
import json
import math
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from joyful.analysis.report import main as report
from joyful.results import HISTORY, RunFolder, read_run
from joyful.results.arms import flatten
from joyful.trackers import STATE
from joyful.training.experiment import Interrupted, train_run
from joyful.training.run_tracking import final_scores
from tests.support import small_program, sweeps
from tests.support.faults import soaking
from tests.support.runs import tiny_request
from tests.support.trackers import Stored, read_hparams_view, read_mlflow, read_tensorboard, read_wandb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak("takes 25 s; tests/trackers/test_commands.py tracks runs, and the libraries change rarely"),
]

#: The trackers. Each has a function in tests/support/trackers.py that reads back.
TRACKED = ("tensorboard", "mlflow", "wandb")
ALL = "track=[tensorboard,mlflow,wandb]"


def read_back(tracker: str, run: Path, sweep: Path | None = None) -> Stored:
    if tracker == "mlflow":
        place = sweep or run
        name = run.name if sweep is None else "report" if run == sweep else run.relative_to(sweep).as_posix()
        return read_mlflow(f"sqlite:///{place}/mlflow.db", "joyful" if sweep is None else sweep.name)[name]
    return {"tensorboard": read_tensorboard, "wandb": read_wandb}[tracker](run / tracker)


def as_stored(tracker: str, value: float) -> float:
    """The value with the precision of the tracker: TensorBoard has 32 bits."""
    return float(np.float32(value)) if tracker == "tensorboard" else value


def curves_of(run: Path, tracker: str) -> dict[str, dict[int, float]]:
    """The curves that a tracker should have, from history.parquet."""
    curves: dict[str, dict[int, float]] = {}
    for row in RunFolder.open(run, reading=True).history_rows():
        for name, value in row.items():
            if name not in ("step", "split") and math.isfinite(value):
                curve = "epoch" if name == "epoch" else f"{row['split']}/{name}"
                curves.setdefault(curve, {})[row["step"]] = as_stored(tracker, value)
    return curves


class StopAt:
    """Interrupts a run in the middle of its second epoch, as SIGTERM would."""

    def evaluated(self, record, best):
        if record.epoch > 1.5:
            raise Interrupted(signal.SIGTERM)
        return True


@pytest.fixture(scope="module")
def run(tmp_path_factory, sweep) -> Path:
    """A run with all trackers, interrupted after one epoch and a half, and resumed without naming them.

    Two of the trackers have a step more than trackers.json says, as after a kill between the two.
    """
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    shutil.copy(sweep / "mlflow.db", folder)  # creating the tables takes seconds
    with pytest.raises(Interrupted):
        train_run(tiny_request(folder, ALL, "training.evaluations_per_epoch=2"), StopAt())
    assert read_back("mlflow", folder).status == "KILLED"
    state = json.loads((folder / STATE).read_text())
    assert [entry["step"] for entry in state["trackers"].values()] == [6, 6, 6]
    for name in ("tensorboard", "mlflow"):
        state["trackers"][name]["step"] = 4
    (folder / STATE).write_text(json.dumps(state))
    train_run(tiny_request(folder, "training.evaluations_per_epoch=2"))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The same run without trackers, not interrupted."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train_run(tiny_request(folder, "training.evaluations_per_epoch=2"))
    return folder


@pytest.mark.parametrize("tracker", TRACKED)
def test_the_curves_of_a_resumed_run_are_those_of_its_history(run, tracker):
    stored, expected = read_back(tracker, run), curves_of(run, tracker)
    assert len(expected["dev/f1_weighted"]) == 6
    assert {name: stored.curves.get(name) for name in expected} == expected
    extra = stored.curves.keys() - expected.keys()
    assert extra <= set(final_scores(RunFolder.open(run, reading=True).history_rows()))
    assert stored.repeated == []


@pytest.mark.parametrize("tracker", TRACKED)
def test_the_parameters_are_the_settings(run, tracker):
    stored = read_back(tracker, run)
    settings = flatten(read_run(run)["config"])
    assert stored.parameters.keys() - {"_wandb"} == settings.keys()
    for name, value in settings.items():
        expected = {"mlflow": str(value), "wandb": value, "tensorboard": "null" if value is None else value}[tracker]
        assert stored.parameters[name] == expected, name


@pytest.mark.parametrize("tracker", TRACKED)
def test_the_final_scores_and_the_status(run, tracker):
    rows = RunFolder.open(run, reading=True).history_rows()
    scores = final_scores(rows)
    assert scores["best_dev_f1_weighted"] == read_run(run)["objective"]
    assert {"test_f1_weighted", "test_f1_macro", "test_accuracy", "best_epoch"} < scores.keys()
    stored = read_back(tracker, run)
    assert {name: stored.scores.get(name) for name in scores} == {n: as_stored(tracker, v) for n, v in scores.items()}
    assert stored.status == ("FINISHED" if tracker == "mlflow" else "completed")


def test_the_view_hparams_shows_settings_and_scores(run):
    columns, rows = read_hparams_view(run)
    scores = final_scores(RunFolder.open(run, reading=True).history_rows())
    settings = flatten(read_run(run)["config"])
    assert sorted(columns) == sorted([*settings, *scores])
    (row,) = rows
    assert (row["loss.name"], row["seed"]) == ("mse", 24)
    assert {name: row[name] for name in scores} == {n: as_stored("tensorboard", v) for n, v in scores.items()}


def test_the_view_hparams_begins_with_what_differs_between_the_trials(sweep):
    columns, rows = read_hparams_view(sweep)
    assert columns[:2] == ["lr", "seed"]
    assert len(columns) > 4
    assert {row["lr"] for row in rows} == {0.3, 0.4}


def test_the_view_hparams_begins_with_what_the_command_sets(tmp_path):
    for weight in (0.03, 0.1):
        request = tiny_request(tmp_path / str(weight), "track=tensorboard", f"weights.encoder_loss_weight={weight}")
        train_run(replace(request, overridden=("weights.encoder_loss_weight", "loss")))
    columns, _ = read_hparams_view(tmp_path)
    assert columns[:2] == ["loss.name", "weights.encoder_loss_weight"]


def test_the_files_of_a_run_are_those_without_trackers(run, plain):
    assert (run / HISTORY).read_bytes() == (plain / HISTORY).read_bytes()
    infos = [read_run(folder) for folder in (run, plain)]
    for key in ("config", "choices", "config_hash", "objective", "history_sha256", "data", "status"):
        assert infos[0][key] == infos[1][key], key


def test_a_finished_run_is_copied_when_it_is_resumed_with_a_tracker(plain, tmp_path):
    copied = shutil.copytree(plain, tmp_path / "run")
    before = (copied / HISTORY).read_bytes()
    for _ in range(2):
        train_run(tiny_request(tmp_path / "new", f"resume={copied}", "track=tensorboard"))
    stored = read_back("tensorboard", copied)
    assert {name: stored.curves[name] for name in curves_of(copied, "tensorboard")} == curves_of(copied, "tensorboard")
    assert len(list((copied / "tensorboard").iterdir())) == 1  # the second time, there is nothing to copy
    assert (copied / HISTORY).read_bytes() == before
    assert not (tmp_path / "new").exists()


# --- a sweep of another program


def print_report(folder: Path) -> tuple[str, str]:
    """Write a report, and return what it prints to standard output and standard error."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert report([str(folder), "--json"]) == 0
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, fork_server) -> Path:
    """A comparison of a small program, of which one trial fails, with all trackers, and its report."""
    folder = tmp_path_factory.mktemp("sweep")
    small_program.write_paired(folder)
    overrides = [
        "hydra.sweeper.arms=['lr=0.3','lr=0.4']", "hydra.sweeper.pairs=2", "hydra.sweeper.calibration=false", "steps=4",
        "hydra.sweeper.direction=maximize", "fail=['2 0.4']", f"hydra.sweeper.{ALL}", "hydra.sweep.dir=multirun/compare",
    ]  # fmt: skip
    launcher = "joblib" if soaking() else "basic"
    done = small_program.run(folder, *overrides, f"hydra/launcher={launcher}", server=fork_server)
    assert done.returncode == 0, done.stderr
    assert "track" not in done.stderr, done.stderr
    place = folder / "multirun/compare"
    printed = [print_report(place) for _ in range(2)]
    assert printed[0] == printed[1]
    assert printed[0][0].startswith("{")
    assert "track" not in printed[0][1]
    return place


@pytest.mark.parametrize("tracker", TRACKED)
def test_the_trials_of_a_sweep(sweep, tracker):
    study = sweeps.study(sweep)
    assert sorted(trial.state.name for trial in study.trials) == ["COMPLETE"] * 3 + ["FAIL"]
    for trial in study.trials:
        stored = read_back(tracker, sweep / str(trial.number), sweep)
        failed = trial.state.name == "FAIL"
        ended = ("FAILED", "FINISHED") if tracker == "mlflow" else ("failed", "completed")
        assert stored.status == ended[0 if failed else 1]
        assert str(stored.parameters["lr"]) == ("0.4" if "lr=0.4" in trial.user_attrs["arm"] else "0.3")
        assert int(stored.parameters["seed"]) == trial.user_attrs["seed"]
        if failed:
            assert "objective" not in stored.curves
            continue
        expected = {step: as_stored(tracker, value) for step, value in trial.intermediate_values.items()}
        assert stored.curves["objective"] == stored.curves["dev/accuracy"] == expected
        assert stored.scores["final_objective"] == as_stored(tracker, trial.value)
        assert stored.repeated == []


@pytest.mark.parametrize("tracker", TRACKED)
def test_the_report_of_a_sweep(sweep, tracker):
    stored = read_back(tracker, sweep, sweep)
    text = (sweep / "report/report.md").read_text()
    if tracker == "tensorboard":
        assert stored.texts == {"report.md": text}
    elif tracker == "mlflow":
        assert {"index.html", "report.md", "verdicts.csv"} < stored.texts.keys()
        (artifact,) = (sweep / "mlartifacts").glob("*/artifacts/report.md")
        assert artifact.read_text() == text
    else:
        assert {"report.md", "verdicts.csv"} < stored.texts.keys()
        pages = list((sweep / "wandb").glob("*/files/media/html/*.html"))
        assert [page.read_bytes() for page in pages] == [(sweep / "report/index.html").read_bytes()] * 2
        assert stored.texts["id"].endswith(":compare:compare:report")
    assert (
        sum(value for name, value in stored.scores.items() if name.startswith("verdicts/")) > 0 or tracker == "mlflow"
    )


def test_the_runs_of_a_sweep_are_one_project_and_one_experiment(sweep):
    ids = [read_back("wandb", sweep / str(number), sweep).texts["id"].split(":") for number in range(4)]
    assert [parts[1:] for parts in ids] == [["compare", "compare", str(number)] for number in range(4)]
    assert len({parts[0] for parts in ids}) == 4
    runs = read_mlflow(f"sqlite:///{sweep}/mlflow.db", "compare")
    assert runs.keys() == {"0", "1", "2", "3", "report"}
