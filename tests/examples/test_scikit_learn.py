"""A paired comparison of a scikit-learn program, and its report: examples/scikit_learn."""

import sys

import pandas as pd
import pytest

from tests.support import examples, sweeps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return examples.copy("scikit_learn", tmp_path_factory.mktemp("examples"))


@pytest.mark.soak("takes 8 s; tests/test_docs.py searches in the quickstart")
def test_a_search_with_the_settings_of_a_file(folder):
    small = ("hydra.sweeper.n_trials=3", "epochs=2", "hydra/launcher=basic")
    shown = examples.run(folder, sys.executable, "main.py", "-m", "+sweep=search", *small)
    study = sweeps.study(folder / "multirun/main")
    assert study.direction.name == "MAXIMIZE"
    assert set(study.trials[0].params) == {"alpha", "eta0"}
    assert f"best {max(trial.value for trial in study.trials):.4f}" in shown


@pytest.mark.soak("takes 20 s; tests/test_docs.py runs the comparison and its report")
def test_a_report_judges_the_claims_of_a_paired_comparison(folder):
    small = ("hydra.sweeper.pairs=6", "epochs=4", "hydra/launcher=basic")
    shown = examples.run(folder, sys.executable, "main.py", "-m", "+sweep=compare", *small)
    assert "report: joyful report multirun/compare" in shown
    shown = examples.joyful(folder, "report", "multirun/compare")
    assert "multirun/compare/report/index.html" in shown
    verdicts = pd.read_csv(folder / "multirun/compare/report/verdicts.csv").set_index("metric")
    accuracy = verdicts.loc["final dev accuracy"]
    assert accuracy["n_pairs"] == 6
    assert accuracy["verdict"] in ("supported", "inconclusive", "contradicted")
    values = [trial.value for trial in sweeps.study(folder / "multirun/compare").trials[3:]]  # after the calibration
    difference = sum(values[1::2]) / 6 - sum(values[::2]) / 6
    assert accuracy["estimate"] == pytest.approx(100 * difference)
    history = pd.read_parquet(folder / "multirun/compare/3/history.parquet")
    assert set(history["split"]) == {"train", "dev"}
    assert sorted(set(history["step"])) == [1, 2, 3, 4]
