"""Import of Lightning's metrics.csv."""

import pytest

from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal, rows_of

SOURCE = FIXTURES / "lightning"


def test_settings_seeds_steps_and_epochs_are_those_of_the_files():
    runs = read_runs_of("lightning", SOURCE)
    assert [(run.name, run.settings, run.seed) for run in runs] == [
        ("lr_0.01/version_1/metrics.csv", {"lr": 0.01}, 1),
        ("lr_0.01/version_2/metrics.csv", {"lr": 0.01}, 2),
        ("lr_0.1/version_1/metrics.csv", {"lr": 0.1}, 1),
        ("lr_0.1/version_2/metrics.csv", {"lr": 0.1}, 2),
    ]
    run = runs[2]
    assert curve(run, "dev", "loss") == [(5, 0.183746337890625), (11, 0.028427131474018097)]
    assert curve(run, "dev", "acc", "epoch") == [(1, 1.0), (2, 1.0)]
    assert curve(run, "train", "loss_epoch", "epoch") == [(1, 1.4474667310714722), (2, 0.1146610751748085)]
    # steps 0 to 5 are epoch 0, so two steps are a third of it
    passes = [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2]
    assert curve(run, "train", "loss_step", "epoch") == [
        (pytest.approx(epoch), loss)
        for epoch, loss in zip(
            passes,
            [1.5749143362045288, 1.2921924591064453, 0.4823170304298401, 0.3034766614437103, 0.05957486853003502,
             0.022253580391407013],
            strict=True,
        )
    ]  # fmt: skip
    # three lines of step 5 become one row of train and one of dev
    assert [(row["step"], row["split"]) for row in rows_of(run) if row["step"] == 5] == [(5, "train"), (5, "dev")]


def test_epochs_that_count_from_1_are_kept():
    run = read_runs_of("lightning", SOURCE / "lr_0.1" / "version_1", "--epochs-from", "1")[0]
    assert curve(run, "dev", "acc", "epoch") == [(0, 1.0), (1, 1.0)]


def test_an_arm_from_the_path_replaces_the_settings():
    runs = read_runs_of("lightning", SOURCE, "--arm-from", "^([^/]+)/", "--seed-from", r"version_(\d+)")
    assert [(run.arm, run.seed, run.settings) for run in runs] == [
        ("lr_0.01", 1, {}), ("lr_0.01", 2, {}), ("lr_0.1", 1, {}), ("lr_0.1", 2, {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("metrics.csv", "1.2921924591064453", "x", "metrics.csv, line 3: train_loss_step: expected a number"),
        ("metrics.csv", "epoch,step", "epoch,stop", "metrics.csv, line 1: the header lacks 'step'"),
        ("metrics.csv", "0,3,", "0,3", "metrics.csv, line 3: expected 6 columns"),
        ("hparams.yaml", "lr: 0.1", "lr: [", "hparams.yaml: it is not valid YAML"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, file, old, new, message):
    path = copied("lightning", tmp_path) / "lr_0.1" / "version_1" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert message in refusal("lightning", tmp_path / "lightning")


@pytest.mark.parametrize(
    ("rows", "passes"),
    [
        # two epochs of 4 steps, with a row every 2 steps; the third epoch was interrupted
        ("0,1 0,3 1,5 1,7 2,9", [0.5, 1, 1.5, 2, 2.5]),
        # evaluated every third epoch, with steps that count from 1
        ("2,30 5,60", [3, 6]),
        # a run that was resumed in epoch 4
        ("4,49 5,59", [5, 6]),
        ("0,4", [1]),
        # fractions are passes already
        ("0.5,4 1.5,8", [0.5, 1.5]),
    ],
)
def test_epochs_become_passes_over_the_data(tmp_path, rows, passes):
    (tmp_path / "1").mkdir()
    table = "epoch,step,val_loss\n" + "".join(f"{row},1\n" for row in rows.split())
    (tmp_path / "1" / "metrics.csv").write_text(table)
    run = read_runs_of("lightning", tmp_path, "--arm", "a", "--seed-from", "^1")[0]
    assert [epoch for epoch, _ in curve(run, "dev", "loss", "epoch")] == passes


def test_epochs_that_decrease_are_refused_with_both_lines(tmp_path):
    path = tmp_path / "logs" / "1" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("epoch,step,val_loss\n1,5,1\n0,10,1\n")
    message = refusal("lightning", tmp_path / "logs", "--arm", "a", "--seed-from", "^1")
    assert f"{path}, line 3: epoch 0 at step 10, but line 2 has epoch 1 at step 5; epochs must not decrease" in message


def test_hparams_construct_no_objects(tmp_path):
    path = copied("lightning", tmp_path) / "lr_0.1" / "version_1" / "hparams.yaml"
    path.write_text(f"lr: !!python/object/apply:os.system ['touch {tmp_path}/canary']\nseed: 7\n")
    assert read_runs_of("lightning", path.parent)[0].seed == 7
    assert not (tmp_path / "canary").exists()
