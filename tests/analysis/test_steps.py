"""The steps of the notebooks: pictures of a sweep, tables in words, labels, and the import from Python."""

from pathlib import Path

import numpy as np
import pytest

from joyful.analysis import convergence, response
from joyful.analysis.claims import judge, parse_claims, read_claims
from joyful.analysis.importers.importing import import_curves
from joyful.analysis.page import frames, pictures
from joyful.analysis.page.labels import with_labels
from joyful.analysis.page.words import sentence
from joyful.analysis.sweep import read_sweep
from joyful.results import InputError
from study.archive import unpack
from tests.support.notebooks import CURVES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps") / "reference"
    unpack(ROOT / "study/archives/reference.parquet", folder)
    return read_sweep(folder)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps") / "synthetic"
    unpack(ROOT / "study/archives/synthetic.parquet", folder)
    return read_sweep(folder)


@pytest.fixture(scope="module")
def imported():
    return read_sweep(import_curves("csv", CURVES), ["accuracy", "loss"], baseline=["arm=old"])


def test_numbers_of_runs(reference):
    table = frames.runs(reference)
    assert table.loc["mse 0.05 (baseline)"].tolist() == [6, "–", 3, 0]
    assert table.loc["smoothl1 0.03"].tolist() == [6, "6", 0, 0]


@pytest.mark.slow
def test_verdicts_in_words(reference):
    verdicts = judge(reference, read_claims(), rng=np.random.default_rng(0))
    table = frames.verdicts(reference, verdicts)
    speed = table.loc["Convergence speed"]
    assert speed["claimed"] == "15 to 25 % faster"
    assert speed["measured (95 % interval)"] == "0.9 % slower (5.9 % slower to 4.2 % faster)"
    assert speed["result"] == "not 15 % faster"
    assert "0.9 % slower (5.9 % slower to 4.2 % faster)" in table.iloc[:1]._repr_html_(), "cells are not cut off"
    answer = "smoothl1 0.03 is not faster, steadier or better than mse 0.05 as claimed; its "
    assert sentence(reference, verdicts).startswith(answer)


def test_times_of_runs(reference):
    times = convergence.times_to_target(reference, convergence.parse_target("dev_f1=0.73"))
    table = frames.times(times)
    assert list(table.columns) == ["mse 0.05", "smoothl1 0.03"]
    ended = times["epochs"][~times["reached"]]
    assert len(ended)
    for arm, seed in ended.index:
        assert table.loc[seed, arm] == f"> {ended[arm, seed]:.2f}"


def test_variation_over_seeds(reference):
    assert frames.variation(reference, "f1_weighted").loc["mse 0.05"].tolist() == [6, "73.2", "2.12", "1.32", "5.2"]


@pytest.mark.slow
def test_pictures_have_titles_and_findings(reference):
    goal = convergence.choose_target(reference)
    verdicts = judge(reference, read_claims(), goal, rng=np.random.default_rng(0))
    drawn = [
        pictures.learning_curves(reference, "f1_weighted", target=goal),
        pictures.learning_curves(reference, "nll", "train", target=goal),
        pictures.differences(reference, "f1_weighted"),
        pictures.time_to_target(reference, goal),
        pictures.spreads(reference, "nll", "train"),
        pictures.drawdowns(reference, "f1_weighted"),
        pictures.effects(reference, verdicts, "f1"),
        pictures.gains_by_target(reference, read_claims()),
    ]
    assert len({plot.name for plot in drawn}) == len(drawn)
    assert [plot.title for plot in drawn][4:6] == [
        "Spread of train NLL (nats)",
        "Largest drawdown of dev weighted F1 (points)",
    ]
    assert any("target" in text.get_text() for text in drawn[0].figure.axes[0].texts)
    assert not drawn[1].figure.axes[0].texts, "the target is one of dev F1"
    for plot in drawn:
        shown = plot._repr_html_()
        assert plot.title in shown
        assert plot.finding in shown
        assert shown.count("<img ") == 1


def test_pictures_that_cannot_be_drawn(reference):
    with pytest.raises(ValueError, match="name of a claim with a verdict, got 'speed'; there is no verdict"):
        pictures.effects(reference, [], "speed")
    with pytest.raises(ValueError, match="one on a time to a target, got none"):
        pictures.gains_by_target(reference, [claim for claim in read_claims() if claim.name == "f1"])


@pytest.mark.slow
def test_labels_of_a_sweep_with_many_factors(grid):
    labelled = with_labels(grid)
    assert labelled.arms[0].name == "baseline"
    assert list(labelled.frame["arm"].cat.categories)[:2] == ["baseline", "smoothl1 encoder 0.03"]
    assert len(frames.runs(labelled)) == 7
    assert "baseline" in frames.runs(labelled).index


@pytest.mark.slow
def test_weights_with_a_grid(grid, reference):
    assert response.choose_weight(grid) == "weights.encoder_loss_weight"
    with pytest.raises(InputError, match=r"at least 3 values of loss that differ in nothing else, got weights\."):
        response.choose_weight(grid, "loss")
    with pytest.raises(InputError, match=r"at least 3 values of a weight .* got no such weight"):
        response.choose_weight(reference)


@pytest.mark.slow
def test_gains_of_a_weight(grid):
    points = response.response(grid)
    table = frames.gains(points, "weights.encoder_loss_weight")
    assert list(table.index) == ["…mse…"] * 3 + ["…smoothl1…"] * 3
    assert table["encoder_loss_weight"].tolist() == ["0", "0.03", "0.05", "0.03", "0.05", "0.08"]
    assert table["best dev F1"].iloc[2] == "–", "the baseline"
    assert table["best dev F1"].iloc[3] == "+0.05 points (−0.26 to 0.36 points)"


@pytest.mark.slow
def test_times_are_in_the_unit_of_the_axis(imported):
    metrics = [{"measure": "time_to_target", "split": "dev", "of": "accuracy"}]
    speed = {"claim": "speed", "metrics": metrics, "at_least": 10, "unit": "percent", "direction": "increase"}
    claims = parse_claims({"claims": [speed]})
    assert frames.claims(imported, claims).loc["Speed"].tolist() == [
        "steps to the target of dev accuracy",
        "at least 10 % faster",
    ]
    target = convergence.choose_target(imported, None, "accuracy")
    verdicts = judge(imported, claims, target, rng=np.random.default_rng(0))
    plot = pictures.effects(imported, verdicts, "speed")
    assert "steps to the target of dev accuracy" in [text.get_text() for text in plot.figure.axes[0].texts]
    assert plot.finding == "35.6 % faster (31.7 to 39.6 %); claimed at least 10 % faster: faster as claimed."
    assert sentence(imported, verdicts) == "new is faster than old"


def test_import_from_python(imported, tmp_path):
    assert [arm.name for arm in imported.arms] == ["old", "new"]
    assert imported.pairs(imported.arms[1]) == list(range(1, 9))
    folder = import_curves("csv", CURVES, tmp_path / "runs", rename=["accuracy=score"], metrics="score")
    assert folder == tmp_path / "runs"
    assert "score" in read_sweep(folder, ["score"]).frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renam": ["a=b"]}, r"option renam: expected one of arm, .*, rename, "),
        ({"rename": "a=b"}, r"rename: expected a list such as \['a=b'\], got text"),
    ],
)
def test_wrong_options_of_an_import(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        import_curves("csv", CURVES, tmp_path / "runs", **options)
    with pytest.raises(InputError, match="expected a new or an empty folder"):
        import_curves("csv", CURVES, CURVES.parent)
    assert list(tmp_path.iterdir()) == []
