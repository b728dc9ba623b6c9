"""The options of all formats: names and splits of metrics, and what gives arm, seed and task."""

import math

import pytest

from joyful.results import InputError, load
from tests.support.importing import curve, main, read_runs_of, refusal, rows_of


@pytest.fixture
def keras(tmp_path):
    """Two files of Keras: the simplest format without an arm and a seed."""
    for arm in ("mse", "mae"):
        (tmp_path / "logs" / arm).mkdir(parents=True)
        (tmp_path / "logs" / arm / "run-10.csv").write_text("epoch,loss,val_loss\n0,2,3\n1,1,2\n")
    return tmp_path / "logs"


ARM, SEED = ("--arm-from", "^[a-z]+"), ("--seed-from", r"run-(\d+)")


def test_the_first_group_or_the_whole_match_is_the_value(keras):
    runs = read_runs_of("keras", keras, *ARM, *SEED, "--task-from", "([a-z]+)-")
    assert [(run.arm, run.seed, run.task) for run in runs] == [("mae", 10, "run"), ("mse", 10, "run")]


def test_tasks_are_settings_and_the_summary_counts_them(keras, tmp_path, capsys):
    words = ["keras", str(keras), "--out", str(tmp_path / "out"), "--arm", "x", *SEED, "--task-from", "^([a-z]+)/"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "arm=x: 1 seed on 2 tasks",
        f"2 runs of 1 arms in {tmp_path / 'out'}; next: joyful report {tmp_path / 'out'}",
        "metrics of one run (arm x, task mae, seed 10), first and last value:",
        "  train: loss 2 to 1",
        "  dev: loss 3 to 2",
    ]
    frame = load(tmp_path / "out")
    assert sorted(set(frame.task)) == ["mae", "mse"]


