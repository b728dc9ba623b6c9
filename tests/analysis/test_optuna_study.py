"""Reading Optuna studies: trials, importances, and notes for files that cannot be read."""

import builtins

import optuna
import pytest

from joyful.analysis.optuna_study import read_study


@pytest.fixture
def database(tmp_path):
    """A study with twenty trials whose objective depends only on `weight`. Trial 3 is pruned and trial 4 fails."""
    path = tmp_path / "study.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        study_name="weights", storage=f"sqlite:///{path}", direction="maximize", sampler=sampler
    )

    def objective(trial: optuna.Trial) -> float:
        weight = trial.suggest_float("weight", 0.01, 1.0)
        trial.suggest_categorical("loss", ["mse", "smoothl1"])
        trial.report(0.1, 0)
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 4:
            raise RuntimeError
        return 0.5 - (weight - 0.5) ** 2

    study.optimize(objective, n_trials=20, catch=(RuntimeError,))
    return path


def test_trials_and_importances(database):
    before = database.read_bytes()
    study = read_study(database)
    assert (study.name, study.maximise, study.note) == ("weights", True, "")
    assert study.trials["number"].tolist() == list(range(20))
    assert study.trials["state"].value_counts().to_dict() == {"complete": 18, "pruned": 1, "fail": 1}
    assert study.trials["value"][3] == 0.1  # the last reported value of the pruned trial
    assert study.trials["parameters"][0].startswith("loss=")
    assert study.importances["weight"] > study.importances["loss"]
    assert study.importances.sum() == pytest.approx(1)
    assert study.best == study.trials.loc[study.trials["value"].idxmax(), "number"]
    assert list(study.settings.columns) == ["weight", "loss"]
    assert study.reported.to_numpy().tolist() == [[number, 0, 0.1] for number in range(20)]
    assert (study.trials["end"] >= study.trials["start"]).all()
    assert study.trials["start"].min() == 0
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["study.db"]


def test_a_running_trial(database):
    optuna.load_study(study_name="weights", storage=f"sqlite:///{database}").ask()
    assert read_study(database).trials["state"].iloc[-1] == "running"


def test_the_largest_of_several_studies(database):
    optuna.create_study(study_name="another", storage=f"sqlite:///{database}")
    study = read_study(database)
    assert study.name == "weights"
    assert study.note == "study.db holds 2 studies; the largest is shown."


def test_a_study_without_trials_and_one_with_two_objectives(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="one", storage=storage)
    study = read_study(tmp_path / "study.db")
    assert len(study.trials) == len(study.importances) == 0
    assert "Importances cannot be computed yet" in study.note
    optuna.delete_study(study_name="one", storage=storage)
    assert read_study(tmp_path / "study.db").note == "study.db holds no study yet."
    two = optuna.create_study(study_name="two", storage=storage, directions=["maximize", "minimize"])
    assert read_study(tmp_path / "study.db").front == []
    for score, cost in ((0.5, 1.0), (0.6, 2.0), (0.4, 1.5), (0.6, 3.0)):
        two.add_trial(optuna.create_trial(values=[score, cost]))
    study = read_study(tmp_path / "study.db")
    assert study.directions == ("maximize", "minimize")
    assert study.objectives.to_numpy().tolist() == [[0.5, 1.0], [0.6, 2.0], [0.4, 1.5], [0.6, 3.0]]
    assert study.front == [0, 1]  # trial 2 is beaten by 0 in both, trial 3 by 1 in the second


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_an_invalid_file_gives_a_note(tmp_path, content):
    (tmp_path / "study.db").write_bytes(content)
    study = read_study(tmp_path / "study.db")
    assert len(study.trials) == 0
    assert study.note.startswith("study.db")


def test_a_missing_file(tmp_path):
    assert "could not be read" in read_study(tmp_path / "study.db").note


def test_without_optuna_there_is_a_note(database, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    study = read_study(database)
    assert len(study.trials) == 0
    assert "Optuna is not installed" in study.note


def test_optunas_log_level_is_restored(database):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    read_study(database)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
