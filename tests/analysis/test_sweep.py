"""Reading sweeps: arms, factors, the baseline, pairs and folds, and runs that are left out with their reasons."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.arms import arm_names, choose_baseline, covers, find_arms, find_factors, parse_override
from joyful.analysis.curves import curves
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError, RunHeader
from tests.support.analysis import NOTE_ARMS, Truth, history, simulate_sweep, write_run

EPOCHS = 4


def columns(epochs: int = EPOCHS, evaluations: int = 1, seed: int = 0) -> dict:
    return history(Truth(), epochs, evaluations, np.random.default_rng(seed), np.random.default_rng(seed + 1))


def make(folder: Path, overrides: dict | None = None, *, epochs: int = EPOCHS, **options) -> None:
    """Write a run with a budget of EPOCHS epochs that has reached `epochs` of them."""
    write_run(folder, columns(epochs), {"training.epochs": EPOCHS} | (overrides or {}), **options)


@pytest.fixture(scope="module")
def note(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("note")
    simulate_sweep(folder, seeds=range(1, 4), epochs=EPOCHS, evaluations_per_epoch=2)
    return folder


def test_two_arms(note: Path) -> None:
    sweep = read_sweep(note)
    assert [arm.name for arm in sweep.arms] == ["mse 0.05", "smoothl1 0.03"]
    assert [arm.is_baseline for arm in sweep.arms] == [True, False]
    assert sweep.factors == ("loss", "weights.encoder_loss_weight")
    assert sweep.others[0].settings == {"loss": "smoothl1", "weights.encoder_loss_weight": 0.03}
    assert sweep.others[0].choices["weights"] == "basic"
    assert sweep.others[0].config["loss.beta"] == 1.0
    assert sweep.pairs(sweep.others[0]) == [1, 2, 3]
    assert sweep.seeds(sweep.arms[0], "calibration") == [9000, 9001, 9002]
    assert sweep.lengths == (EPOCHS, EPOCHS)
    assert (sweep.x, sweep.unit, sweep.design, sweep.tasks) == ("epoch", "epochs", "paired", ())
    assert sweep.left_out.empty
    assert sweep.study is None
    assert sweep.notes == ("The baseline is 'mse 0.05': the arm of the calibration runs.",)


def test_the_frame_is_tidy(note: Path) -> None:
    sweep = read_sweep(note, columns=["nll"])
    assert list(sweep.frame) == ["run", "arm", "seed", "role", "fold", "step", "epoch", "split", "nll", "seconds", "x"]
    assert len(sweep.frame) == 9 * (EPOCHS + 2 * 2 * EPOCHS)  # train at whole epochs, dev and test twice in each
    assert set(sweep.frame["arm"]) == {"mse 0.05", "smoothl1 0.03"}
    assert sweep.frame["fold"].isna().all()
    assert len(sweep.runs) == 9
    assert sweep.runs["used"].all()
    assert set(sweep.runs["epochs"]) == {EPOCHS}
    assert "own_column" in read_sweep(note, columns=["own_column"]).frame  # A column that no run has is NaN.


def test_the_path_of_a_study(note: Path, tmp_path: Path) -> None:
    make(tmp_path / "0")
    (tmp_path / "study.db").write_bytes(b"")
    assert read_sweep(tmp_path).study == tmp_path / "study.db"


# Baselines


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["loss=mse", "weights=baseline"], "mse 0.05"),
        (["loss=smoothl1", "weights=basic"], "smoothl1 0.03"),
        (["+loss=smoothl1", "weights.encoder_loss_weight=3e-2"], "smoothl1 0.03"),
        (["loss.name=mse", "weights.encoder_loss_weight=0.05"], "mse 0.05"),
    ],
)
def test_a_baseline_by_overrides(note: Path, overrides: list[str], name: str) -> None:
    sweep = read_sweep(note, baseline=overrides)
    assert sweep.baseline is not None
    assert sweep.baseline.name == name
    assert sweep.notes[0] == f"The baseline is '{name}': given: {' '.join(overrides)}."


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["los=mse"], "expected a group or setting of the runs, got 'los'; did you mean loss"),
        (["loss=focal"], r"no arm matches loss=focal; the arms are: 'mse 0.05' \(loss=mse"),
        (["model=small"], "expected one arm, got 2 that match model=small: 'mse 0.05'"),
        (["loss"], "expected overrides such as loss=mse weights=baseline, got 'loss'"),
        (["loss=[1"], "expected overrides"),
        (
            ["loss=mse"],
            r"differ in settings other than loss: weights.encoder_loss_weight is 0.03 in 'smoothl1 0.03' and 0.05 in the "
            r"baseline",
        ),
    ],
)
def test_baselines_that_are_refused(note: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sweep(note, baseline=overrides)


def test_the_default_baseline(tmp_path: Path) -> None:
    """Without calibration runs the baseline is the arm with MSE and weight 0.05, else the first arm."""
    grid = [("smoothl1", 0.03), ("mse", 0.03), ("mse", 0.05)]
    for number, (loss, weight) in enumerate(grid):
        make(tmp_path / str(number), {"loss": loss, "weights.encoder_loss_weight": weight})
    sweep = read_sweep(tmp_path)
    assert [arm.name for arm in sweep.arms] == ["mse 0.05", "smoothl1 0.03", "mse 0.03"]
    assert "the settings before the optimisation" in sweep.notes[0]
    (tmp_path / "2" / "run.json").unlink()
    assert [arm.name for arm in read_sweep(tmp_path).arms] == ["smoothl1", "mse"]  # The weight no longer differs.


def test_calibration_runs_of_another_arm_do_not_choose_the_baseline(tmp_path: Path) -> None:
    make(tmp_path / "0", {"loss": "weighted_mse", "role": "calibration"}, seed=9000)
    make(tmp_path / "1", {"loss": "smoothl1"})
    make(tmp_path / "2", {"loss": "mse"})
    sweep = read_sweep(tmp_path)
    assert sweep.baseline is not None
    assert sweep.baseline.name == "smoothl1"  # No arm has weight 0.05, so it is the first arm with comparison runs.


# Settings in which compared arms must agree


@pytest.mark.parametrize(
    ("differing", "message"),
    [
        ({"training.epochs": 3}, r"training.epochs is 3 in .* and 4 in the baseline \(arms need the same budget\)"),
        ({"training.evaluations_per_epoch": 2}, "with more evaluations the best value is higher"),
        ({"data.name": "other"}, r"data.name is other in .* \(scores on different data cannot be compared\)"),
    ],
)
def test_conditions_are_refused(tmp_path: Path, differing: dict, message: str) -> None:
    make(tmp_path / "0", {"loss": "mse"})
    make(tmp_path / "1", {"loss": "smoothl1"} | differing)
    with pytest.raises(InputError, match=message):
        read_sweep(tmp_path)


def test_conditions_of_runs_that_are_not_used_do_not_matter(tmp_path: Path) -> None:
    make(tmp_path / "0", {"loss": "mse"})
    make(tmp_path / "1", {"loss": "smoothl1", "training.epochs": 9}, status="interrupted")
    assert len(read_sweep(tmp_path).arms) == 2


def test_seeds_without_a_partner_are_named(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make(tmp_path / f"a{seed}", seed=seed)
    for seed in (2, 3, 8, 9):
        make(tmp_path / f"b{seed}", {"loss": "smoothl1"}, seed=seed, status="failed" if seed == 3 else "completed")
    note = "Without a partner, and so in no pair of 'smoothl1': seeds 8 and 9 of 'smoothl1' and seeds 1 and 3 of 'mse'."
    assert note in read_sweep(tmp_path).notes


def test_runs_on_different_data_are_refused_with_both_digests(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=1)
    make(tmp_path / "b", {"loss": "smoothl1"}, seed=1, data_digest="e" * 16)
    message = (
        "runs a and b have the same settings of the data, but different data (digests dddddddddddddddd and eeeeeee"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read_sweep(tmp_path)


def test_other_settings_may_give_other_data(tmp_path: Path) -> None:
    """Folds, modalities and runs that are not used differ in their data, and so do runs of earlier versions."""
    make(tmp_path / "a", {"data.fold": 0}, seed=1)
    make(tmp_path / "b", {"data.fold": 1}, seed=1, data_digest="e" * 16)
    make(tmp_path / "c", {"data.fold": 0}, seed=2, data_digest="f" * 16, status="failed")
    make(tmp_path / "d", {"data.fold": 0}, seed=3)
    make(tmp_path / "e", {"data.fold": 1}, seed=3, data_digest="e" * 16)
    info = json.loads((tmp_path / "d/run.json").read_text())
    del info["data"]
    (tmp_path / "d/run.json").write_text(json.dumps(info))
    sweep = read_sweep(tmp_path)
    assert sweep.seeds(sweep.arms[0]) == [1, 3]


def test_the_data_may_be_a_named_factor_but_not_the_budget(tmp_path: Path) -> None:
    make(tmp_path / "0", {"data.text_encoder": "a"})
    make(tmp_path / "1", {"data.text_encoder": "b"})
    with pytest.raises(InputError, match="scores on different data"):
        read_sweep(tmp_path)
    assert read_sweep(tmp_path, baseline=["data.text_encoder=b"]).factors == ("data.text_encoder",)
    make(tmp_path / "2", {"data.text_encoder": "b", "training.epochs": 3})
    with pytest.raises(InputError, match="same budget"):
        read_sweep(tmp_path, baseline=["data.text_encoder=a", "training.epochs=4"])


# Runs that are left out


def test_partial_sweeps(tmp_path: Path) -> None:
    make(tmp_path / "00", seed=1)
    make(tmp_path / "01", seed=2, status="running", epochs=2)
    make(tmp_path / "02", seed=3, status="interrupted", reason="stopped by Ctrl-C", epochs=1)
    make(tmp_path / "03", seed=4, status="pruned", reason="worse than the median", epochs=2)
    make(tmp_path / "04", seed=5, status="failed", reason="nll is nan", epochs=3)
    make(tmp_path / "05", seed=6)
    history_bytes = (tmp_path / "05" / "history.parquet").read_bytes()
    (tmp_path / "05" / "history.parquet").write_bytes(history_bytes[:-1] + b"x")
    make(tmp_path / "06", {"training.early_stopping": 3}, seed=7)
    make(tmp_path / "07", seed=8, epochs=3)
    make(tmp_path / "08", seed=1)
    make(tmp_path / "09", {"role": "search"}, seed=5000)
    write_run(tmp_path / "10", {"step": [], "epoch": [], "split": []}, {"training.epochs": EPOCHS}, seed=9)
    sweep = read_sweep(tmp_path)
    left_out = sweep.left_out.set_index("run")
    assert left_out["reason"].to_dict() == {
        "01": "running (2 of 4 epochs)",
        "02": "stopped by Ctrl-C (1 of 4 epochs)",
        "03": "worse than the median (2 of 4 epochs)",
        "04": "nll is nan (3 of 4 epochs)",
        "05": "history.parquet: its SHA-256 is not in run.json; the file was changed after it was written",
        "08": "a second run of this arm and seed, in addition to 00",
        "09": "role=search: the run is not part of a comparison",
        "10": "it has no evaluation",
    }
    assert left_out["status"].to_dict()["05"] == "damaged"
    assert list(sweep.frame["run"].unique()) == ["00", "06", "07"]  # 07 ended early
    assert len(sweep.runs) == 11
    assert any("1 of 8 runs of 'early_stopping 0'" in note and "failed" in note for note in sweep.notes)
    assert any("1 runs of a search" in note for note in sweep.notes)
    assert "role=search" not in "".join(arm.name for arm in sweep.arms)


def test_an_empty_folder_and_a_single_run(tmp_path: Path) -> None:
    empty = read_sweep(tmp_path)
    assert empty.arms == ()
    assert empty.baseline is None
    assert np.isnan(empty.lengths).all()
    assert len(empty.frame) == 0
    make(tmp_path / "0")
    one = read_sweep(tmp_path)
    assert [arm.name for arm in one.arms] == ["all runs"]
    assert one.factors == ()
    assert one.others == ()
    assert read_sweep(tmp_path / "0").runs["run"].tolist() == ["."]
    with pytest.raises(InputError, match="expected a folder of runs"):
        read_sweep(tmp_path / "none")


def test_runs_without_run_json(tmp_path: Path) -> None:
    for seed, epochs in ((1, EPOCHS), (2, 2)):
        folder = tmp_path / str(seed)
        make(folder, seed=seed, epochs=epochs)
        (folder / ".hydra").mkdir()
        config = json.loads((folder / "run.json").read_text())["config"]
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        (folder / "run.json").unlink()
    sweep = read_sweep(tmp_path)
    assert sweep.runs["used"].tolist() == [True, False]
    assert sweep.left_out["reason"].tolist() == [
        "it ended after 2 of 4 epochs, and whether it was complete is not recorded"
    ]
    assert set(sweep.runs["status"]) == {"unknown"}


# Folds


def test_a_pair_is_a_seed_with_all_its_folds(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, seeds=(1, 2), epochs=3, evaluations_per_epoch=2, calibration=(), folds=(0, 1, 2))
    sweep = read_sweep(tmp_path)
    assert [arm.name for arm in sweep.arms] == ["mse 0.05", "smoothl1 0.03"]
    assert sweep.pairs(sweep.others[0]) == [1, 2]
    dev = curves(sweep)
    assert dev.shape == (4, 6)
    rows = sweep.frame[
        (sweep.frame["arm"] == "mse 0.05") & (sweep.frame["seed"] == 2) & (sweep.frame["split"] == "dev")
    ]
    by_hand = [rows.loc[np.isclose(rows["epoch"], epoch), "f1_weighted"].mean() for epoch in dev.columns]
    assert dev.loc[("mse 0.05", 2)].to_numpy() == pytest.approx(by_hand)
    first = sweep.runs[(sweep.runs["arm"] == "mse 0.05") & (sweep.runs["seed"] == 2)].iloc[0]
    (tmp_path / first["run"] / "run.json").write_text("{}")
    partial = read_sweep(tmp_path)
    assert partial.pairs(partial.others[0]) == [1]
    reasons = partial.left_out.groupby("run")["reason"].first()
    assert (reasons == "fold 0 of this arm and seed is missing").sum() == 2


# Functions of joyful.analysis.arms


def header(choices: dict, settings: dict) -> RunHeader:
    return RunHeader("r", choices=choices, settings=settings)


FACTOR_CASES = {
    "a choice that names its setting": (
        [({"loss": "mse"}, {"loss.name": "mse", "loss.w": 1}), ({"loss": "l1"}, {"loss.name": "l1", "loss.w": 2})],
        ("loss",),
    ),
    "a group of numbers": (
        [({"weights": "a"}, {"weights.e": 0.1, "weights.c": 1}), ({"weights": "b"}, {"weights.e": 0.2, "weights.c": 1})],
        ("weights.e",),
    ),
    "an override within a choice": (
        [({"loss": "mse"}, {"loss.name": "mse", "loss.beta": b}) for b in (1, 2)],
        ("loss.beta",),
    ),
    "choice and override": (
        [
            ({"loss": "mse"}, {"loss.name": "mse", "loss.beta": 1}),
            ({"loss": "mse"}, {"loss.name": "mse", "loss.beta": 2}),
            ({"loss": "l1"}, {"loss.name": "l1", "loss.beta": 1}),
        ],
        ("loss", "loss.beta"),
    ),
    "a group without a section": ([({"arm": "x"}, {}), ({"arm": "y"}, {})], ("arm",)),
    "a setting without a group": ([({}, {"rnn": "gru"}), ({}, {"rnn": "lstm"})], ("rnn",)),
    "an experiment is no factor": (
        [({"experiment": "a"}, {"x.n": 1}), ({"experiment": "b"}, {"x.n": 2})],
        ("x.n",),
    ),
    "seed, role and fold are none": (
        [({}, {"seed": 1, "role": "a", "data.fold": 0}), ({}, {"seed": 2, "role": "b", "data.fold": 1})],
        (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FACTOR_CASES)
def test_factors(case: str) -> None:
    runs, expected = FACTOR_CASES[case]
    assert find_factors([c for c, _ in runs], [s for _, s in runs]) == expected


def test_equal_settings_under_other_choices_are_one_arm() -> None:
    settings = {"weights.e": 0.05, "loss.name": "mse"}
    runs = [
        header({"weights": "baseline"}, settings | {"seed": 1}),
        header({"weights": "basic"}, settings | {"seed": 2}),
        header({"weights": "basic"}, settings | {"seed": 2, "loss.name": "l1"}),
    ]
    arms, arm_of_run, factors = find_arms(runs)
    assert arm_of_run == [0, 0, 1]
    assert factors == ("loss.name",)
    assert [arm.name for arm in arms] == ["mse", "l1"]
    unrecorded = [header({"schedule": "a"}, settings), header({"schedule": "b"}, settings)]
    assert find_arms(unrecorded)[1] == [0, 1]  # The configuration does not hold the settings of the choice.


def test_arm_names() -> None:
    assert arm_names([{"loss": "mse", "w.encoder_loss_weight": w} for w in (0.05, 0.1)]) == ["mse 0.05", "mse 0.1"]
    two = [{"w.cl_loss_weight": a, "w.gate_reg_weight": 0.01, "x.on": True} for a in (0.2, None)]
    assert arm_names(two) == ["cl 0.2 gate 0.01 on true", "cl off gate 0.01 on true"]
    same = [{"a.n": 1, "b.n": 2}, {"a.n": 1, "b.n": 3}]
    assert arm_names(same) == ["n 1 n 2", "n 1 n 3"]
    assert len(set(arm_names([{"a": "x y", "b": "z"}, {"a": "x", "b": "y z"}]))) == 2


def test_overrides_and_what_they_cover() -> None:
    assert parse_override("++a.b=1e-2") == ("a.b", 0.01)  # Hydra reads a number here. YAML 1.1 reads text.
    assert parse_override("a=0.05") == ("a", 0.05)
    assert covers("loss", "loss.name")
    assert covers("model/context", "model.context.n")
    assert not covers("loss", "loss_weight")
    arms, *_ = find_arms([header({}, {"w": 0.01}), header({}, {"w": 0.02})])
    assert choose_baseline(arms, [1, 1], [0, 0], ["w=1e-2"])[0] == 0


def test_a_sweep_is_read_as_it_was_simulated(tmp_path: Path) -> None:
    simulate_sweep(tmp_path, NOTE_ARMS, seeds=(1,), epochs=2, evaluations_per_epoch=1, calibration=())
    sweep = read_sweep(tmp_path)
    expected = history(
        NOTE_ARMS[0], 2, 1, np.random.default_rng([0, 1, 0]), np.random.default_rng([0, 1, 0, 0, 7])
    )["nll"]  # fmt: skip
    rows = sweep.frame[sweep.frame["arm"] == "mse 0.05"]
    assert rows["nll"].tolist() == expected.tolist()
    assert isinstance(sweep.runs, pd.DataFrame)
