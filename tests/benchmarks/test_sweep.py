"""The benchmark of whole sweeps: its commands at tiny size, and its figures from the run folders."""

import json

import pytest

from benchmarks.epoch import RUNNING, SCALED
from benchmarks.sweep import SweepTiming, figures, full_size, main, stock_overrides
from tests.support.sweeps import TINY_SWEEP

OURS = {
    "asha": SweepTiming(wall=100.0, busy=190.0, trials=27, epochs=270.0, full_epochs=540.0, best=80.0),
    "none": SweepTiming(wall=200.0, busy=300.0, trials=27, epochs=540.0, full_epochs=540.0, best=81.0),
}
JOBLIB = SweepTiming(wall=60.0, busy=90.0, trials=6, epochs=120.0, full_epochs=120.0, best=82.0)
BASIC = SweepTiming(wall=40.0, busy=30.0, trials=2, epochs=40.0, full_epochs=40.0, best=79.0)


def test_stock_sweepers_are_scaled_by_batches_and_utilisation_is_busy_over_workers_times_wall():
    by_name = {one.name: one for one in figures(OURS, JOBLIB, BASIC, n_trials=27, n_workers=2)}
    joblib = by_name["wall, stock joblib, 6 trials scaled to 27 by batches"]
    assert joblib.value == pytest.approx(60 * 14 / 3)
    assert by_name["wall, asha, 27 trials"].ratio == pytest.approx(100 / joblib.value)
    assert by_name["wall, none, 27 trials"].ratio == pytest.approx(200 / joblib.value)
    assert by_name["wall, stock basic, 2 trials scaled to 27"].value == pytest.approx(540)
    assert by_name["epochs trained, asha"].ratio == pytest.approx(0.5)
    assert by_name["best dev F1, none"].ratio == pytest.approx(81 / 82)
    assert by_name["busy, asha"].ratio == pytest.approx(0.95)
    assert by_name["busy, stock basic"].ratio == pytest.approx(0.75)


def test_the_full_size_follows_from_measured_epochs_and_the_share_that_pruning_leaves():
    epochs = [{"name": f"epoch, {RUNNING}", "value": 10.0}, {"name": f"epoch, {SCALED}", "value": 110.0}]
    run, sweep = full_size(epochs, OURS["asha"])
    assert run.value == pytest.approx(20 * 110)  # 540 epochs of 27 trials
    assert "20 epochs" in run.name
    assert sweep.value == pytest.approx(270 * 10)
    assert "0.500 that pruning leaves" in sweep.name
    assert sweep.ratio == pytest.approx(sweep.value / run.value)
    with pytest.raises(ValueError, match=r"make the file with python -m benchmarks\.epoch"):
        full_size(epochs[:1], OURS["asha"])


def test_the_search_is_that_of_the_sweep_file():
    settings, space = stock_overrides()
    assert settings == ["fusion=hierarchical", "role=search", "seed=5000"]
    assert [item.split("=")[0] for item in space] == [
        "weights.encoder_loss_weight", "weights.cl_loss_weight", "weights.gate_reg_weight",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.soak("trains four sweeps")
def test_the_commands_end_to_end(tmp_path, capsys):
    tiny = [item for item in TINY_SWEEP if "fusion=" not in item]
    file, epochs = tmp_path / "sweep.json", tmp_path / "epoch.json"
    figures = [{"name": f"epoch, {RUNNING}", "value": 1.0}, {"name": f"epoch, {SCALED}", "value": 10.0}]
    epochs.write_text(json.dumps({"figures": figures}))
    main([
        "--pruner", "asha_promotion", "none", "--trials", "3", "--peer-trials", "2", "--basic-trials", "1",
        "--folder", str(tmp_path), "--json", str(file), "--epoch-json", str(epochs),
        "--", *tiny, "training.batch_size=2", "training.epochs=2",
    ])  # fmt: skip
    document = json.loads(file.read_text())
    values = {one["name"]: one["value"] for one in document["figures"]}
    assert values["epochs trained, asha_promotion"] == 6  # the runs are too short to be pruned
    assert (
        document["overrides"][1] == "training.epochs=30"
    )  # the default with --epoch-json; a later override replaces it
    assert values["one run of the per-utterance trainer, 2 epochs, extrapolated"] == 20
    assert all(one["ratio"] > 0 for one in document["figures"])
    busy = [one["ratio"] for one in document["figures"] if one["name"].startswith("busy")]
    assert all(ratio < 1 for ratio in busy)
    assert len(list(tmp_path.glob("multirun/*/*/run.json"))) == 9
    printed = capsys.readouterr().out
    assert all(name in printed for name in values)


def test_half_a_batch_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--peer-trials", "3"])
    assert "expected whole batches of 2, got 3" in capsys.readouterr().err
