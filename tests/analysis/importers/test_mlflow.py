"""Import of MLflow's file store."""

import pytest

from joyful.results import InputError
from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal


def the_run(folder, name):
    """The folder of a run by its name."""
    return next(path.parents[1] for path in folder.rglob("mlflow.runName") if path.read_text() == name)


def test_parameters_are_settings_and_metrics_are_curves():
    runs = {run.name: run for run in read_runs_of("mlflow", FIXTURES / "mlflow", "--settings", "loss")}
    assert {name: (run.settings, run.seed) for name, run in runs.items()} == {
        f"losses/{loss}-{seed}": ({"loss": loss}, seed) for loss in ("mse", "mae") for seed in (1, 2)
    }
    run = runs["losses/mse-2"]
    assert curve(run, "train", "loss") == [(1, 0.5), (2, 0.3333333333333333), (3, 0.25)]
    assert curve(run, "dev", "acc") == [(1, 0.5), (2, 0.6666666666666667), (3, 0.75)]
    start = int(next(line for line in meta_of("mse-2") if line.startswith("start_time:")).split()[1])
    first = int((the_run(FIXTURES / "mlflow", "mse-2") / "metrics/val/acc").read_text().split()[0])
    assert curve(run, "dev", "seconds")[0] == (1, pytest.approx((first - start) / 1000, abs=1e-6))


def meta_of(name):
    return (the_run(FIXTURES / "mlflow", name) / "meta.yaml").read_text().splitlines()


def test_arms_from_names_and_a_deleted_run(tmp_path):
    source = copied("mlflow", tmp_path)
    path = the_run(source, "mae-2") / "meta.yaml"
    path.write_text(path.read_text().replace("lifecycle_stage: active", "lifecycle_stage: deleted"))
    runs = read_runs_of("mlflow", source, "--arm-from", "/(.+)-", "--seed-from=-(.)$")
    assert sorted((run.arm, run.seed) for run in runs) == [("mae", 1), ("mse", 1), ("mse", 2)]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics/val/acc", "1 0.5 1\n2 x 2\n", "acc, line 2: val/acc: expected a number"),
        ("metrics/val/acc", "1 0.5\n", "acc, line 1: expected a time, a value and a step"),
        ("metrics/val/acc", "1 0.5 1.5\n", "acc, line 1: step: expected an integer"),
        ("metrics/val/acc", "1 0.5 -3\n", "acc, line 1: step: expected an integer >= 0, got -3"),
        ("meta.yaml", "[1, 2", "meta.yaml: it is not valid YAML"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, file, text, message):
    path = the_run(copied("mlflow", tmp_path), "mse-1") / file
    assert path.is_file()
    path.write_text(text)
    assert message in refusal("mlflow", tmp_path / "mlflow")


def test_a_folder_without_runs(tmp_path):
    (tmp_path / "meta.yaml").write_text("experiment_id: '0'\nname: Default\n")
    with pytest.raises(InputError, match="expected the folders of runs"):
        read_runs_of("mlflow", tmp_path)
