"""Import of the files of Keras' CSVLogger."""

from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal, rows_of

OPTIONS = ("--arm-from", "^([^/]+)/", "--seed-from", "seed_(.)")


def test_values_epochs_and_splits_are_those_of_the_files():
    runs = read_runs_of("keras", FIXTURES / "keras", *OPTIONS)
    assert [(run.arm, run.seed) for run in runs] == [("units_2", 5), ("units_4", 5)]
    assert curve(runs[0], "dev", "accuracy") == [(1, 0.3125), (2, 0.3125), (3, 0.375)]
    losses = [(1, 0.9232102036476135), (2, 0.9134390950202942), (3, 0.903855562210083)]
    assert curve(runs[0], "train", "loss", "epoch") == losses
    assert len(rows_of(runs[0])) == 6


def test_damaged_files_are_refused_with_the_line(tmp_path):
    path = copied("keras", tmp_path) / "units_2" / "seed_5.csv"
    path.write_text(path.read_text().replace("0.375", "?"))
    assert f"{path}, line 4: val_accuracy: expected a number" in refusal("keras", tmp_path / "keras", *OPTIONS)
    path.write_text("loss,val_loss\n1,2\n")
    assert f"{path}, line 1: the header lacks 'epoch'" in refusal("keras", tmp_path / "keras", *OPTIONS)
