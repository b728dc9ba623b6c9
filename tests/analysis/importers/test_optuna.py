"""Import of Optuna studies, which Optuna writes in this test."""

import pytest

from tests.support.importing import curve, read_runs_of, refusal

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    for lr in (0.1, 0.2):
        for seed in (1, 2):
            study.enqueue_trial({"lr": lr, "seed": seed})

    def objective(trial):
        lr, seed = trial.suggest_float("lr", 0, 1), trial.suggest_int("seed", 1, 5)
        for step in (1, 2):
            trial.report(lr * step + seed / 10, step)
        return lr

    study.optimize(objective, n_trials=4)
    study.enqueue_trial({})
    study.optimize(lambda trial: 1.0, n_trials=1)
    storage.engine.dispose()
    return folder / "study.db"


def test_trials_are_runs_and_parameters_are_settings(source):
    before = source.read_bytes()
    runs = read_runs_of("optuna", source, "--metrics", "f1_weighted")
    assert [(run.name, run.settings, run.seed) for run in runs] == [
        ("trial 0", {"lr": 0.1}, 1), ("trial 1", {"lr": 0.1}, 2), ("trial 2", {"lr": 0.2}, 1), ("trial 3", {"lr": 0.2}, 2),
    ]  # fmt: skip
    assert curve(runs[3], "dev", "f1_weighted") == [(1, 0.4), (2, 0.6000000000000001)]
    assert source.read_bytes() == before
    again = read_runs_of("optuna", source, "--study", "search", "--seed-from", "[0-9]+", "--arm", "a")
    assert [(run.arm, run.seed) for run in again] == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]
    assert curve(again[3], "dev", "value") == [(1, 0.4), (2, 0.6000000000000001)]


def test_a_storage_by_its_url(source):
    runs = read_runs_of("optuna", f"sqlite:///{source}")
    assert [run.seed for run in runs] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--study", "other"), "study.db: --study: expected one of the studies 'search'; got 'other'"),
        (("--metrics", "a,b"), "--metrics: expected one name for the intermediate values, got 'a', 'b'"),
    ],
)
def test_bad_options(source, options, message):
    assert message in refusal("optuna", source, *options)


@pytest.mark.parametrize("content", [b"step,loss\n1,2\n", b"SQLite format 3\0" + bytes(100)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "study.db").write_bytes(content)
    message = refusal("optuna", tmp_path / "study.db")
    assert "study.db cannot be read" in message
    assert "Optuna study" in message
