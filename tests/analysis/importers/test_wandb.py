"""Import of tables exported from Weights & Biases. The tables are written by this test, in the form of published ones."""

import pytest

from tests.support.importing import curve, read_runs_of, refusal

NAMES = ["mse-seed1 - _step", "mse-seed1 - val/f1", "mae - x-seed2 - val/f1"]
HEADER = ",".join(['"Step"', *(f'"{name}{suffix}"' for name in NAMES for suffix in ("", "__MIN", "__MAX"))])
F1 = f"""{HEADER}
"0","0","0","0","0.25","0.25","0.25","","",""
"10","10","10","10","0.5","0.5","0.5","0.75","0.75","0.75"
"""
LOSS = '"Step","mse-seed1 - train_loss","mae - x-seed2 - train_loss"\n"5","3","2"\n"10","NaN",""\n'
OPTIONS = ("--arm-from", "^(.*)-seed", "--seed-from", "seed([0-9]+)")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "f1.csv").write_text(F1)
    (tmp_path / "export" / "loss.csv").write_text(LOSS)
    return tmp_path / "export"


def test_tables_of_several_charts_are_merged_by_run(source):
    runs = read_runs_of("wandb", source, *OPTIONS)
    assert [(run.name, run.arm, run.seed) for run in runs] == [("mse-seed1", "mse", 1), ("mae - x-seed2", "mae - x", 2)]
    assert curve(runs[0], "dev", "f1") == [(0, 0.25), (10, 0.5)]
    assert curve(runs[1], "dev", "f1") == [(10, 0.75)]
    assert [step for step, _ in curve(runs[0], "train", "loss")] == [5, 10]
    assert curve(runs[1], "train", "loss") == [(5, 2.0)]


def test_other_axes(tmp_path):
    path = tmp_path / "wandb.csv"
    path.write_text('"epoch","a-seed1 - val_loss"\n"1","3"\n"2","2"\n')
    run = read_runs_of("wandb", path, *OPTIONS)[0]
    assert curve(run, "dev", "loss", "epoch") == [(1, 3.0), (2, 2.0)]
    assert curve(run, "dev", "loss") == [(1, 3.0), (2, 2.0)]
    path.write_text('"Relative Time (Process)","a-seed1 - val_loss"\n"1.5","3"\n"60","2"\n')
    run = read_runs_of("wandb", path, *OPTIONS)[0]
    assert curve(run, "dev", "loss", "seconds") == [(1.5, 3.0), (60, 2.0)]
    assert curve(run, "dev", "loss") == [(1, 3.0), (2, 2.0)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0.5","0.5"', '"half","0.5"', "f1.csv, line 3: mse-seed1 - val/f1: expected a number"),
        ('"10","10"', '"1.5","10"', "f1.csv, line 3: Step: expected an integer, got '1.5'"),
        ('"10","10"', '"-1","10"', "f1.csv, line 3: step: expected an integer >= 0, got -1"),
        (
            '"Step"',
            '"Wall Time"',
            "f1.csv, line 1: expected the x axis Step, epoch or a relative time, got 'Wall Time'",
        ),
        ('"Step"', '"epoch"', "loss.csv, line 1: expected the x axis of"),
        ("val/f1", "f1", "f1.csv: metric 'f1': the split is not known; set --split-prefix 'f1=dev'"),
    ],
)
def test_bad_tables_are_refused_with_the_line(source, old, new, message):
    (source / "f1.csv").write_text(F1.replace(old, new))
    assert message in refusal("wandb", source, *OPTIONS)