def test_names_that_cannot_be_printed_are_escaped(tmp_path, capsys):
    name = "a\x1b[31m\udcff-1.csv"  # a colour, and a byte that is not UTF-8
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).write_text("epoch,loss\n0,2\n")
    words = ["keras", str(tmp_path / "logs"), "--out", str(tmp_path / "out")]
    assert main([*words, "--arm-from", "^(.*)-", "--seed-from", r"(\d)\.csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == r"arm=a\x1b[31m\udcff: 1 seed"
    assert len(load(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (),
            r"the arm and the seed of the run 'mae/run-10.csv' are not known; set --arm-from '^([^/]+)/' (here 'mae') or",
        ),
        (ARM, r"the seed of the run 'mae/run-10.csv' is not known; set --seed-from '(\d+)\D*$' (here '10')"),
        (
            (*ARM, "--seed-from", "seed"),
            "--seed-from 'seed': expected a match in every run's name, got 'mae/run-10.csv'",
        ),
        ((*ARM, "--seed-from", "run"), "--seed-from: expected an integer, got 'run' from the run 'mae/run-10.csv'"),
        ((*ARM, "--seed-from", "("), "--seed-from '(': expected a regular expression"),
        (("--arm", "x", *SEED), "the run 'mse/run-10.csv' has the same arm x, seed 10 as 'mae/run-10.csv'"),
        (
            (*ARM, *SEED, "--split-prefix", "a=b"),
            "--split-prefix 'a=b': expected PREFIX=train, PREFIX=dev or PREFIX=test",
        ),
        ((*ARM, *SEED, "--split-prefix", "a"), "--split-prefix 'a': expected PREFIX=train"),
        ((*ARM, *SEED, "--split-prefix", "val_=train"), "'loss' and 'val_loss' both become loss (train); set --rename"),
        (
            (*ARM, *SEED, "--rename", "acc=x"),
            "--rename: expected metrics of the source ('loss', 'val_loss'), got 'acc'",
        ),
        (
            (*ARM, *SEED, "--metrics", "acc"),
            "--metrics: expected metrics of the source ('loss', 'val_loss'), got 'acc'",
        ),
        ((*ARM, *SEED, "--rename", "loss=%"), "line 1: metric 'loss': expected a name that starts with a letter"),
        (
            (*ARM, *SEED, "--rename", "loss=epoch"),
            "line 1: metric 'loss': expected a name that starts with a letter, except",
        ),
        ((*ARM, *SEED, "--settings", "lr"), "--settings: expected settings of the run (none), got 'lr'"),
    ],
)
def test_wrong_options_are_refused(keras, options, message):
    assert message in refusal("keras", keras, *options)


def test_a_rename_keeps_the_split_or_sets_it(keras):
    for rename, split, name in (
        ("val_loss=nll", "dev", "nll"),
        ("loss=nll", "dev", "nll"),
        ("val_loss=test/nll", "test", "nll"),
    ):
        run = read_runs_of("keras", keras / "mse" / "run-10.csv", *ARM, "--seed-from", r"\d+", "--rename", rename)[0]
        assert curve(run, split, name) == [(1, 3.0), (2, 2.0)]


def test_an_empty_prefix_is_the_split_of_other_names(keras):
    run = read_runs_of("keras", keras, *ARM, *SEED, "--split-prefix", "=test", "--metrics", "loss")[0]
    assert {row["split"] for row in rows_of(run)} == {"dev", "test"}


def test_the_longest_prefix_counts(tmp_path):
    (tmp_path / "a-1.csv").write_text("epoch,val_new_acc,val_acc\n0,1,0.5\n")
    run = read_runs_of("keras", tmp_path, "--arm", "a", "--seed-from", r"\d", "--split-prefix", "val_new_=test")[0]
    assert curve(run, "test", "acc") == [(1, 1.0)]
    assert curve(run, "dev", "acc") == [(1, 0.5)]


def table(tmp_path, *rows, header="arm,seed,step,split,accuracy"):
    (tmp_path / "curves.csv").write_text("\n".join((header, *rows, "")))
    return tmp_path / "curves.csv"


def test_scores_slightly_above_1_are_read(tmp_path):
    run = read_runs_of("csv", table(tmp_path, "a,1,1,dev,0.5", "a,1,2,dev,1.002"))[0]
    assert curve(run, "dev", "accuracy") == [(1, 0.5), (2, 1.002)]


def test_scores_in_per_cent_are_refused_with_the_option_that_divides_them(tmp_path):
    source = table(tmp_path, "a,1,1,dev,0.5", "a,1,2,dev,72", "a,1,3,dev,75")
    message = (
        "curves.csv, line 3: accuracy: expected a fraction from 0 to 1, got '72'; for per cent set --percent accuracy"
    )
    assert message in refusal("csv", source)
    run = read_runs_of("csv", source, "--percent", "accuracy")[0]
    assert [value for _, value in curve(run, "dev", "accuracy")] == [0.005, 0.72, 0.75]


def test_epochs_may_be_missing_and_runs_keep_their_length(tmp_path):
    source = table(
        tmp_path, "a,1,1,,dev,0.5", "a,1,2,1,dev,0.6", "b,1,1,,dev,0.5", header="arm,seed,step,epoch,split,accuracy"
    )
    first, second = read_runs_of("csv", source)
    assert curve(first, "dev", "epoch") == [(2, 1.0)]
    assert curve(second, "dev", "accuracy", "epoch") == [(None, 0.5)]


def test_a_run_may_end_within_an_epoch(tmp_path):
    rows = [f"a,1,{epoch},dev,{epoch / 10}" for epoch in (1, 2, 3, 4, 4.99)]
    run = read_runs_of("csv", table(tmp_path, *rows, header="arm,seed,epoch,split,accuracy"))[0]
    assert curve(run, "dev", "accuracy", "epoch") == [(epoch, epoch / 10) for epoch in (1, 2, 3, 4, 4.99)]


def test_a_table_without_the_column_split(tmp_path):
    source = table(tmp_path, "a,1,10,0.25,nan", header="arm,seed,step,train/acc,val/acc")
    run = read_runs_of("csv", source)[0]
    rows = rows_of(run)
    assert rows[0] == {"step": 10, "split": "train", "acc": 0.25}
    assert math.isnan(rows[1].pop("acc"))
    assert rows[1] == {"step": 10, "split": "dev"}


def test_a_folder_of_tables_with_options_in_place_of_columns(tmp_path):
    for name in ("mse-1", "mse-2", "mae-1"):
        (tmp_path / f"{name}.csv").write_text("step,val_f1\n1,0.5\n")
    runs = read_runs_of("csv", tmp_path, "--arm-from", "^[a-z]+", "--seed-from", r"(\d)\.")
    assert [(run.arm, run.seed) for run in runs] == [("mae", 1), ("mse", 1), ("mse", 2)]
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.csv").write_text("?")
    (tmp_path / "link.csv").symlink_to(tmp_path / "mse-1.csv")
    assert len(read_runs_of("csv", tmp_path, "--arm-from", "^[a-z]+", "--seed-from", r"(\d)\.")) == 3


def test_the_same_run_in_two_tables_is_refused_with_both_places(tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"{name}.csv").write_text("arm,seed,step,split,f1\na,1,1,dev,0.5\n")
    message = f"{tmp_path / 'y.csv'}, line 2: the run 'y.csv' has the same arm a, seed 1 as 'x.csv' ({tmp_path / 'x.csv'}, line 2)"
    with pytest.raises(InputError) as raised:
        read_runs_of("csv", tmp_path)
    assert message in str(raised.value)
