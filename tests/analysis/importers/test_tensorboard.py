"""Import of TensorBoard event files."""

import shutil
import sys

import pytest

from joyful.results import InputError
from tests.support.importing import FIXTURES, copied, curve, read_runs_of, refusal, rows_of

pytest.importorskip("tensorboard")

SOURCE = FIXTURES / "tensorboard"
OPTIONS = ("--arm-from", "^([^-]+)", "--seed-from", "seed_(.)")


def events(folder):
    return sorted(folder.glob("mse-seed_3/*"))


def test_scalars_of_all_files_of_a_folder_are_one_run():
    runs = read_runs_of("tensorboard", SOURCE, *OPTIONS)
    assert [(run.name, run.arm, run.seed) for run in runs] == [("mae-seed_3", "mae", 3), ("mse-seed_3", "mse", 3)]
    steps = [0, 5, 10, 15]
    # float32 in the file
    assert curve(runs[1], "train", "loss") == [(step, pytest.approx(0.5 / (step + 1), rel=1e-6)) for step in steps]
    assert curve(runs[1], "dev", "acc") == [(step, pytest.approx(1 - 0.5 / (step + 1), rel=1e-6)) for step in steps]
    assert curve(runs[1], "dev", "seconds") == [(step, 2 * step + 1) for step in steps]  # the program logged so
    assert all("epoch" not in row for row in rows_of(runs[1]))


def test_a_subfolder_of_a_split_belongs_to_the_run_above(tmp_path):
    for split in ("train", "validation"):
        shutil.copytree(SOURCE / "mse-seed_3", tmp_path / "mse-3" / split)
    run = read_runs_of("tensorboard", tmp_path, "--arm", "a", "--seed-from", r"mse-(\d)", "--metrics", "val_acc")[0]
    assert run.name == "mse-3"
    assert [step for step, _ in curve(run, "train", "val_acc")] == [0, 5, 10, 15]
    assert curve(run, "train", "val_acc") == curve(run, "dev", "val_acc")


def test_epochs_and_hyperparameters_are_read(tmp_path):
    pb = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    summary = pytest.importorskip("tensorboard.plugins.hparams.summary_v2")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path / "run"))
    settings = Summary.FromString(summary.hparams_pb({"lr": 0.5, "seed": 4}).SerializeToString())
    writer.add_event(pb.Event(wall_time=10, summary=settings))
    for step in range(6):
        values = [Summary.Value(tag="epoch", simple_value=step // 3), Summary.Value(tag="val_loss", simple_value=step)]
        values += [Summary.Value(tag="train/epoch", simple_value=step / 7)]
        writer.add_event(pb.Event(wall_time=10 + step, step=step, summary=Summary(value=values)))
    writer.close()
    run = read_runs_of("tensorboard", tmp_path)[0]
    assert (run.settings, run.seed) == ({"lr": 0.5}, 4)
    assert [epoch for epoch, _ in curve(run, "dev", "loss", "epoch")] == pytest.approx(
        [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2]
    )


def test_a_value_that_was_logged_again_replaces_the_first(tmp_path):
    source = copied("tensorboard", tmp_path)
    first, second = events(source)
    shutil.copy(first, second.with_name("events.out.tfevents.1800000000.host.1.9"))
    run = read_runs_of("tensorboard", source, *OPTIONS)[1]
    assert [step for step, _ in curve(run, "dev", "acc")] == [0, 5, 10, 15]
    assert run.repeated == 4


def test_a_file_that_ends_within_a_record_is_read_up_to_there(tmp_path):
    source = copied("tensorboard", tmp_path)
    path = events(source)[1]
    path.write_bytes(path.read_bytes()[:-5])
    assert [step for step, _ in curve(read_runs_of("tensorboard", source, *OPTIONS)[1], "dev", "acc")] == [0, 5, 10]


@pytest.mark.parametrize("content", [b"step,loss\n1,2\n", b"", b"\0" * 100, b"\xff" * 12])
def test_other_files_are_refused(tmp_path, content):
    source = copied("tensorboard", tmp_path)
    path = events(source)[1]
    path.write_bytes(content)
    if content:
        assert f"{path}, record 1: expected an event file" in refusal("tensorboard", source, *OPTIONS)
    else:  # TensorBoard creates an empty file first
        assert len(curve(read_runs_of("tensorboard", source, *OPTIONS)[1], "dev", "acc")) == 2


def test_a_damaged_record_is_refused_with_its_number(tmp_path):
    source = copied("tensorboard", tmp_path)
    path = events(source)[1]
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    assert f"{path}, record 5: expected an event file" in refusal("tensorboard", source, *OPTIONS)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"needs the package tensorboard; run pip install 'joyful-sweeps\[import\]'"):
        read_runs_of("tensorboard", SOURCE, *OPTIONS)
