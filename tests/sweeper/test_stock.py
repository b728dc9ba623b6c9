"""Hydra's own sweepers work with the program, and so do the commands in the first lines of the files in sweeps/."""

import shlex
import sys

import optuna
import pytest
import yaml

from joyful.config import check
from joyful.results import read_run
from tests.support import small_files, sweeps
from tests.support.faults import soaking
from tests.support.runs import TINY, compose_plain

ROOT = sweeps.RUN.parent

#: Sweeps of the library and of the study, which are found by another option.
FILES = sorted((ROOT / "sweeps").glob("[!_]*.yaml"))
STUDY = sorted((ROOT / "study/sweeps").glob("*.yaml"))

#: One search; tests/test_docs.py trains arms. A soak trains all.
TRAINED = [*FILES, *STUDY] if soaking() else [path for path in FILES if path.stem == "weights"]

#: Overrides of a short run, without batch size and epochs.
QUICK = [item for item in TINY if not item.startswith(("training.batch_size", "training.epochs"))]

#: Writers of small files in the format of each corpus.
DATA = {"meld": small_files.write_meld, "emorynlp": small_files.write_emorynlp, "mosi": small_files.write_mosi}


def objectives(folder):
    return {int(path.parent.name): read_run(path.parent)["objective"] for path in folder.glob("[0-9]*/run.json")}


def test_stock_optuna_maximises(tmp_path, fork_server):
    storage = f"sqlite:///{tmp_path / 'stock.db'}"
    done = sweeps.run(
        sweeps.command(
            "stock", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
            f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=stock",
            "seed=choice(1,2,3)",
        ),
        tmp_path, fork_server,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="stock", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    values = {trial.number: trial.value for trial in study.trials}
    assert values == objectives(tmp_path / "multirun/stock")
    assert len(set(values.values())) > 1  # otherwise any trial would be the best
    assert study.best_value == max(values.values())
    best = yaml.safe_load((tmp_path / "multirun/stock/optimization_results.yaml").read_text())
    assert best["best_value"] == max(values.values())


def id_of(path):
    return f"{path.parents[1].name}-{path.stem}"


ENDED = pytest.mark.soak("these sweeps have been run; tests/study checks their archives")


@pytest.mark.parametrize("path", [*FILES, *(pytest.param(path, marks=ENDED) for path in STUDY)], ids=id_of)
def test_every_arm_composes_and_is_valid(path):
    lines = path.read_text().splitlines()
    of_study = path in STUDY
    if of_study:
        assert lines.pop(0) == "# @package _global_"
    assert lines[0] == f"# python run.py {'--config-dir study ' * of_study}-m +sweeps={path.stem}"
    arms = yaml.safe_load(path.read_text())["hydra"]["sweeper"].get("arms", [""])
    chosen = (*([f"hydra.searchpath=[file://{ROOT / 'study'}]"] if of_study else []), f"+sweeps={path.stem}")
    settings = [check(compose_plain([*chosen, *shlex.split(arm)])[0]) for arm in arms]
    assert len({one.model_dump_json() for one in settings}) == len(arms)


@pytest.mark.parametrize("path", TRAINED, ids=id_of)
def test_the_command_in_the_first_line_runs_from_any_folder(path, tmp_path, fork_server, monkeypatch):
    settings = yaml.safe_load(path.read_text())
    if path in STUDY:
        arguments, name = ["--config-dir", str(ROOT / "study")], settings["sweep_name"]
    else:
        arguments, name = [], path.stem  # a sweep is named after its file
    arguments += ["-m", f"+sweeps={path.stem}"]
    one_worker = [
        "hydra/launcher=basic",
        "training.epochs=1",
        "training.evaluations_per_epoch=1",
        "training.batch_size=7",
    ]
    for data, write in DATA.items():
        write(tmp_path / "data" / data)
    monkeypatch.setenv("JOYFUL_DATA", str(tmp_path / "data"))
    arms, folds = (settings["hydra"]["sweeper"].get(name) for name in ("arms", "folds"))
    short = ["hydra.sweeper.pairs=1", "hydra.sweeper.calibration=false"] if arms else ["hydra.sweeper.n_trials=2"]
    synthetic = not any(data in str(settings["defaults"]) for data in DATA)
    quick = [item for item in QUICK if synthetic or not item.startswith("data.synthetic")]
    command = [sys.executable, str(sweeps.RUN), *arguments, *quick, *one_worker, *short]
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun" / name
    n_trials = len(arms) * len(folds or [0]) if arms else 2
    assert sweeps.states(folder) == dict.fromkeys(range(n_trials), "COMPLETE")
    runs = [read_run(folder / str(number)) for number in range(n_trials)]
    if arms:
        assert {run["seed"] for run in runs} == {settings["hydra"]["sweeper"].get("first_seed", 1)}
        assert len({run["config_hash"] for run in runs}) == n_trials
    else:
        assert {run["role"] for run in runs} == {"search"}
        assert all(set(settings["hydra"]["sweeper"]["params"]) == set(t.params) for t in sweeps.study(folder).trials)
    assert f"results: multirun/{name}" in done.stdout


def test_a_misspelt_sweep_lists_the_sweeps(tmp_path, fork_server):
    command = [sys.executable, str(sweeps.RUN), "-m", "+sweeps=wieghts"]
    done = sweeps.run(command, tmp_path, fork_server)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    names = ", ".join(sorted(path.stem for path in FILES))
    assert f"sweeps: expected one of {names}, got 'wieghts'; did you mean weights?" in done.stderr
    assert not (tmp_path / "multirun").exists()
